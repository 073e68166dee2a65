// The bindings of a store, read and checked ahead in a thread of its own: taking one over and reading the next ones
// share the time that a restart takes.
//
// Threading: one thread calls it. Nothing else may use the ValueReader meanwhile.
#pragma once

#include <condition_variable>
#include <deque>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/ipv6.h"
#include "kedge/v1/types.pb.h"
#include "lm-server/core/commit.h"

namespace kedge::lm {

class BindingReader {
 public:
  struct Record {
    std::string key;
    Ipv6Prefix prefix;
    v1::Binding binding;
  };

  // `last`: the store's generation. No record is ahead of it.
  BindingReader(ValueReader& values, v1::Generation last);
  ~BindingReader();

  BindingReader(const BindingReader&) = delete;
  BindingReader& operator=(const BindingReader&) = delete;

  // In the order of the keys; the record is the caller's. Null behind the last. DataLoss names the key whose value is
  // no binding, and why; others are the reader's own.
  absl::StatusOr<Record*> next();

 private:
  struct Batch {
    std::vector<Record> records;
    // Behind them comes an error, or nothing more.
    absl::Status status;
    bool is_last = false;
  };

  Batch read_batch();
  absl::StatusOr<Record> check(std::string key, const std::string& value) const;
  void read_ahead();
  // Waits for the next.
  Batch take_batch();

  ValueReader& values_;
  const v1::Generation last_;
  Batch current_;
  std::size_t at_ = 0;

  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Batch> ready_;
  bool stopped_ = false;
  // None for a store with less than a batch.
  std::thread thread_;
};

}  // namespace kedge::lm
