// Parts of the state machine that its files share. Included by them only.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "google/protobuf/util/time_util.h"
#include "lm-server/core/generation.h"
#include "lm-server/core/machine.h"
#include "lm-server/core/rules.h"
#include "lm-server/core/wire.h"

namespace kedge::lm {

inline constexpr const char* kBindingPrefix = "binding/";
inline constexpr const char* kDrainPrefix = "drain/";

// Record.binding with `binding`, which is serialised already: the store has been given the same.
inline std::shared_ptr<const std::string> record_of(const std::string& binding) {
  return std::make_shared<const std::string>(field_of(v1::Record::kBindingFieldNumber, binding));
}

// The same record with Record.more.
inline std::shared_ptr<const std::string> with_more(const std::string& record) {
  v1::Record more;
  more.set_more(true);
  return std::make_shared<const std::string>(record + more.SerializeAsString());
}

inline std::shared_ptr<const std::string> forget_record(const std::string& prefix, const v1::Generation& revision) {
  v1::Record record;
  record.mutable_forget()->set_prefix(prefix);
  *record.mutable_forget()->mutable_revision() = revision;
  return std::make_shared<const std::string>(record.SerializeAsString());
}

// When an AR says that something was, for time lines; `now` when it does not say so, or nothing that Timestamp allows.
inline google::protobuf::Timestamp told_time(const google::protobuf::Timestamp& told, SystemTime now) {
  using google::protobuf::util::TimeUtil;
  const bool is_time = told.seconds() != 0 && told.seconds() >= TimeUtil::kTimestampMinSeconds &&
                       told.seconds() <= TimeUtil::kTimestampMaxSeconds && told.nanos() >= 0 &&
                       told.nanos() <= 999'999'999;
  if (!is_time) return to_proto(now);
  google::protobuf::Timestamp time;
  time.set_seconds(told.seconds());
  time.set_nanos(told.nanos());
  return time;
}

// InvalidArgument: `text` is no unicast link-layer address in its one form; `field` is named.
absl::Status check_link_layer_address(const std::string& field, const std::string& text);

// InvalidArgument: not 0 s to 366 days.
absl::StatusOr<std::chrono::nanoseconds> parse_age(const google::protobuf::Duration& age);

// Changes of one command. The revision that they share is used up only when anything did change.
class Machine::Transaction {
 public:
  Transaction(Machine& machine, SystemTime time) : now(time), machine_(machine) {}

  Entry& edit(const Ipv6Prefix& prefix) {
    auto [entry, fresh] = machine_.bindings_.try_emplace(prefix);
    if (touched_.find(prefix) == touched_.end()) {
      touched_.emplace(prefix, fresh ? std::nullopt : std::optional(entry.binding));
    }
    return entry;
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
    *event.mutable_at() = told_time(at, now);
    event.set_detail(std::move(detail));
  }

  // Beside the bindings; `before` and `after` as in AuditedChange.
  void write(std::string key, std::optional<std::string> value, std::string before, std::string after) {
    output.changes.push_back({key, std::move(before), std::move(after)});
    writes_.push_back({std::move(key), std::move(value)});
  }

  // References to entries end.
  Output finish() {
    std::set<std::string> mobile_nodes;
    for (const auto& [prefix, before] : touched_) mobile_nodes.insert(machine_.bindings_.at(prefix).binding.mn_id());
    for (const auto& mn_id : mobile_nodes) machine_.place_refusals(*this, mn_id);
    Commit commit{machine_.revision_, machine_.revision_ + 1, durability, std::move(writes_)};
    const v1::Generation revision = generation();
    for (auto& [prefix, before] : touched_) {
      Entry& entry = machine_.bindings_.at(prefix);
      machine_.advance(*this, entry);
      if (entry.binding.holders().empty()) {
        if (before) audit(before, v1::Binding());
        forget(prefix, entry, before);
        commit.writes.push_back({key_of(prefix), std::nullopt});
        continue;
      }
      v1::Binding& after = entry.binding;
      if (before && before->SerializeAsString() == after.SerializeAsString()) continue;
      *after.mutable_revision() = revision;
      *after.mutable_updated_at() = to_proto(now);
      if (before) machine_.index(prefix, *before, -1);
      machine_.index(prefix, after, +1);
      std::string value = after.SerializeAsString();
      audit(before, after);
      tell_holders(before, after, value);
      commit.writes.push_back({key_of(prefix), std::move(value)});
    }
    mark_more();
    if (!commit.writes.empty()) {
      commit.durability = durability;
      machine_.revision_ = commit.revision;
      output.epoch = machine_.epoch_;
      output.commit = std::move(commit);
    }
    machine_.bindings_.pack();
    return std::move(output);
  }

  const SystemTime now;
  Durability durability = Durability::kLazy;
  // An acknowledgement decides nothing.
  bool audited = true;
  Output output;

 private:
  void audit(const std::optional<v1::Binding>& before, const v1::Binding& after) {
    if (!audited) return;
    AuditedChange change{before ? before->prefix() : after.prefix(), before ? summary(*before) : "", summary(after)};
    if (change.before != change.after) output.changes.push_back(std::move(change));
  }

  // Nobody holds anything for it any more, and its quarantine is over.
  void forget(const Ipv6Prefix& prefix, Entry& entry, const std::optional<v1::Binding>& before) {
    if (before) {
      machine_.index(prefix, *before, -1);
      for (const auto& holder : before->holders()) {
        machine_.send_record(output, machine_.nodes_.at(holder.ar()),
                             forget_record(entry.binding.prefix(), generation()));
      }
    }
    event(v1::EVENT_TYPE_PREFIX_FREED, entry.binding, entry.binding.home_ar(), to_proto(now));
    machine_.forget(prefix, entry);
  }

  void tell_holders(const std::optional<v1::Binding>& before, const v1::Binding& after, const std::string& value) {
    const auto record = record_of(value);
    for (const auto& holder : after.holders()) machine_.send_record(output, machine_.nodes_.at(holder.ar()), record);
    if (!before) return;
    for (const auto& holder : before->holders()) {
      if (find_holder(after, holder.ar()) != nullptr) continue;
      machine_.send_record(output, machine_.nodes_.at(holder.ar()), forget_record(after.prefix(), after.revision()));
    }
  }

  // Each session learns which of the records is the last of this change.
  void mark_more() {
    std::set<std::uint64_t> seen;
    std::map<const std::string*, std::shared_ptr<const std::string>> marked;
    for (auto message = output.messages.rbegin(); message != output.messages.rend(); ++message) {
      if (message->record == nullptr || seen.insert(message->session).second) continue;
      auto& copy = marked[message->record.get()];
      if (copy == nullptr) copy = with_more(*message->record);
      message->record = copy;
    }
  }

  Machine& machine_;
  std::vector<Write> writes_;
  std::map<Ipv6Prefix, std::optional<v1::Binding>> touched_;
};

}  // namespace kedge::lm
