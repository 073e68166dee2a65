// What the kernel's table main holds beside FRR's own routes: ours, and those of others which stand in our way. Pure.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <set>
#include <vector>

#include "absl/types/span.h"
#include "common/ipv6.h"
#include "speaker/frr/northbound_request.h"
#include "speaker/kernel/anchor_routes.h"

namespace kedge::speaker {

class KernelHoldings {
 public:
  // Routes with this rtm_protocol are ours. Metrics of the levels 1 to `levels` are what we make.
  KernelHoldings(std::uint8_t protocol, std::uint32_t levels) : protocol_(protocol), levels_(levels) {}

  void raise_levels(std::uint32_t levels) { levels_ = levels > levels_ ? levels : levels_; }

  void clear();
  void take(const KernelRoute& route, bool present);
  // What we have changed ourselves.
  void take(const AnchorRouteChange& change);

  // For the ledger: the level is the lowest of ours, which is zebra's choice.
  HeldRoute held(const Ipv6Prefix& prefix) const;
  std::map<Ipv6Prefix, HeldRoute> all_held() const;
  // Of all ours for the prefix, in no order.
  absl::Span<const std::uint32_t> metrics(const Ipv6Prefix& prefix) const;
  bool has(const Ipv6Prefix& prefix, std::uint32_t metric) const;
  // All of ours.
  std::set<std::pair<Ipv6Prefix, std::uint32_t>> all_of_ours() const;
  // The removal of ours that are of no use, of at most `limit` prefixes: a second one for a prefix (an earlier speaker
  // was ended between two changes), or one with a metric that is none of ours.
  std::vector<AnchorRouteChange> surplus(std::size_t limit) const;
  // How many routes FRR's zebra should have from the kernel.
  std::size_t seen_by_zebra() const;

 private:
  std::uint32_t level_of(std::uint32_t metric) const;
  // The one that counts; 0: none.
  std::uint32_t chosen(absl::Span<const std::uint32_t> metrics) const;
  void note(const Ipv6Prefix& prefix);
  void take_own(const Ipv6Prefix& prefix, std::uint32_t metric, bool present);
  void take_other(const KernelRoute& route, bool present);

  const std::uint8_t protocol_;
  std::uint32_t levels_;
  std::map<Ipv6Prefix, std::vector<std::uint32_t>> ours_;
  // Those of ours_ with a surplus.
  std::set<Ipv6Prefix> crowded_;
  struct Other {
    std::uint32_t metric = 0;
    std::uint8_t protocol = 0;
    std::uint32_t interface = 0;
    auto operator<=>(const Other&) const = default;
  };
  std::map<Ipv6Prefix, std::set<Other>> others_;
};

}  // namespace kedge::speaker
