// What may come in: from access interfaces only what MNs send from sources that are theirs; to this AR's segment
// identifiers only what other ARs have tunnelled.
//
// Of neighbour discovery (RFC 4861) the kernel hears what comes from a permitted link-local source, and duplicate
// address detection. Each other solicitation would leave a neighbour behind, and where there are more than gc_thresh3
// of them the router knows none at all: not the next hop of its uplink either. The access plane hears everything, and
// answers.
//
// Access interfaces send no multicast listener reports of the kernel, which come when a link does. From them a bridge
// would learn that the router is here, while the MN behind it is still served by another AR; and what the MN sends
// would come here before it is let in.
//
// Threading: all calls on the speaker's executor; they block for as long as the kernel takes.
// Performance: change() takes about 0.06 ms among 20,000 sources, 2 ms for 1,000 at once; replace_all()
// 0.1 s for 20,000. A packet costs one lookup in a hash for each prefix length in use.
// Standards: RFC 2827 and RFC 3704 (ingress filtering), RFC 8754, 5.1 (the edge of an SR domain).
#pragma once

#include <cstdint>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/ipv6.h"
#include "speaker/core/permitted_sources.h"

namespace kedge::speaker {

// Who may send to the segment identifiers of this AR.
struct TunnelEnds {
  std::set<Ipv6Address> segments;
  // Locators of the other ARs.
  std::set<Ipv6Address> peers;

  bool operator==(const TunnelEnds&) const = default;
};

class AccessFilter {
 public:
  // Packets that were dropped since the filter was made, or made anew.
  struct Counters {
    // From an access interface, with a source that is not the sender's.
    std::uint64_t foreign_sources = 0;
    // To a segment identifier, from an access interface or from who is no AR.
    std::uint64_t foreign_tunnels = 0;
  };

  virtual ~AccessFilter() = default;

  // What an earlier run of the speaker has left, as it was when this one began.
  virtual const std::set<PermittedSource>& held() const = 0;
  // Takes these as all that is permitted, in one step: there is no moment in which neither the old nor the new is.
  virtual absl::Status replace_all(const std::set<PermittedSource>& sources, const TunnelEnds& tunnels) = 0;
  // Both or, on error, neither. Not OK when somebody else has taken away what was there: replace_all() puts it right.
  virtual absl::Status change(const std::vector<PermittedSource>& added,
                              const std::vector<PermittedSource>& removed) = 0;
  // NotFound when somebody has removed the filter, or a part of it.
  virtual absl::StatusOr<Counters> counters() = 0;
};

struct AccessFilterConfig {
  std::vector<std::string> interfaces;
};

// The filter as a table of nftables. Makes it at once with what an earlier run has permitted; with nothing, if there
// was none. It stays when this object goes. InvalidArgument: an interface's name cannot be written for nft.
// PermissionDenied without CAP_NET_ADMIN.
absl::StatusOr<std::unique_ptr<AccessFilter>> make_access_filter(const AccessFilterConfig& config);

// Removes it. OK when there is none.
absl::Status remove_access_filter();

}  // namespace kedge::speaker
