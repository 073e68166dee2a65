// Admin's Backup: sends the store piece by piece, each when the one before has gone.
#pragma once

#include <memory>

#include "common/backup.h"
#include "kedge/v1/admin.pb.h"
#include "lm-server/service/write_stream.h"
#include "lm-server/store/store.h"

namespace kedge::lm {

// Deletes itself when the call has ended.
//
// Threading: gRPC's own threads, one at a time; the engine goes on meanwhile.
class BackupReactor : public WriteStream<v1::BackupRecord> {
 public:
  BackupReactor(StalledReaders& readers, const Caller& caller, grpc::CallbackServerContext* context,
                std::unique_ptr<StoreCursor> cursor);

  void OnDone() override {
    gone();
    delete this;
  }

 private:
  void on_written(bool ok) override;
  void send_next();

  std::unique_ptr<StoreCursor> cursor_;
  BackupChecksum checksum_;
  std::uint64_t entries_ = 0;
  v1::BackupRecord out_;
};

}  // namespace kedge::lm
