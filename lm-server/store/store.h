// Where bindings are kept: a small key-value store with etcd's semantics, so that an embedded store and a cluster can
// take each other's place.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "lm-server/core/commit.h"

namespace kedge::lm {

struct StoreSnapshot {
  std::uint64_t epoch = 0;
  std::uint64_t revision = 0;
  std::map<std::string, std::string> values;
};

// One commit, as the change feed shows it.
struct Change {
  std::uint64_t revision = 0;
  std::vector<Write> writes;

  bool operator==(const Change&) const = default;
};

// Goes through all values as of one revision, in the order of their keys. Used by one thread at a time, whichever; may
// outlive its store, whose writing it does not hold up.
class StoreCursor : public ValueReader {
 public:
  virtual std::uint64_t epoch() const = 0;
  virtual std::uint64_t revision() const = 0;
};

// Goes through the journal as it was when the cursor was made, in order. As StoreCursor in all else.
class JournalCursor {
 public:
  virtual ~JournalCursor() = default;
  // False at the end. Unavailable, DataLoss.
  virtual absl::StatusOr<bool> next(std::uint64_t* id, std::string* entry) = 0;
};

// Ordered revisions, atomic commits of several keys, a change feed, compaction. Commits are applied in the order of the
// calls. Thread-safe; callbacks run on a thread of the store and must not block.
class Store {
 public:
  using Done = std::function<void(absl::Status)>;
  using Watcher = std::function<void(const Change&)>;
  // A commit, and who is told of it.
  struct Order {
    Commit commit;
    Done done;
  };

  virtual ~Store() = default;

  // Everything, at the last revision whose commit has been answered or later. Unavailable, DataLoss.
  virtual absl::StatusOr<StoreSnapshot> read() = 0;

  // The same, piece by piece.
  virtual std::unique_ptr<StoreCursor> cursor() = 0;

  // `done` is called when the commit is as durable as it asks for, in the order of the calls. Aborted: the store's last
  // revision is not `commit.previous`, or `commit.revision` is not greater; Unavailable: it cannot write, the text says
  // what to do. Nothing of a commit that fails is kept.
  // Its entries of the journal are written with it, as one; with revision 0 they alone, and `done` may be empty.
  virtual void commit(Commit commit, Done done) = 0;

  // As so many calls of commit(): each is answered for itself. They reach the disk together.
  virtual void commit_all(std::vector<Order> orders) {
    for (auto& order : orders) commit(std::move(order.commit), std::move(order.done));
  }

  // Entries with a greater id. Ids grow by one with each; the oldest entries go when there are too many.
  virtual std::unique_ptr<JournalCursor> journal(std::uint64_t after) = 0;

  // Every commit from `revision` on, in order, those of the past first; then `watcher` is called for each new one. The
  // result tells whether it has begun: OutOfRange: `revision` has been compacted, begin with read(). The id is for
  // unwatch().
  virtual absl::StatusOr<std::uint64_t> watch(std::uint64_t revision, Watcher watcher) = 0;
  // No call of the watcher is under way or follows once it has returned. Not to be called by a watcher.
  virtual void unwatch(std::uint64_t id) = 0;

  // Commits up to and with `revision` disappear from the change feed; values stay. OutOfRange: it lies ahead.
  virtual absl::Status compact(std::uint64_t revision) = 0;

  // "ok" or what is wrong and what to do.
  virtual std::string health() const = 0;
};

}  // namespace kedge::lm
