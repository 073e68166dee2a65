// The /64s of one access router's pools, and whole ranges of them for mobile networks. Not thread-safe.
#pragma once

#include <cstdint>
#include <optional>
#include <set>
#include <utility>
#include <vector>

#include "common/ipv6.h"

namespace kedge::lm {

// Hands out each /64 in turn, so that one which was given back comes round again as late as possible. The first /64 of
// the first pool comes last, since operators like to number links from it.
class PrefixPool {
 public:
  // Pools do not overlap; each is /48 to /64.
  explicit PrefixPool(std::vector<Ipv6Prefix> pools);

  // Absent when every /64 is taken.
  std::optional<Ipv6Prefix> take();
  // Marks a /64, or all of those in a shorter prefix, as taken. False, with nothing changed, when it is not whole in
  // one pool or any of them is taken already.
  bool claim(const Ipv6Prefix& prefix);
  // The next take() begins its search behind `prefix`. No effect when it is in no pool.
  void continue_behind(const Ipv6Prefix& prefix);
  // The next take() begins far from what has been handed out lately, and from where it began after earlier calls.
  void skip_ahead();
  // What was taken or claimed, as a whole; no effect for anything else.
  void give_back(const Ipv6Prefix& prefix);

  bool contains(const Ipv6Prefix& prefix) const { return range_of(prefix).has_value(); }
  // In /64s, as is used().
  std::uint64_t size() const { return taken_.size(); }
  std::uint64_t used() const { return used_; }
  const std::vector<Ipv6Prefix>& pools() const { return pools_; }

 private:
  // Of /64s: the first and behind the last.
  using Range = std::pair<std::uint64_t, std::uint64_t>;
  std::optional<Range> range_of(const Ipv6Prefix& prefix) const;
  Ipv6Prefix at(std::uint64_t index) const;

  std::vector<Ipv6Prefix> pools_;
  std::vector<bool> taken_;
  // Claimed ones that are shorter than /64.
  std::set<Ipv6Prefix> networks_;
  std::uint64_t used_ = 0;
  std::uint64_t next_ = 0;
};

}  // namespace kedge::lm
