#include "lm-server/core/binding_reader.h"

#include <algorithm>
#include <cstdint>
#include <string_view>
#include <utility>

#include "absl/container/inlined_vector.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "lm-server/core/binding_table.h"
#include "lm-server/core/machine_transaction.h"

namespace kedge::lm {
namespace {

constexpr std::size_t kBatch = 256;
// Reading and checking a record takes longer than taking it over.
constexpr std::size_t kThreads = 2;
// Enough that no thread waits for another's pauses.
constexpr std::size_t kBatches = 12;
// A batch's bindings fit into a few.
constexpr std::size_t kArenaBlock = 64U << 10U;

google::protobuf::ArenaOptions arena_options() {
  google::protobuf::ArenaOptions options;
  options.start_block_size = kArenaBlock;
  options.max_block_size = kArenaBlock;
  return options;
}

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
  absl::InlinedVector<std::string_view, 8> holders;
  for (const auto& holder : binding.holders()) holders.push_back(holder.ar());
  std::sort(holders.begin(), holders.end());
  const auto twice = std::adjacent_find(holders.begin(), holders.end());
  if (twice != holders.end()) return absl::StrCat(std::string(*twice), " is its holder twice");
  const bool has_left =
      binding.state() == v1::BINDING_STATE_DETACHED_GRACE || binding.state() == v1::BINDING_STATE_DETACHED;
  if (!v1::BindingState_IsValid(binding.state()) || binding.state() == v1::BINDING_STATE_UNSPECIFIED ||
      is_detached(binding) != has_left) {
    return "its state contradicts its attached_ar";
  }
  for (const auto* ar : {&binding.attached_ar(), &binding.home_ar()}) {
    if (is_detached(binding) || std::binary_search(holders.begin(), holders.end(), *ar)) continue;
    return absl::StrCat(*ar, " is not among its holders");
  }
  // Whatever is decided next would be older.
  for (const auto* generation : {&binding.generation(), &binding.revision(), &binding.attachment_generation()}) {
    if (compare(*generation, last) > 0) return "one of its generations is ahead of the store";
  }
  if (!has_times_in_range(binding)) return "one of its times is out of range";
  return {};
}

}  // namespace

BindingReader::Batch::Batch() : keys(kBatch), values(kBatch), records(kBatch), arena(arena_options()) {}

BindingReader::BindingReader(ValueReader& values, v1::Generation last)
    : values_(values), last_(std::move(last)), current_(std::make_unique<Batch>()) {
  values_.seek(kBindingPrefix);
  read(*current_);
  check(*current_);
  if (current_->is_last) return;
  for (std::size_t i = 1; i < kBatches; ++i) free_.push_back(std::make_unique<Batch>());
  for (std::size_t i = 0; i < kThreads; ++i) threads_.emplace_back([this] { read_ahead(); });
}

BindingReader::~BindingReader() {
  {
    const std::lock_guard lock(mutex_);
    stopped_ = true;
  }
  changed_.notify_all();
  for (auto& thread : threads_) thread.join();
}

absl::StatusOr<BindingRecord*> BindingReader::next() {
  while (at_ == current_->size) {
    if (!current_->status.ok()) return current_->status;
    if (current_->is_last) return nullptr;
    advance();
  }
  return &current_->records[at_++];
}

bool BindingReader::read(Batch& batch) {
  const std::lock_guard lock(reading_);
  if (all_read_) return false;
  batch.number = read_++;
  for (batch.size = 0; batch.size < kBatch; ++batch.size) {
    auto& key = batch.keys[batch.size];
    const auto more = values_.next(&key, &batch.values[batch.size]);
    all_read_ = !more.ok() || !*more || !absl::StartsWith(key, kBindingPrefix);
    if (!more.ok()) batch.status = more.status();
    if (all_read_) break;
  }
  batch.is_last = all_read_;
  return true;
}

void BindingReader::check(Batch& batch) const {
  batch.arena.Reset();
  for (std::size_t i = 0; i < batch.size; ++i) {
    auto& record = batch.records[i];
    record.binding = google::protobuf::Arena::CreateMessage<v1::Binding>(&batch.arena);
    if (auto s = check(batch.keys[i], batch.values[i], record); !s.ok()) {
      batch.status = std::move(s);
      batch.size = i;
      batch.is_last = true;
    }
  }
}

absl::Status BindingReader::check(const std::string& key, const std::string& value, BindingRecord& record) const {
  const auto prefix = record.binding->ParseFromString(value) ? Ipv6Prefix::parse(record.binding->prefix())
                                                             : absl::StatusOr<Ipv6Prefix>(absl::DataLossError(""));
  if (!prefix.ok() || key != Machine::key_of(*prefix)) {
    return absl::DataLossError(absl::StrCat("the store's value of ", key, " is no binding; restore a backup"));
  }
  if (const std::string flaw = flaw_of(*record.binding, last_); !flaw.empty()) {
    return absl::DataLossError(
        absl::StrCat("the store's value of ", key, " is no binding: ", flaw, "; restore a backup"));
  }
  record.prefix = *prefix;
  record.packed = BindingTable::pack_binding(value);
  return absl::OkStatus();
}

void BindingReader::read_ahead() {
  while (auto batch = take_free()) {
    if (!read(*batch)) return;
    check(*batch);
    {
      const std::lock_guard lock(mutex_);
      ready_.emplace(batch->number, std::move(batch));
    }
    changed_.notify_all();
  }
}

std::unique_ptr<BindingReader::Batch> BindingReader::take_free() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return stopped_ || !free_.empty(); });
  if (stopped_) return nullptr;
  auto batch = std::move(free_.back());
  free_.pop_back();
  return batch;
}

void BindingReader::advance() {
  const std::uint64_t number = current_->number + 1;
  std::unique_lock lock(mutex_);
  // One thread reads it, or has read it: behind a batch that is not the last comes another.
  free_.push_back(std::move(current_));
  changed_.notify_all();
  changed_.wait(lock, [&] { return ready_.contains(number); });
  current_ = std::move(ready_.extract(number).mapped());
  at_ = 0;
}

}  // namespace kedge::lm
