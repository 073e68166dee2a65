// The bindings of a store, read and checked ahead in threads of its own: taking one over and reading the next ones
// share the time that a restart takes.
//
// Threading: one thread calls it. Nothing else may use the ValueReader meanwhile.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/ipv6.h"
#include "google/protobuf/arena.h"
#include "kedge/v1/types.pb.h"
#include "lm-server/core/commit.h"

namespace kedge::lm {

struct BindingRecord {
  Ipv6Prefix prefix;
  v1::Binding* binding = nullptr;
  // What BindingTable::add() takes, of the binding as the store has it.
  std::string packed;
};

class BindingReader {
 public:
  // `last`: the store's generation. No record is ahead of it.
  BindingReader(ValueReader& values, v1::Generation last);
  ~BindingReader();

  BindingReader(const BindingReader&) = delete;
  BindingReader& operator=(const BindingReader&) = delete;

  // In the order of the keys; the record is the caller's until the next call. Null behind the last. DataLoss names the
  // key whose value is no binding, and why; others are the reader's own.
  absl::StatusOr<BindingRecord*> next();

 private:
  struct Batch {
    Batch();
    // Place among the others.
    std::uint64_t number = 0;
    // The store's; the space of those behind `size` is used again.
    std::vector<std::string> keys;
    std::vector<std::string> values;
    std::size_t size = 0;
    std::vector<BindingRecord> records;
    // Of the records' bindings: their many parts come and go at once.
    google::protobuf::Arena arena;
    // Behind the records comes an error, or nothing more.
    absl::Status status;
    bool is_last = false;
  };

  // False when all have been read.
  bool read(Batch& batch);
  void check(Batch& batch) const;
  absl::Status check(const std::string& key, const std::string& value, BindingRecord& record) const;
  void read_ahead();
  // Null when it is over.
  std::unique_ptr<Batch> take_free();
  // Waits for the one behind the current.
  void advance();

  ValueReader& values_;
  const v1::Generation last_;
  std::unique_ptr<Batch> current_;
  std::size_t at_ = 0;

  // Of values_ and these two.
  std::mutex reading_;
  std::uint64_t read_ = 0;
  bool all_read_ = false;

  // Of these.
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<std::unique_ptr<Batch>> free_;
  std::map<std::uint64_t, std::unique_ptr<Batch>> ready_;
  bool stopped_ = false;
  // None for a store with less than a batch.
  std::vector<std::thread> threads_;
};

}  // namespace kedge::lm
