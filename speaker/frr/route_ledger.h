// What is desired of FRR's statics, what FRR is known to hold, and what therefore has to be changed. Pure: no I/O, no
// clock.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "common/ipv6.h"
#include "speaker/frr/northbound_request.h"

namespace kedge::speaker {

using RouteLevels = std::map<Ipv6Prefix, std::uint32_t>;

class RouteLedger {
 public:
  // Tags 1 to `levels` are ours.
  explicit RouteLedger(std::uint32_t levels) : levels_(levels) {}

  // Never lowers.
  void raise_levels(std::uint32_t levels) { levels_ = std::max(levels_, levels); }

  // Level 0: not desired.
  void set(const Ipv6Prefix& prefix, std::uint32_t level);
  void replace_all(const RouteLevels& levels);
  // False until the first replace_all(): nothing is planned before that.
  bool complete() const { return complete_; }

  // Takes over what FRR holds. With `answer_all`, every desired prefix is looked at and answered again by plan();
  // without it only those for which something else is held than was known.
  void take_held(std::map<Ipv6Prefix, HeldRoute> held, bool answer_all);
  // The same of one prefix.
  void take_held(const Ipv6Prefix& prefix, HeldRoute held);
  // What `changes` made of what FRR holds.
  void take_committed(const RouteChanges& changes);
  // FRR refuses this prefix: it is left out of plans until it is set again or retry_rejected().
  void reject(const Ipv6Prefix& prefix, std::string reason);
  void retry_rejected();

  struct Plan {
    RouteChanges changes;
    // Desired and held already, with the level; each is answered once for each time that it was asked for.
    std::vector<std::pair<Ipv6Prefix, std::uint32_t>> met;
  };
  // There may be something to plan.
  bool has_open() const { return complete_ && !open_.empty(); }
  // At most `limit` changes, in the order of the prefixes; the others stay for later plans, as do the prefixes of
  // `under_way`, whose commit has yet to be taken.
  Plan plan(std::size_t limit, const RouteChanges& under_way = {});

  // Desired, but FRR's configuration has a static of the operator there (in words).
  const std::map<Ipv6Prefix, std::string>& conflicts() const { return conflicts_; }
  const std::map<Ipv6Prefix, std::string>& rejected() const { return rejected_; }
  std::size_t desired_count() const { return desired_.size(); }

 private:
  const HeldRoute& held(const Ipv6Prefix& prefix) const;
  bool is_ours(const HeldRoute& held) const { return held.blackhole_tag >= 1 && held.blackhole_tag <= levels_; }
  std::uint32_t desired(const Ipv6Prefix& prefix) const;

  std::uint32_t levels_;
  bool complete_ = false;
  RouteLevels desired_;
  std::map<Ipv6Prefix, HeldRoute> held_;
  // To be looked at by plan().
  std::set<Ipv6Prefix> open_;
  std::map<Ipv6Prefix, std::string> conflicts_;
  std::map<Ipv6Prefix, std::string> rejected_;
};

}  // namespace kedge::speaker
