#include "speaker/frr/route_ledger.h"

#include <optional>

#include "absl/strings/str_cat.h"

namespace kedge::speaker {

std::uint32_t RouteLedger::desired(const Ipv6Prefix& prefix) const {
  const auto found = desired_.find(prefix);
  return found == desired_.end() ? 0 : found->second;
}

const HeldRoute& RouteLedger::held(const Ipv6Prefix& prefix) const {
  static const HeldRoute nothing;
  const auto found = held_.find(prefix);
  return found == held_.end() ? nothing : found->second;
}

void RouteLedger::set(const Ipv6Prefix& prefix, std::uint32_t level) {
  if (level == 0) {
    desired_.erase(prefix);
  } else {
    desired_[prefix] = level;
  }
  rejected_.erase(prefix);
  open_.insert(prefix);
}

void RouteLedger::replace_all(const RouteLevels& levels) {
  for (const auto& [prefix, level] : desired_) open_.insert(prefix);
  for (const auto& [prefix, route] : held_) {
    if (is_ours(route)) open_.insert(prefix);
  }
  desired_.clear();
  rejected_.clear();
  for (const auto& [prefix, level] : levels) set(prefix, level);
  complete_ = true;
}

void RouteLedger::take_held(std::map<Ipv6Prefix, HeldRoute> now, bool answer_all) {
  for (const auto& [prefix, level] : desired_) {
    const auto found = now.find(prefix);
    if (answer_all || (found == now.end() ? HeldRoute() : found->second) != held(prefix)) open_.insert(prefix);
  }
  for (const auto& [prefix, route] : now) {
    if (is_ours(route) && desired(prefix) == 0) open_.insert(prefix);
  }
  for (const auto& [prefix, conflict] : conflicts_) open_.insert(prefix);
  held_ = std::move(now);
}

void RouteLedger::take_held(const Ipv6Prefix& prefix, HeldRoute now) {
  if (now == held(prefix)) return;
  if (desired(prefix) != 0 || is_ours(now)) open_.insert(prefix);
  if (now == HeldRoute()) {
    held_.erase(prefix);
  } else {
    held_[prefix] = std::move(now);
  }
}

void RouteLedger::take_committed(const RouteChanges& changes) {
  for (const auto& [prefix, change] : changes) {
    HeldRoute& route = held_[prefix];
    route.blackhole_tag = change.level;
    route.same_keys = change.level != 0;
    if (route == HeldRoute()) held_.erase(prefix);
    // More to do when something else was asked for meanwhile, or when this was the first half of a replacement.
    if (desired(prefix) != change.level) {
      open_.insert(prefix);
    } else {
      open_.erase(prefix);
    }
  }
}

void RouteLedger::reject(const Ipv6Prefix& prefix, std::string reason) { rejected_[prefix] = std::move(reason); }

void RouteLedger::retry_rejected() {
  for (const auto& [prefix, reason] : rejected_) open_.insert(prefix);
  rejected_.clear();
}

RouteLedger::Plan RouteLedger::plan(std::size_t limit, const RouteChanges& under_way) {
  Plan plan;
  if (!complete_) return plan;
  for (auto next = open_.begin(); next != open_.end() && plan.changes.size() < limit;) {
    const Ipv6Prefix prefix = *next;
    if (under_way.contains(prefix)) {
      ++next;
      continue;
    }
    const HeldRoute& route = held(prefix);
    const std::uint32_t level = desired(prefix);
    const bool ours = is_ours(route);
    conflicts_.erase(prefix);

    std::optional<RouteChange> change;
    if (level == (ours ? route.blackhole_tag : 0)) {
      plan.met.emplace_back(prefix, level);
    } else if (rejected_.contains(prefix)) {
      // Answered by nothing until it is asked for again.
    } else if (level > levels_) {
      rejected_[prefix] = absl::StrCat("level ", level, " is over the highest, ", levels_);
    } else if (level == 0 || (ours && !route.same_keys)) {
      change = RouteChange{0, !route.foreign.empty()};
    } else if (!ours && (!route.foreign.empty() || route.blackhole_tag != 0)) {
      conflicts_[prefix] =
          route.blackhole_tag != 0 ? absl::StrCat("blackhole tag ", route.blackhole_tag) : route.foreign;
    } else {
      change = RouteChange{level};
    }

    if (change.has_value()) {
      plan.changes.emplace(prefix, *change);
      ++next;
    } else {
      next = open_.erase(next);
    }
  }
  return plan;
}

}  // namespace kedge::speaker
