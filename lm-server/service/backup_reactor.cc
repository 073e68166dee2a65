#include "lm-server/service/backup_reactor.h"

#include <utility>

#include "common/time.h"
#include "lm-server/core/generation.h"
#include "lm-server/service/version.h"

namespace kedge::lm {

BackupReactor::BackupReactor(StalledReaders& readers, const Caller& caller, grpc::CallbackServerContext* context,
                             std::unique_ptr<StoreCursor> cursor)
    : WriteStream(readers, "kedge.v1.Admin.Backup", caller, context), cursor_(std::move(cursor)) {
  auto& header = *out_.mutable_header();
  header.set_format(kBackupFormat);
  *header.mutable_revision() = make_generation(cursor_->epoch(), cursor_->revision());
  *header.mutable_made_at() = to_proto(now_system());
  header.set_version(kVersion);
  write(&out_);
}

void BackupReactor::on_written(bool ok) {
  if (!ok) return finish(absl::CancelledError("whoever asked for the backup has gone"));
  if (out_.has_end()) return finish(absl::OkStatus());
  send_next();
}

void BackupReactor::send_next() {
  auto& entry = *out_.mutable_entry();
  const auto more = cursor_->next(entry.mutable_key(), entry.mutable_value());
  if (!more.ok()) return finish(more.status());
  if (*more) {
    checksum_.add(entry);
    ++entries_;
  } else {
    out_.mutable_end()->set_entries(entries_);
    out_.mutable_end()->set_checksum(checksum_.value());
  }
  write(&out_);
}

}  // namespace kedge::lm
