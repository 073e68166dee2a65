// The route-map that turns tags into local preferences, as bgpd has it.
#pragma once

#include <cstdint>
#include <set>
#include <string>

#include "absl/status/statusor.h"

namespace kedge::speaker {

// By what an entry knows a level.
enum class LevelMatch {
  // `match tag k`: statics of the northbound injector.
  kTag,
  // `match metric kernel_metric(k)` and `set tag k`: routes of the kernel injector. The tag tells the speaker later
  // that
  // the route is one of its own.
  kMetric,
};

// The levels k of which the answer to `show route-map KEDGE` has an entry that permits what `match` says and sets local
// preference `base` + k and weight 0. NotFound: there is no such route-map. Pure.
absl::StatusOr<std::set<std::uint32_t>> parse_levels(const std::string& answer, std::uint32_t base,
                                                     LevelMatch match = LevelMatch::kTag);

}  // namespace kedge::speaker
