// The bindings of the LM by their prefixes: those in use as objects, all others packed into a string each, since a
// million of them as objects would take several gigabytes.
//
// Not thread-safe.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>

#include "absl/container/btree_map.h"
#include "common/ipv6.h"
#include "common/time.h"
#include "kedge/v1/mobility.pb.h"
#include "kedge/v1/types.pb.h"

namespace kedge::lm {

// What an AR has acknowledged for the present generation, beyond what the record says. Not durable: speakers repeat
// their acknowledgements after each snapshot.
struct HolderProgress {
  std::set<std::pair<v1::Stage, std::string>> seen;
  std::uint32_t advertised = 0;
  std::optional<SystemTime> releasable_since;

  bool operator==(const HolderProgress&) const = default;
};

// Nothing was forwarded to or from the prefix from `since` to `until`. Not durable.
struct IdleTime {
  SystemTime since;
  SystemTime until;
  // The AR that has told last; none has since the MN has moved.
  std::string seen_by;
  // The AR that the MN has left has said its last word since: the next one may go on where it has ended.
  bool handed_over = false;

  bool operator==(const IdleTime&) const = default;
};

struct BindingEntry {
  v1::Binding binding;
  // Of `binding.generation`.
  std::map<std::string, HolderProgress> progress;
  std::optional<SystemTime> grace_ends;
  std::optional<SystemTime> timer;
  std::optional<IdleTime> idle;
  // The AR where the MN was before it came to the present one, until it has said its last word. Not durable.
  std::string moved_from;
};

class BindingTable {
 public:
  // Entries that may be objects at a time, before pack().
  explicit BindingTable(std::size_t most_unpacked = 4096) : most_unpacked_(most_unpacked) {}

  // References stay valid until pack() or, of an entry, erase(); until then, so do changes made through them.
  // `at` wants an entry that is there.
  BindingEntry& at(const Ipv6Prefix& prefix);
  const BindingEntry& at(const Ipv6Prefix& prefix) const;
  // Null when there is none.
  BindingEntry* find(const Ipv6Prefix& prefix);
  const BindingEntry* find(const Ipv6Prefix& prefix) const;
  // The entry that `prefix` is, or lies inside of; null when there is none. As find_covering in prefix_map.h.
  const BindingEntry* find_covering(const Ipv6Prefix& prefix) const;
  // Whether it is new.
  std::pair<BindingEntry&, bool> try_emplace(const Ipv6Prefix& prefix);
  // One that is not there yet, and of which nothing is known but its record: `packed` is what pack_binding() returns.
  void add(const Ipv6Prefix& prefix, std::string packed, std::optional<SystemTime> grace_ends = std::nullopt,
           std::optional<SystemTime> timer = std::nullopt);
  // `binding`: serialized. On any thread.
  static std::string pack_binding(const std::string& binding);
  void erase(const Ipv6Prefix& prefix);
  void clear();

  bool contains(const Ipv6Prefix& prefix) const { return slots_.contains(prefix); }
  std::size_t size() const { return slots_.size(); }

  // Packs those whose use began longest ago, when there are too many. In between commands: references end.
  void pack() const;

  // A copy, which leaves a packed entry packed.
  v1::Binding copy(const Ipv6Prefix& prefix) const;
  // In the order of prefixes, beginning behind `after`, until `visit` returns false; packed entries stay so, and the
  // reference is valid during the call. The table must not be changed meanwhile.
  using Visit = std::function<bool(const Ipv6Prefix&, const v1::Binding&)>;
  void visit(const std::optional<Ipv6Prefix>& after, const Visit& visit) const;
  // The same for those that cover `prefix`, are it, or lie inside of it.
  void visit_overlapping(const Ipv6Prefix& prefix, const Visit& visit) const;

 private:
  struct Slot {
    std::string packed;
    // Then `packed` does not count.
    std::unique_ptr<BindingEntry> entry;
  };
  using Slots = absl::btree_map<Ipv6Prefix, Slot>;

  BindingEntry& unpack(const Ipv6Prefix& prefix, Slot& slot) const;
  static const v1::Binding& look(const Slot& slot, v1::Binding& space);

  const std::size_t most_unpacked_;
  // Unpacking changes nothing that anybody sees.
  mutable Slots slots_;
  // In the order in which they were unpacked.
  mutable std::deque<Ipv6Prefix> unpacked_;
};

}  // namespace kedge::lm
