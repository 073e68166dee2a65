// What bgpd says of a prefix, and of its sessions, out of the JSON of its show commands. Pure.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

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

struct Paths {
  // None when bgpd has no path, or none that is best.
  std::optional<BestPath> best;
  // Of the paths that bgpd has from other protocols here. 0: the route has none.
  std::vector<std::uint32_t> own_tags;
};

std::string paths_command(const Ipv6Prefix& prefix);

// Of exactly this prefix. InvalidArgument when the text is no JSON.
absl::StatusOr<Paths> parse_paths(const Ipv6Prefix& prefix, std::string_view json);

std::string sessions_command();

// Whether no IPv6 neighbour can have a route that bgpd does not have. RFC 4724, 4.2: a neighbour that preserves routes
// over the loss of a session removes those that were not sent again, "upon receipt of the End-of-RIB marker" in a new
// session, or when there is none for too long: after `stale_time`. `running`: for how long bgpd has, at least.
// InvalidArgument when the text is no JSON.
absl::StatusOr<bool> neighbours_follow(std::string_view json, std::chrono::milliseconds running,
                                       std::chrono::milliseconds stale_time);

}  // namespace kedge::speaker
