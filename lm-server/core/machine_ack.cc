// Acknowledgements, and the conclusions that are drawn from them.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "lm-server/core/machine_transaction.h"

namespace kedge::lm {
namespace {

std::optional<v1::EventType> event_of(v1::Stage stage) {
  switch (stage) {
    case v1::STAGE_DELIVERING:
      return v1::EVENT_TYPE_DELIVERING;
    case v1::STAGE_REDIRECTING:
      return v1::EVENT_TYPE_REDIRECTING;
    case v1::STAGE_UNREACHABLE:
      return v1::EVENT_TYPE_UNREACHABLE;
    case v1::STAGE_ADVERTISED:
      return v1::EVENT_TYPE_ADVERTISED;
    case v1::STAGE_SUPERSEDED:
      return v1::EVENT_TYPE_SUPERSEDED;
    case v1::STAGE_WITHDRAWN:
      return v1::EVENT_TYPE_WITHDRAWN;
    case v1::STAGE_CLEARED:
      return v1::EVENT_TYPE_CLEARED;
    case v1::STAGE_RA_SENT:
      return v1::EVENT_TYPE_RA_SENT;
    default:
      return std::nullopt;
  }
}

std::string detail_of(const v1::Ack& ack, std::uint32_t level) {
  switch (ack.stage()) {
    case v1::STAGE_REDIRECTING:
      return absl::StrCat("to ", ack.redirects_to());
    case v1::STAGE_ADVERTISED:
    case v1::STAGE_SUPERSEDED:
      return absl::StrCat("level ", level);
    default:
      return {};
  }
}

// Whether an AR that is no holder holds something nevertheless.
bool shows_leftover(v1::Stage stage) {
  return stage == v1::STAGE_DELIVERING || stage == v1::STAGE_REDIRECTING || stage == v1::STAGE_UNREACHABLE ||
         stage == v1::STAGE_ADVERTISED;
}

void clear_forwarding(v1::Holder& holder) {
  holder.set_delivers(false);
  holder.clear_redirects_to();
  holder.set_unreachable(false);
}

}  // namespace

Output Machine::ack(std::uint64_t session, const v1::Ack& ack, SystemTime now) {
  Output output;
  NodeState* from = node_of_session(session);
  if (from == nullptr) return output;
  const auto prefix = Ipv6Prefix::parse(ack.prefix());
  if (!prefix.ok()) {
    output.status = prefix.status();
    return output;
  }
  const auto* found = bindings_.find(*prefix);
  const std::string& ar = from->info.name();
  if (found == nullptr || find_holder(found->binding, ar) == nullptr) {
    if (shows_leftover(ack.stage())) send_record(output, *from, forget_record(ack.prefix(), revision()));
    return output;
  }
  if (ack.stage() == v1::STAGE_REDIRECTING && node(ack.redirects_to()) == nullptr) {
    output.status = unknown_access_router(ack.redirects_to());
    return output;
  }
  Transaction tx(*this, now);
  tx.audited = false;
  Entry& entry = tx.edit(*prefix);
  v1::Holder& holder = *find_holder(entry.binding, ar);
  const auto order = compare(ack.generation(), entry.binding.generation());
  if (order < 0) {
    // The AR may have been told more since; what it may announce is all that an old acknowledgement can add.
    if (ack.stage() == v1::STAGE_ADVERTISED) {
      holder.set_advertises_preference(
          std::max(holder.advertises_preference(), std::min(ack.preference(), settings_.preference_levels)));
    }
  } else if (order == 0) {
    apply_ack(tx, entry, holder, ack);
  } else {
    tx.output.status = absl::FailedPreconditionError(absl::StrCat(ar, " acknowledges ", ack.prefix(), " at revision ",
                                                                  ack.generation().revision(),
                                                                  ", which was never handed out in epoch ", epoch_));
  }
  return tx.finish();
}

void Machine::apply_ack(Transaction& tx, Entry& entry, v1::Holder& holder, const v1::Ack& ack) {
  v1::Binding& binding = entry.binding;
  const std::string ar = holder.ar();
  const bool attached = binding.attached_ar() == ar;
  const bool in_grace = binding.state() == v1::BINDING_STATE_DETACHED_GRACE;
  // An AR of an earlier configuration may have announced above the present levels.
  const std::uint32_t level = std::min(ack.preference(), settings_.preference_levels);
  // Level that the AR has been told to announce at, whatever it says that it does now.
  const std::uint32_t told = attached ? binding.preference() : in_grace ? holder.advertises_preference() : 0;
  auto& progress = entry.progress[ar];

  switch (ack.stage()) {
    case v1::STAGE_DELIVERING:
    case v1::STAGE_REDIRECTING:
    case v1::STAGE_UNREACHABLE:
      apply_forwarding_ack(entry, holder, ack);
      break;
    case v1::STAGE_ADVERTISED:
      holder.set_advertises_preference(std::max(level, told));
      progress.advertised = level;
      break;
    case v1::STAGE_SUPERSEDED:
      if (attached || binding.preference() == 0 || ack.preference() < binding.preference()) return;
      holder.set_superseded(true);
      break;
    case v1::STAGE_WITHDRAWN:
      holder.set_advertises_preference(told);
      progress.advertised = 0;
      break;
    case v1::STAGE_CLEARED:
      clear_forwarding(holder);
      holder.set_advertises_preference(holder.releasing() ? 0 : told);
      *holder.mutable_generation() = binding.generation();
      progress.advertised = 0;
      break;
    case v1::STAGE_RA_SENT:
      break;
    default:
      return;
  }
  const std::string detail = detail_of(ack, level);
  if (progress.seen.emplace(ack.stage(), detail).second) {
    tx.event(*event_of(ack.stage()), binding, ar, ack.at(), detail);
  }
  if (ack.stage() == v1::STAGE_CLEARED && holder.releasing()) {
    entry.progress.erase(ar);
    remove_holder(binding, ar);
  }
}

void Machine::apply_forwarding_ack(Entry& entry, v1::Holder& holder, const v1::Ack& ack) {
  v1::Binding& binding = entry.binding;
  const bool keeps_what_it_acknowledged =
      binding.state() == v1::BINDING_STATE_DETACHED_GRACE ||
      (!is_detached(binding) && binding.attached_ar() != holder.ar() && !attached_delivers(binding));
  // While an AR is told to keep what it has acknowledged, its first word in a generation stands: otherwise two messages
  // that cross could chase each other for ever.
  if (keeps_what_it_acknowledged && same(holder.generation(), binding.generation())) return;
  clear_forwarding(holder);
  if (ack.stage() == v1::STAGE_DELIVERING) holder.set_delivers(true);
  if (ack.stage() == v1::STAGE_REDIRECTING) holder.set_redirects_to(ack.redirects_to());
  if (ack.stage() == v1::STAGE_UNREACHABLE) holder.set_unreachable(true);
  *holder.mutable_generation() = binding.generation();
}

// Conclusions

void Machine::advance(Transaction& tx, Entry& entry) {
  v1::Binding& binding = entry.binding;
  if (!is_detached(binding)) {
    settle_preference(tx, entry);
    release_holders(tx, entry);
    if (binding.state() == v1::BINDING_STATE_MOVING &&
        is_settled(binding, entry.progress[binding.attached_ar()].advertised)) {
      binding.set_state(v1::BINDING_STATE_SETTLED);
      tx.event(v1::EVENT_TYPE_SETTLED, binding, binding.attached_ar(), to_proto(tx.now));
    }
  }
  set_timer(*Ipv6Prefix::parse(binding.prefix()), entry, due_of(entry));
}

bool Machine::another_announces(const v1::Binding& binding, bool connected) const {
  return std::any_of(binding.holders().begin(), binding.holders().end(), [&](const v1::Holder& holder) {
    return holder.ar() != binding.attached_ar() && holder.advertises_preference() > 0 &&
           (nodes_.at(holder.ar()).session != 0) == connected;
  });
}

bool Machine::has_to_announce(const v1::Binding& binding) const {
  if (anchored_by_bgp(binding)) return true;
  const std::uint32_t others = highest_other_preference(binding, binding.attached_ar());
  // Whatever is left of an earlier anchor would beat the aggregate.
  if (!is_away(binding)) return others > 0;
  // RFC 8818, 4.2: the home AR is the anchor. An AR that was it until now withdraws, if it is the attached one only
  // when what then goes to the home AR is redirected to it. Whoever cannot be told to withdraw is beaten.
  const bool is_anchor = find_holder(binding, binding.attached_ar())->advertises_preference() > others;
  const bool redirected = follows(binding, *find_holder(binding, binding.home_ar()));
  return (is_anchor && !redirected) || another_announces(binding, false);
}

void Machine::settle_preference(Transaction& tx, Entry& entry) {
  v1::Binding& binding = entry.binding;
  v1::Holder& attached = *find_holder(binding, binding.attached_ar());
  const std::uint32_t others = highest_other_preference(binding, attached.ar());
  std::uint32_t preference = binding.preference();

  // Another generation, so that nothing counts that was said of a lower level: more is announced than was known...
  if (preference > 0 && others >= preference) return begin_generation(tx, entry);
  if (another_announces(binding, true)) return;
  // ... or by one whose speaker is away, and which therefore does not withdraw.
  if (preference == 0 && others > 0 && others < settings_.preference_levels) return begin_generation(tx, entry);
  if (preference > 0) {
    // RFC 8818, 4.3: "the old anchor withdraws the /64 and the new anchor injects it". What is left to announce is as
    // little as possible: nothing at home, the lowest level elsewhere, so that the levels last.
    preference = std::min(preference, has_to_announce(binding) ? others + 1 : 0);
  } else if (anchored_by_bgp(binding) && others == 0 && attached.advertises_preference() == 0) {
    preference = 1;
  }
  if (preference == binding.preference()) return;
  if (is_away(binding) && preference == 0) {
    for (auto& holder : *binding.mutable_holders()) holder.set_superseded(false);
  }
  binding.set_preference(preference);
  attached.set_advertises_preference(std::max(attached.advertises_preference(), preference));
  tx.durability = Durability::kSync;
}

void Machine::release_holders(Transaction& tx, Entry& entry) {
  v1::Binding& binding = entry.binding;
  for (auto& holder : *binding.mutable_holders()) {
    auto& since = entry.progress[holder.ar()].releasable_since;
    if (holder.releasing() || !may_release(binding, holder)) {
      since.reset();
      continue;
    }
    if (!since) since = tx.now;
    if (*since + settings_.redirect_hold > tx.now) continue;
    holder.set_releasing(true);
    since.reset();
  }
}

}  // namespace kedge::lm
