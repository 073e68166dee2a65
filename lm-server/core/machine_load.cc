// Taking over what the store has.
#include <algorithm>
#include <cstdint>
#include <tuple>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "lm-server/core/binding_reader.h"
#include "lm-server/core/machine_transaction.h"

namespace kedge::lm {
namespace {

// What tests and the model keep a store's values in.
class MapReader : public ValueReader {
 public:
  explicit MapReader(const std::map<std::string, std::string>& values) : values_(values), at_(values.begin()) {}

  void seek(const std::string& key) override { at_ = values_.lower_bound(key); }
  absl::StatusOr<bool> next(std::string* key, std::string* value) override {
    if (at_ == values_.end()) return false;
    std::tie(*key, *value) = *at_++;
    return true;
  }

 private:
  const std::map<std::string, std::string>& values_;
  std::map<std::string, std::string>::const_iterator at_;
};

absl::Status read_all_but_bindings(ValueReader& values, std::map<std::string, std::string>& others) {
  std::string key;
  std::string value;
  values.seek("");
  while (true) {
    const auto more = values.next(&key, &value);
    if (!more.ok()) return more.status();
    if (!*more) return absl::OkStatus();
    if (absl::StartsWith(key, kBindingPrefix)) {
      // Behind the last of them.
      std::string behind = kBindingPrefix;
      ++behind.back();
      values.seek(behind);
    } else {
      others.insert_or_assign(std::move(key), std::move(value));
    }
  }
}

// All who held anything have left the configuration, and will not say that they have let go. Then it ends with its
// quarantine, as others do: the home AR is the one that holds it until then.
bool has_to_be_held(const v1::Binding& binding, SystemTime now) {
  const bool is_over =
      binding.state() == v1::BINDING_STATE_DETACHED && binding.has_free_at() && from_proto(binding.free_at()) <= now;
  return binding.holders().empty() && !is_over;
}

// The clock was set back by more than the LM was away, or is another machine's. What is due keeps its distance, so that
// nothing is put off for hours; true when that had to be seen to.
bool set_back_times(v1::Binding& binding, SystemTime now) {
  const auto ahead = from_proto(binding.updated_at()) - now;
  if (ahead <= ahead.zero()) return false;
  const auto set_back = [ahead](google::protobuf::Timestamp* time) { *time = to_proto(from_proto(*time) - ahead); };
  set_back(binding.mutable_updated_at());
  if (binding.has_attached_at()) set_back(binding.mutable_attached_at());
  if (binding.has_arrived_at()) set_back(binding.mutable_arrived_at());
  if (binding.has_away_since()) set_back(binding.mutable_away_since());
  if (binding.has_relocate_at()) set_back(binding.mutable_relocate_at());
  if (binding.has_ends_at()) set_back(binding.mutable_ends_at());
  if (binding.has_free_at()) set_back(binding.mutable_free_at());
  return true;
}

}  // namespace

struct Machine::Loading {
  const Restoration& restoration;
  const SystemTime now;
  // Of what the store has.
  const v1::Generation last;
  std::vector<std::string>* dropped;
  Commit commit;
  Youngest youngest;
};

absl::StatusOr<Output> Machine::load(std::uint64_t epoch, std::uint64_t revision,
                                     const std::map<std::string, std::string>& values, SystemTime now,
                                     std::vector<std::string>* dropped) {
  MapReader reader(values);
  return load(epoch, revision, reader, now, dropped);
}

absl::StatusOr<Output> Machine::load(std::uint64_t epoch, std::uint64_t revision, ValueReader& values, SystemTime now,
                                     std::vector<std::string>* dropped) {
  bindings_.clear();
  mobile_nodes_.clear();
  nodes_.clear();
  last_node_ = nullptr;
  sessions_.clear();
  timers_.clear();
  policies_.clear();
  attached_count_ = 0;
  moving_count_ = 0;
  epoch_ = epoch;
  revision_ = revision;
  for (const auto& ar : settings_.access_routers) nodes_.emplace(ar.info.name(), NodeState(ar, settings_));

  std::map<std::string, std::string> others;
  if (auto s = read_all_but_bindings(values, others); !s.ok()) return s;
  if (auto s = load_policies(others, dropped); !s.ok()) return s;
  const auto restoration = load_restoration(others, now);
  if (!restoration.ok()) return restoration.status();
  restored_at_ = restoration->at;

  Loading loading{*restoration,
                  now,
                  make_generation(epoch, revision),
                  dropped,
                  {revision, revision + 1, Durability::kSync, {}},
                  {}};
  BindingReader bindings(values, loading.last);
  while (true) {
    const auto record = bindings.next();
    if (!record.ok()) return record.status();
    if (*record == nullptr) break;
    load_binding(**record, loading);
  }
  place_pools(loading.youngest, *restoration);
  reserve_fixed_again();

  Output output;
  tell_restored(*restoration, output, loading.commit);
  if (!loading.commit.writes.empty()) {
    revision_ = loading.commit.revision;
    output.commit = std::move(loading.commit);
  }
  return output;
}

void Machine::load_binding(BindingRecord& record, Loading& loading) {
  const SystemTime now = loading.now;
  const auto& restoration = loading.restoration;
  const Ipv6Prefix& prefix = record.prefix;
  v1::Binding& binding = *record.binding;
  NodeState* home = node(binding.home_ar());
  if (home == nullptr || !home->pool.claim(prefix)) {
    if (loading.dropped != nullptr) {
      loading.dropped->push_back(absl::StrCat(binding.prefix(), " of ", binding.mn_id(),
                                              ": no pool of access router \"", binding.home_ar(),
                                              "\" covers it any more"));
    }
    loading.commit.writes.push_back({key_of(prefix), std::nullopt});
    return;
  }
  std::string lost;
  const bool recovered = recover(binding, &lost) > 0;
  if (recovered) {
    *binding.mutable_revision() = make_generation(epoch_, loading.commit.revision);
    if (binding.state() == v1::BINDING_STATE_DETACHED_GRACE) *binding.mutable_generation() = binding.revision();
    if (loading.dropped != nullptr) loading.dropped->push_back(std::move(lost));
  }
  const bool set_back = set_back_times(binding, now);
  if (restoration.from) begin_epoch(binding, make_generation(epoch_, loading.commit.revision), now);
  const bool unheld = has_to_be_held(binding, now);
  if (unheld) enter_holder(binding, binding.home_ar());
  const bool is_written = recovered || restoration.from || unheld;
  if (is_written || set_back) {
    std::string value = binding.SerializeAsString();
    record.packed = BindingTable::pack_binding(value);
    if (is_written) loading.commit.writes.push_back({key_of(prefix), std::move(value)});
  }
  auto& mn = mobile_nodes_[binding.mn_id()];
  if (binding.flapping()) {
    const SystemTime quiet_at = std::min(from_proto(binding.relocate_at()), now + settings_.flap_window);
    mn.quiet_at = mn.quiet_at ? std::max(*mn.quiet_at, quiet_at) : quiet_at;
  }
  mn.prefixes.push_back(prefix);
  // Nothing that is yet to come is stale by another clock, or by what was so when the backup was made.
  if (!set_back && !restoration.from) mn.heard = std::max(mn.heard, from_proto(binding.attached_at()));
  if (!binding.mobile_network()) {
    auto& last = loading.youngest[home];
    last = std::max(last, {from_proto(binding.created_at()), prefix});
  }
  index(prefix, binding, +1);
  std::optional<SystemTime> grace_ends;
  if (binding.state() == v1::BINDING_STATE_DETACHED_GRACE) grace_ends = end_of_grace(now);
  // Done at once: what is due by the record alone waits for no acknowledgement.
  const bool at_once = grace_ends || binding.state() == v1::BINDING_STATE_MOVING || binding.holders().empty();
  const auto timer = at_once ? now : due_by_record(binding, grace_ends);
  if (timer) timers_.emplace(*timer, prefix);
  bindings_.add(prefix, std::move(record.packed), grace_ends, timer);
}

absl::Status Machine::load_policies(const std::map<std::string, std::string>& values,
                                    std::vector<std::string>* dropped) {
  for (const auto& [key, value] : values) {
    if (absl::StartsWith(key, kDrainPrefix)) {
      if (NodeState* draining = node(value)) draining->draining = true;
    }
    if (!absl::StartsWith(key, PolicyBook::kKeyPrefix)) continue;
    v1::PolicyEntry entry;
    if (!entry.ParseFromString(value) || key != PolicyBook::key_of(entry.scope())) {
      return absl::DataLossError(absl::StrCat("the store's value of ", key, " is no policy; restore a backup"));
    }
    // Kept as it is: the configuration may come back.
    const auto status = check_policy(entry.scope(), entry.policy(), settings_.access_routers);
    if (!status.ok() && dropped != nullptr) {
      dropped->push_back(
          absl::StrCat(key, " does not fit the configuration any more: ", std::string(status.message())));
    }
    policies_.set(std::move(entry));
  }
  return absl::OkStatus();
}

void Machine::reserve_fixed_again() {
  policies_.visit([&](const v1::PolicyEntry& entry) {
    for (const auto& fixed : fixed_prefixes(entry.policy())) {
      NodeState* home = node(fixed.home_ar);
      if (home != nullptr && !bindings_.contains(fixed.prefix)) home->pool.claim(fixed.prefix);
    }
  });
}

std::uint64_t Machine::recover(v1::Binding& binding, std::string* dropped) {
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
