// What an operator may do to the network while everything goes on, and what has to have come of it in the end.
#include <algorithm>
#include <numeric>

#include "lm-server/core/rules.h"
#include "tests/model/speaker.h"
#include "tests/model/world.h"

namespace kedge::model {
namespace {

constexpr int kPolicyMilliseconds = 1500;

v1::PolicyScope scope_of_mobile(const std::string& id) {
  v1::PolicyScope scope;
  scope.set_mn_id(id);
  return scope;
}

v1::PolicyScope scope_of_ar(const std::string& name) {
  v1::PolicyScope scope;
  scope.set_ar(name);
  return scope;
}

v1::PolicyScope default_scope() {
  v1::PolicyScope scope;
  scope.set_defaults(true);
  return scope;
}

void set_duration(google::protobuf::Duration& duration, int milliseconds) {
  duration.set_nanos(milliseconds % 1000 * 1'000'000);
  duration.set_seconds(milliseconds / 1000);
}

}  // namespace

v1::PolicyScope World::any_scope() {
  const int kind = random_.pick(4);
  if (kind == 0) return default_scope();
  if (kind == 1)
    return scope_of_ar(routers_[static_cast<std::size_t>(random_.pick(static_cast<int>(routers_.size())))].name);
  return scope_of_mobile(mobiles_[static_cast<std::size_t>(random_.pick(static_cast<int>(mobiles_.size())))].id);
}

v1::Policy World::any_policy(const v1::PolicyScope& scope) {
  static constexpr v1::Mode kModes[] = {v1::MODE_RELOCATE, v1::MODE_RELOCATE, v1::MODE_REDIRECT, v1::MODE_REDIRECT,
                                        v1::MODE_NOMADIC};
  v1::Policy policy;
  const auto any_ar = [&] {
    return routers_[static_cast<std::size_t>(random_.pick(static_cast<int>(routers_.size())))].name;
  };
  if (random_.pick(4) != 0) policy.set_mode(kModes[random_.pick(5)]);
  if (policy.mode() == v1::MODE_REDIRECT && random_.pick(3) == 0) {
    policy.set_prefix_type(v1::PREFIX_TYPE_GRACEFUL_REPLACEMENT);
    set_duration(*policy.mutable_replacement_time(), random_.pick(kPolicyMilliseconds));
  }
  if (random_.pick(3) == 0) set_duration(*policy.mutable_relocate_after(), random_.pick(kPolicyMilliseconds));
  if (random_.pick(3) == 0) policy.set_direct_uplink(random_.pick(2) == 0);
  if (random_.pick(4) == 0) policy.set_max_prefixes(static_cast<std::uint32_t>(1 + random_.pick(3)));
  if (!scope.has_mn_id() && random_.pick(8) == 0) policy.set_serve_unknown(random_.pick(3) != 0);
  if (!scope.has_ar() && random_.pick(6) == 0) {
    policy.add_allowed_ars(any_ar());
    if (const auto other = any_ar(); other != policy.allowed_ars(0)) policy.add_allowed_ars(other);
  }
  if (scope.has_mn_id() && random_.pick(3) == 0) {
    // A prefix of its own, in a pool that others share.
    auto& fixed = *policy.add_fixed_prefixes();
    fixed.set_home_ar(any_ar());
    fixed.set_prefix(fmt::format("2001:db8:{}:{}::/64", ar_of(fixed.home_ar()) + 1, random_.pick(4)));
    if (random_.pick(2) == 0) fixed.set_mode(kModes[random_.pick(4)]);
  }
  return policy;
}

lm::Output World::any_order() {
  auto& machine = server_->machine();
  const int kind = random_.pick(20);
  if (kind < 4) {
    const auto& ar = routers_[static_cast<std::size_t>(random_.pick(static_cast<int>(routers_.size())))].name;
    const bool draining = !machine.describe_node(ar)->draining();
    trace("the operator {}s {}", draining ? "drain" : "undrain", ar);
    return machine.set_draining(ar, draining, now_);
  }
  if (kind < 6) {
    const auto& mobile = mobiles_[static_cast<std::size_t>(random_.pick(static_cast<int>(mobiles_.size())))].id;
    trace("the operator detaches {}", mobile);
    return machine.detach_by_operator(mobile, now_);
  }
  const auto scope = any_scope();
  if (kind < 10) {
    trace("the operator deletes the policy of {}", scope.ShortDebugString());
    return machine.delete_policy(scope, now_);
  }
  v1::SetPolicyRequest request;
  *request.mutable_scope() = scope;
  *request.mutable_policy() = any_policy(scope);
  // Of a mode alone: its type goes with it.
  if (request.policy().prefix_type() == v1::PREFIX_TYPE_UNSPECIFIED) request.add_inherit("prefix_type");
  trace("the operator sets {}", request.ShortDebugString());
  return machine.set_policy(request, now_);
}

bool World::operator_acts() {
  if (!server_->up()) return false;
  auto output = any_order();
  if (!output.status.ok()) trace("      refused: {}", output.status.ToString());
  if (!output.status.ok() && output.commit) violated("what is refused changes nothing", output.status.ToString());
  for (const auto& mobile : mobiles_) learn_bindings(mobile.id);
  server_->submit(std::move(output));
  return true;
}

bool World::may_refuse(const Mobile& mobile) const {
  if (mobile.links.empty()) return false;
  const auto& machine = server_->machine();
  const auto& ar = routers_[static_cast<std::size_t>(mobile.links.back())].name;
  const auto node = machine.describe_node(ar);
  if (node->draining() || node->pool_used() == node->pool_size()) return true;
  const auto* profile = machine.find_policy(scope_of_mobile(mobile.id));
  const auto* here = machine.find_policy(scope_of_ar(ar));
  const auto* defaults = machine.find_policy(default_scope());
  const auto* limits = profile != nullptr && profile->policy().allowed_ars_size() > 0 ? profile : defaults;
  if (limits != nullptr && limits->policy().allowed_ars_size() > 0) {
    const auto& allowed = limits->policy().allowed_ars();
    if (std::find(allowed.begin(), allowed.end(), ar) == allowed.end()) return true;
  }
  if (profile != nullptr) return false;
  if (here != nullptr && here->policy().has_serve_unknown()) return !here->policy().serve_unknown();
  return defaults != nullptr && defaults->policy().has_serve_unknown() && !defaults->policy().serve_unknown();
}

void World::check_mobile_at_rest(const Mobile& mobile) {
  if (mobile.links.empty() || mobile.refused) return;
  const auto bindings = server_->machine().bindings_of(mobile.id);
  if (std::all_of(bindings.begin(), bindings.end(), [](const auto* b) { return lm::is_detached(*b); })) {
    violated("when events stop, every MN that is there is served", mobile.id);
  }
}

void World::check_follows_policy(const v1::Binding& binding) {
  v1::GetEffectivePolicyRequest request;
  request.set_mn_id(binding.mn_id());
  request.set_ar(binding.attached_ar());
  const auto policy = server_->machine().effective_policy(request)->policy();
  v1::Mode expected = policy.mode();
  for (const auto* list : {&policy.fixed_prefixes(), &policy.mobile_network_prefixes()}) {
    const auto named =
        std::find_if(list->begin(), list->end(), [&](const auto& fixed) { return fixed.prefix() == binding.prefix(); });
    if (named == list->end()) continue;
    const auto& fixed = *named;
    if (fixed.mode() != v1::MODE_UNSPECIFIED) expected = fixed.mode();
    if (expected == v1::MODE_NOMADIC) expected = v1::MODE_RELOCATE;
  }
  const bool away = lm::is_away(binding);
  const bool driven_out = away && server_->machine().describe_node(binding.home_ar())->draining();
  if (driven_out && expected == v1::MODE_REDIRECT) expected = v1::MODE_RELOCATE;
  // Put off.
  if (expected == v1::MODE_RELOCATE && binding.has_relocate_at()) expected = v1::MODE_REDIRECT;
  const bool overdue = binding.has_relocate_at() && from_proto(binding.relocate_at()) <= now_;
  if (binding.mode() != expected || overdue || (driven_out && binding.has_relocate_at()) ||
      (expected == v1::MODE_NOMADIC && away) || binding.direct_uplink() != policy.direct_uplink()) {
    violated("when events stop, every binding follows its policy",
             policy.ShortDebugString() + "\n      " + binding.ShortDebugString());
  }
}

// Nothing is lost from the pools, nor from what the LM shows.
void World::check_counts() {
  struct Count {
    std::uint64_t attached = 0;
    std::uint64_t home = 0;
    std::uint64_t held = 0;
    std::set<std::string> used;
    // In /64s.
    std::uint64_t size() const {
      return std::accumulate(
          used.begin(), used.end(), std::uint64_t{0},
          [](std::uint64_t sum, const std::string& text) { return sum + Ipv6Prefix::parse(text)->count(64); });
    }
  };
  std::map<std::string, Count> counts;
  const auto& machine = server_->machine();
  machine.visit_bindings(std::nullopt, [&](const v1::Binding& binding) {
    for (const auto& holder : binding.holders()) ++counts[holder.ar()].held;
    ++counts[binding.home_ar()].home;
    counts[binding.home_ar()].used.insert(binding.prefix());
    if (!lm::is_detached(binding)) ++counts[binding.attached_ar()].attached;
    return true;
  });
  for (const auto& entry : machine.policies()) {
    for (const auto* list : {&entry.policy().fixed_prefixes(), &entry.policy().mobile_network_prefixes()}) {
      for (const auto& fixed : *list) counts[fixed.home_ar()].used.insert(fixed.prefix());
    }
  }
  for (const auto& node : machine.nodes()) {
    const auto& count = counts[node.info().name()];
    if (node.attached() != count.attached || node.home() != count.home || node.held() != count.held ||
        node.pool_used() != count.size()) {
      violated("when events stop, the LM's counts are right", node.ShortDebugString());
    }
  }
}

}  // namespace kedge::model
