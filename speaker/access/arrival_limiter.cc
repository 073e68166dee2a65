#include "speaker/access/arrival_limiter.h"

#include <algorithm>

namespace kedge::speaker {

ArrivalLimit ArrivalLimiter::admit(std::size_t port, const LinkLayerAddress& mn, bool known, bool heard_before,
                                   SteadyTime now) {
  const std::chrono::nanoseconds at = now.time_since_epoch();
  while (ports_.size() <= port) ports_.emplace_back(rates_);
  auto& shared = known ? ports_[port].known : ports_[port].strangers[heard_before ? 1 : 0];
  const auto over = known ? ArrivalLimit::kKnown : ArrivalLimit::kStranger;
  // One that was never heard cannot have used up its own.
  if (!known && !heard_before) return shared.take(at) ? ArrivalLimit::kNone : over;

  auto& nodes = known ? known_ : strangers_;
  if (known && nodes.size() >= known_limit_) {
    forget_quiet(nodes, at);
    known_limit_ = std::max(kMostStrangers, 2 * nodes.size());
  }
  if (!known && nodes.size() >= kMostStrangers && !nodes.contains(mn)) {
    forget_quiet(nodes, at);
    if (nodes.size() >= kMostStrangers) nodes.clear();
  }
  auto& own = node(nodes, mn);
  if (!own.has(at)) return ArrivalLimit::kNode;
  // What the interface does not let pass is not the node's fault.
  if (!shared.take(at)) return over;
  own.take(at);
  return ArrivalLimit::kNone;
}

TokenBucket& ArrivalLimiter::node(Nodes& nodes, const LinkLayerAddress& mn) {
  return nodes.try_emplace(mn, TokenBucket(4.0 * rates_.node, rates_.node)).first->second;
}

void ArrivalLimiter::forget_quiet(Nodes& nodes, std::chrono::nanoseconds now) {
  absl::erase_if(nodes, [now](auto& entry) { return entry.second.is_full(now); });
}

}  // namespace kedge::speaker
