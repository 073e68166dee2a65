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

// What comes in by the interface from the MN's link-layer address may have a source inside of the prefix. That may be
// its link-local address alone, with 128 bits.
struct PermittedSource {
  std::string interface;
  LinkLayerAddress mn;
  Ipv6Prefix prefix;

  auto operator<=>(const PermittedSource&) const = default;
};

// Where the record says that its MN sends from the prefix at this AR: it is attached here, or was until a moment ago;
// or the prefix has ended, and what it sends is answered here. nullopt: nowhere here.
std::optional<PermittedSource> present_source(const v1::Binding& binding, const std::string& self);
// The MN's link-local address, beside a present source of the same record. Only this one: for each source of neighbour
// discovery the kernel keeps a neighbour, but for those that it has as permanent ones anyway (RFC 6583, 1: the
// neighbour cache as a target). nullopt: the record has no link-local address.
std::optional<PermittedSource> link_local_source(const v1::Binding& binding, const PermittedSource& present);

class PermittedSources {
 public:
  struct Change {
    std::vector<PermittedSource> added;
    std::vector<PermittedSource> removed;

    bool empty() const { return added.empty() && removed.empty(); }
  };
  // When the MN was last heard on the interface; nullopt if never.
  using LastHeard = std::function<std::optional<SteadyTime>(const std::string& interface, const LinkLayerAddress&)>;

  explicit PermittedSources(std::string self) : self_(std::move(self)) {}

  // Permitted by an earlier run of the speaker: stays as if its MN had moved away now, until a record says otherwise. A
  // link-local address stays until forget().
  void adopt(const PermittedSource& source, SteadyTime now);

  // The prefix has this record. Where its MN has been before, it may go on sending: in a planned move the old link is
  // up, and used, for a while after the MN has been attached elsewhere. Nothing is left once it is detached for good.
  void take(const Ipv6Prefix& prefix, const v1::Binding& binding, SteadyTime now);
  // This AR holds nothing for the prefix any more. An MN that has moved away may not have heard of it yet: the new AR's
  // RA was lost on its link, say. Where it has been before it may go on sending for `silence`, see expire().
  void forget(const Ipv6Prefix& prefix, SteadyTime now);
  // All prefixes that there is anything for and that are not forgotten.
  std::vector<Ipv6Prefix> prefixes() const;

  // The link to it has gone: it cannot be sending there any more. Where the record has it stays, while that says so.
  void departed(const LinkLayerAddress& mn, const std::string& interface);
  void link_down(const std::string& interface);
  // MNs that have moved away and have not been heard there for `silence` since. Their links may be up all the same:
  // behind a switch or an access point no carrier tells. Of a forgotten prefix, whether they are heard or not.
  void expire(SteadyTime now, std::chrono::milliseconds silence, const LastHeard& last_heard);

  const std::set<PermittedSource>& all() const { return all_; }
  bool any_of(const LinkLayerAddress& mn, const std::string& interface) const;
  // Without the link-local addresses.
  std::size_t count() const { return all_.size() - link_locals_.size(); }
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
    std::optional<PermittedSource> link_local;
    // Where the MN has been before.
    std::set<PermittedSource> earlier;
    bool forgotten = false;
  };

  void set_present(Sources& sources, const PermittedSource& source, SteadyTime now);
  void set_link_local(Sources& sources, const std::optional<PermittedSource>& link_local);
  void retire(Sources& sources, SteadyTime now);
  // Nothing is left of the prefix.
  void end(const Ipv6Prefix& prefix);
  void permit(const PermittedSource& source);
  void prohibit(const PermittedSource& source);
  // By the keys of earlier_.
  void end_earlier(const std::vector<PermittedSource>& over);

  std::string self_;
  std::map<Ipv6Prefix, Sources> sources_;
  // Since when; ordered by interface.
  std::map<PermittedSource, SteadyTime> earlier_;
  // How many prefixes each is beside.
  std::map<PermittedSource, int> link_locals_;
  std::set<PermittedSource> all_;
  std::set<PermittedSource> added_;
  std::set<PermittedSource> removed_;
};

}  // namespace kedge::speaker
