// Prefixes that nobody uses any more.
//
// For how long a prefix has been idle is known from the access routers alone, and only of the time in which one of them
// has looked: what nobody has looked at counts as use. None of it is durable. When the server begins anew, or a session
// does, access routers tell what their kernels have seen meanwhile.
//
// Standards: RFC 8653, 3.2 (session-lasting addresses).
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "lm-server/core/machine_transaction.h"

namespace kedge::lm {
namespace {

using std::chrono::nanoseconds;

constexpr int kMostUses = 256;
// From the last look of the AR that the MN has left, after it has heard of it, to the first one of the next.
constexpr nanoseconds kLongestBlink = std::chrono::seconds(10);
constexpr int kBlinksPerIdleTime = 8;

}  // namespace

Output Machine::activity(std::uint64_t session, const v1::Activity& activity, SystemTime now) {
  Output refusal;
  const NodeState* from = node_of_session(session);
  if (from == nullptr || settings_.idle_after == nanoseconds::zero()) return refusal;
  if (activity.uses_size() > kMostUses) {
    refusal.status = absl::InvalidArgumentError(absl::StrCat("uses: at most ", kMostUses));
    return refusal;
  }
  Transaction tx(*this, now);
  for (const auto& use : activity.uses()) {
    const auto prefix = Ipv6Prefix::parse(use.prefix());
    const auto age = parse_age(use.age());
    if (!prefix.ok() || !age.ok()) {
      tx.output.status = prefix.ok() ? age.status() : prefix.status();
      continue;
    }
    Entry* found = bindings_.find(*prefix);
    if (found == nullptr || !ends_when_idle(found->binding)) continue;
    Entry& entry = *found;
    const std::string& ar = from->info.name();
    if (!may_tell_of_use(entry, ar)) continue;
    note_use(entry, ar, use, *age, now);
    const bool is_over = entry.idle->since + settings_.idle_after <= now;
    if (is_over && entry.binding.attached_ar() == ar && !awaits_last_word(entry))
      end_idle(tx, *prefix, now - entry.idle->since);
  }
  return tx.finish();
}

bool Machine::may_tell_of_use(const Entry& entry, const std::string& ar) {
  // One that the MN has left says once more what it has seen, and may have been let go by then.
  return find_holder(entry.binding, ar) != nullptr || entry.moved_from == ar;
}

// The AR that the MN has left may have seen it used since, and is still to say so. The home AR has not looked; from one
// whose speaker is away, or which holds nothing any more, nothing is to come.
bool Machine::awaits_last_word(const Entry& entry) const {
  const std::string& ar = entry.moved_from;
  return !ar.empty() && ar != entry.binding.home_ar() && find_holder(entry.binding, ar) != nullptr &&
         nodes_.at(ar).session != 0;
}

void Machine::note_use(Entry& entry, const std::string& ar, const v1::Activity::Use& use, nanoseconds age,
                       SystemTime now) const {
  const bool is_attached = entry.binding.attached_ar() == ar;
  const SystemTime arrived = std::min(from_proto(entry.binding.arrived_at()), now);
  SystemTime at = now - age;
  bool unused = use.unused();
  // What an AR has seen while the MN was here before says nothing of the time in between.
  if (is_attached && at < arrived) {
    at = arrived;
    unused = true;
  }
  const auto before = entry.idle;
  entry.idle = Idle{at, now, ar, !is_attached && use.last() && ar == entry.moved_from};
  if (entry.idle->handed_over) entry.moved_from.clear();
  if (!before) return;
  const nanoseconds blink = std::min(kLongestBlink, settings_.idle_after / kBlinksPerIdleTime);
  // What is still under way tells of a time before it arrives: it says nothing of what another AR has missed.
  const bool looks_on = before->seen_by == ar && at <= before->until;
  const bool takes_over = before->handed_over && at <= before->until + blink;
  const bool goes_on = unused && (looks_on || takes_over);
  entry.idle->since = goes_on ? before->since : std::max(before->since, at);
}

void Machine::end_idle(Transaction& tx, const Ipv6Prefix& prefix, nanoseconds idle) {
  const v1::Binding binding = bindings_.at(prefix).binding;
  const MobileNode& mn = mobile_nodes_.at(binding.mn_id());
  const std::string& ar = binding.attached_ar();
  const bool has_another = std::any_of(mn.prefixes.begin(), mn.prefixes.end(), [&](const Ipv6Prefix& other) {
    const auto& candidate = bindings_.at(other).binding;
    return other != prefix && !is_detached(candidate) && !candidate.mobile_network();
  });
  const PrefixPool& pool = nodes_.at(ar).pool;
  // The MN would be left without any.
  if (!has_another && pool.used() == pool.size()) return;

  const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(idle).count();
  release(tx, tx.edit(prefix), absl::StrCat("idle for ", seconds, " s"));
  v1::AttachRequest request;
  request.set_mn_id(binding.mn_id());
  request.set_ar(ar);
  *request.mutable_attachment() = binding.attachment();
  const Rules rules = policies_.resolve(binding.mn_id(), ar);
  // It came with as many prefixes as it may have, or the pool was used up.
  const Assignment assignment = assign(binding.mn_id(), ar, rules);
  if (assignment.fresh) create(tx, *assignment.fresh, ar, request, mn.heard_or(tx.now), rules);
}

std::optional<SystemTime> Machine::idle_since(const Ipv6Prefix& prefix) const {
  const Entry* found = bindings_.find(prefix);
  if (found == nullptr || !found->idle || !ends_when_idle(found->binding)) return std::nullopt;
  return found->idle->since;
}

}  // namespace kedge::lm
