// What is said to FRR's northbound, and what its answers mean: XPaths and requests for a tagged blackhole static in the
// three schemas that staticd has had, and the statics in its configuration. Pure functions of their arguments.
//
// Source: frr-staticd.yang of FRR 8.4, 10.3 and 10.7; RFC 7951 (JSON encoding of YANG data).
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "common/ipv6.h"
#include "frr/frr-northbound.pb.h"

namespace kedge::speaker {

enum class StaticSchema {
  // 8.4 to 10.2: route-list by prefix and address family; its nexthops under path-list/frr-nexthops.
  kA,
  // 10.3 to 10.6: src-prefix is a key of route-list.
  kB,
  // 10.7 and later: each path-list entry is a nexthop.
  kC,
};

struct SchemaChoice {
  StaticSchema schema = StaticSchema::kA;
  // False for a version later than those that the schema was read from: it may have changed again.
  bool known = true;
};

// From "8.4.4", "10.3.1", "10.7-dev", "10.7.1-6". FailedPrecondition for versions before 8.4 and for what is no
// version.
absl::StatusOr<SchemaChoice> choose_schema(const std::string& frr_version);

// Where staticd's IPv6 unicast routes of the default VRF stand for the prefix, all of its nexthops together.
std::string route_list_path(StaticSchema schema, const Ipv6Prefix& prefix);

struct RouteChange {
  // 1 or more: a blackhole static with that tag; 0: the removal.
  std::uint32_t level = 0;
  // A removal takes only our path out, not the whole route-list. What is removed must exist.
  bool keep_others = false;

  bool operator==(const RouteChange&) const = default;
};
using RouteChanges = std::map<Ipv6Prefix, RouteChange>;

// FRR's server takes messages of at most 4 MiB (gRPC's default); this leaves room for framing.
inline constexpr std::size_t kRequestBytes = 3'500'000;

// The removals among the changes, in the order of the prefixes, as requests of at most `max_bytes` each (one removal at
// least). All of them go into one candidate. FRR works on a copy of the candidate for each request.
std::vector<frr::EditCandidateRequest> build_removals(StaticSchema schema, std::uint32_t candidate_id,
                                                      const RouteChanges& changes,
                                                      std::size_t max_bytes = kRequestBytes);

// The same of all other changes, as JSON that FRR merges into the candidate; what else is in it stays. Nothing is
// copied for it.
std::vector<frr::LoadToCandidateRequest> build_additions(StaticSchema schema, std::uint32_t candidate_id,
                                                         const RouteChanges& changes,
                                                         std::size_t max_bytes = kRequestBytes);

// All of staticd's static routes.
frr::GetRequest build_get();

// What the configuration has for one prefix.
struct HeldRoute {
  // The tag of its blackhole with distance 1 in the main table; 0: there is none, or it has no tag.
  std::uint32_t blackhole_tag = 0;
  // That blackhole has the keys that build_additions() uses, so that a new tag goes to the same path.
  bool same_keys = false;
  // All other paths in words: "via fe80::1 eth0 tag 7"; empty when there are none.
  std::string foreign;

  bool operator==(const HeldRoute&) const = default;
};

// IPv6 unicast statics of the default VRF in a Get answer's JSON; other ones are left out. InvalidArgument when the
// text is no JSON or has another structure.
absl::StatusOr<std::map<Ipv6Prefix, HeldRoute>> parse_statics(std::string_view json);

}  // namespace kedge::speaker
