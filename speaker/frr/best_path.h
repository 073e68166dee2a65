// bgpd's best path for a prefix, out of the JSON of `show bgp ipv6 unicast PREFIX json`. Pure.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "common/ipv6.h"

namespace kedge::speaker {

struct BestPath {
  // The global next hop (RFC 2545, 3); unspecified for a path of bgpd's own.
  Ipv6Address next_hop;
  // RFC 4271, 5.1.5. Without one: 100, which is FRR's default.
  std::uint32_t local_preference = 100;

  bool operator==(const BestPath&) const = default;
};

std::string best_path_command(const Ipv6Prefix& prefix);

// None when bgpd has no path, or none that is best, for exactly this prefix. InvalidArgument when the text is no JSON.
absl::StatusOr<std::optional<BestPath>> parse_best_path(const Ipv6Prefix& prefix, std::string_view json);

}  // namespace kedge::speaker
