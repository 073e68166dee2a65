// What zebra says of itself and of its routes, out of the answers to its show commands. Pure.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace kedge::speaker {

inline constexpr char kVersionCommand[] = "show version";
// "8.4.4"; "" when the answer has none.
std::string parse_version(std::string_view answer);

inline constexpr char kSummaryCommand[] = "show ipv6 route summary json";
// How many IPv6 routes zebra has from the kernel, in the default VRF. InvalidArgument when the text is no JSON.
absl::StatusOr<std::size_t> parse_kernel_route_count(std::string_view json);

}  // namespace kedge::speaker
