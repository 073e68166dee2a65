#include "lm-server/core/machine.h"

#include <algorithm>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/link_layer_address.h"
#include "lm-server/core/generation.h"
#include "lm-server/core/rules.h"

namespace kedge::lm {
namespace {

using std::chrono::nanoseconds;

constexpr const char* kKeyPrefix = "binding/";
// What is due together is done in portions, so that the server stays responsive.
constexpr int kPrefixesPerTick = 256;
constexpr std::size_t kLongestInterfaceName = 15;
constexpr std::int64_t kOldestAgeSeconds = 366LL * 24 * 3600;

absl::StatusOr<nanoseconds> parse_age(const google::protobuf::Duration& age) {
  if (age.seconds() < 0 || age.nanos() < 0 || age.nanos() > 999'999'999 || age.seconds() > kOldestAgeSeconds) {
    return absl::InvalidArgumentError("age: must be 0 s to 366 days");
  }
  return kedge::from_proto(age);
}

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

absl::Status check_attach(const v1::AttachRequest& request) {
  if (auto s = check_link_layer_address("mn_id", request.mn_id()); !s.ok()) return s;
  if (auto s = check_attachment(request.attachment()); !s.ok()) return s;
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
    default:
      return "unknown";
  }
}

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

std::string detail_of(const v1::Ack& ack) {
  switch (ack.stage()) {
    case v1::STAGE_REDIRECTING:
      return absl::StrCat("to ", ack.redirects_to());
    case v1::STAGE_ADVERTISED:
    case v1::STAGE_SUPERSEDED:
      return absl::StrCat("level ", ack.preference());
    default:
      return {};
  }
}

// Whether an AR that is no holder holds something nevertheless.
bool shows_leftover(v1::Stage stage) {
  return stage == v1::STAGE_DELIVERING || stage == v1::STAGE_REDIRECTING || stage == v1::STAGE_UNREACHABLE ||
         stage == v1::STAGE_ADVERTISED;
}

std::shared_ptr<const v1::LmMessage> record_message(const v1::Binding& binding) {
  auto message = std::make_shared<v1::LmMessage>();
  *message->mutable_record()->mutable_binding() = binding;
  return message;
}

std::shared_ptr<const v1::LmMessage> forget_message(const std::string& prefix, const v1::Generation& revision) {
  auto message = std::make_shared<v1::LmMessage>();
  auto& forget = *message->mutable_record()->mutable_forget();
  forget.set_prefix(prefix);
  *forget.mutable_revision() = revision;
  return message;
}

void clear_forwarding(v1::Holder& holder) {
  holder.set_delivers(false);
  holder.clear_redirects_to();
  holder.set_unreachable(false);
}

}  // namespace

// Changes of one command. The revision that they share is used up only when anything did change.
class Machine::Transaction {
 public:
  Transaction(Machine& machine, SystemTime time) : now(time), machine_(machine) {}

  Entry& edit(const Ipv6Prefix& prefix) {
    auto [it, fresh] = machine_.bindings_.try_emplace(prefix);
    if (touched_.find(prefix) == touched_.end()) {
      touched_.emplace(prefix, fresh ? std::nullopt : std::optional(it->second.binding));
    }
    return it->second;
  }

  // Of this change.
  v1::Generation generation() const { return make_generation(machine_.epoch_, machine_.revision_ + 1); }

  void event(v1::EventType type, const v1::Binding& binding, const std::string& ar,
             const google::protobuf::Timestamp& at, std::string detail = {}) {
    auto& event = output.events.emplace_back();
    event.set_type(type);
    event.set_prefix(binding.prefix());
    event.set_mn_id(binding.mn_id());
    event.set_ar(ar);
    *event.mutable_generation() = binding.generation();
    *event.mutable_at() = at.seconds() == 0 ? to_proto(now) : at;
    event.set_detail(std::move(detail));
  }

  Output finish() {
    Commit commit{machine_.revision_, machine_.revision_ + 1, durability, {}};
    const v1::Generation revision = generation();
    for (auto& [prefix, before] : touched_) {
      Entry& entry = machine_.bindings_.at(prefix);
      machine_.advance(*this, entry);
      v1::Binding& after = entry.binding;
      if (before && before->SerializeAsString() == after.SerializeAsString()) continue;
      *after.mutable_revision() = revision;
      *after.mutable_updated_at() = to_proto(now);
      if (before) machine_.index(prefix, *before, -1);
      machine_.index(prefix, after, +1);
      commit.writes.push_back({key_of(prefix), after.SerializeAsString()});
      tell_holders(before, after);
    }
    mark_more();
    if (!commit.writes.empty()) {
      commit.durability = durability;
      machine_.revision_ = commit.revision;
      output.commit = std::move(commit);
    }
    return std::move(output);
  }

  const SystemTime now;
  Durability durability = Durability::kLazy;
  Output output;

 private:
  void tell_holders(const std::optional<v1::Binding>& before, const v1::Binding& after) {
    const auto record = record_message(after);
    for (const auto& holder : after.holders()) machine_.send(output, machine_.nodes_.at(holder.ar()), record);
    if (!before) return;
    for (const auto& holder : before->holders()) {
      if (find_holder(after, holder.ar()) != nullptr) continue;
      machine_.send(output, machine_.nodes_.at(holder.ar()), forget_message(after.prefix(), after.revision()));
    }
  }

  // Each session learns which of the records is the last of this change.
  void mark_more() {
    std::set<std::uint64_t> seen;
    std::map<const v1::LmMessage*, std::shared_ptr<const v1::LmMessage>> marked;
    for (auto message = output.messages.rbegin(); message != output.messages.rend(); ++message) {
      if (!message->content->has_record() || seen.insert(message->session).second) continue;
      auto& copy = marked[message->content.get()];
      if (copy == nullptr) {
        auto with_more = std::make_shared<v1::LmMessage>(*message->content);
        with_more->mutable_record()->set_more(true);
        copy = std::move(with_more);
      }
      message->content = copy;
    }
  }

  Machine& machine_;
  std::map<Ipv6Prefix, std::optional<v1::Binding>> touched_;
};

Machine::Machine(Settings settings, std::uint64_t epoch) : settings_(std::move(settings)), epoch_(epoch) {
  for (const auto& ar : settings_.access_routers) nodes_.emplace(ar.info.name(), NodeState(ar));
}

std::string Machine::key_of(const Ipv6Prefix& prefix) { return absl::StrCat(kKeyPrefix, prefix.to_string()); }

// Attach

absl::Status Machine::check_sequence(const std::string& ar, const std::string& mn_id, std::uint64_t incarnation,
                                     std::uint64_t sequence) {
  const auto mn = mobile_nodes_.find(mn_id);
  if (mn == mobile_nodes_.end()) return absl::OkStatus();
  auto& last = mn->second.sequences[ar];
  if (last.incarnation == incarnation && sequence < last.sequence) {
    return absl::FailedPreconditionError(absl::StrCat("stale: ", ar, " has sent sequence ", last.sequence, " for ",
                                                      mn_id, " already, this is ", sequence));
  }
  last = {incarnation, sequence};
  return absl::OkStatus();
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

std::vector<Ipv6Prefix> Machine::movable(const MobileNode& mn, const std::string& ar) const {
  if (settings_.mode != v1::MODE_NOMADIC) return mn.prefixes;
  std::vector<Ipv6Prefix> at_home;
  for (const auto& prefix : mn.prefixes) {
    if (bindings_.at(prefix).binding.home_ar() == ar) at_home.push_back(prefix);
  }
  return at_home;
}

bool Machine::wants_new_prefix(const MobileNode& mn, const std::string& ar) const {
  const bool has_home_here = std::any_of(mn.prefixes.begin(), mn.prefixes.end(), [&](const Ipv6Prefix& prefix) {
    return bindings_.at(prefix).binding.home_ar() == ar;
  });
  if (has_home_here) return false;
  // Nomadic prefixes end with the attachment, so that the cap on those in use is never reached.
  return settings_.mode == v1::MODE_NOMADIC || mn.prefixes.size() < settings_.max_prefixes_per_mn;
}

bool Machine::is_repeated(const std::vector<Ipv6Prefix>& prefixes, const v1::AttachRequest& request) const {
  return !prefixes.empty() && std::all_of(prefixes.begin(), prefixes.end(), [&](const Ipv6Prefix& prefix) {
    const auto& binding = bindings_.at(prefix).binding;
    return binding.attached_ar() == request.ar() && equal(binding.attachment(), request.attachment());
  });
}

Output Machine::attach(const v1::AttachRequest& request, SystemTime now) {
  NodeState* here = node(request.ar());
  if (here == nullptr) return refuse(unknown_access_router(request.ar()), request, now);
  if (auto s = check_attach(request); !s.ok()) {
    Output output;
    output.status = std::move(s);
    return output;
  }
  const SystemTime heard = now - *parse_age(request.age());

  const auto known = mobile_nodes_.find(request.mn_id());
  const bool creates_none = request.trigger() == v1::TRIGGER_DATA_FRAME || request.trigger() == v1::TRIGGER_REPLAY;
  if (known == mobile_nodes_.end() && creates_none) {
    Output output;
    output.status = absl::NotFoundError(
        absl::StrCat("mobile node ", request.mn_id(), " is unknown; it becomes known by a router solicitation"));
    return output;
  }
  if (auto s = check_sequence(request.ar(), request.mn_id(), request.incarnation(), request.sequence()); !s.ok()) {
    return refuse(std::move(s), request, now);
  }
  if (known != mobile_nodes_.end()) {
    if (auto s = check_younger(known->second, request.ar(), heard); !s.ok()) return refuse(std::move(s), request, now);
    const auto prefixes = movable(known->second, request.ar());
    if (is_repeated(prefixes, request)) {
      known->second.heard = std::max(known->second.heard, heard);
      Output output;
      output.generation = bindings_.at(prefixes.front()).binding.generation();
      return output;
    }
  }

  // RFC 8818, 4.3: the MN keeps the prefixes that it has and, at a new AR, gets one of that AR as well.
  std::optional<Ipv6Prefix> assigned;
  if (known == mobile_nodes_.end() || wants_new_prefix(known->second, request.ar())) {
    assigned = here->pool.take();
    if (!assigned && (known == mobile_nodes_.end() || movable(known->second, request.ar()).empty())) {
      return refuse(absl::ResourceExhaustedError(absl::StrCat(
                        "all ", here->pool.size(), " prefixes of ", request.ar(), " are assigned; add a pool to ",
                        absl::StrCat(here->info.pools_size() > 0 ? here->info.pools(0) : std::string()),
                        here->info.pools_size() > 1 ? " and the others" : "", " in the configuration")),
                    request, now);
    }
  }

  MobileNode& mn = mobile_nodes_[request.mn_id()];
  if (known == mobile_nodes_.end()) mn.sequences[request.ar()] = {request.incarnation(), request.sequence()};
  mn.heard = heard;

  Transaction tx(*this, now);
  tx.durability = Durability::kSync;
  tx.output.generation = tx.generation();
  const auto moving = movable(mn, request.ar());
  if (settings_.mode == v1::MODE_NOMADIC) {
    // RFC 8818, 4.1: a nomadic prefix ends when its MN leaves.
    for (const auto& prefix : mn.prefixes) {
      const auto& binding = bindings_.at(prefix).binding;
      if (binding.home_ar() != request.ar() && binding.state() != v1::BINDING_STATE_DETACHED) end(tx, tx.edit(prefix));
    }
  }
  for (const auto& prefix : moving) move(tx, tx.edit(prefix), request, heard);
  if (assigned) {
    mn.prefixes.push_back(*assigned);
    create(tx, *assigned, request, heard);
  }
  return tx.finish();
}

void Machine::create(Transaction& tx, const Ipv6Prefix& prefix, const v1::AttachRequest& request, SystemTime heard) {
  Entry& entry = tx.edit(prefix);
  v1::Binding& binding = entry.binding;
  binding.set_prefix(prefix.to_string());
  binding.set_mn_id(request.mn_id());
  binding.set_home_ar(request.ar());
  binding.set_prefix_type(settings_.mode == v1::MODE_NOMADIC ? v1::PREFIX_TYPE_NON_PERSISTENT
                                                             : v1::PREFIX_TYPE_SESSION_LASTING);
  *binding.mutable_created_at() = to_proto(tx.now);
  *binding.mutable_generation() = tx.generation();
  tx.event(v1::EVENT_TYPE_PREFIX_ASSIGNED, binding, request.ar(), to_proto(tx.now));
  move(tx, entry, request, heard);
}

void Machine::move(Transaction& tx, Entry& entry, const v1::AttachRequest& request, SystemTime heard) {
  v1::Binding& binding = entry.binding;
  const std::string from = binding.attached_ar();
  binding.set_mode(settings_.mode);
  *binding.mutable_generation() = tx.generation();
  binding.set_attached_ar(request.ar());
  *binding.mutable_attachment() = request.attachment();
  *binding.mutable_attached_at() = to_proto(heard);
  binding.set_state(v1::BINDING_STATE_MOVING);
  enter_holder(binding, binding.home_ar());
  v1::Holder& attached = enter_holder(binding, request.ar());
  for (auto& holder : *binding.mutable_holders()) {
    holder.set_superseded(false);
    holder.set_releasing(false);
  }
  binding.set_preference(winning_preference(binding, settings_.preference_levels));
  attached.set_advertises_preference(std::max(attached.advertises_preference(), binding.preference()));
  entry.progress.clear();
  entry.grace_ends.reset();

  tx.event(v1::EVENT_TYPE_ARRIVAL_SEEN, binding, request.ar(), request.heard_at(),
           std::string(trigger_name(request.trigger())));
  tx.event(v1::EVENT_TYPE_ATTACH_COMMITTED, binding, request.ar(), to_proto(tx.now),
           from.empty() ? std::string() : absl::StrCat("from ", from));
}

// Detach

Output Machine::detach(const v1::DetachRequest& request, SystemTime now) {
  Output refusal;
  if (node(request.ar()) == nullptr) {
    refusal.status = unknown_access_router(request.ar());
    return refusal;
  }
  if (auto s = check_link_layer_address("mn_id", request.mn_id()); !s.ok()) {
    refusal.status = std::move(s);
    return refusal;
  }
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
  if (!check_sequence(request.ar(), request.mn_id(), request.incarnation(), request.sequence()).ok()) {
    refusal.stale = true;
    return refusal;
  }

  Transaction tx(*this, now);
  tx.durability = Durability::kSync;
  tx.output.stale = true;
  for (const auto& prefix : mn->second.prefixes) {
    const auto& current = bindings_.at(prefix).binding;
    if (current.attached_ar() != request.ar()) continue;
    if (!is_none(request.generation()) && !same(request.generation(), current.generation())) continue;
    tx.output.stale = false;
    Entry& entry = tx.edit(prefix);
    v1::Binding& binding = entry.binding;
    *binding.mutable_generation() = tx.generation();
    binding.clear_attached_ar();
    binding.set_state(v1::BINDING_STATE_DETACHED_GRACE);
    for (auto& holder : *binding.mutable_holders()) holder.set_superseded(false);
    entry.progress.clear();
    entry.grace_ends = now + settings_.detach_grace;
    tx.event(v1::EVENT_TYPE_DETACHED, binding, request.ar(), to_proto(now - *age),
             std::string(reason_name(request.reason())));
    if (settings_.detach_grace == nanoseconds::zero()) end(tx, entry);
  }
  return tx.finish();
}

// The end of an attachment that is not followed by another one is a generation of its own: every AR acknowledges anew
// what it holds.
void Machine::end(Transaction& tx, Entry& entry) {
  v1::Binding& binding = entry.binding;
  *binding.mutable_generation() = tx.generation();
  binding.clear_attached_ar();
  binding.set_state(v1::BINDING_STATE_DETACHED);
  binding.set_preference(0);
  for (auto& holder : *binding.mutable_holders()) {
    holder.set_superseded(false);
    holder.set_releasing(holder.ar() != binding.home_ar());
  }
  entry.progress.clear();
  entry.grace_ends.reset();
  tx.durability = Durability::kSync;
}

// Sessions

Output Machine::session_up(const v1::Hello& hello, std::uint64_t session, SystemTime now) {
  Output output;
  NodeState* up = node(hello.ar());
  if (up == nullptr) {
    output.status = unknown_access_router(hello.ar());
    return output;
  }
  if (up->session != 0) {
    output.replaced_session = up->session;
    sessions_.erase(up->session);
  }
  up->session = session;
  up->since = now;
  up->version = hello.version();
  up->health.Clear();
  sessions_[session] = hello.ar();

  auto welcome = std::make_shared<v1::LmMessage>();
  *welcome->mutable_welcome()->mutable_self() = up->info;
  for (const auto& [name, other] : nodes_) *welcome->mutable_welcome()->add_nodes() = other.info;
  *welcome->mutable_welcome()->mutable_revision() = revision();
  welcome->mutable_welcome()->set_preference_levels(settings_.preference_levels);
  send(output, *up, std::move(welcome));
  for (const auto& prefix : up->held) send(output, *up, record_message(bindings_.at(prefix).binding));
  auto end_of_snapshot = std::make_shared<v1::LmMessage>();
  *end_of_snapshot->mutable_snapshot_end()->mutable_revision() = revision();
  send(output, *up, std::move(end_of_snapshot));

  auto& event = output.events.emplace_back();
  event.set_type(v1::EVENT_TYPE_NODE_CONNECTED);
  event.set_ar(hello.ar());
  *event.mutable_at() = to_proto(now);
  event.set_detail(hello.version());
  return output;
}

Output Machine::session_down(std::uint64_t session, SystemTime now) {
  Output output;
  NodeState* down = node_of_session(session);
  if (down == nullptr) return output;
  down->session = 0;
  down->since = now;
  sessions_.erase(session);
  auto& event = output.events.emplace_back();
  event.set_type(v1::EVENT_TYPE_NODE_DISCONNECTED);
  event.set_ar(down->info.name());
  *event.mutable_at() = to_proto(now);
  return output;
}

void Machine::health(std::uint64_t session, const v1::SpeakerHealth& health) {
  if (NodeState* from = node_of_session(session)) from->health = health;
}

// Acknowledgements

Output Machine::ack(std::uint64_t session, const v1::Ack& ack, SystemTime now) {
  Output output;
  NodeState* from = node_of_session(session);
  if (from == nullptr) return output;
  const auto prefix = Ipv6Prefix::parse(ack.prefix());
  if (!prefix.ok()) {
    output.status = prefix.status();
    return output;
  }
  const auto found = bindings_.find(*prefix);
  const std::string& ar = from->info.name();
  if (found == bindings_.end() || find_holder(found->second.binding, ar) == nullptr) {
    if (shows_leftover(ack.stage())) send(output, *from, forget_message(ack.prefix(), revision()));
    return output;
  }
  if (ack.stage() == v1::STAGE_REDIRECTING && node(ack.redirects_to()) == nullptr) {
    output.status = unknown_access_router(ack.redirects_to());
    return output;
  }
  Transaction tx(*this, now);
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
  if (progress.seen.emplace(ack.stage(), detail_of(ack)).second) {
    tx.event(*event_of(ack.stage()), binding, ar, ack.at(), detail_of(ack));
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

// Time

Output Machine::tick(SystemTime now) {
  Transaction tx(*this, now);
  for (int i = 0; i < kPrefixesPerTick && !timers_.empty() && timers_.begin()->first <= now; ++i) {
    const Ipv6Prefix prefix = timers_.begin()->second;
    Entry& entry = tx.edit(prefix);
    set_timer(prefix, entry, std::nullopt);
    if (entry.grace_ends && *entry.grace_ends <= now) end(tx, entry);
  }
  return tx.finish();
}

std::optional<SystemTime> Machine::next_deadline() const {
  if (timers_.empty()) return std::nullopt;
  return timers_.begin()->first;
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
  std::optional<SystemTime> due = entry.grace_ends;
  for (const auto& [ar, progress] : entry.progress) {
    if (!progress.releasable_since) continue;
    const SystemTime release = *progress.releasable_since + settings_.redirect_hold;
    if (!due || release < *due) due = release;
  }
  set_timer(*Ipv6Prefix::parse(binding.prefix()), entry, due);
}

void Machine::settle_preference(Transaction& tx, Entry& entry) {
  v1::Binding& binding = entry.binding;
  if (binding.mode() != v1::MODE_RELOCATE) return;
  v1::Holder& attached = *find_holder(binding, binding.attached_ar());
  const std::uint32_t others = highest_other_preference(binding, attached.ar());
  const std::uint32_t levels = settings_.preference_levels;
  std::uint32_t preference = binding.preference();

  if (preference == 0) {
    const bool nobody_announces = others == 0 && attached.advertises_preference() == 0;
    if (is_away(binding) && nobody_announces) preference = 1;
  } else if (others >= preference) {
    preference = others < levels ? others + 1 : 0;
  } else {
    // RFC 8818, 4.3: "the old anchor withdraws the /64 and the new anchor injects it". What is left to announce is as
    // little as possible: nothing at home, the lowest level elsewhere, so that the levels last.
    const bool others_are_done = std::none_of(binding.holders().begin(), binding.holders().end(), [&](const auto& h) {
      return h.ar() != attached.ar() && h.advertises_preference() > 0 && node(h.ar())->session != 0;
    });
    if (others_are_done) preference = std::min(preference, !is_away(binding) && others == 0 ? 0 : others + 1);
  }
  if (preference == binding.preference()) return;
  if (preference == 0 || preference > binding.preference()) {
    if (is_away(binding)) {
      for (auto& holder : *binding.mutable_holders()) holder.set_superseded(false);
    }
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

void Machine::set_timer(const Ipv6Prefix& prefix, Entry& entry, std::optional<SystemTime> at) {
  if (entry.timer == at) return;
  if (entry.timer) timers_.erase({*entry.timer, prefix});
  if (at) timers_.emplace(*at, prefix);
  entry.timer = at;
}

// Bookkeeping

void Machine::index(const Ipv6Prefix& prefix, const v1::Binding& binding, int sign) {
  const auto count = static_cast<std::uint64_t>(sign);
  for (const auto& holder : binding.holders()) {
    auto& held = nodes_.at(holder.ar()).held;
    if (sign > 0) {
      held.insert(prefix);
    } else {
      held.erase(prefix);
    }
  }
  nodes_.at(binding.home_ar()).home += count;
  if (!is_detached(binding)) {
    nodes_.at(binding.attached_ar()).attached += count;
    attached_count_ += count;
  }
  if (binding.state() == v1::BINDING_STATE_MOVING) moving_count_ += count;
}

Machine::NodeState* Machine::node(const std::string& name) {
  const auto it = nodes_.find(name);
  return it == nodes_.end() ? nullptr : &it->second;
}

Machine::NodeState* Machine::node_of_session(std::uint64_t session) {
  const auto it = sessions_.find(session);
  return it == sessions_.end() ? nullptr : node(it->second);
}

Output Machine::refuse(absl::Status status, const v1::AttachRequest& request, SystemTime now) {
  Output output;
  auto& event = output.events.emplace_back();
  event.set_type(v1::EVENT_TYPE_ATTACH_REFUSED);
  event.set_mn_id(request.mn_id());
  event.set_ar(request.ar());
  *event.mutable_at() = request.heard_at().seconds() == 0 ? to_proto(now) : request.heard_at();
  event.set_detail(std::string(status.message()));
  output.status = std::move(status);
  return output;
}

absl::Status Machine::unknown_access_router(const std::string& name) const {
  return absl::NotFoundError(
      absl::StrCat("access router \"", name, "\" is unknown; the LM's configuration has ", known_access_routers()));
}

void Machine::send(Output& output, const NodeState& to, std::shared_ptr<const v1::LmMessage> message) const {
  if (to.session != 0) output.messages.push_back({to.session, std::move(message)});
}

// Reading

v1::Generation Machine::revision() const { return make_generation(epoch_, revision_); }

const v1::Binding* Machine::find(const Ipv6Prefix& prefix) const {
  if (prefix.length() < 64) return nullptr;
  const auto it = bindings_.find(Ipv6Prefix(prefix.address(), 64));
  return it == bindings_.end() ? nullptr : &it->second.binding;
}

std::vector<const v1::Binding*> Machine::bindings_of(const std::string& mn_id) const {
  std::vector<const v1::Binding*> result;
  const auto mn = mobile_nodes_.find(mn_id);
  if (mn == mobile_nodes_.end()) return result;
  for (const auto& prefix : mn->second.prefixes) result.push_back(&bindings_.at(prefix).binding);
  return result;
}

void Machine::visit_bindings(const std::optional<Ipv6Prefix>& after,
                             const std::function<bool(const v1::Binding&)>& visit) const {
  for (auto it = after ? bindings_.upper_bound(*after) : bindings_.begin(); it != bindings_.end(); ++it) {
    if (!visit(it->second.binding)) return;
  }
}

std::vector<v1::Node> Machine::nodes() const {
  std::vector<v1::Node> result;
  for (const auto& [name, state] : nodes_) {
    auto& node = result.emplace_back();
    *node.mutable_info() = state.info;
    node.set_connected(state.session != 0);
    if (state.since) *node.mutable_since() = to_proto(*state.since);
    *node.mutable_health() = state.health;
    node.set_version(state.version);
    node.set_attached(state.attached);
    node.set_home(state.home);
    node.set_held(state.held.size());
    node.set_pool_size(state.pool.size());
    node.set_pool_used(state.pool.used());
  }
  return result;
}

std::uint32_t Machine::connected_count() const { return static_cast<std::uint32_t>(sessions_.size()); }

std::string Machine::known_access_routers() const {
  std::string text;
  for (const auto& [name, state] : nodes_) absl::StrAppend(&text, text.empty() ? "" : ", ", name);
  return text;
}

// Recovery

absl::StatusOr<Output> Machine::load(std::uint64_t epoch, std::uint64_t revision,
                                     const std::map<std::string, std::string>& values, SystemTime now,
                                     std::vector<std::string>* dropped) {
  bindings_.clear();
  mobile_nodes_.clear();
  nodes_.clear();
  sessions_.clear();
  timers_.clear();
  attached_count_ = 0;
  moving_count_ = 0;
  epoch_ = epoch;
  revision_ = revision;
  for (const auto& ar : settings_.access_routers) nodes_.emplace(ar.info.name(), NodeState(ar));

  Commit commit{revision, revision + 1, Durability::kSync, {}};
  std::map<std::string, std::pair<SystemTime, Ipv6Prefix>> youngest;
  for (const auto& [key, value] : values) {
    if (!absl::StartsWith(key, kKeyPrefix)) continue;
    Entry entry;
    v1::Binding& binding = entry.binding;
    auto prefix = binding.ParseFromString(value) ? Ipv6Prefix::parse(binding.prefix())
                                                 : absl::StatusOr<Ipv6Prefix>(absl::DataLossError(""));
    if (!prefix.ok() || key != key_of(*prefix)) {
      return absl::DataLossError(absl::StrCat("the store's value of ", key, " is no binding; restore a backup"));
    }
    NodeState* home = node(binding.home_ar());
    if (home == nullptr || !home->pool.claim(*prefix)) {
      if (dropped != nullptr) {
        dropped->push_back(absl::StrCat(binding.prefix(), " of ", binding.mn_id(), ": no pool of access router \"",
                                        binding.home_ar(), "\" covers it any more"));
      }
      commit.writes.push_back({key, std::nullopt});
      continue;
    }
    std::string lost;
    if (recover(entry, &lost) > 0) {
      *binding.mutable_revision() = make_generation(epoch, commit.revision);
      if (binding.state() == v1::BINDING_STATE_DETACHED_GRACE) *binding.mutable_generation() = binding.revision();
      commit.writes.push_back({key, binding.SerializeAsString()});
      if (dropped != nullptr) dropped->push_back(std::move(lost));
    }
    // A clock that was set back must not make every attachment to come look stale.
    const SystemTime attached_at = std::min(from_proto(binding.attached_at()), now);
    if (binding.state() == v1::BINDING_STATE_DETACHED_GRACE) entry.grace_ends = now + settings_.detach_grace;
    auto& mn = mobile_nodes_[binding.mn_id()];
    mn.prefixes.push_back(*prefix);
    mn.heard = std::max(mn.heard, attached_at);
    auto& last = youngest[binding.home_ar()];
    last = std::max(last, {from_proto(binding.created_at()), *prefix});
    index(*prefix, binding, +1);
    bindings_.emplace(*prefix, std::move(entry));
  }
  for (const auto& [ar, last] : youngest) node(ar)->pool.continue_behind(last.second);
  for (auto& [prefix, entry] : bindings_) {
    // Done at once: what is due by the record alone waits for no acknowledgement.
    if (entry.grace_ends || entry.binding.state() == v1::BINDING_STATE_MOVING) set_timer(prefix, entry, now);
  }

  Output output;
  if (!commit.writes.empty()) {
    revision_ = commit.revision;
    output.commit = std::move(commit);
  }
  return output;
}

std::uint64_t Machine::recover(Entry& entry, std::string* dropped) {
  v1::Binding& binding = entry.binding;
  std::vector<std::string> unknown;
  for (const auto& holder : binding.holders()) {
    if (node(holder.ar()) == nullptr) unknown.push_back(holder.ar());
  }
  for (const auto& ar : unknown) remove_holder(binding, ar);
  if (!is_detached(binding) && node(binding.attached_ar()) == nullptr) {
    binding.clear_attached_ar();
    binding.set_state(v1::BINDING_STATE_DETACHED_GRACE);
  }
  if (!unknown.empty()) {
    *dropped = absl::StrCat(binding.prefix(), " of ", binding.mn_id(), ": access router \"", unknown.front(),
                            "\" is not in the configuration any more");
  }
  return unknown.size();
}

}  // namespace kedge::lm
