// The embedded store, on RocksDB. One thread writes: commits that wait together become one atomic batch and, when one
// of them is kSync, one fsync.
//
// Each opening skips revisions, so that one which was handed out by a lazy commit and lost in a power failure never
// comes back with another meaning.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>

#include "lm-server/store/store.h"
#include "rocksdb/db.h"

namespace kedge::lm {

struct RocksDbStoreOptions {
  // Commits that the change feed keeps; older ones are compacted by the way.
  std::uint64_t kept_changes = 100'000;
  // Entries that the journal keeps.
  std::uint64_t kept_journal = 1'000'000;
  // With less than this free on the disk nothing is written. RocksDB as Debian builds it aborts the process when a
  // write fails half-way.
  std::uint64_t least_free_bytes = 16U << 20U;
};

class RocksDbStore : public Store {
 public:
  // A file in the folder of a store that another one has taken the place of. What it says of access routers is not so
  // any more, and they would believe it.
  static constexpr const char* kSupersededFile = "SUPERSEDED";

  // Opens or makes the store in `directory` (its parent has to exist). FailedPrecondition: another process has it open,
  // or it is superseded; PermissionDenied, NotFound: the folder cannot be made or written; DataLoss: it is damaged;
  // Unavailable: anything else. Each text says what to do.
  static absl::StatusOr<std::unique_ptr<RocksDbStore>> open(const std::string& directory,
                                                            const RocksDbStoreOptions& options = {});
  // Answers all commits that wait, then makes everything durable.
  ~RocksDbStore() override;

  // Makes a store with these values in `directory`, which must not exist; `next` is as StoreCursor::next(). The first
  // commit is later than `revision`, and the change feed begins there. All is on disk when it returns. Errors are those
  // of open() and of `next`; what has been made then is left.
  using Next = std::function<absl::StatusOr<bool>(std::string* key, std::string* value)>;
  static absl::Status make(const std::string& directory, std::uint64_t epoch, std::uint64_t revision, const Next& next);
  // Of the store in `directory`; absent when there is none. The errors of open().
  static absl::StatusOr<std::optional<std::uint64_t>> epoch_of(const std::string& directory);

  absl::StatusOr<StoreSnapshot> read() override;
  std::unique_ptr<StoreCursor> cursor() override;
  std::unique_ptr<JournalCursor> journal(std::uint64_t after) override;
  void commit(Commit commit, Done done) override;
  void commit_all(std::vector<Order> orders) override;
  absl::StatusOr<std::uint64_t> watch(std::uint64_t revision, Watcher watcher) override;
  void unwatch(std::uint64_t id) override;
  absl::Status compact(std::uint64_t revision) override;
  std::string health() const override;

  // Since the opening; commits / batches is how well grouping works.
  std::uint64_t commits() const { return commits_; }
  std::uint64_t batches() const { return batches_; }
  std::uint64_t syncs() const { return syncs_; }

  // For tests: while held, commits pile up.
  std::unique_lock<std::mutex> hold_writer() { return std::unique_lock(write_mutex_); }

 private:
  struct Waiting {
    Commit commit;
    Done done;
    absl::Status status;
  };

  RocksDbStore(std::string directory, std::unique_ptr<rocksdb::DB> db, RocksDbStoreOptions options);
  absl::Status recover();
  void run();
  void write_group(std::deque<Waiting>& group);
  absl::Status write_batch(std::deque<Waiting>& group);
  void trim_feed();
  void trim_journal();
  void sync_what_is_lazy();
  absl::Status replay(std::uint64_t revision, const Watcher& watcher);
  void set_health(std::string text);

  const std::string directory_;
  const RocksDbStoreOptions options_;
  // Shared with cursors.
  std::shared_ptr<rocksdb::DB> db_;

  // Held while a batch is written and its watchers are called.
  std::mutex write_mutex_;
  std::uint64_t epoch_ = 0;
  std::uint64_t revision_ = 0;
  std::uint64_t compacted_ = 0;
  std::uint64_t feed_size_ = 0;
  // Id of the last entry; those up to journal_dropped_ are gone.
  std::uint64_t journal_last_ = 0;
  std::uint64_t journal_dropped_ = 0;
  std::map<std::uint64_t, Watcher> watchers_;
  std::uint64_t next_watcher_ = 1;
  bool unsynced_ = false;

  std::mutex queue_mutex_;
  std::condition_variable wake_;
  std::deque<Waiting> queue_;
  bool stopping_ = false;

  mutable std::mutex health_mutex_;
  std::string health_ = "ok";

  std::atomic<std::uint64_t> commits_ = 0;
  std::atomic<std::uint64_t> batches_ = 0;
  std::atomic<std::uint64_t> syncs_ = 0;

  std::thread writer_;
};

}  // namespace kedge::lm
