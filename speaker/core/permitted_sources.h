// From where an MN may send at this AR, as the bindings' records and the access links tell: a pure class with injected
// time. Drives the access filter.
//
// Threading: none of its own. Performance: logarithmic in the sources; expire() is linear in those of MNs that have
// moved away.
// Standards: RFC 2827 (ingress filtering), RFC 8273 (a unique prefix for each host).
#pragma once

#include <chrono>
#include <compare>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "common/ipv6.h"
#include "common/link_layer_address.h"
#include "common/time.h"
#include "kedge/v1/types.pb.h"

namespace kedge::speaker {

// What comes in by the interface from the MN's link-layer address may have a source inside of the prefix.
struct PermittedSource {
  std::string interface;
  LinkLayerAddress mn;
  Ipv6Prefix prefix;

  auto operator<=>(const PermittedSource&) const = default;
};

// Where the record says that its MN sends from the prefix at this AR: it is attached here, or was until a moment ago;
// or the prefix has ended, and what it sends is answered here. nullopt: nowhere here.
std::optional<PermittedSource> present_source(const v1::Binding& binding, const std::string& self);

class PermittedSources {
 public:
  struct Change {
    std::vector<PermittedSource> added;
    std::vector<PermittedSource> removed;

    bool empty() const { return added.empty() && removed.empty(); }
  };
  // When the MN was last heard here; nullopt if never.
  using LastHeard = std::function<std::optional<SteadyTime>(const LinkLayerAddress&)>;

  explicit PermittedSources(std::string self) : self_(std::move(self)) {}

  // Permitted by an earlier run of the speaker: stays as if its MN had moved away now, until a record says otherwise.
  void adopt(const PermittedSource& source, SteadyTime now);

  // The prefix has this record. Where its MN has been before, it may go on sending: in a planned move the old link is
  // up, and used, for a while after the MN has been attached elsewhere. Nothing is left once it is detached for good.
  void take(const Ipv6Prefix& prefix, const v1::Binding& binding, SteadyTime now);
  // This AR holds nothing for the prefix.
  void forget(const Ipv6Prefix& prefix);
  // All prefixes that there is anything for.
  std::vector<Ipv6Prefix> prefixes() const;

  // The link to it has gone: it cannot be sending there any more. Where the record has it stays, while that says so.
  void departed(const LinkLayerAddress& mn, const std::string& interface);
  void link_down(const std::string& interface);
  // MNs that have moved away and have not been heard for `silence` since. Their links may be up all the same: behind a
  // switch or an access point no carrier tells.
  void expire(SteadyTime now, std::chrono::milliseconds silence, const LastHeard& last_heard);

  const std::set<PermittedSource>& all() const { return all_; }
  bool has_earlier() const { return !earlier_.empty(); }
  // What take_change() would give.
  bool has_additions() const { return !added_.empty(); }
  bool has_removals() const { return !removed_.empty(); }
  // Since the last call.
  Change take_change();

 private:
  struct Sources {
    // By the record.
    std::optional<PermittedSource> present;
    // Where the MN has been before.
    std::set<PermittedSource> earlier;
  };

  void set_present(Sources& sources, const PermittedSource& source, SteadyTime now);
  void retire(Sources& sources, SteadyTime now);
  void permit(const PermittedSource& source);
  void prohibit(const PermittedSource& source);
  // By the keys of earlier_.
  void end_earlier(const std::vector<PermittedSource>& over);

  std::string self_;
  std::map<Ipv6Prefix, Sources> sources_;
  // Since when; ordered by interface.
  std::map<PermittedSource, SteadyTime> earlier_;
  std::set<PermittedSource> all_;
  std::set<PermittedSource> added_;
  std::set<PermittedSource> removed_;
};

}  // namespace kedge::speaker
