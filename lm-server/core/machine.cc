#include "lm-server/core/machine.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "common/text.h"
#include "lm-server/core/machine_transaction.h"

namespace kedge::lm {
namespace {

// What is due together is done in portions, so that the server stays responsive.
constexpr int kPrefixesPerTick = 256;
// Of one part of a speaker, in bytes.
constexpr std::size_t kLongestHealth = 1000;

void sooner(std::optional<SystemTime>& due, SystemTime at) {
  if (!due || at < *due) due = at;
}

}  // namespace

v1::LmMessage parsed(const Message& message) {
  if (message.content != nullptr) return *message.content;
  v1::LmMessage whole;
  whole.mutable_record()->ParseFromString(*message.record);
  return whole;
}

Machine::Machine(Settings settings, std::uint64_t epoch)
    : settings_(std::move(settings)), policies_(settings_), epoch_(epoch) {
  for (const auto& ar : settings_.access_routers) nodes_.emplace(ar.info.name(), NodeState(ar, settings_));
}

Machine::NodeState::NodeState(const AccessRouter& ar, const Settings& settings) : info(ar.info), pool(ar.pools) {
  if (settings.new_nodes_window <= settings.new_nodes_window.zero()) return;
  const double window = std::chrono::duration<double>(settings.new_nodes_window).count();
  new_nodes.emplace(settings.new_nodes, settings.new_nodes / window);
}

std::string Machine::key_of(const Ipv6Prefix& prefix) { return absl::StrCat(kBindingPrefix, prefix.to_string()); }

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
  up->incarnation = hello.incarnation();
  up->since = now;
  up->version = shortened(hello.version());
  up->health.Clear();
  sessions_[session] = hello.ar();

  auto welcome = std::make_shared<v1::LmMessage>();
  *welcome->mutable_welcome()->mutable_self() = up->info;
  for (const auto& [name, other] : nodes_) *welcome->mutable_welcome()->add_nodes() = other.info;
  *welcome->mutable_welcome()->mutable_revision() = revision();
  welcome->mutable_welcome()->set_preference_levels(settings_.preference_levels);
  welcome->mutable_welcome()->set_takes_acks(true);
  if (settings_.idle_after > settings_.idle_after.zero()) {
    *welcome->mutable_welcome()->mutable_idle_after() = kedge::to_proto(settings_.idle_after);
  }
  send(output, *up, std::move(welcome));
  for (const auto& prefix : up->held) {
    send_record(output, *up, record_of(bindings_.copy(prefix).SerializeAsString()));
  }
  auto end_of_snapshot = std::make_shared<v1::LmMessage>();
  *end_of_snapshot->mutable_snapshot_end()->mutable_revision() = revision();
  send(output, *up, std::move(end_of_snapshot));

  auto& event = output.events.emplace_back();
  event.set_type(v1::EVENT_TYPE_NODE_CONNECTED);
  event.set_ar(hello.ar());
  *event.mutable_at() = to_proto(now);
  event.set_detail(up->version);
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
  NodeState* from = node_of_session(session);
  if (from == nullptr) return;
  from->health.set_kernel(shortened(health.kernel(), kLongestHealth));
  from->health.set_frr(shortened(health.frr(), kLongestHealth));
  from->health.set_access(shortened(health.access(), kLongestHealth));
  from->health.set_frr_version(shortened(health.frr_version()));
}

// Time

Output Machine::tick(SystemTime now) {
  Transaction tx(*this, now);
  for (int i = 0; i < kPrefixesPerTick && !timers_.empty() && timers_.begin()->first <= now; ++i) {
    const Ipv6Prefix prefix = timers_.begin()->second;
    Entry& entry = tx.edit(prefix);
    set_timer(prefix, entry, std::nullopt);
    run_timer(tx, entry);
  }
  return tx.finish();
}

void Machine::run_timer(Transaction& tx, Entry& entry) {
  v1::Binding& binding = entry.binding;
  const auto is_due = [&](bool has, const google::protobuf::Timestamp& at) { return has && from_proto(at) <= tx.now; };
  if (entry.grace_ends && *entry.grace_ends <= tx.now) return end(tx, entry);
  if (is_detached(binding)) {
    // RFC 4862, 5.5.3: no host has a valid address from the prefix any more.
    if (binding.state() == v1::BINDING_STATE_DETACHED && is_due(binding.has_free_at(), binding.free_at())) {
      for (auto& holder : *binding.mutable_holders()) holder.set_releasing(true);
    }
    return;
  }
  if (is_due(binding.has_ends_at(), binding.ends_at())) return release(tx, entry, "replacement time is over");
  if (is_due(binding.has_relocate_at(), binding.relocate_at())) {
    replan(tx, entry, policies_.resolve(binding.mn_id(), binding.attached_ar()));
  }
}

std::optional<SystemTime> Machine::next_deadline() const {
  if (timers_.empty()) return std::nullopt;
  return timers_.begin()->first;
}

std::optional<SystemTime> Machine::due_of(const Entry& entry) const {
  std::optional<SystemTime> due = due_by_record(entry.binding, entry.grace_ends);
  for (const auto& [ar, progress] : entry.progress) {
    if (progress.releasable_since) sooner(due, *progress.releasable_since + settings_.redirect_hold);
  }
  return due;
}

std::optional<SystemTime> Machine::due_by_record(const v1::Binding& binding, std::optional<SystemTime> grace_ends) {
  std::optional<SystemTime> due = grace_ends;
  if (!is_detached(binding)) {
    if (binding.has_relocate_at()) sooner(due, from_proto(binding.relocate_at()));
    if (binding.has_ends_at()) sooner(due, from_proto(binding.ends_at()));
  } else if (binding.state() == v1::BINDING_STATE_DETACHED && binding.has_free_at()) {
    const auto* home = find_holder(binding, binding.home_ar());
    if (home != nullptr && !home->releasing()) sooner(due, from_proto(binding.free_at()));
  }
  return due;
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
    auto& held = node(holder.ar())->held;
    if (sign > 0) {
      // Nearly always in order when a store is loaded.
      held.insert(held.end(), prefix);
    } else {
      held.erase(prefix);
    }
  }
  node(binding.home_ar())->home += count;
  if (!is_detached(binding)) {
    node(binding.attached_ar())->attached += count;
    attached_count_ += count;
  }
  if (binding.state() == v1::BINDING_STATE_MOVING) moving_count_ += count;
}

Machine::NodeState* Machine::node(const std::string& name) {
  // Most often a binding is of one AR only, and so are those that are loaded one after the other.
  if (last_node_ != nullptr && last_node_->info.name() == name) return last_node_;
  const auto it = nodes_.find(name);
  if (it == nodes_.end()) return nullptr;
  last_node_ = &it->second;
  return last_node_;
}

Machine::NodeState* Machine::node_of_session(std::uint64_t session) {
  const auto it = sessions_.find(session);
  return it == sessions_.end() ? nullptr : node(it->second);
}

const Machine::MobileNode::Sequence* Machine::MobileNode::sequence_at(const std::string& ar) const {
  const auto found = std::find_if(sequences.begin(), sequences.end(), [&](const auto& last) { return last.ar == ar; });
  return found == sequences.end() ? nullptr : &*found;
}

void Machine::MobileNode::take_sequence(const std::string& ar, std::uint64_t incarnation, std::uint64_t sequence) {
  std::erase_if(sequences, [&](const auto& last) { return last.ar == ar; });
  sequences.push_back({ar, incarnation, sequence});
}

void Machine::forget(const Ipv6Prefix& prefix, Entry& entry) {
  set_timer(prefix, entry, std::nullopt);
  NodeState& home = nodes_.at(entry.binding.home_ar());
  if (!policies_.owner_of(prefix)) {
    home.pool.give_back(prefix);
    home.exhausted = false;
  }
  const auto mn = mobile_nodes_.find(entry.binding.mn_id());
  std::erase(mn->second.prefixes, prefix);
  if (mn->second.prefixes.empty()) mobile_nodes_.erase(mn);
  bindings_.erase(prefix);
}

Output Machine::refuse(absl::Status status, const v1::AttachRequest& request, SystemTime now) {
  Output output;
  auto& event = output.events.emplace_back();
  event.set_type(v1::EVENT_TYPE_ATTACH_REFUSED);
  event.set_mn_id(request.mn_id());
  event.set_ar(request.ar());
  *event.mutable_at() = told_time(request.heard_at(), now);
  event.set_detail(std::string(status.message()));
  output.status = std::move(status);
  return output;
}

absl::Status Machine::unknown_access_router(const std::string& name) const {
  return absl::NotFoundError(absl::StrCat("access router \"", shortened(name),
                                          "\" is unknown; the LM's configuration has ", known_access_routers()));
}

void Machine::send(Output& output, const NodeState& to, std::shared_ptr<const v1::LmMessage> message) const {
  if (to.session != 0) output.messages.push_back({to.session, std::move(message), nullptr});
}

void Machine::send_record(Output& output, const NodeState& to, std::shared_ptr<const std::string> record) const {
  if (to.session != 0) output.messages.push_back({to.session, nullptr, std::move(record)});
}

// Reading

v1::Generation Machine::revision() const { return make_generation(epoch_, revision_); }

const v1::Binding* Machine::find(const Ipv6Prefix& prefix) const {
  bindings_.pack();
  const auto* entry = bindings_.find_covering(prefix);
  return entry == nullptr ? nullptr : &entry->binding;
}

std::vector<const v1::Binding*> Machine::bindings_of(const std::string& mn_id) const {
  bindings_.pack();
  std::vector<const v1::Binding*> result;
  const auto mn = mobile_nodes_.find(mn_id);
  if (mn == mobile_nodes_.end()) return result;
  for (const auto& prefix : mn->second.prefixes) result.push_back(&bindings_.at(prefix).binding);
  return result;
}

void Machine::visit_bindings(const std::optional<Ipv6Prefix>& after,
                             const std::function<bool(const v1::Binding&)>& visit) const {
  bindings_.visit(after, [&](const Ipv6Prefix&, const v1::Binding& binding) { return visit(binding); });
}

v1::Node Machine::describe(const std::string& ar, const NodeState& state) const {
  v1::Node node;
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
  node.set_draining(state.draining);
  if (state.draining) node.set_drain_remaining(drain_remaining(ar, state));
  return node;
}

std::vector<v1::Node> Machine::nodes() const {
  std::vector<v1::Node> result;
  for (const auto& [name, state] : nodes_) result.push_back(describe(name, state));
  return result;
}

std::uint32_t Machine::connected_count() const { return static_cast<std::uint32_t>(sessions_.size()); }

std::string Machine::known_access_routers() const {
  std::string text;
  for (const auto& [name, state] : nodes_) absl::StrAppend(&text, text.empty() ? "" : ", ", name);
  return text;
}

}  // namespace kedge::lm
