// Arrival and departure of mobile nodes.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "common/link_layer_address.h"
#include "google/protobuf/util/time_util.h"
#include "lm-server/core/machine_transaction.h"

namespace kedge::lm {
namespace {

using std::chrono::nanoseconds;

constexpr std::size_t kLongestInterfaceName = 15;
constexpr std::size_t kLongestArName = 63;
// Between two alarms of one kind for one MN.
constexpr std::chrono::minutes kAlarmInterval{1};
constexpr std::int64_t kOldestAgeSeconds = 366LL * 24 * 3600;
constexpr int kMostHeldPrefixes = 64;

absl::Status check_attachment(const v1::Attachment& attachment) {
  if (attachment.interface().empty() || attachment.interface().size() > kLongestInterfaceName) {
    return absl::InvalidArgumentError("attachment.interface: must have 1 to 15 characters");
  }
  if (auto s = check_link_layer_address("attachment.link_layer_address", attachment.link_layer_address()); !s.ok()) {
    return s;
  }
  auto link_local = Ipv6Address::parse(attachment.link_local());
  if (!link_local.ok()) {
    return absl::InvalidArgumentError(absl::StrCat("attachment.link_local: ", link_local.status().message()));
  }
  if (!link_local->is_link_local() || link_local->to_string() != attachment.link_local()) {
    return absl::InvalidArgumentError(absl::StrCat("attachment.link_local: \"", attachment.link_local(),
                                                   "\" is no link-local address in the form of RFC 5952"));
  }
  return absl::OkStatus();
}

absl::Status check_held_prefixes(const v1::AttachRequest& request) {
  if (request.held_prefixes_size() > kMostHeldPrefixes) {
    return absl::InvalidArgumentError(absl::StrCat("held_prefixes: at most ", kMostHeldPrefixes));
  }
  for (const auto& text : request.held_prefixes()) {
    const auto prefix = Ipv6Prefix::parse(text);
    if (!prefix.ok()) return absl::InvalidArgumentError(absl::StrCat("held_prefixes: ", prefix.status().message()));
    if (prefix->to_string() != text) {
      return absl::InvalidArgumentError(
          absl::StrCat("held_prefixes: \"", text, "\" must be written ", prefix->to_string()));
    }
  }
  return absl::OkStatus();
}

absl::Status check_attach(const v1::AttachRequest& request) {
  if (request.ar().empty() || request.ar().size() > kLongestArName) {
    return absl::InvalidArgumentError("ar: must have 1 to 63 characters");
  }
  if (auto s = check_link_layer_address("mn_id", request.mn_id()); !s.ok()) return s;
  if (auto s = check_attachment(request.attachment()); !s.ok()) return s;
  if (auto s = check_held_prefixes(request); !s.ok()) return s;
  if (request.trigger() == v1::TRIGGER_UNSPECIFIED || !v1::Trigger_IsValid(request.trigger())) {
    return absl::InvalidArgumentError("trigger: must be set to a known value");
  }
  return parse_age(request.age()).status();
}

bool equal(const v1::Attachment& a, const v1::Attachment& b) {
  return a.interface() == b.interface() && a.link_layer_address() == b.link_layer_address() &&
         a.link_local() == b.link_local();
}

const char* trigger_name(v1::Trigger trigger) {
  switch (trigger) {
    case v1::TRIGGER_ROUTER_SOLICITATION:
      return "router_solicitation";
    case v1::TRIGGER_NEIGHBOUR_DISCOVERY:
      return "neighbour_discovery";
    case v1::TRIGGER_DATA_FRAME:
      return "data_frame";
    case v1::TRIGGER_REPLAY:
      return "replay";
    case v1::TRIGGER_RECOVERY:
      return "recovery";
    default:
      return "unknown";
  }
}

const char* reason_name(v1::DetachReason reason) {
  switch (reason) {
    case v1::DETACH_REASON_LINK_DOWN:
      return "link_down";
    case v1::DETACH_REASON_UNREACHABLE:
      return "unreachable";
    case v1::DETACH_REASON_OPERATOR:
      return "operator";
    case v1::DETACH_REASON_UNAUTHENTICATED:
      return "unauthenticated";
    default:
      return "unknown";
  }
}

// `generation` is the latest that the AR knew of any of the MN's prefixes: each may have had newer ones of its own
// since it was attached, as its mode or its level changed.
bool means_this_attachment(const v1::Binding& binding, const v1::Generation& generation) {
  const auto& began = is_none(binding.attachment_generation()) ? binding.generation() : binding.attachment_generation();
  return compare(began, generation) <= 0;
}

absl::Status overtaken(const v1::AttachRequest& request) {
  return absl::FailedPreconditionError(absl::StrCat("stale: attach ", request.sequence(), " of run ",
                                                    request.incarnation(), " of ", request.ar(), "'s speaker for ",
                                                    request.mn_id(), " comes after younger ones"));
}

std::int64_t to_seconds(nanoseconds time) { return std::chrono::duration_cast<std::chrono::seconds>(time).count(); }

std::string describe_pools(const v1::NodeInfo& info) {
  std::string text;
  for (const auto& pool : info.pools()) absl::StrAppend(&text, text.empty() ? "" : ", ", pool);
  return text;
}

void clear_plan(v1::Binding& binding) {
  binding.set_flapping(false);
  binding.clear_relocate_at();
  binding.clear_ends_at();
}

}  // namespace

absl::Status check_link_layer_address(const std::string& field, const std::string& text) {
  auto address = LinkLayerAddress::parse(text);
  if (!address.ok()) return absl::InvalidArgumentError(absl::StrCat(field, ": ", address.status().message()));
  if (address->to_string() != text) {
    return absl::InvalidArgumentError(absl::StrCat(field, ": \"", text, "\" must be written ", address->to_string()));
  }
  if (address->is_multicast() || address->is_zero()) {
    return absl::InvalidArgumentError(absl::StrCat(field, ": ", text, " is no unicast address"));
  }
  return absl::OkStatus();
}

absl::StatusOr<nanoseconds> parse_age(const google::protobuf::Duration& age) {
  if (age.seconds() < 0 || age.nanos() < 0 || age.nanos() > 999'999'999 || age.seconds() > kOldestAgeSeconds) {
    return absl::InvalidArgumentError("age: must be 0 s to 366 days");
  }
  return kedge::from_proto(age);
}

absl::Status Machine::check_run(const NodeState& at, std::uint64_t incarnation) {
  if (at.incarnation == 0 || at.incarnation == incarnation) return absl::OkStatus();
  return absl::UnavailableError(absl::StrCat("run ", incarnation, " of ", at.info.name(),
                                             "'s speaker has no session: the last one is of run ", at.incarnation));
}

Machine::CallOrder Machine::order_of(const std::string& ar, const std::string& mn_id, std::uint64_t incarnation,
                                     std::uint64_t sequence) const {
  const auto mn = mobile_nodes_.find(mn_id);
  if (mn == mobile_nodes_.end()) return CallOrder::kYounger;
  const auto* last = mn->second.sequence_at(ar);
  if (last == nullptr || last->incarnation != incarnation) return CallOrder::kYounger;
  if (sequence == last->sequence) return CallOrder::kRepeated;
  return sequence < last->sequence ? CallOrder::kStale : CallOrder::kYounger;
}

absl::Status Machine::check_younger(const MobileNode& mn, const std::string& ar, SystemTime heard) const {
  const bool here = std::any_of(mn.prefixes.begin(), mn.prefixes.end(), [&](const Ipv6Prefix& prefix) {
    return bindings_.at(prefix).binding.attached_ar() == ar;
  });
  if (here || heard >= mn.heard) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat("stale: the mobile node was heard elsewhere ",
                   std::chrono::duration_cast<std::chrono::milliseconds>(mn.heard - heard).count(), " ms later"));
}

absl::Status Machine::check_policy_allows(const v1::AttachRequest& request, const Rules& rules,
                                          const NodeState& here) const {
  if (!rules.serve_unknown && policies_.find_profile(request.mn_id()) == nullptr) {
    return absl::PermissionDeniedError(absl::StrCat("mobile node ", request.mn_id(),
                                                    " has no profile, and serve_unknown is false; give it one with "
                                                    "kedgectl policy set --mn ",
                                                    request.mn_id()));
  }
  // Those that are here stay until they move.
  if (is_attached_at(request.mn_id(), request.ar())) return absl::OkStatus();
  if (rules.require_authentication && !request.authenticated()) {
    return absl::PermissionDeniedError(absl::StrCat("require_authentication: the authenticator of ", request.ar(),
                                                    " does not vouch for mobile node ", request.mn_id(), " on ",
                                                    request.attachment().interface()));
  }
  if (!rules.allows(request.ar())) {
    std::string allowed;
    for (const auto& ar : rules.allowed->allowed_ars()) absl::StrAppend(&allowed, allowed.empty() ? "" : ", ", ar);
    return absl::PermissionDeniedError(
        absl::StrCat("allowed_ars of mobile node ", request.mn_id(), " has ", allowed, ", not ", request.ar()));
  }
  // What is served there already stays.
  if (here.draining && request.trigger() != v1::TRIGGER_RECOVERY) {
    return absl::FailedPreconditionError(
        absl::StrCat("access router ", request.ar(),
                     " is draining and takes no more mobile nodes, until kedgectl node "
                     "undrain ",
                     request.ar()));
  }
  return absl::OkStatus();
}

// Anybody on an access link can be as many new MNs as there are link-layer addresses.
std::optional<Output> Machine::refuse_new(const v1::AttachRequest& request, NodeState& here, SystemTime now) {
  // What is served already is not new, whatever a restored store has lost.
  const bool known = mobile_nodes_.contains(request.mn_id()) || policies_.find_profile(request.mn_id()) != nullptr ||
                     request.trigger() == v1::TRIGGER_RECOVERY;
  if (known || !here.new_nodes || here.new_nodes->take(now.time_since_epoch())) return std::nullopt;
  Output output;
  output.status = absl::ResourceExhaustedError(
      absl::StrCat(request.ar(), " has taken in ", settings_.new_nodes,
                   " mobile nodes of which nothing was known within ", to_seconds(settings_.new_nodes_window),
                   " s, and takes no more for now; mobility.new_nodes permits more, a profile lets this one in"));
  ++here.new_nodes_untold;
  if (here.new_nodes_alarmed_at && now < *here.new_nodes_alarmed_at + kAlarmInterval) return output;
  here.new_nodes_alarmed_at = now;
  auto& event = output.events.emplace_back();
  event.set_type(v1::EVENT_TYPE_TOO_MANY_NEW_NODES);
  event.set_mn_id(request.mn_id());
  event.set_ar(request.ar());
  *event.mutable_at() = to_proto(now);
  event.set_detail(absl::StrCat(std::exchange(here.new_nodes_untold, 0), " refused since the last alarm"));
  return output;
}

bool Machine::is_attached_at(const std::string& mn_id, const std::string& ar) const {
  const auto mn = mobile_nodes_.find(mn_id);
  return mn != mobile_nodes_.end() &&
         std::any_of(mn->second.prefixes.begin(), mn->second.prefixes.end(),
                     [&](const Ipv6Prefix& prefix) { return bindings_.at(prefix).binding.attached_ar() == ar; });
}

bool Machine::goes_along(const v1::Binding& binding, const std::string& ar, const Rules& rules) const {
  // A network is behind the MN only for as long as the profile says so.
  if (binding.mobile_network() && rules.find_fixed(binding.prefix()) == nullptr) return false;
  if (binding.home_ar() == ar) return true;
  if (binding.released()) return false;
  // RFC 8818, 4.1: a nomadic prefix ends when its MN leaves.
  Situation away;
  away.away = true;
  return make_plan(rules, binding.prefix(), away).mode != v1::MODE_NOMADIC;
}

std::vector<Ipv6Prefix> Machine::movable(const MobileNode& mn, const std::string& ar, const Rules& rules) const {
  std::vector<Ipv6Prefix> result;
  for (const auto& prefix : mn.prefixes) {
    if (goes_along(bindings_.at(prefix).binding, ar, rules)) result.push_back(prefix);
  }
  return result;
}

std::vector<FixedPrefix> Machine::missing_fixed(const Rules& rules) const {
  std::vector<FixedPrefix> result;
  for (const auto& fixed : rules.fixed) {
    const auto home = nodes_.find(fixed.home_ar);
    if (home == nodes_.end() || !home->second.pool.contains(fixed.prefix)) continue;
    if (!bindings_.contains(fixed.prefix)) result.push_back(fixed);
  }
  return result;
}

bool Machine::is_repeated(const std::vector<Ipv6Prefix>& prefixes, const v1::AttachRequest& request) const {
  return !prefixes.empty() && std::all_of(prefixes.begin(), prefixes.end(), [&](const Ipv6Prefix& prefix) {
    const auto& binding = bindings_.at(prefix).binding;
    return binding.attached_ar() == request.ar() && equal(binding.attachment(), request.attachment());
  });
}

Machine::Assignment Machine::assign(const std::string& mn_id, const std::string& ar, const Rules& rules) {
  Assignment result;
  result.fixed = missing_fixed(rules);
  // A mobile network has no address for the MN itself, so that it neither counts nor takes the place of any.
  bool has_home_here = false;
  std::size_t kept = 0;
  for (const auto& fixed : result.fixed) {
    result.keeps_any = true;
    if (fixed.mobile_network) continue;
    ++kept;
    has_home_here = has_home_here || fixed.home_ar == ar;
  }
  if (const auto mn = mobile_nodes_.find(mn_id); mn != mobile_nodes_.end()) {
    for (const auto& prefix : movable(mn->second, ar, rules)) {
      const auto& binding = bindings_.at(prefix).binding;
      result.keeps_any = true;
      if (binding.mobile_network()) continue;
      ++kept;
      has_home_here = has_home_here || binding.home_ar() == ar;
    }
  }
  if (has_home_here || kept >= rules.max_prefixes) return result;
  result.fresh = nodes_.at(ar).pool.take();
  result.exhausted = !result.fresh;
  return result;
}

Output Machine::attach(const v1::AttachRequest& request, SystemTime now) {
  NodeState* here = node(request.ar());
  auto may_count = check_attach(request);
  if (may_count.ok() && here == nullptr) return refuse(unknown_access_router(request.ar()), request, now);
  if (may_count.ok()) may_count = check_run(*here, request.incarnation());
  if (!may_count.ok()) {
    Output output;
    output.status = std::move(may_count);
    return output;
  }
  const SystemTime heard = now - *parse_age(request.age());
  const bool recovery = request.trigger() == v1::TRIGGER_RECOVERY;

  auto known = mobile_nodes_.find(request.mn_id());
  const bool creates_none = request.trigger() == v1::TRIGGER_DATA_FRAME || request.trigger() == v1::TRIGGER_REPLAY;
  if (known == mobile_nodes_.end() && creates_none) {
    Output output;
    output.status = absl::NotFoundError(
        absl::StrCat("mobile node ", request.mn_id(), " is unknown; it becomes known by a router solicitation"));
    return output;
  }
  const auto order = order_of(request.ar(), request.mn_id(), request.incarnation(), request.sequence());
  if (order == CallOrder::kStale) return refuse(overtaken(request), request, now);
  // What a repeated one brings along was taken up, or refused, the first time.
  const bool brings_along = recovery && order == CallOrder::kYounger;
  if (known != mobile_nodes_.end()) {
    if (auto s = check_younger(known->second, request.ar(), heard); !s.ok()) {
      if (auto adopted = brings_along ? adopt_elsewhere(request, now) : std::nullopt) return std::move(*adopted);
      return refuse(std::move(s), request, now);
    }
  }
  const Rules rules = policies_.resolve(request.mn_id(), request.ar());
  if (auto s = check_policy_allows(request, rules, *here); !s.ok()) return refuse(std::move(s), request, now);
  Transaction tx(*this, now);
  // An MN that keeps a prefix is not refused any more.
  if (brings_along && !adopt(tx, request, request.ar(), heard, rules).empty())
    known = mobile_nodes_.find(request.mn_id());
  if (known != mobile_nodes_.end()) {
    const auto prefixes = movable(known->second, request.ar(), rules);
    if (is_repeated(prefixes, request)) {
      known->second.take_sequence(request.ar(), request.incarnation(), request.sequence());
      known->second.heard = std::max(known->second.heard, heard);
      Output output;
      output.generation = bindings_.at(prefixes.front()).binding.generation();
      return output;
    }
  }
  // It was answered before, and things have changed since.
  if (order == CallOrder::kRepeated) return refuse(overtaken(request), request, now);

  if (auto refusal = refuse_new(request, *here, now)) return std::move(*refusal);

  // RFC 8818, 4.3: the MN keeps the prefixes that it has and, at a new AR, gets one of that AR as well.
  const Assignment assignment = assign(request.mn_id(), request.ar(), rules);
  if (assignment.exhausted && !assignment.keeps_any) {
    auto output = refuse(absl::ResourceExhaustedError(absl::StrCat(
                             "all ", here->pool.size(), " prefixes of ", request.ar(), " (", describe_pools(here->info),
                             ") are assigned or in quarantine; add a pool to it in the configuration")),
                         request, now);
    tell_exhausted(output, *here, request.mn_id(), now);
    return output;
  }

  tx.durability = Durability::kSync;
  tx.output.generation = tx.generation();
  if (assignment.exhausted) tell_exhausted(tx.output, *here, request.mn_id(), now);
  MobileNode& mn = mobile_nodes_[request.mn_id()];
  mn.take_sequence(request.ar(), request.incarnation(), request.sequence());
  mn.heard = heard;
  if (!mn.prefixes.empty() && !recovery) count_move(tx, mn, request, rules);
  tell_two_access_routers(tx, mn, request);
  bring_along(tx, mn, request, heard, rules, assignment);
  return tx.finish();
}

void Machine::bring_along(Transaction& tx, MobileNode& mn, const v1::AttachRequest& request, SystemTime heard,
                          const Rules& rules, const Assignment& assignment) {
  const auto before = mn.prefixes;
  for (const auto& prefix : before) {
    const auto& binding = bindings_.at(prefix).binding;
    if (goes_along(binding, request.ar(), rules)) {
      move(tx, tx.edit(prefix), request, heard, rules);
    } else if (!binding.released()) {
      release(tx, tx.edit(prefix), "nomadic, its mobile node has left");
    }
  }
  for (const auto& fixed : assignment.fixed) create(tx, fixed.prefix, fixed.home_ar, request, heard, rules);
  if (assignment.fresh) create(tx, *assignment.fresh, request.ar(), request, heard, rules);
}

void Machine::count_move(Transaction& tx, MobileNode& mn, const v1::AttachRequest& request, const Rules& rules) {
  if (settings_.flap_window == nanoseconds::zero()) return;
  const bool moved = std::any_of(mn.prefixes.begin(), mn.prefixes.end(), [&](const Ipv6Prefix& prefix) {
    const auto& from = bindings_.at(prefix).binding;
    const std::string& last = from.attached_ar().empty() ? from.last_ar() : from.attached_ar();
    return !last.empty() && last != request.ar() && !from.released();
  });
  if (!moved) return;
  if (mn.quiet_at && *mn.quiet_at > tx.now) {
    mn.quiet_at = tx.now + settings_.flap_window;
    return;
  }
  mn.moves.push_back(tx.now);
  std::erase_if(mn.moves, [&](SystemTime at) { return at + settings_.flap_window <= tx.now; });
  if (mn.moves.size() < settings_.flap_moves) return;
  mn.moves.clear();
  if (rules.mode != v1::MODE_RELOCATE && rules.fixed.empty()) return;
  mn.quiet_at = tx.now + settings_.flap_window;
  auto& event = tx.output.events.emplace_back();
  event.set_type(v1::EVENT_TYPE_FLAPPING);
  event.set_mn_id(request.mn_id());
  event.set_ar(request.ar());
  *event.mutable_at() = to_proto(tx.now);
  event.set_detail(absl::StrCat(settings_.flap_moves, " moves; stays in redirection until it has not moved for ",
                                std::chrono::duration_cast<std::chrono::seconds>(settings_.flap_window).count(), " s"));
}

void Machine::tell_two_access_routers(Transaction& tx, MobileNode& mn, const v1::AttachRequest& request) const {
  // RFC 4861, 6.3.7: a host solicits when it "re-attaches to a link after being detached for some time". It has really
  // come, also where the access router's carrier does not show it: behind a switch or an access point.
  if (!request.link_unchanged() || request.trigger() == v1::TRIGGER_ROUTER_SOLICITATION) return;
  const auto other = std::find_if(mn.prefixes.begin(), mn.prefixes.end(), [&](const Ipv6Prefix& prefix) {
    const auto& binding = bindings_.at(prefix).binding;
    return !is_detached(binding) && binding.attached_ar() != request.ar();
  });
  if (other == mn.prefixes.end()) return;
  if (mn.alarmed_at && tx.now < *mn.alarmed_at + kAlarmInterval) {
    ++mn.untold;
    return;
  }
  const auto& elsewhere = bindings_.at(*other).binding;
  auto since = elsewhere.arrived_at();
  since.set_nanos(0);
  const auto untold = std::exchange(mn.untold, 0);
  mn.alarmed_at = tx.now;
  auto& event = tx.output.events.emplace_back();
  event.set_type(v1::EVENT_TYPE_TWO_ACCESS_ROUTERS);
  event.set_mn_id(request.mn_id());
  event.set_ar(request.ar());
  *event.mutable_at() = to_proto(tx.now);
  event.set_detail(absl::StrCat("still at ", elsewhere.attached_ar(), ", since ",
                                google::protobuf::util::TimeUtil::ToString(since),
                                untold > 0 ? absl::StrCat("; ", untold, " more times since the last alarm") : ""));
}

void Machine::tell_exhausted(Output& output, NodeState& at, const std::string& mn_id, SystemTime now) {
  if (std::exchange(at.exhausted, true)) return;
  auto& event = output.events.emplace_back();
  event.set_type(v1::EVENT_TYPE_POOL_EXHAUSTED);
  event.set_mn_id(mn_id);
  event.set_ar(at.info.name());
  *event.mutable_at() = to_proto(now);
  event.set_detail(describe_pools(at.info));
}

void Machine::create(Transaction& tx, const Ipv6Prefix& prefix, const std::string& home_ar,
                     const v1::AttachRequest& request, SystemTime heard, const Rules& rules) {
  move(tx, introduce(tx, prefix, home_ar, request.mn_id()), request, heard, rules);
}

Machine::Entry& Machine::introduce(Transaction& tx, const Ipv6Prefix& prefix, const std::string& home_ar,
                                   const std::string& mn_id, const std::string& detail) {
  mobile_nodes_[mn_id].prefixes.push_back(prefix);
  Entry& entry = tx.edit(prefix);
  v1::Binding& binding = entry.binding;
  binding.set_prefix(prefix.to_string());
  binding.set_mn_id(mn_id);
  binding.set_home_ar(home_ar);
  *binding.mutable_created_at() = to_proto(tx.now);
  *binding.mutable_generation() = tx.generation();
  tx.event(v1::EVENT_TYPE_PREFIX_ASSIGNED, binding, home_ar, to_proto(tx.now), detail);
  return entry;
}

// What comes to an MN without its doing, by its profile, belongs to the attachment that it has: it ends with it.
v1::Generation Machine::attachment_of(const Transaction& tx, const v1::AttachRequest& request) const {
  if (request.trigger() != v1::TRIGGER_UNSPECIFIED) return tx.generation();
  for (const auto* binding : bindings_of(request.mn_id())) {
    const bool elder =
        !is_none(binding->attachment_generation()) && compare(binding->attachment_generation(), tx.generation()) < 0;
    if (binding->attached_ar() == request.ar() && elder) return binding->attachment_generation();
  }
  return tx.generation();
}

void Machine::move(Transaction& tx, Entry& entry, const v1::AttachRequest& request, SystemTime heard,
                   const Rules& rules) {
  v1::Binding& binding = entry.binding;
  // A restored store has put every attachment in doubt, not ended it.
  const bool doubted = request.trigger() == v1::TRIGGER_RECOVERY && is_detached(binding);
  const std::string from = doubted ? binding.last_ar() : binding.attached_ar();
  binding.set_attached_ar(request.ar());
  binding.clear_last_ar();
  *binding.mutable_attachment() = request.attachment();
  // Of a newer speaker, or anybody's: nobody has looked at them.
  binding.mutable_attachment()->DiscardUnknownFields();
  *binding.mutable_attached_at() = to_proto(heard);
  *binding.mutable_attachment_generation() = attachment_of(tx, request);
  if (from != request.ar()) {
    entry.moved_from = from;
    if (entry.idle) {
      entry.idle->seen_by.clear();
      entry.idle->handed_over = false;
    }
  }
  if (from != request.ar() || !binding.has_arrived_at()) *binding.mutable_arrived_at() = to_proto(heard);
  if (!is_away(binding)) {
    binding.clear_away_since();
    entry.idle.reset();
  } else if (!binding.has_away_since()) {
    *binding.mutable_away_since() = to_proto(heard);
  }
  binding.set_released(false);
  binding.clear_free_at();
  entry.grace_ends.reset();
  take_plan(binding, plan_of(binding, rules, tx.now));
  begin_generation(tx, entry);

  if (request.trigger() != v1::TRIGGER_UNSPECIFIED) {
    tx.event(v1::EVENT_TYPE_ARRIVAL_SEEN, binding, request.ar(), request.heard_at(),
             std::string(trigger_name(request.trigger())));
  }
  tx.event(v1::EVENT_TYPE_ATTACH_COMMITTED, binding, request.ar(), to_proto(tx.now),
           from.empty() ? std::string() : absl::StrCat("from ", from));
}

void Machine::begin_generation(Transaction& tx, Entry& entry) {
  v1::Binding& binding = entry.binding;
  *binding.mutable_generation() = tx.generation();
  binding.set_state(v1::BINDING_STATE_MOVING);
  enter_holder(binding, binding.home_ar());
  enter_holder(binding, binding.attached_ar());
  for (auto& holder : *binding.mutable_holders()) {
    holder.set_superseded(false);
    holder.set_releasing(false);
  }
  v1::Holder& attached = *find_holder(binding, binding.attached_ar());
  binding.set_preference(has_to_announce(binding) ? winning_preference(binding, settings_.preference_levels) : 0);
  attached.set_advertises_preference(std::max(attached.advertises_preference(), binding.preference()));
  entry.progress.clear();
  tx.durability = Durability::kSync;
}

// Detach

Output Machine::detach(const v1::DetachRequest& request, SystemTime now) {
  Output refusal;
  NodeState* from = node(request.ar());
  if (from == nullptr) {
    refusal.status = unknown_access_router(request.ar());
    return refusal;
  }
  refusal.status = check_link_layer_address("mn_id", request.mn_id());
  if (refusal.status.ok()) refusal.status = check_run(*from, request.incarnation());
  if (!refusal.status.ok()) return refusal;
  const auto age = parse_age(request.age());
  if (!age.ok()) {
    refusal.status = age.status();
    return refusal;
  }
  const auto mn = mobile_nodes_.find(request.mn_id());
  if (mn == mobile_nodes_.end()) {
    refusal.status = absl::NotFoundError(absl::StrCat("mobile node ", request.mn_id(), " is unknown"));
    return refusal;
  }
  if (order_of(request.ar(), request.mn_id(), request.incarnation(), request.sequence()) == CallOrder::kStale) {
    refusal.stale = true;
    return refusal;
  }
  mn->second.take_sequence(request.ar(), request.incarnation(), request.sequence());

  Transaction tx(*this, now);
  tx.durability = Durability::kSync;
  tx.output.stale = true;
  for (const auto& prefix : mn->second.prefixes) {
    const auto& current = bindings_.at(prefix).binding;
    if (current.attached_ar() != request.ar()) continue;
    if (!is_none(request.generation()) && !means_this_attachment(current, request.generation())) continue;
    tx.output.stale = false;
    depart(tx, tx.edit(prefix), request.reason(), now - *age);
  }
  return tx.finish();
}

Output Machine::detach_by_operator(const std::string& mn_id, SystemTime now) {
  Output refusal;
  const auto mn = mobile_nodes_.find(mn_id);
  if (mn == mobile_nodes_.end()) {
    refusal.status = absl::NotFoundError(absl::StrCat("mobile node ", mn_id, " is unknown"));
    return refusal;
  }
  Transaction tx(*this, now);
  for (const auto& prefix : mn->second.prefixes) {
    if (is_detached(bindings_.at(prefix).binding)) continue;
    depart(tx, tx.edit(prefix), v1::DETACH_REASON_OPERATOR, now);
    ++tx.output.prefixes;
  }
  if (tx.output.prefixes == 0) {
    refusal.status = absl::FailedPreconditionError(absl::StrCat("mobile node ", mn_id, " is not attached"));
    return refusal;
  }
  return tx.finish();
}

void Machine::depart(Transaction& tx, Entry& entry, v1::DetachReason reason, SystemTime at) {
  v1::Binding& binding = entry.binding;
  const std::string from = binding.attached_ar();
  *binding.mutable_generation() = tx.generation();
  *binding.mutable_attachment_generation() = tx.generation();
  binding.set_last_ar(from);
  binding.clear_attached_ar();
  clear_plan(binding);
  binding.set_state(v1::BINDING_STATE_DETACHED_GRACE);
  for (auto& holder : *binding.mutable_holders()) holder.set_superseded(false);
  entry.progress.clear();
  entry.grace_ends = end_of_grace(tx.now);
  tx.durability = Durability::kSync;
  tx.event(v1::EVENT_TYPE_DETACHED, binding, from, to_proto(at), std::string(reason_name(reason)));
  if (*entry.grace_ends <= tx.now) end(tx, entry);
}

// The end of an attachment that is not followed by another one is a generation of its own: every AR acknowledges anew
// what it holds.
void Machine::end(Transaction& tx, Entry& entry) {
  v1::Binding& binding = entry.binding;
  *binding.mutable_generation() = tx.generation();
  binding.clear_attached_ar();
  binding.set_state(v1::BINDING_STATE_DETACHED);
  *binding.mutable_attachment_generation() = tx.generation();
  clear_plan(binding);
  binding.set_preference(0);
  if (binding.prefix_type() == v1::PREFIX_TYPE_FIXED) {
    binding.clear_free_at();
  } else {
    *binding.mutable_free_at() = to_proto(tx.now + settings_.prefix_quarantine);
  }
  for (auto& holder : *binding.mutable_holders()) {
    holder.set_superseded(false);
    holder.set_releasing(holder.ar() != binding.home_ar());
  }
  entry.progress.clear();
  entry.grace_ends.reset();
  entry.idle.reset();
  tx.durability = Durability::kSync;
}

void Machine::release(Transaction& tx, Entry& entry, const std::string& why) {
  end(tx, entry);
  entry.binding.set_released(true);
  tx.event(v1::EVENT_TYPE_PREFIX_RELEASED, entry.binding, entry.binding.home_ar(), to_proto(tx.now), why);
}

}  // namespace kedge::lm
