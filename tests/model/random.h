// A generator that is the same on every machine, cheap to seed: each event of the model has its own, so that leaving
// one event out does not change the others.
#pragma once

#include <cstdint>

namespace kedge::model {

class Random {
 public:
  explicit Random(std::uint64_t seed) : state_(seed) {}
  // splitmix64
  std::uint64_t next() {
    std::uint64_t z = (state_ += 0x9e3779b97f4a7c15ULL);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
    return z ^ (z >> 31);
  }
  int pick(int n) { return static_cast<int>(next() % static_cast<std::uint64_t>(n)); }
  // `n` times of 1000.
  bool chance(int n) { return pick(1000) < n; }

 private:
  std::uint64_t state_;
};

inline std::uint64_t mix(std::uint64_t a, std::uint64_t b) { return Random(a * 0x2545f4914f6cdd1dULL + b).next(); }

}  // namespace kedge::model
