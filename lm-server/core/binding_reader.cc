#include "lm-server/core/binding_reader.h"

#include <algorithm>
#include <cstdint>
#include <set>
#include <string_view>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "lm-server/core/machine_transaction.h"

namespace kedge::lm {
namespace {

constexpr std::size_t kBatch = 512;
// Enough that neither thread waits for the other's pauses.
constexpr std::size_t kBatchesAhead = 8;

// Up to 2200-01-01, and as long before 1970, where a clock that was never set may have been. Time that is reckoned from
// them is still one that SystemTime holds.
constexpr std::int64_t kMostSeconds = 7'258'118'400;

std::vector<const google::protobuf::FieldDescriptor*> fields_with_times() {
  std::vector<const google::protobuf::FieldDescriptor*> fields;
  for (int i = 0; i < v1::Binding::descriptor()->field_count(); ++i) {
    const auto* field = v1::Binding::descriptor()->field(i);
    if (field->message_type() == google::protobuf::Timestamp::descriptor()) fields.push_back(field);
  }
  return fields;
}

bool has_times_in_range(const v1::Binding& binding) {
  static const auto fields = fields_with_times();
  const auto* reflection = binding.GetReflection();
  return std::all_of(fields.begin(), fields.end(), [&](const auto* field) {
    if (!reflection->HasField(binding, field)) return true;
    const auto& time = static_cast<const google::protobuf::Timestamp&>(reflection->GetMessage(binding, field));
    return time.seconds() >= -kMostSeconds && time.seconds() <= kMostSeconds && time.nanos() >= 0 &&
           time.nanos() <= 999'999'999;
  });
}

// What every record of a store at revision `last` has, and conclusions are drawn from. Empty: nothing is wrong.
std::string flaw_of(const v1::Binding& binding, const v1::Generation& last) {
  if (auto s = check_link_layer_address("mn_id", binding.mn_id()); !s.ok()) return std::string(s.message());
  std::set<std::string_view> holders;
  for (const auto& holder : binding.holders()) {
    if (!holders.insert(holder.ar()).second) return absl::StrCat(holder.ar(), " is its holder twice");
  }
  const bool has_left =
      binding.state() == v1::BINDING_STATE_DETACHED_GRACE || binding.state() == v1::BINDING_STATE_DETACHED;
  if (!v1::BindingState_IsValid(binding.state()) || binding.state() == v1::BINDING_STATE_UNSPECIFIED ||
      is_detached(binding) != has_left) {
    return "its state contradicts its attached_ar";
  }
  for (const auto* ar : {&binding.attached_ar(), &binding.home_ar()}) {
    if (!is_detached(binding) && !holders.contains(*ar)) return absl::StrCat(*ar, " is not among its holders");
  }
  // Whatever is decided next would be older.
  for (const auto* generation : {&binding.generation(), &binding.revision(), &binding.attachment_generation()}) {
    if (compare(*generation, last) > 0) return "one of its generations is ahead of the store";
  }
  if (!has_times_in_range(binding)) return "one of its times is out of range";
  return {};
}

}  // namespace

BindingReader::BindingReader(ValueReader& values, v1::Generation last) : values_(values), last_(std::move(last)) {
  values_.seek(kBindingPrefix);
  current_ = read_batch();
  if (!current_.is_last) thread_ = std::thread([this] { read_ahead(); });
}

BindingReader::~BindingReader() {
  {
    const std::lock_guard lock(mutex_);
    stopped_ = true;
  }
  changed_.notify_all();
  if (thread_.joinable()) thread_.join();
}

absl::StatusOr<BindingReader::Record*> BindingReader::next() {
  while (at_ == current_.records.size()) {
    if (!current_.status.ok()) return current_.status;
    if (current_.is_last) return nullptr;
    current_ = take_batch();
    at_ = 0;
  }
  return &current_.records[at_++];
}

BindingReader::Batch BindingReader::read_batch() {
  Batch batch;
  batch.records.reserve(kBatch);
  std::string key;
  std::string value;
  while (batch.records.size() < kBatch) {
    const auto more = values_.next(&key, &value);
    batch.is_last = !more.ok() || !*more || !absl::StartsWith(key, kBindingPrefix);
    if (!more.ok()) batch.status = more.status();
    if (batch.is_last) break;
    auto record = check(std::move(key), value);
    if (!record.ok()) {
      batch.status = record.status();
      batch.is_last = true;
      break;
    }
    batch.records.push_back(*std::move(record));
  }
  return batch;
}

absl::StatusOr<BindingReader::Record> BindingReader::check(std::string key, const std::string& value) const {
  Record record;
  const auto prefix = record.binding.ParseFromString(value) ? Ipv6Prefix::parse(record.binding.prefix())
                                                            : absl::StatusOr<Ipv6Prefix>(absl::DataLossError(""));
  if (!prefix.ok() || key != Machine::key_of(*prefix)) {
    return absl::DataLossError(absl::StrCat("the store's value of ", key, " is no binding; restore a backup"));
  }
  if (const std::string flaw = flaw_of(record.binding, last_); !flaw.empty()) {
    return absl::DataLossError(
        absl::StrCat("the store's value of ", key, " is no binding: ", flaw, "; restore a backup"));
  }
  record.key = std::move(key);
  record.prefix = *prefix;
  return record;
}

void BindingReader::read_ahead() {
  bool is_last = false;
  while (!is_last) {
    {
      std::unique_lock lock(mutex_);
      changed_.wait(lock, [this] { return stopped_ || ready_.size() < kBatchesAhead; });
      if (stopped_) return;
    }
    auto batch = read_batch();
    is_last = batch.is_last;
    {
      const std::lock_guard lock(mutex_);
      ready_.push_back(std::move(batch));
    }
    changed_.notify_all();
  }
}

BindingReader::Batch BindingReader::take_batch() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return !ready_.empty(); });
  auto batch = std::move(ready_.front());
  ready_.pop_front();
  lock.unlock();
  changed_.notify_all();
  return batch;
}

}  // namespace kedge::lm
