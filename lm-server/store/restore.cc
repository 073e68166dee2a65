#include "lm-server/store/restore.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <memory>
#include <optional>
#include <string>
#include <system_error>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "common/backup.h"
#include "common/log.h"
#include "common/status.h"
#include "google/protobuf/io/zero_copy_stream_impl.h"
#include "google/protobuf/util/delimited_message_util.h"
#include "lm-server/core/machine.h"
#include "lm-server/store/rocksdb_store.h"
#include "rocksdb/env.h"

namespace kedge::lm {
namespace {

namespace fs = std::filesystem;

absl::Status describe_errno(const std::string& what) {
  const int error = errno;
  const std::string text = absl::StrCat(what, ": ", std::strerror(error));
  if (error == ENOENT) return absl::NotFoundError(text);
  if (error == EACCES || error == EPERM) return absl::PermissionDeniedError(text);
  return absl::UnavailableError(text);
}

// Gives the entries of a backup in a file, and tells whether all of it is there.
class BackupFile {
 public:
  static absl::StatusOr<std::unique_ptr<BackupFile>> open(const std::string& path) {
    const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (fd < 0) return describe_errno(absl::StrCat("cannot open ", path));
    auto file = std::unique_ptr<BackupFile>(new BackupFile(path, fd));
    v1::BackupRecord record;
    if (const auto read = file->read(&record); !read.ok()) return read.status();
    return file;
  }

  const v1::BackupHeader& header() const { return verifier_.header(); }
  std::uint64_t entries() const { return verifier_.entries(); }

  // False at the end of a whole backup.
  absl::StatusOr<bool> next(std::string* key, std::string* value) {
    v1::BackupRecord record;
    const auto more = read(&record);
    if (!more.ok()) return more.status();
    if (!*more) return false;
    if (!record.has_entry()) return next(key, value);
    *key = std::move(*record.mutable_entry()->mutable_key());
    *value = std::move(*record.mutable_entry()->mutable_value());
    return true;
  }

 private:
  BackupFile(std::string path, int fd) : path_(std::move(path)), stream_(fd) { stream_.SetCloseOnDelete(true); }

  // False at the end of a whole backup.
  absl::StatusOr<bool> read(v1::BackupRecord* record) {
    bool at_end = false;
    if (google::protobuf::util::ParseDelimitedFromZeroCopyStream(record, &stream_, &at_end)) {
      const auto status = verifier_.take(*record);
      return status.ok() ? absl::StatusOr<bool>(true) : unusable(status);
    }
    if (stream_.GetErrno() != 0) {
      errno = stream_.GetErrno();
      return describe_errno(absl::StrCat("cannot read ", path_));
    }
    if (at_end && verifier_.complete()) return false;
    if (header().format() == 0) return unusable(absl::InvalidArgumentError("this is no backup of kedge-lm"));
    return unusable(absl::DataLossError(
        absl::StrCat("the backup is ", at_end ? "cut off" : "damaged or cut off", " after ", entries(), " entries")));
  }

  absl::Status unusable(const absl::Status& status) const {
    return {status.code(), absl::StrCat(path_, ": ", std::string(status.message()), "; use another backup")};
  }

  const std::string path_;
  google::protobuf::io::FileInputStream stream_;
  BackupVerifier verifier_;
};

// Keeps servers off a store while it lives.
class StoreLock {
 public:
  static absl::StatusOr<std::unique_ptr<StoreLock>> take(const std::string& directory) {
    rocksdb::FileLock* lock = nullptr;
    const auto status = rocksdb::Env::Default()->LockFile(directory + "/LOCK", &lock);
    if (status.ok()) return std::unique_ptr<StoreLock>(new StoreLock(lock));
    return absl::FailedPreconditionError(absl::StrCat(
        "data_directory ", directory, " is in use; stop the kedge-lm that runs on it (", status.ToString(), ")"));
  }
  ~StoreLock() { rocksdb::Env::Default()->UnlockFile(lock_); }
  StoreLock(const StoreLock&) = delete;
  StoreLock& operator=(const StoreLock&) = delete;

 private:
  explicit StoreLock(rocksdb::FileLock* lock) : lock_(lock) {}
  rocksdb::FileLock* lock_;
};

// Absent: it does not exist.
absl::StatusOr<std::optional<bool>> is_empty(const std::string& directory) {
  std::error_code error;
  if (!fs::exists(directory, error)) return std::optional<bool>();
  if (!fs::is_directory(directory, error)) {
    return absl::NotFoundError(absl::StrCat("data_directory ", directory, " is no folder; name another one"));
  }
  const bool empty = fs::is_empty(directory, error);
  if (error) return absl::PermissionDeniedError(absl::StrCat("data_directory ", directory, ": ", error.message()));
  return std::optional(empty);
}

absl::StatusOr<std::string> make_folder_beside(const std::string& directory) {
  std::string path = absl::StrCat(directory, ".restoring-XXXXXX");
  if (::mkdtemp(path.data()) == nullptr) {
    return describe_errno(absl::StrCat("cannot make a folder beside data_directory ", directory));
  }
  return path;
}

std::string name_aside(const std::string& directory, SystemTime now) {
  const std::time_t seconds =
      std::chrono::system_clock::to_time_t(std::chrono::time_point_cast<std::chrono::system_clock::duration>(now));
  std::tm utc{};
  ::gmtime_r(&seconds, &utc);
  char text[32];
  std::strftime(text, sizeof(text), "%Y%m%dT%H%M%SZ", &utc);
  const std::string name = absl::StrCat(directory, ".before-restore-", text);
  std::string free = name;
  for (int i = 2; fs::exists(free); ++i) free = absl::StrCat(name, "-", i);
  return free;
}

absl::Status rename_folder(const std::string& from, const std::string& to) {
  if (::rename(from.c_str(), to.c_str()) == 0) return absl::OkStatus();
  return describe_errno(absl::StrCat("cannot rename ", from, " to ", to));
}

// With no moment in which there is nothing at `directory`: a server that starts then would begin with nothing.
absl::Status take_its_place(const std::string& made, const std::string& directory, const std::string& aside) {
  if (::renameat2(AT_FDCWD, made.c_str(), AT_FDCWD, directory.c_str(), RENAME_EXCHANGE) == 0) {
    return rename_folder(made, aside);
  }
  if (errno == EBUSY) {
    return absl::FailedPreconditionError(absl::StrCat(
        "data_directory ", directory, " is a mount point and cannot be moved aside; name a folder inside of it"));
  }
  // Not every file system exchanges.
  if (auto s = rename_folder(directory, aside); !s.ok()) return s;
  return rename_folder(made, directory);
}

void mark_superseded(const std::string& aside, const std::string& file) {
  std::ofstream mark(absl::StrCat(aside, "/", RocksDbStore::kSupersededFile));
  mark << "by " << file << "\n" << std::flush;
  if (!mark) log_warning("restored_unmarked", "folder", aside, "do", "let no kedge-lm run on it");
}

// As the LM has had it, so that it can still write there.
void give_same_owner(const std::string& made, const std::string& like) {
  struct stat old {};
  if (::stat(like.c_str(), &old) != 0) return;
  bool done = ::chmod(made.c_str(), old.st_mode & 07777U) == 0 && ::chown(made.c_str(), old.st_uid, old.st_gid) == 0;
  for (const auto& entry : fs::directory_iterator(made)) {
    done = ::chown(entry.path().c_str(), old.st_uid, old.st_gid) == 0 && done;
  }
  if (!done) log_warning("restored_owner", "folder", like, "do", "give the folder to the user that kedge-lm runs as");
}

void sync_folder(const fs::path& folder) {
  const int fd = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return;
  ::fsync(fd);
  ::close(fd);
}

absl::Status check_whole(const std::string& file) {
  const auto backup = BackupFile::open(file);
  if (!backup.ok()) return backup.status();
  std::string key;
  std::string value;
  while (true) {
    const auto more = (*backup)->next(&key, &value);
    if (!more.ok()) return more.status();
    if (!*more) return absl::OkStatus();
  }
}

std::uint64_t new_epoch(std::uint64_t backup, const std::string& directory, SystemTime now) {
  const auto there = RocksDbStore::epoch_of(directory);
  // A damaged store is why one restores.
  if (!there.ok()) log_warning("store_unreadable", "reason", std::string(there.status().message()));
  const std::uint64_t before = there.ok() ? there->value_or(0) : 0;
  const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(now.time_since_epoch()).count();
  return std::max({std::max(backup, before) + 1, static_cast<std::uint64_t>(std::max<std::int64_t>(seconds, 0))});
}

}  // namespace

absl::StatusOr<Restored> restore_store(const std::string& file, const std::string& directory, bool force,
                                       SystemTime now) {
  const std::string target = fs::weakly_canonical(directory).string();
  const auto empty = is_empty(target);
  if (!empty.ok()) return empty.status();
  const bool occupied = *empty && !**empty;
  if (occupied && !force) {
    return absl::FailedPreconditionError(absl::StrCat("data_directory ", directory,
                                                      " is not empty; --force moves it aside before the backup takes "
                                                      "its place"));
  }
  std::unique_ptr<StoreLock> lock;
  if (occupied) {
    auto taken = StoreLock::take(target);
    if (!taken.ok()) return taken.status();
    lock = std::move(*taken);
  }
  if (auto s = check_whole(file); !s.ok()) return s;
  auto backup = BackupFile::open(file);
  if (!backup.ok()) return backup.status();

  Restored result;
  result.backup = (*backup)->header();
  result.epoch = new_epoch(result.backup.revision().epoch(), target, now);
  const auto made = make_folder_beside(target);
  if (!made.ok()) return made.status();
  absl::Cleanup remove = [&made] {
    std::error_code ignored;
    fs::remove_all(*made, ignored);
  };
  bool told = false;
  const auto status =
      RocksDbStore::make(*made, result.epoch, result.backup.revision().revision(), [&](auto* key, auto* value) {
        auto more = (*backup)->next(key, value);
        if (!more.ok() || *more || std::exchange(told, true)) return more;
        *key = Machine::kRestoredFromKey;
        *value = result.backup.SerializeAsString();
        return absl::StatusOr<bool>(true);
      });
  if (!status.ok()) return status;
  result.entries = (*backup)->entries();

  if (*empty) give_same_owner(*made, target);
  if (occupied) result.moved_to = name_aside(target, now);
  const auto placed = occupied ? take_its_place(*made, target, result.moved_to) : rename_folder(*made, target);
  if (!placed.ok()) return placed;
  std::move(remove).Cancel();
  if (occupied) mark_superseded(result.moved_to, file);
  sync_folder(fs::path(target).parent_path());
  return result;
}

}  // namespace kedge::lm
