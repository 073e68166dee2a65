// The route-map that turns tags into local preferences, as bgpd has it.
#pragma once

#include <cstdint>
#include <set>
#include <string>

#include "absl/status/statusor.h"

namespace kedge::speaker {

// The levels k of which the answer to `show route-map KEDGE` has an entry that permits tag k and sets local preference
// `base` + k and weight 0. NotFound: there is no such route-map. Pure.
absl::StatusOr<std::set<std::uint32_t>> parse_levels(const std::string& answer, std::uint32_t base);

}  // namespace kedge::speaker
