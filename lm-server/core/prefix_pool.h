// The /64s of one access router's pools. Not thread-safe.
#pragma once

#include <cstdint>
#include <optional>
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
  // Marks one as taken. False when it is in no pool or is taken already.
  bool claim(const Ipv6Prefix& prefix);
  // The next take() begins its search behind `prefix`. No effect when it is in no pool.
  void continue_behind(const Ipv6Prefix& prefix);
  // The next take() begins far from what has been handed out lately, and from where it began after earlier calls.
  void skip_ahead();
  // No effect when it is not taken.
  void give_back(const Ipv6Prefix& prefix);

  bool contains(const Ipv6Prefix& prefix) const { return index_of(prefix).has_value(); }
  std::uint64_t size() const { return taken_.size(); }
  std::uint64_t used() const { return used_; }
  const std::vector<Ipv6Prefix>& pools() const { return pools_; }

 private:
  std::optional<std::uint64_t> index_of(const Ipv6Prefix& prefix) const;
  Ipv6Prefix at(std::uint64_t index) const;

  std::vector<Ipv6Prefix> pools_;
  std::vector<bool> taken_;
  std::uint64_t used_ = 0;
  std::uint64_t next_ = 0;
};

}  // namespace kedge::lm
