// Order of v1::Generation: by epoch, then by revision.
#pragma once

#include <compare>
#include <tuple>

#include "kedge/v1/types.pb.h"

namespace kedge::lm {

inline std::strong_ordering compare(const v1::Generation& a, const v1::Generation& b) {
  return std::make_tuple(a.epoch(), a.revision()) <=> std::make_tuple(b.epoch(), b.revision());
}

inline bool same(const v1::Generation& a, const v1::Generation& b) { return compare(a, b) == 0; }

inline bool is_none(const v1::Generation& g) { return g.revision() == 0; }

inline v1::Generation make_generation(std::uint64_t epoch, std::uint64_t revision) {
  v1::Generation g;
  g.set_epoch(epoch);
  g.set_revision(revision);
  return g;
}

}  // namespace kedge::lm
