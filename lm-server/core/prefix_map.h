// Look-ups in maps whose keys are prefixes of any length, of which none lies inside another (bindings; what profiles
// name). Logarithmic, but for the entries found.
#pragma once

#include <iterator>
#include <utility>

#include "common/ipv6.h"

namespace kedge::lm {

// The entry that `prefix` is, or lies inside of; end() when there is none. With keys of which none lies inside another
// this is the longest match.
template <typename Map>
auto find_covering(Map& map, const Ipv6Prefix& prefix) {
  // A prefix sorts right behind what covers it: whatever stood between them would lie inside of that.
  auto it = map.upper_bound(prefix);
  if (it == map.begin() || !(--it)->first.contains(prefix)) return map.end();
  return it;
}

// The entries that cover `prefix`, are it, or lie inside of it: [first, second).
template <typename Map>
auto find_overlapping(Map& map, const Ipv6Prefix& prefix) {
  const auto covering = find_covering(map, prefix);
  if (covering != map.end()) return std::pair(covering, std::next(covering));
  const auto first = map.lower_bound(prefix);
  auto last = first;
  while (last != map.end() && prefix.contains(last->first)) ++last;
  return std::pair(first, last);
}

}  // namespace kedge::lm
