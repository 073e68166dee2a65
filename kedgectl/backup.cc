#include "kedgectl/backup.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>

#include "common/backup.h"
#include "common/time.h"
#include "fmt/format.h"
#include "google/protobuf/io/zero_copy_stream_impl.h"
#include "google/protobuf/struct.pb.h"
#include "google/protobuf/util/delimited_message_util.h"
#include "kedgectl/failure.h"
#include "kedgectl/format.h"

namespace kedge::kedgectl {
namespace {

// Cancels a call in which nothing has happened for too long.
class Patience {
 public:
  Patience(grpc::ClientContext& context, std::chrono::milliseconds longest)
      : context_(context), longest_(longest), thread_([this](const std::stop_token& stop) { watch(stop); }) {}

  void something_happened() {
    std::lock_guard lock(mutex_);
    happened_ = true;
    wake_.notify_one();
  }
  bool is_over() const {
    std::lock_guard lock(mutex_);
    return over_;
  }

 private:
  void watch(const std::stop_token& stop) {
    std::unique_lock lock(mutex_);
    while (wake_.wait_for(lock, stop, longest_, [this] { return happened_; })) happened_ = false;
    if (stop.stop_requested()) return;
    over_ = true;
    context_.TryCancel();
  }

  grpc::ClientContext& context_;
  const std::chrono::milliseconds longest_;
  mutable std::mutex mutex_;
  std::condition_variable_any wake_;
  bool happened_ = false;
  bool over_ = false;
  std::jthread thread_;
};

// Where the records go. Each function: what went wrong, if anything did.
class Target {
 public:
  using Trouble = std::optional<std::string>;
  virtual ~Target() = default;
  virtual Trouble write(const v1::BackupRecord& record) = 0;
  virtual Trouble finish() = 0;
};

class StandardOutput : public Target {
 public:
  explicit StandardOutput(std::ostream& out) : out_(out) {}
  Trouble write(const v1::BackupRecord& record) override {
    google::protobuf::util::SerializeDelimitedToOstream(record, &out_);
    return check();
  }
  Trouble finish() override {
    out_.flush();
    return check();
  }

 private:
  Trouble check() const { return out_ ? Trouble() : "cannot write to standard output"; }
  std::ostream& out_;
};

// Has its name only when it is whole and on disk.
class File : public Target {
 public:
  File(std::string path, bool force) : path_(std::move(path)), force_(force), partial_(path_ + ".partial-XXXXXX") {}
  ~File() override {
    stream_.reset();
    if (fd_ >= 0) ::close(fd_);
    if (!finished_ && fd_ >= 0) ::unlink(partial_.c_str());
  }

  Trouble open() {
    if (!force_ && exists()) return already_there();
    fd_ = ::mkstemp(partial_.data());
    if (fd_ < 0) return describe(errno);
    stream_ = std::make_unique<google::protobuf::io::FileOutputStream>(fd_);
    return std::nullopt;
  }
  Trouble write(const v1::BackupRecord& record) override {
    if (google::protobuf::util::SerializeDelimitedToZeroCopyStream(record, stream_.get())) return std::nullopt;
    return describe(stream_->GetErrno());
  }
  Trouble finish() override {
    if (!stream_->Flush()) return describe(stream_->GetErrno());
    if (::fsync(fd_) != 0) return describe(errno);
    const unsigned flags = force_ ? 0U : RENAME_NOREPLACE;
    int failed = ::renameat2(AT_FDCWD, partial_.c_str(), AT_FDCWD, path_.c_str(), flags) == 0 ? 0 : errno;
    // Not every file system can do that.
    if (failed == EINVAL && !exists()) failed = ::rename(partial_.c_str(), path_.c_str()) == 0 ? 0 : errno;
    if (failed == EEXIST || (failed == EINVAL && exists())) return already_there();
    if (failed != 0) return describe(failed);
    finished_ = true;
    return sync_folder();
  }

 private:
  bool exists() const {
    struct stat ignored {};
    return ::lstat(path_.c_str(), &ignored) == 0;
  }
  Trouble already_there() const { return fmt::format("{} exists already; --force replaces it", path_); }
  Trouble describe(int error) const { return fmt::format("cannot write {}: {}", path_, std::strerror(error)); }
  Trouble sync_folder() const {
    const auto folder = std::filesystem::absolute(path_).parent_path();
    const int fd = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    const bool synced = fd >= 0 && ::fsync(fd) == 0;
    const int error = errno;
    if (fd >= 0) ::close(fd);
    return synced ? Trouble() : describe(error);
  }

  const std::string path_;
  const bool force_;
  std::string partial_;
  int fd_ = -1;
  bool finished_ = false;
  std::unique_ptr<google::protobuf::io::FileOutputStream> stream_;
};

class Backup {
 public:
  Backup(const Session& session, const BackupCommand& command, Target& target)
      : session_(session), command_(command), target_(target) {}

  ExitCode run() {
    grpc::ClientContext context;
    const std::stop_callback cancel(session_.stop, [&context] { context.TryCancel(); });
    Patience patience(context, session_.options.timeout);
    auto reader = session_.admin.Backup(&context, {});
    v1::BackupRecord record;
    Target::Trouble trouble;
    while (!trouble && reader->Read(&record)) {
      patience.something_happened();
      trouble = take(record);
    }
    if (trouble) context.TryCancel();
    const auto status = reader->Finish();
    if (trouble) return tell_trouble(*trouble);
    if (session_.stop.stop_requested()) return ExitCode::kInterrupted;
    if (!status.ok()) {
      return fail(session_, patience.is_over() ? grpc::Status(grpc::StatusCode::DEADLINE_EXCEEDED, "") : status);
    }
    if (!verifier_.complete()) return tell_trouble("the server ended the backup before its end");
    if (const auto unfinished = target_.finish()) return tell_trouble(*unfinished);
    return summarize();
  }

 private:
  Target::Trouble take(const v1::BackupRecord& record) {
    if (const auto status = verifier_.take(record); !status.ok()) {
      return fmt::format("what the server sent is damaged: {}", std::string(status.message()));
    }
    return target_.write(record);
  }

  ExitCode tell_trouble(const std::string& trouble) {
    tell(session_.err, trouble);
    return ExitCode::kFailed;
  }

  ExitCode summarize() {
    const auto& header = verifier_.header();
    // Also that of a store in which nothing has been written yet.
    const std::string revision = fmt::format("{}.{}", header.revision().epoch(), header.revision().revision());
    if (command_.file == "-") {
      tell(session_.err, fmt::format("{} entries as of revision {}", verifier_.entries(), revision));
      return ExitCode::kOk;
    }
    google::protobuf::Struct summary;
    auto& fields = *summary.mutable_fields();
    fields["file"].set_string_value(command_.file);
    fields["revision"].set_string_value(revision);
    fields["made_at"].set_string_value(format_time(from_proto(header.made_at()), TimePrecision::kMilliseconds));
    fields["entries"].set_string_value(std::to_string(verifier_.entries()));
    return print(session_, summary, JsonStyle::kIndented, [&] {
      return fmt::format("{}: {} entries as of revision {}\n", command_.file, verifier_.entries(), revision);
    });
  }

  const Session& session_;
  const BackupCommand& command_;
  Target& target_;
  BackupVerifier verifier_;
};

}  // namespace

ExitCode run_backup(const Session& session, const BackupCommand& command) {
  if (command.file == "-") {
    StandardOutput target(session.out);
    return Backup(session, command, target).run();
  }
  File target(command.file, command.force);
  if (const auto trouble = target.open()) {
    tell(session.err, *trouble);
    return ExitCode::kFailed;
  }
  return Backup(session, command, target).run();
}

}  // namespace kedge::kedgectl
