#include "common/backup.h"

#include "absl/strings/str_cat.h"

namespace kedge {

void BackupChecksum::add(const v1::BackupEntry& entry) {
  crc_.process_bytes(entry.key().data(), entry.key().size());
  crc_.process_bytes(entry.value().data(), entry.value().size());
}

absl::Status BackupVerifier::take(const v1::BackupRecord& record) {
  if (!begun_) return take_header(record);
  if (complete_) return absl::DataLossError("something follows the end of the backup");
  switch (record.kind_case()) {
    case v1::BackupRecord::kEntry:
      return take_entry(record.entry());
    case v1::BackupRecord::kEnd:
      return take_end(record.end());
    default:
      return absl::DataLossError(absl::StrCat("what follows entry ", entries_, " is no entry"));
  }
}

absl::Status BackupVerifier::take_header(const v1::BackupRecord& record) {
  if (!record.has_header() || record.header().format() == 0 || record.header().revision().epoch() == 0) {
    return absl::InvalidArgumentError("this is no backup of kedge-lm");
  }
  if (record.header().format() != kBackupFormat) {
    return absl::InvalidArgumentError(absl::StrCat("the backup is of format ", record.header().format(),
                                                   ", made by kedge-lm ", record.header().version(),
                                                   "; this version knows format ", kBackupFormat));
  }
  header_ = record.header();
  begun_ = true;
  return absl::OkStatus();
}

absl::Status BackupVerifier::take_entry(const v1::BackupEntry& entry) {
  if (entry.key().empty() || (entries_ > 0 && entry.key() <= last_key_)) {
    return absl::DataLossError(absl::StrCat("entry ", entries_ + 1, " is out of order"));
  }
  last_key_ = entry.key();
  ++entries_;
  checksum_.add(entry);
  return absl::OkStatus();
}

absl::Status BackupVerifier::take_end(const v1::BackupEnd& end) {
  if (end.entries() != entries_) {
    return absl::DataLossError(absl::StrCat("it has ", entries_, " of ", end.entries(), " entries"));
  }
  if (end.checksum() != checksum_.value()) return absl::DataLossError("its entries do not fit their checksum");
  complete_ = true;
  return absl::OkStatus();
}

}  // namespace kedge
