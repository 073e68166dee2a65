// A backup of the location management server's store: the records of admin.proto's BackupRecord, as they go from the
// server into a file and from there into a new store.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "boost/crc.hpp"
#include "kedge/v1/admin.pb.h"

namespace kedge {

// Of the file.
inline constexpr std::uint32_t kBackupFormat = 1;

// CRC-32C (RFC 3720, appendix B.4) of the keys and values in their order.
class BackupChecksum {
 public:
  void add(const v1::BackupEntry& entry);
  std::uint32_t value() const { return crc_.checksum(); }

 private:
  boost::crc_optimal<32, 0x1EDC6F41, 0xFFFFFFFF, 0xFFFFFFFF, true, true> crc_;
};

// Looks whether records come whole and in their order: a header, entries with growing keys, an end.
class BackupVerifier {
 public:
  // InvalidArgument: this is no backup, or one of a format that this version does not know. DataLoss: it is damaged.
  // The text says where.
  absl::Status take(const v1::BackupRecord& record);
  // The end has been there.
  bool complete() const { return complete_; }
  // Of what has been there so far.
  const v1::BackupHeader& header() const { return header_; }
  std::uint64_t entries() const { return entries_; }

 private:
  absl::Status take_header(const v1::BackupRecord& record);
  absl::Status take_entry(const v1::BackupEntry& entry);
  absl::Status take_end(const v1::BackupEnd& end);

  v1::BackupHeader header_;
  BackupChecksum checksum_;
  std::string last_key_;
  std::uint64_t entries_ = 0;
  bool begun_ = false;
  bool complete_ = false;
};

}  // namespace kedge
