// Admin's Audit: goes through the journal and sends the records that match, each when the one before has gone.
#pragma once

#include <deque>
#include <memory>

#include "kedge/v1/admin.pb.h"
#include "lm-server/service/write_stream.h"
#include "lm-server/store/store.h"

namespace kedge::lm {

// Whether the record is one of those that are asked for; `after_id` and `last` are not looked at.
bool matches(const v1::AuditRequest& request, const v1::AuditRecord& record);

class AuditReactor : public WriteStream<v1::AuditRecord> {
 public:
  // Works on gRPC's threads.
  AuditReactor(StalledReaders& readers, const Caller& caller, grpc::CallbackServerContext* context,
               std::unique_ptr<JournalCursor> journal, v1::AuditRequest request);

  void OnDone() override {
    gone();
    delete this;
  }

 private:
  void on_written(bool ok) override;
  void begin();
  void send_next();
  // The next that matches; false at the end.
  absl::StatusOr<bool> find_next(v1::AuditRecord* record);
  absl::Status collect_last();

  std::unique_ptr<JournalCursor> journal_;
  const v1::AuditRequest request_;
  // With `last`: what is still to be sent.
  std::deque<v1::AuditRecord> last_;
  v1::AuditRecord out_;
};

}  // namespace kedge::lm
