// Makes a store from a backup, while no server runs on it.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "common/time.h"
#include "kedge/v1/admin.pb.h"

namespace kedge::lm {

struct Restored {
  v1::BackupHeader backup;
  std::uint64_t entries = 0;
  std::uint64_t epoch = 0;
  // Where what was in the folder is now; empty: there was nothing.
  std::string moved_to;
};

// The store in `directory` is what `file` has, as of a new epoch: greater than the backup's and than that of the store
// that was there, and at least the seconds since 1970, so that no two restores share one. Nothing is touched unless
// `file` is whole; then the new store takes its place at once. What is in `directory` is moved aside if `force` is set,
// never deleted.
//
// NotFound, PermissionDenied: `file` cannot be read, or `directory` not be made; InvalidArgument: `file` is no backup;
// DataLoss: it is damaged or cut off; FailedPrecondition: `directory` is not empty, or its store is in use;
// Unavailable: anything else. Each text names the file or folder and says what to do.
absl::StatusOr<Restored> restore_store(const std::string& file, const std::string& directory, bool force,
                                       SystemTime now);

}  // namespace kedge::lm
