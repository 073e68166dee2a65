// After the store was restored from a backup: what has happened since the backup is learnt again from the ARs.
//
// What the LM knows of attachments and of what ARs hold is as old as the backup. A redirect that relied on it could
// lead to an AR that has let go long since, or form a loop. So each binding begins a generation of the new epoch in
// which nothing has been acknowledged, as if its MN had left a moment ago: every AR keeps what it has. The AR that has
// the MN attaches it anew (TRIGGER_RECOVERY), and all goes on as after any other arrival.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "google/protobuf/util/time_util.h"
#include "lm-server/core/machine_transaction.h"

namespace kedge::lm {
namespace {

// google.protobuf.Timestamp: when the restored store was loaded first.
constexpr const char* kRestoredAtKey = "restored/at";
constexpr int kHomeNetworkPrefixLength = 64;

}  // namespace

absl::StatusOr<Machine::Restoration> Machine::load_restoration(const std::map<std::string, std::string>& values,
                                                               SystemTime now) {
  Restoration result;
  if (const auto from = values.find(kRestoredFromKey); from != values.end()) {
    if (!result.from.emplace().ParseFromString(from->second)) {
      return absl::DataLossError(
          absl::StrCat("the store's value of ", kRestoredFromKey, " is no header of a backup; restore a backup"));
    }
    result.at = now;
  } else if (const auto at = values.find(kRestoredAtKey); at != values.end()) {
    google::protobuf::Timestamp time;
    if (!time.ParseFromString(at->second)) {
      return absl::DataLossError(
          absl::StrCat("the store's value of ", kRestoredAtKey, " is no time; restore a backup"));
    }
    result.at = from_proto(time);
  }
  return result;
}

void Machine::tell_restored(const Restoration& restoration, Output& output, Commit& commit) {
  if (!restoration.from) return;
  commit.writes.push_back({kRestoredFromKey, std::nullopt});
  commit.writes.push_back({kRestoredAtKey, to_proto(*restoration.at).SerializeAsString()});
  v1::BackupHeader backup = *restoration.from;
  backup.mutable_made_at()->set_nanos(0);
  auto& event = output.events.emplace_back();
  event.set_type(v1::EVENT_TYPE_STORE_RESTORED);
  *event.mutable_at() = to_proto(*restoration.at);
  event.set_detail(absl::StrCat("as of revision ", backup.revision().epoch(), ".", backup.revision().revision(),
                                ", backed up ", google::protobuf::util::TimeUtil::ToString(backup.made_at())));
}

SystemTime Machine::end_of_grace(SystemTime now) const {
  const SystemTime end = now + settings_.detach_grace;
  return restored_at_ ? std::max(end, std::min(*restored_at_, now) + settings_.recovery_time) : end;
}

void Machine::begin_epoch(v1::Binding& binding, const v1::Generation& generation, SystemTime now) const {
  *binding.mutable_updated_at() = to_proto(now);
  *binding.mutable_revision() = generation;
  *binding.mutable_generation() = generation;
  *binding.mutable_attachment_generation() = generation;
  if (!is_detached(binding)) binding.set_last_ar(binding.attached_ar());
  binding.clear_attached_ar();
  binding.set_state(v1::BINDING_STATE_DETACHED_GRACE);
  enter_holder(binding, binding.home_ar());
  for (auto& holder : *binding.mutable_holders()) {
    v1::Holder unknown;
    unknown.set_ar(holder.ar());
    // It may announce nothing by now, and others may announce: they say so when they are told of the binding.
    unknown.set_advertises_preference(std::min(holder.advertises_preference(), settings_.preference_levels));
    holder = std::move(unknown);
  }
}

void Machine::place_pools(const Youngest& youngest, const Restoration& restoration) {
  for (auto& [ar, state] : nodes_) {
    const auto last = youngest.find(&state);
    if (last != youngest.end()) state.pool.continue_behind(last->second.second);
    // Hosts may have addresses from what was handed out after the backup, though nobody tells of it.
    const bool none_since = restoration.at && (last == youngest.end() || last->second.first <= *restoration.at);
    if (none_since) state.pool.skip_ahead();
  }
}

Machine::NodeState* Machine::home_of(const Ipv6Prefix& prefix) {
  const auto home =
      std::find_if(nodes_.begin(), nodes_.end(), [&](const auto& node) { return node.second.pool.contains(prefix); });
  return home == nodes_.end() ? nullptr : &home->second;
}

std::vector<Ipv6Prefix> Machine::adopt(Transaction& tx, const v1::AttachRequest& request, const std::string& at,
                                       SystemTime heard, const Rules& rules) {
  std::vector<Ipv6Prefix> adopted;
  for (const auto& text : request.held_prefixes()) {
    const auto prefix = *Ipv6Prefix::parse(text);
    // What a profile names is assigned by it.
    if (prefix.length() != kHomeNetworkPrefixLength || policies_.owner_of(prefix)) continue;
    NodeState* home = home_of(prefix);
    if (home == nullptr) continue;
    Situation situation;
    situation.away = home->info.name() != at;
    if (situation.away && make_plan(rules, text, situation).mode == v1::MODE_NOMADIC) continue;
    // Nobody else's, also not in quarantine.
    if (!home->pool.claim(prefix)) continue;
    v1::Binding& binding =
        introduce(tx, prefix, home->info.name(), request.mn_id(), absl::StrCat("held by ", request.ar())).binding;
    // No new one: the next that is handed out does not follow it.
    if (restored_at_) *binding.mutable_created_at() = to_proto(std::min(tx.now, *restored_at_));
    *binding.mutable_attached_at() = to_proto(heard);
    if (situation.away) *binding.mutable_away_since() = to_proto(heard);
    adopted.push_back(prefix);
  }
  return adopted;
}

std::optional<Output> Machine::adopt_elsewhere(const v1::AttachRequest& request, SystemTime now) {
  const MobileNode& mn = mobile_nodes_.at(request.mn_id());
  const auto attached = std::find_if(mn.prefixes.begin(), mn.prefixes.end(),
                                     [&](const auto& prefix) { return !is_detached(bindings_.at(prefix).binding); });
  if (attached == mn.prefixes.end()) return std::nullopt;
  const v1::Binding present = bindings_.at(*attached).binding;
  v1::AttachRequest there;
  there.set_mn_id(request.mn_id());
  there.set_ar(present.attached_ar());
  *there.mutable_attachment() = present.attachment();
  const SystemTime heard = mn.heard_or(now);
  const Rules rules = policies_.resolve(request.mn_id(), there.ar());

  Transaction tx(*this, now);
  tx.durability = Durability::kSync;
  tx.output.generation = present.generation();
  for (const auto& prefix : adopt(tx, request, there.ar(), heard, rules)) {
    move(tx, tx.edit(prefix), there, heard, rules);
  }
  for (const auto& text : request.held_prefixes()) {
    const auto prefix = *Ipv6Prefix::parse(text);
    const auto* found = bindings_.find(prefix);
    if (found == nullptr) continue;
    const auto& binding = found->binding;
    if (binding.mn_id() != request.mn_id() || is_detached(binding)) continue;
    if (find_holder(binding, request.ar()) != nullptr) continue;
    // Told of the binding, it redirects, withdraws and lets go in order.
    v1::Binding& edited = tx.edit(prefix).binding;
    enter_holder(edited, request.ar());
    edited.set_state(v1::BINDING_STATE_MOVING);
  }
  Output output = tx.finish();
  if (!output.commit) return std::nullopt;
  return output;
}

}  // namespace kedge::lm
