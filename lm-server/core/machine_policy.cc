// Policies, plans for single bindings, draining.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "lm-server/core/machine_transaction.h"
#include "lm-server/core/prefix_map.h"

namespace kedge::lm {

// Plans

Plan Machine::plan_of(const v1::Binding& binding, const Rules& rules, SystemTime now) const {
  Situation at;
  at.away = is_away(binding);
  at.home_draining = nodes_.at(binding.home_ar()).draining;
  at.now = now;
  at.arrived_at = from_proto(binding.arrived_at());
  at.away_since = from_proto(binding.away_since());
  at.quiet_at = mobile_nodes_.at(binding.mn_id()).quiet_at;
  return make_plan(rules, binding.prefix(), at);
}

void Machine::take_plan(v1::Binding& binding, const Plan& plan) {
  binding.set_mode(plan.mode);
  binding.set_prefix_type(plan.prefix_type);
  binding.set_direct_uplink(plan.direct_uplink);
  binding.set_flapping(plan.flapping);
  binding.set_mobile_network(plan.mobile_network);
  binding.clear_relocate_at();
  binding.clear_ends_at();
  if (plan.relocate_at) *binding.mutable_relocate_at() = to_proto(*plan.relocate_at);
  if (plan.ends_at) *binding.mutable_ends_at() = to_proto(*plan.ends_at);
}

void Machine::replan(Transaction& tx, Entry& entry, const Rules& rules) {
  v1::Binding& binding = entry.binding;
  const Plan plan = plan_of(binding, rules, tx.now);
  if (plan.mode == v1::MODE_NOMADIC && is_away(binding)) return release(tx, entry, "nomadic by policy");
  const v1::Mode before = binding.mode();
  const bool was_flapping = binding.flapping();
  take_plan(binding, plan);
  if (was_flapping && !plan.flapping) {
    auto& mn = mobile_nodes_.at(binding.mn_id());
    if (std::exchange(mn.quiet_at, std::nullopt)) {
      tx.event(v1::EVENT_TYPE_FLAPPING_ENDED, binding, binding.attached_ar(), to_proto(tx.now));
    }
  }
  if (plan.mode == before) return;
  // A mode of its own generation: every AR acknowledges anew, so that no acknowledgement of the other mode counts.
  begin_generation(tx, entry);
  tx.event(v1::EVENT_TYPE_MODE_CHANGED, binding, binding.attached_ar(), to_proto(tx.now),
           absl::StrCat(mode_name(before), " to ", mode_name(plan.mode)));
}

const char* Machine::mode_name(v1::Mode mode) {
  if (mode == v1::MODE_NOMADIC) return "nomadic";
  return mode == v1::MODE_REDIRECT ? "redirect" : "relocate";
}

// Policies

Output Machine::set_policy(const v1::SetPolicyRequest& request, SystemTime now) {
  Output refusal;
  v1::PolicyEntry entry;
  if (const auto* before = policies_.find(request.scope())) entry = *before;
  *entry.mutable_scope() = request.scope();
  refusal.status = merge_policy(request.policy(), request.inherit(), *entry.mutable_policy());
  if (!refusal.status.ok()) return refusal;
  entry.DiscardUnknownFields();
  refusal.status = check_policy(entry.scope(), entry.policy(), settings_.access_routers);
  if (!refusal.status.ok()) return refusal;
  refusal.status = check_fixed_are_free(entry);
  if (!refusal.status.ok()) return refusal;

  Transaction tx(*this, now);
  *entry.mutable_revision() = tx.generation();
  *entry.mutable_updated_at() = to_proto(now);
  const auto had = fixed_of(request.scope());
  const auto* before = policies_.find(entry.scope());
  tx.write(PolicyBook::key_of(entry.scope()), entry.SerializeAsString(),
           before == nullptr ? std::string() : before->policy().ShortDebugString(), entry.policy().ShortDebugString());
  policies_.set(std::move(entry));
  policy_changed(tx, request.scope(), had);
  return tx.finish();
}

Output Machine::delete_policy(const v1::PolicyScope& scope, SystemTime now) {
  if (policies_.find(scope) == nullptr || scope.kind_case() == v1::PolicyScope::KIND_NOT_SET) {
    Output refusal;
    refusal.status = absl::NotFoundError("there is no policy of this scope");
    return refusal;
  }
  Transaction tx(*this, now);
  const auto had = fixed_of(scope);
  tx.write(PolicyBook::key_of(scope), std::nullopt, policies_.find(scope)->policy().ShortDebugString(), {});
  policies_.erase(scope);
  policy_changed(tx, scope, had);
  return tx.finish();
}

absl::StatusOr<v1::EffectivePolicy> Machine::effective_policy(const v1::GetEffectivePolicyRequest& request) const {
  if (auto s = check_link_layer_address("mn_id", request.mn_id()); !s.ok()) return s;
  v1::EffectivePolicy result;
  result.set_mn_id(request.mn_id());
  result.set_ar(request.ar());
  if (!request.ar().empty() && nodes_.find(request.ar()) == nodes_.end()) return unknown_access_router(request.ar());
  if (request.ar().empty()) {
    for (const auto* binding : bindings_of(request.mn_id())) {
      if (!is_detached(*binding)) result.set_ar(binding->attached_ar());
    }
  }
  Sources sources;
  *result.mutable_policy() = policies_.effective(request.mn_id(), result.ar(), sources);
  result.mutable_sources()->insert(sources.begin(), sources.end());
  return result;
}

absl::Status Machine::check_fixed_are_free(const v1::PolicyEntry& entry) const {
  const std::string& mn_id = entry.scope().mn_id();
  for (const auto& fixed : fixed_prefixes(entry.policy())) {
    const auto refuse = [&](const Ipv6Prefix& other, const auto&... why) {
      return absl::FailedPreconditionError(
          absl::StrCat(fixed.field(), ": ", fixed.prefix.to_string(),
                       other == fixed.prefix ? "" : absl::StrCat(" overlaps ", other.to_string(), ", which"), why...));
    };
    if (const auto rival = policies_.find_rival(fixed.prefix, mn_id)) {
      return refuse(rival->first, " is fixed for mobile node ", rival->second, " already");
    }
    absl::Status status;
    bindings_.visit_overlapping(fixed.prefix, [&](const Ipv6Prefix& prefix, const v1::Binding& binding) {
      if (binding.mn_id() != mn_id || prefix != fixed.prefix) {
        status = refuse(prefix, " is assigned to mobile node ", binding.mn_id(),
                        binding.has_free_at() ? ", or still in quarantine after it" : "");
      } else if (binding.home_ar() != fixed.home_ar) {
        status = refuse(prefix, " has the home ", binding.home_ar(), " already");
      }
      return status.ok();
    });
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

std::vector<FixedPrefix> Machine::fixed_of(const v1::PolicyScope& scope) const {
  const auto* entry = policies_.find(scope);
  return entry == nullptr ? std::vector<FixedPrefix>() : fixed_prefixes(entry->policy());
}

void Machine::policy_changed(Transaction& tx, const v1::PolicyScope& scope, const std::vector<FixedPrefix>& had) {
  tx.durability = Durability::kSync;
  auto& event = tx.output.events.emplace_back();
  event.set_type(v1::EVENT_TYPE_POLICY_CHANGED);
  event.set_mn_id(scope.mn_id());
  event.set_ar(scope.ar());
  *event.mutable_at() = to_proto(tx.now);
  release_fixed(tx, had);
  reserve_fixed(tx, scope);
  if (scope.has_mn_id()) return apply_policy(tx, scope.mn_id());
  std::vector<std::string> affected;
  for (const auto& [mn_id, mn] : mobile_nodes_) {
    if (!scope.has_ar() || is_attached_at(mn_id, scope.ar())) affected.push_back(mn_id);
  }
  std::sort(affected.begin(), affected.end());
  for (const auto& mn_id : affected) apply_policy(tx, mn_id);
}

// Those that are fixed no longer.
void Machine::release_fixed(Transaction& tx, const std::vector<FixedPrefix>& had) {
  for (const auto& fixed : had) {
    if (policies_.owner_of(fixed.prefix)) continue;
    if (!bindings_.contains(fixed.prefix)) {
      if (NodeState* home = node(fixed.home_ar)) {
        home->pool.give_back(fixed.prefix);
        home->exhausted = false;
      }
      continue;
    }
    Entry& entry = tx.edit(fixed.prefix);
    v1::Binding& binding = entry.binding;
    if (binding.mobile_network()) {
      // No prefix of the MN's own, that it could go on using.
      binding.set_prefix_type(v1::PREFIX_TYPE_SESSION_LASTING);
      release(tx, entry, "its mobile node's profile names the network no longer");
      continue;
    }
    if (!is_detached(binding)) continue;
    binding.set_prefix_type(v1::PREFIX_TYPE_SESSION_LASTING);
    if (binding.state() == v1::BINDING_STATE_DETACHED) {
      *binding.mutable_free_at() = to_proto(tx.now + settings_.prefix_quarantine);
    }
  }
}

void Machine::reserve_fixed(Transaction& tx, const v1::PolicyScope& scope) {
  for (const auto& fixed : fixed_of(scope)) {
    if (!bindings_.contains(fixed.prefix)) {
      nodes_.at(fixed.home_ar).pool.claim(fixed.prefix);
      continue;
    }
    v1::Binding& binding = tx.edit(fixed.prefix).binding;
    if (!is_detached(binding)) continue;
    binding.set_prefix_type(v1::PREFIX_TYPE_FIXED);
    binding.set_mobile_network(fixed.mobile_network);
    binding.set_released(false);
    binding.clear_free_at();
    if (auto* home = find_holder(binding, binding.home_ar())) home->set_releasing(false);
  }
}

void Machine::apply_policy(Transaction& tx, const std::string& mn_id) {
  const auto mn = mobile_nodes_.find(mn_id);
  if (mn == mobile_nodes_.end()) return;
  v1::AttachRequest request;
  request.set_mn_id(mn_id);
  for (const auto& prefix : mn->second.prefixes) {
    const auto& binding = bindings_.at(prefix).binding;
    if (is_detached(binding)) continue;
    request.set_ar(binding.attached_ar());
    *request.mutable_attachment() = binding.attachment();
  }
  if (request.ar().empty()) return;
  const SystemTime heard = mn->second.heard_or(tx.now);
  const Rules rules = policies_.resolve(mn_id, request.ar());
  for (const auto& prefix : mn->second.prefixes) {
    const auto& binding = bindings_.at(prefix).binding;
    if (!is_detached(binding)) {
      replan(tx, tx.edit(prefix), rules);
    } else if (rules.find_fixed(binding.prefix()) != nullptr) {
      // It had ended, and is the MN's again.
      move(tx, tx.edit(prefix), request, heard, rules);
    }
  }
  for (const auto& fixed : missing_fixed(rules)) {
    create(tx, fixed.prefix, fixed.home_ar, request, heard, rules);
  }
  const auto is_its_own = [&](const Ipv6Prefix& prefix) {
    const auto& binding = bindings_.at(prefix).binding;
    return !is_detached(binding) && !binding.mobile_network();
  };
  if (std::any_of(mn->second.prefixes.begin(), mn->second.prefixes.end(), is_its_own)) return;
  // Nothing that it has is of use here any more.
  const Assignment assignment = assign(mn_id, request.ar(), rules);
  if (assignment.exhausted) tell_exhausted(tx.output, nodes_.at(request.ar()), mn_id, tx.now);
  bring_along(tx, mn->second, request, heard, rules, assignment);
}

// Draining

Output Machine::set_draining(const std::string& ar, bool draining, SystemTime now) {
  NodeState* subject = node(ar);
  if (subject == nullptr) {
    Output refusal;
    refusal.status = unknown_access_router(ar);
    return refusal;
  }
  Transaction tx(*this, now);
  if (std::exchange(subject->draining, draining) == draining) return tx.finish();
  tx.durability = Durability::kSync;
  tx.write(absl::StrCat(kDrainPrefix, ar), draining ? std::optional<std::string>(ar) : std::nullopt,
           draining ? "in service" : "draining", draining ? "draining" : "in service");
  auto& event = tx.output.events.emplace_back();
  event.set_type(draining ? v1::EVENT_TYPE_NODE_DRAINING : v1::EVENT_TYPE_NODE_UNDRAINED);
  event.set_ar(ar);
  *event.mutable_at() = to_proto(now);
  for (const auto& prefix : subject->held) {
    const auto& binding = bindings_.at(prefix).binding;
    if (binding.home_ar() != ar || !is_away(binding)) continue;
    replan(tx, tx.edit(prefix), policies_.resolve(binding.mn_id(), binding.attached_ar()));
  }
  return tx.finish();
}

std::uint64_t Machine::drain_remaining(const std::string& ar, const NodeState& state) const {
  std::uint64_t remaining = 0;
  for (const auto& prefix : state.held) {
    const auto& binding = bindings_.at(prefix).binding;
    const bool has_moved = binding.mode() == v1::MODE_RELOCATE && binding.state() == v1::BINDING_STATE_SETTLED;
    const bool anchored_here = binding.home_ar() == ar && is_away(binding) && !has_moved;
    if (binding.attached_ar() == ar || anchored_here) ++remaining;
  }
  return remaining;
}

std::optional<v1::Node> Machine::describe_node(const std::string& ar) const {
  const auto found = nodes_.find(ar);
  return found == nodes_.end() ? std::nullopt : std::optional(describe(ar, found->second));
}

std::vector<v1::PolicyEntry> Machine::policies() const {
  std::vector<v1::PolicyEntry> result;
  policies_.visit([&](const v1::PolicyEntry& entry) { result.push_back(entry); });
  return result;
}

const v1::PolicyEntry* Machine::find_policy(const v1::PolicyScope& scope) const { return policies_.find(scope); }

}  // namespace kedge::lm
