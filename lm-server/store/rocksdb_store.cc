#include "lm-server/store/rocksdb_store.h"

#include <chrono>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <optional>
#include <system_error>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/log.h"
#include "rocksdb/options.h"
#include "rocksdb/write_batch.h"

namespace kedge::lm {
namespace {

constexpr char kEpochKey[] = "m/epoch";
constexpr char kRevisionKey[] = "m/revision";
constexpr char kCompactedKey[] = "m/compacted";
constexpr char kValuePrefix[] = "v/";
constexpr char kChangePrefix[] = "c/";
constexpr char kJournalPrefix[] = "j/";
constexpr std::uint64_t kSkippedAtOpening = 1'000'000;
constexpr std::size_t kBatchOfNewStore = 1U << 20U;
// What is flushed at a time. A log of this size is replayed at most after a crash; and while a flush goes to a slow
// disk, the log's syncs, and so all answers, wait behind it: 64 MiB, RocksDB's own size, has held them up for 3 s.
constexpr std::uint64_t kMostInMemory = 16U << 20U;
// A flush reaches the disk bit by bit, so that syncs come in between.
constexpr std::uint64_t kSyncedAtOnce = 1U << 20U;
constexpr auto kLongestUnsynced = std::chrono::milliseconds(200);

std::string encode(std::uint64_t number) {
  std::string text(8, '\0');
  for (int i = 7; i >= 0; --i, number >>= 8U) text[static_cast<std::size_t>(i)] = static_cast<char>(number & 0xffU);
  return text;
}

std::optional<std::uint64_t> decode(const rocksdb::Slice& text) {
  if (text.size() != 8) return std::nullopt;
  std::uint64_t number = 0;
  for (std::size_t i = 0; i < 8; ++i) number = number << 8U | static_cast<unsigned char>(text[i]);
  return number;
}

void append_text(std::string& out, const std::string& text) {
  out += encode(text.size());
  out += text;
}

std::optional<std::string> take_text(rocksdb::Slice& in) {
  if (in.size() < 8) return std::nullopt;
  const auto size = decode({in.data(), 8});
  in.remove_prefix(8);
  if (!size || in.size() < *size) return std::nullopt;
  std::string text(in.data(), *size);
  in.remove_prefix(*size);
  return text;
}

std::string encode(const std::vector<Write>& writes) {
  std::string out;
  for (const auto& write : writes) {
    out += write.value ? '+' : '-';
    append_text(out, write.key);
    if (write.value) append_text(out, *write.value);
  }
  return out;
}

std::optional<std::vector<Write>> decode_writes(rocksdb::Slice in) {
  std::vector<Write> writes;
  while (!in.empty()) {
    const char kind = in[0];
    in.remove_prefix(1);
    auto key = take_text(in);
    if (!key) return std::nullopt;
    Write write{std::move(*key), std::nullopt};
    if (kind == '+') {
      write.value = take_text(in);
      if (!write.value) return std::nullopt;
    }
    writes.push_back(std::move(write));
  }
  return writes;
}

std::string change_key(std::uint64_t revision) { return absl::StrCat(kChangePrefix, encode(revision)); }
std::string journal_key(std::uint64_t id) { return absl::StrCat(kJournalPrefix, encode(id)); }

std::optional<std::uint64_t> number_behind(const char* prefix, rocksdb::Slice key) {
  if (!key.starts_with(prefix)) return std::nullopt;
  key.remove_prefix(std::strlen(prefix));
  return decode(key);
}

absl::Status describe_open_error(const std::string& directory, const rocksdb::Status& status) {
  const std::string text = status.ToString();
  if (absl::StrContains(text, "lock") && absl::StrContains(text, "LOCK")) {
    return absl::FailedPreconditionError(
        absl::StrCat("data_directory ", directory,
                     " is in use by another kedge-lm; stop that one or give this one a "
                     "folder of its own (",
                     text, ")"));
  }
  if (status.IsCorruption()) {
    return absl::DataLossError(absl::StrCat("the store in data_directory ", directory,
                                            " is damaged; move the folder away and restore a backup (", text, ")"));
  }
  if (absl::StrContains(text, "Permission denied")) {
    return absl::PermissionDeniedError(absl::StrCat(
        "data_directory ", directory, " cannot be written; give it to the user that kedge-lm runs as (", text, ")"));
  }
  return absl::UnavailableError(absl::StrCat("the store in data_directory ", directory, " cannot be opened: ", text));
}

absl::Status describe_write_error(const rocksdb::Status& status) {
  if (status.IsNoSpace() || absl::StrContains(status.ToString(), "No space left")) {
    return absl::UnavailableError(absl::StrCat(
        "the store cannot write: the disk of data_directory is full; make room (", status.ToString(), ")"));
  }
  return absl::UnavailableError(
      absl::StrCat("the store cannot write: ", status.ToString(), "; check the disk of data_directory"));
}

absl::Status check_space(const std::string& directory, std::uint64_t least) {
  std::error_code error;
  const auto space = std::filesystem::space(directory, error);
  if (error || space.available >= least) return absl::OkStatus();
  return absl::UnavailableError(absl::StrCat("the store cannot write: the disk of data_directory ", directory,
                                             " is full (", space.available >> 10U, " KiB free, ", least >> 10U,
                                             " needed); make room"));
}

absl::Status check_not_superseded(const std::string& directory) {
  const std::string file = absl::StrCat(directory, "/", RocksDbStore::kSupersededFile);
  std::error_code error;
  if (!std::filesystem::exists(file, error)) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat("the store in data_directory ", directory,
                   " was replaced by a backup, and access routers have gone on since: restore a backup; to open it all "
                   "the same, where no access router reaches it, remove ",
                   file));
}

absl::StatusOr<std::unique_ptr<rocksdb::DB>> open_database(const std::string& directory, bool has_to_be_new) {
  rocksdb::Options options;
  options.create_if_missing = true;
  options.error_if_exists = has_to_be_new;
  // After a crash everything up to the last whole record is taken; a hole in the middle is damage.
  options.wal_recovery_mode = rocksdb::WALRecoveryMode::kTolerateCorruptedTailRecords;
  options.keep_log_file_num = 4;
  options.max_open_files = 256;
  options.write_buffer_size = kMostInMemory;
  options.bytes_per_sync = kSyncedAtOnce;
  rocksdb::DB* db = nullptr;
  if (const auto s = rocksdb::DB::Open(options, directory, &db); !s.ok()) return describe_open_error(directory, s);
  return std::unique_ptr<rocksdb::DB>(db);
}

// Of what is gone through once.
rocksdb::ReadOptions once() {
  rocksdb::ReadOptions options;
  options.fill_cache = false;
  return options;
}

class RocksDbCursor : public StoreCursor {
 public:
  RocksDbCursor(std::shared_ptr<rocksdb::DB> db, std::uint64_t epoch, std::uint64_t revision)
      : db_(std::move(db)), epoch_(epoch), revision_(revision), it_(db_->NewIterator(once())) {
    it_->Seek(kValuePrefix);
  }

  std::uint64_t epoch() const override { return epoch_; }
  std::uint64_t revision() const override { return revision_; }
  void seek(const std::string& key) override { it_->Seek(absl::StrCat(kValuePrefix, key)); }
  absl::StatusOr<bool> next(std::string* key, std::string* value) override {
    if (it_->status().IsCorruption()) {
      return absl::DataLossError(
          absl::StrCat("the store is damaged; restore a backup (", it_->status().ToString(), ")"));
    }
    if (!it_->status().ok()) {
      return absl::UnavailableError(absl::StrCat("the store cannot read: ", it_->status().ToString()));
    }
    if (!it_->Valid() || !it_->key().starts_with(kValuePrefix)) return false;
    rocksdb::Slice name = it_->key();
    name.remove_prefix(sizeof(kValuePrefix) - 1);
    key->assign(name.data(), name.size());
    value->assign(it_->value().data(), it_->value().size());
    it_->Next();
    return true;
  }

 private:
  std::shared_ptr<rocksdb::DB> db_;
  const std::uint64_t epoch_;
  const std::uint64_t revision_;
  std::unique_ptr<rocksdb::Iterator> it_;
};

class RocksDbJournal : public JournalCursor {
 public:
  RocksDbJournal(std::shared_ptr<rocksdb::DB> db, std::uint64_t after) : db_(std::move(db)), it_(db_->NewIterator({})) {
    it_->Seek(journal_key(after + 1));
  }

  absl::StatusOr<bool> next(std::uint64_t* id, std::string* entry) override {
    if (!it_->status().ok()) {
      return absl::UnavailableError(absl::StrCat("the store cannot read: ", it_->status().ToString()));
    }
    if (!it_->Valid() || !it_->key().starts_with(kJournalPrefix)) return false;
    const auto number = number_behind(kJournalPrefix, it_->key());
    if (!number) return absl::DataLossError("the store is damaged in its journal; restore a backup");
    *id = *number;
    *entry = it_->value().ToString();
    it_->Next();
    return true;
  }

 private:
  std::shared_ptr<rocksdb::DB> db_;
  std::unique_ptr<rocksdb::Iterator> it_;
};

absl::Status make_directory(const std::string& directory) {
  std::error_code error;
  if (std::filesystem::is_directory(directory, error)) return absl::OkStatus();
  if (std::filesystem::exists(directory, error)) {
    return absl::NotFoundError(absl::StrCat("data_directory ", directory, " is no folder; name another one"));
  }
  const auto parent = std::filesystem::absolute(directory).lexically_normal().parent_path();
  if (!std::filesystem::is_directory(parent, error)) {
    return absl::NotFoundError(
        absl::StrCat("data_directory ", directory, " cannot be made: ", parent.string(), " does not exist; make it"));
  }
  std::filesystem::create_directory(directory, error);
  if (!error) return absl::OkStatus();
  return absl::PermissionDeniedError(absl::StrCat("data_directory ", directory, " cannot be made: ", error.message(),
                                                  "; make it and give it to the user that kedge-lm runs as"));
}

}  // namespace

absl::StatusOr<std::unique_ptr<RocksDbStore>> RocksDbStore::open(const std::string& directory,
                                                                 const RocksDbStoreOptions& options) {
  if (auto s = make_directory(directory); !s.ok()) return s;
  if (auto s = check_not_superseded(directory); !s.ok()) return s;
  if (auto s = check_space(directory, options.least_free_bytes); !s.ok()) return s;
  auto db = open_database(directory, false);
  if (!db.ok()) return db.status();
  auto store = std::unique_ptr<RocksDbStore>(new RocksDbStore(directory, std::move(*db), options));
  if (auto s = store->recover(); !s.ok()) return s;
  store->writer_ = std::thread([raw = store.get()] { raw->run(); });
  return store;
}

absl::Status RocksDbStore::make(const std::string& directory, std::uint64_t epoch, std::uint64_t revision,
                                const Next& next) {
  if (auto s = make_directory(directory); !s.ok()) return s;
  auto db = open_database(directory, true);
  if (!db.ok()) return db.status();
  rocksdb::WriteBatch batch;
  std::string key;
  std::string value;
  while (true) {
    const auto more = next(&key, &value);
    if (!more.ok()) return more.status();
    if (!*more) break;
    batch.Put(absl::StrCat(kValuePrefix, key), value);
    if (batch.GetDataSize() < kBatchOfNewStore) continue;
    if (auto s = check_space(directory, RocksDbStoreOptions().least_free_bytes); !s.ok()) return s;
    if (const auto s = (*db)->Write({}, &batch); !s.ok()) return describe_write_error(s);
    batch.Clear();
  }
  batch.Put(kEpochKey, encode(epoch));
  batch.Put(kRevisionKey, encode(revision));
  batch.Put(kCompactedKey, encode(revision));
  rocksdb::WriteOptions options;
  options.sync = true;
  if (auto s = check_space(directory, RocksDbStoreOptions().least_free_bytes); !s.ok()) return s;
  if (const auto s = (*db)->Write(options, &batch); !s.ok()) return describe_write_error(s);
  if (const auto s = (*db)->Flush({}); !s.ok()) return describe_write_error(s);
  return absl::OkStatus();
}

absl::StatusOr<std::optional<std::uint64_t>> RocksDbStore::epoch_of(const std::string& directory) {
  std::error_code error;
  if (!std::filesystem::exists(directory + "/CURRENT", error)) return std::optional<std::uint64_t>();
  rocksdb::DB* raw = nullptr;
  if (const auto s = rocksdb::DB::OpenForReadOnly({}, directory, &raw); !s.ok()) {
    return describe_open_error(directory, s);
  }
  const std::unique_ptr<rocksdb::DB> db(raw);
  std::string value;
  const auto status = db->Get({}, kEpochKey, &value);
  const auto epoch = status.ok() ? decode(value) : std::nullopt;
  if (!epoch) return absl::DataLossError(absl::StrCat("the store in ", directory, " has no epoch"));
  return epoch;
}

RocksDbStore::RocksDbStore(std::string directory, std::unique_ptr<rocksdb::DB> db, RocksDbStoreOptions options)
    : directory_(std::move(directory)), options_(options), db_(std::move(db)) {}

RocksDbStore::~RocksDbStore() {
  {
    std::lock_guard lock(queue_mutex_);
    stopping_ = true;
  }
  wake_.notify_one();
  if (writer_.joinable()) writer_.join();
  // The next start would have to replay what is in the log alone; without room for it, or where this fails, it does.
  if (db_ != nullptr && check_space(directory_, options_.least_free_bytes + kMostInMemory).ok()) db_->Flush({});
}

absl::Status RocksDbStore::recover() {
  const auto number = [this](const char* key) -> absl::StatusOr<std::optional<std::uint64_t>> {
    std::string value;
    const auto status = db_->Get({}, key, &value);
    if (status.IsNotFound()) return std::optional<std::uint64_t>();
    const auto decoded = status.ok() ? decode(value) : std::nullopt;
    if (!decoded) return absl::DataLossError(absl::StrCat("the store is damaged at ", key, "; restore a backup"));
    return std::optional(*decoded);
  };
  const auto epoch = number(kEpochKey);
  if (!epoch.ok()) return epoch.status();
  const auto revision = number(kRevisionKey);
  if (!revision.ok()) return revision.status();
  const auto compacted = number(kCompactedKey);
  if (!compacted.ok()) return compacted.status();

  epoch_ = epoch->value_or(1);
  revision_ = *revision ? **revision + kSkippedAtOpening : 0;
  compacted_ = compacted->value_or(0);
  rocksdb::WriteBatch batch;
  batch.Put(kEpochKey, encode(epoch_));
  batch.Put(kRevisionKey, encode(revision_));
  rocksdb::WriteOptions options;
  options.sync = true;
  if (const auto s = db_->Write(options, &batch); !s.ok()) return describe_write_error(s);

  std::unique_ptr<rocksdb::Iterator> it(db_->NewIterator({}));
  for (it->Seek(kChangePrefix); it->Valid() && it->key().starts_with(kChangePrefix); it->Next()) ++feed_size_;
  it->Seek(journal_key(0));
  if (it->Valid()) journal_dropped_ = number_behind(kJournalPrefix, it->key()).value_or(1) - 1;
  it->SeekForPrev(journal_key(UINT64_MAX));
  if (it->Valid()) journal_last_ = number_behind(kJournalPrefix, it->key()).value_or(0);
  return absl::OkStatus();
}

absl::StatusOr<StoreSnapshot> RocksDbStore::read() {
  const auto all = cursor();
  StoreSnapshot snapshot{all->epoch(), all->revision(), {}};
  std::string key;
  std::string value;
  while (true) {
    const auto more = all->next(&key, &value);
    if (!more.ok()) return more.status();
    if (!*more) return snapshot;
    snapshot.values.emplace_hint(snapshot.values.end(), std::move(key), std::move(value));
  }
}

std::unique_ptr<StoreCursor> RocksDbStore::cursor() {
  // An iterator shows what was there when it was made.
  std::lock_guard lock(write_mutex_);
  return std::make_unique<RocksDbCursor>(db_, epoch_, revision_);
}

std::unique_ptr<JournalCursor> RocksDbStore::journal(std::uint64_t after) {
  return std::make_unique<RocksDbJournal>(db_, after);
}

void RocksDbStore::commit(Commit commit, Done done) {
  {
    std::lock_guard lock(queue_mutex_);
    queue_.push_back({std::move(commit), std::move(done), absl::OkStatus()});
  }
  wake_.notify_one();
}

void RocksDbStore::commit_all(std::vector<Order> orders) {
  {
    std::lock_guard lock(queue_mutex_);
    for (auto& order : orders) queue_.push_back({std::move(order.commit), std::move(order.done), absl::OkStatus()});
  }
  wake_.notify_one();
}

void RocksDbStore::run() {
  while (true) {
    std::deque<Waiting> group;
    {
      std::unique_lock lock(queue_mutex_);
      const bool woken = wake_.wait_for(lock, kLongestUnsynced, [this] { return stopping_ || !queue_.empty(); });
      if (!woken || (stopping_ && queue_.empty())) {
        const bool leaving = stopping_;
        lock.unlock();
        sync_what_is_lazy();
        if (leaving) return;
        continue;
      }
    }
    {
      std::lock_guard write_lock(write_mutex_);
      {
        // Taken only now: what has come while the last batch was written, or held, goes into this one.
        std::lock_guard lock(queue_mutex_);
        group.swap(queue_);
      }
      write_group(group);
    }
    for (auto& waiting : group) {
      if (waiting.done) waiting.done(std::move(waiting.status));
    }
  }
}

void RocksDbStore::write_group(std::deque<Waiting>& group) {
  const std::uint64_t before = revision_;
  const std::uint64_t journal_before = journal_last_;
  bool any = false;
  for (auto& waiting : group) {
    const bool journal_only = waiting.commit.revision == 0 && waiting.commit.writes.empty();
    if (!journal_only && (waiting.commit.previous != revision_ || waiting.commit.revision <= revision_)) {
      waiting.status = absl::AbortedError(
          absl::StrCat("the store is at revision ", revision_, ", the commit expects ", waiting.commit.previous));
      continue;
    }
    any = true;
    if (!journal_only) revision_ = waiting.commit.revision;
  }
  if (!any) return;
  if (auto status = write_batch(group); !status.ok()) {
    revision_ = before;
    journal_last_ = journal_before;
    set_health(std::string(status.message()));
    for (auto& waiting : group) {
      if (waiting.status.ok()) waiting.status = status;
    }
    return;
  }
  set_health("ok");
  for (const auto& waiting : group) {
    if (!waiting.status.ok() || waiting.commit.revision == 0) continue;
    ++commits_;
    ++feed_size_;
    const Change change{waiting.commit.revision, waiting.commit.writes};
    for (const auto& [id, watcher] : watchers_) watcher(change);
  }
  trim_feed();
  trim_journal();
}

void RocksDbStore::trim_feed() {
  if (feed_size_ <= options_.kept_changes + options_.kept_changes / 8 + 1) return;
  std::unique_ptr<rocksdb::Iterator> it(db_->NewIterator({}));
  it->Seek(kChangePrefix);
  for (std::uint64_t i = options_.kept_changes; i < feed_size_ && it->Valid(); ++i) {
    compacted_ = number_behind(kChangePrefix, it->key()).value_or(compacted_);
    it->Next();
  }
  rocksdb::WriteBatch batch;
  batch.Put(kCompactedKey, encode(compacted_));
  batch.DeleteRange(change_key(0), change_key(compacted_ + 1));
  if (db_->Write({}, &batch).ok()) feed_size_ = options_.kept_changes;
}

void RocksDbStore::trim_journal() {
  if (journal_last_ - journal_dropped_ <= options_.kept_journal + options_.kept_journal / 8 + 1) return;
  const std::uint64_t drop = journal_last_ - options_.kept_journal;
  rocksdb::WriteBatch batch;
  batch.DeleteRange(journal_key(0), journal_key(drop + 1));
  if (db_->Write({}, &batch).ok()) journal_dropped_ = drop;
}

absl::Status RocksDbStore::write_batch(std::deque<Waiting>& group) {
  if (auto s = check_space(directory_, options_.least_free_bytes); !s.ok()) return s;
  rocksdb::WriteBatch batch;
  rocksdb::WriteOptions options;
  for (const auto& waiting : group) {
    if (!waiting.status.ok()) continue;
    options.sync |= waiting.commit.durability == Durability::kSync;
    for (const auto& write : waiting.commit.writes) {
      const std::string key = absl::StrCat(kValuePrefix, write.key);
      if (write.value) {
        batch.Put(key, *write.value);
      } else {
        batch.Delete(key);
      }
    }
    for (const auto& entry : waiting.commit.journal) batch.Put(journal_key(++journal_last_), entry);
    if (waiting.commit.revision != 0) {
      batch.Put(change_key(waiting.commit.revision), encode(waiting.commit.writes));
    }
  }
  batch.Put(kRevisionKey, encode(revision_));
  auto status = db_->Write(options, &batch);
  if (!status.ok()) {
    // RocksDB refuses all writes after an error in its log until it is told that the cause is gone.
    if (db_->Resume().ok()) status = db_->Write(options, &batch);
  }
  if (!status.ok()) return describe_write_error(status);
  ++batches_;
  syncs_ += options.sync ? 1 : 0;
  unsynced_ = !options.sync;
  return absl::OkStatus();
}

void RocksDbStore::sync_what_is_lazy() {
  std::lock_guard lock(write_mutex_);
  if (!unsynced_) return;
  const auto status = db_->SyncWAL();
  if (!status.ok()) {
    set_health(std::string(describe_write_error(status).message()));
    return;
  }
  unsynced_ = false;
  ++syncs_;
}

absl::Status RocksDbStore::replay(std::uint64_t revision, const Watcher& watcher) {
  std::unique_ptr<rocksdb::Iterator> it(db_->NewIterator({}));
  for (it->Seek(change_key(revision)); it->Valid() && it->key().starts_with(kChangePrefix); it->Next()) {
    rocksdb::Slice key = it->key();
    key.remove_prefix(sizeof(kChangePrefix) - 1);
    const auto at = decode(key);
    auto writes = decode_writes(it->value());
    if (!at || !writes) return absl::DataLossError("the store's change feed is damaged; restore a backup");
    watcher({*at, std::move(*writes)});
  }
  return absl::OkStatus();
}

absl::StatusOr<std::uint64_t> RocksDbStore::watch(std::uint64_t revision, Watcher watcher) {
  std::lock_guard lock(write_mutex_);
  if (revision <= compacted_) {
    return absl::OutOfRangeError(
        absl::StrCat("revision ", revision, " is compacted, up to ", compacted_, "; begin with a snapshot"));
  }
  if (auto s = replay(revision, watcher); !s.ok()) return s;
  const std::uint64_t id = next_watcher_++;
  watchers_.emplace(id, std::move(watcher));
  return id;
}

void RocksDbStore::unwatch(std::uint64_t id) {
  std::lock_guard lock(write_mutex_);
  watchers_.erase(id);
}

absl::Status RocksDbStore::compact(std::uint64_t revision) {
  std::lock_guard lock(write_mutex_);
  if (revision > revision_) {
    return absl::OutOfRangeError(absl::StrCat("revision ", revision, " lies ahead; the last is ", revision_));
  }
  if (revision <= compacted_) return absl::OkStatus();
  rocksdb::WriteBatch batch;
  batch.Put(kCompactedKey, encode(revision));
  batch.DeleteRange(change_key(0), change_key(revision + 1));
  if (const auto s = db_->Write({}, &batch); !s.ok()) return describe_write_error(s);
  compacted_ = revision;
  feed_size_ = 0;
  std::unique_ptr<rocksdb::Iterator> it(db_->NewIterator({}));
  for (it->Seek(change_key(revision + 1)); it->Valid() && it->key().starts_with(kChangePrefix); it->Next()) {
    ++feed_size_;
  }
  return absl::OkStatus();
}

std::string RocksDbStore::health() const {
  std::lock_guard lock(health_mutex_);
  return health_;
}

void RocksDbStore::set_health(std::string text) {
  std::lock_guard lock(health_mutex_);
  if (text != health_ && text != "ok") log_error("store_failed", "reason", text);
  if (text != health_ && text == "ok") log_info("store_recovered");
  health_ = std::move(text);
}

}  // namespace kedge::lm
