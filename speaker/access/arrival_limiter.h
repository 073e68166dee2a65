// How many arrivals are passed on to the LM, so that a flood of frames from invented addresses neither loads it nor
// keeps it from hearing of real MNs: token buckets, as a pure class with injected time.
//
// Threading: none of its own; the access plane's executor.
// Performance: constant time. Memory: one bucket for each MN that is known, and at most kMostStrangers others.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "common/link_layer_address.h"
#include "common/time.h"
#include "common/token_bucket.h"

namespace kedge::speaker {

// Arrivals a second. At once there may be four times as many of one MN, and twice as many of those that are known, but
// half as many strangers: a real MN must not wait long behind invented ones.
struct ArrivalRates {
  std::uint32_t node = 5;
  // Of all MNs on one interface that this AR knows.
  std::uint32_t known = 1000;
  // Of all others on one interface: as many of stations that have not been heard before as of those that have. Invented
  // addresses are heard once, so a real MN gets in by its second frame.
  std::uint32_t strangers = 100;
};

// Which of the rates an arrival was over.
enum class ArrivalLimit { kNone, kNode, kKnown, kStranger };

class ArrivalLimiter {
 public:
  // Buckets of strangers.
  static constexpr std::size_t kMostStrangers = 4096;

  explicit ArrivalLimiter(const ArrivalRates& rates) : rates_(rates) {}

  // `known`: there is more to go by than this frame. `heard_before`: it is not the first of its station.
  ArrivalLimit admit(std::size_t port, const LinkLayerAddress& mn, bool known, bool heard_before, SteadyTime now);

 private:
  struct Port {
    explicit Port(const ArrivalRates& rates)
        : known(2.0 * rates.known, rates.known),
          strangers{TokenBucket(0.5 * rates.strangers + 1, rates.strangers),
                    TokenBucket(0.5 * rates.strangers + 1, rates.strangers)} {}
    TokenBucket known;
    // Heard for the first time, and again.
    std::array<TokenBucket, 2> strangers;
  };
  using Nodes = absl::flat_hash_map<LinkLayerAddress, TokenBucket>;

  TokenBucket& node(Nodes& nodes, const LinkLayerAddress& mn);
  // Those that have been quiet count as new ones.
  static void forget_quiet(Nodes& nodes, std::chrono::nanoseconds now);

  ArrivalRates rates_;
  std::vector<Port> ports_;
  Nodes known_;
  // known_ is gone through when it has grown to this.
  std::size_t known_limit_ = kMostStrangers;
  Nodes strangers_;
};

}  // namespace kedge::speaker
