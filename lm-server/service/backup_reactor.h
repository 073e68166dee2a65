// Admin's Backup: sends the store piece by piece, each when the one before has gone.
#pragma once

#include <memory>

#include "common/backup.h"
#include "grpcpp/support/server_callback.h"
#include "kedge/v1/admin.pb.h"
#include "lm-server/store/store.h"

namespace kedge::lm {

// Deletes itself when the call has ended.
//
// Threading: gRPC's own threads, one at a time; the engine goes on meanwhile.
class BackupReactor : public grpc::ServerWriteReactor<v1::BackupRecord> {
 public:
  explicit BackupReactor(std::unique_ptr<StoreCursor> cursor);

  void OnWriteDone(bool ok) override;
  void OnDone() override { delete this; }

 private:
  void send_next();

  std::unique_ptr<StoreCursor> cursor_;
  BackupChecksum checksum_;
  std::uint64_t entries_ = 0;
  v1::BackupRecord out_;
};

}  // namespace kedge::lm
