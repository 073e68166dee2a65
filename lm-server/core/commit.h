// What the state machine asks of a store: one atomic change.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace kedge::lm {

enum class Durability {
  // Answered once written in order; a power failure may lose it, a crash of the process does not.
  kLazy,
  // Answered once it, and all before it, is on disk.
  kSync,
};

struct Write {
  std::string key;
  // Absent: the key is deleted.
  std::optional<std::string> value;

  bool operator==(const Write&) const = default;
};

// All writes of a commit become visible together, as `revision`. The store refuses it (Aborted) unless its own last
// revision is `previous`.
struct Commit {
  std::uint64_t previous = 0;
  std::uint64_t revision = 0;
  Durability durability = Durability::kLazy;
  std::vector<Write> writes;
  // Entries of the journal, which have no revision of their own. A commit of nothing but these has revision 0.
  std::vector<std::string> journal = {};
};

// Goes through what a store holds, in the order of the keys.
class ValueReader {
 public:
  virtual ~ValueReader() = default;
  // The next is the first whose key is not before `key`.
  virtual void seek(const std::string& key) = 0;
  // False at the end. Unavailable, DataLoss.
  virtual absl::StatusOr<bool> next(std::string* key, std::string* value) = 0;
};

}  // namespace kedge::lm
