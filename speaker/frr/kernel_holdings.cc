#include "speaker/frr/kernel_holdings.h"

#include <linux/rtnetlink.h>

#include <algorithm>
#include <string>

#include "absl/strings/str_cat.h"
#include "common/anchor_level.h"

namespace kedge::speaker {
namespace {

// FRR's RTPROT_ZSTATIC.
constexpr std::uint8_t kStaticOfFrr = 196;
// FRR, zebra/rt_netlink.c: the upper 8 bits are the distance.
constexpr std::uint32_t kMetricOfZebra = 0xFFFFFF;

std::string name_of(std::uint8_t protocol) {
  switch (protocol) {
    case RTPROT_KERNEL:
      return "of the kernel's own";
    case RTPROT_BOOT:
      return "of the protocol boot";
    case RTPROT_STATIC:
      return "of the protocol static";
    case RTPROT_RA:
      return "of the protocol ra";
    case kStaticOfFrr:
      return "a static of FRR's";
    default:
      return absl::StrCat("of the protocol ", protocol);
  }
}

}  // namespace

void KernelHoldings::clear() {
  ours_.clear();
  crowded_.clear();
  others_.clear();
}

std::uint32_t KernelHoldings::level_of(std::uint32_t metric) const {
  const bool one = metric > kKernelMetricBase && metric <= kernel_metric(levels_);
  return one ? metric - kKernelMetricBase : 0;
}

std::uint32_t KernelHoldings::chosen(absl::Span<const std::uint32_t> metrics) const {
  std::uint32_t lowest = 0;
  for (const auto metric : metrics) {
    if (level_of(metric) != 0 && (lowest == 0 || metric < lowest)) lowest = metric;
  }
  return lowest;
}

void KernelHoldings::take(const KernelRoute& route, bool present) {
  if (route.source.has_value()) return;
  if (route.protocol == protocol_) {
    take_own(route.destination, route.metric, present);
  } else {
    take_other(route, present);
  }
}

void KernelHoldings::take(const AnchorRouteChange& change) { take_own(change.prefix, change.metric, change.add); }

void KernelHoldings::take_own(const Ipv6Prefix& prefix, std::uint32_t metric, bool present) {
  auto& metrics = ours_[prefix];
  const auto found = std::find(metrics.begin(), metrics.end(), metric);
  if (present && found == metrics.end()) metrics.push_back(metric);
  if (!present && found != metrics.end()) metrics.erase(found);
  note(prefix);
}

void KernelHoldings::note(const Ipv6Prefix& prefix) {
  const auto found = ours_.find(prefix);
  const auto& metrics = found->second;
  if (metrics.size() > 1 || (metrics.size() == 1 && chosen(metrics) == 0)) {
    crowded_.insert(prefix);
  } else {
    crowded_.erase(prefix);
  }
  if (metrics.empty()) ours_.erase(found);
}

void KernelHoldings::take_other(const KernelRoute& route, bool present) {
  const Other other{route.metric, route.protocol, route.interface};
  if (present) {
    others_[route.destination].insert(other);
    return;
  }
  const auto found = others_.find(route.destination);
  if (found == others_.end()) return;
  found->second.erase(other);
  if (found->second.empty()) others_.erase(found);
}

HeldRoute KernelHoldings::held(const Ipv6Prefix& prefix) const {
  HeldRoute held;
  const auto metric = chosen(metrics(prefix));
  held.blackhole_tag = metric == 0 ? 0 : level_of(metric);
  held.same_keys = metric != 0;
  const auto other = others_.find(prefix);
  if (other != others_.end()) held.foreign = name_of(other->second.begin()->protocol);
  return held;
}

std::map<Ipv6Prefix, HeldRoute> KernelHoldings::all_held() const {
  std::map<Ipv6Prefix, HeldRoute> all;
  for (const auto& [prefix, metrics] : ours_) {
    if (chosen(metrics) != 0) all.emplace_hint(all.end(), prefix, held(prefix));
  }
  for (const auto& [prefix, other] : others_) all.emplace(prefix, held(prefix));
  return all;
}

absl::Span<const std::uint32_t> KernelHoldings::metrics(const Ipv6Prefix& prefix) const {
  const auto found = ours_.find(prefix);
  if (found == ours_.end()) return {};
  return found->second;
}

bool KernelHoldings::has(const Ipv6Prefix& prefix, std::uint32_t metric) const {
  const auto all = metrics(prefix);
  return std::find(all.begin(), all.end(), metric) != all.end();
}

std::set<std::pair<Ipv6Prefix, std::uint32_t>> KernelHoldings::all_of_ours() const {
  std::set<std::pair<Ipv6Prefix, std::uint32_t>> all;
  for (const auto& [prefix, metrics] : ours_) {
    for (const auto metric : metrics) all.emplace(prefix, metric);
  }
  return all;
}

std::vector<AnchorRouteChange> KernelHoldings::surplus(std::size_t limit) const {
  std::vector<AnchorRouteChange> removals;
  for (const auto& prefix : crowded_) {
    if (limit-- == 0) break;
    const auto all = metrics(prefix);
    const auto kept = chosen(all);
    for (const auto metric : all) {
      if (metric != kept) removals.push_back({prefix, metric, false});
    }
  }
  return removals;
}

std::size_t KernelHoldings::seen_by_zebra() const {
  std::size_t count = 0;
  for (const auto& [prefix, metrics] : ours_) count += metrics.size();
  for (const auto& [prefix, others] : others_) {
    std::set<std::uint32_t> distinct;
    for (const auto& other : others) {
      const bool read =
          other.protocol != RTPROT_KERNEL && other.protocol != RTPROT_REDIRECT && other.protocol != kStaticOfFrr;
      if (read) distinct.insert(other.metric & kMetricOfZebra);
    }
    count += distinct.size();
  }
  return count;
}

}  // namespace kedge::speaker
