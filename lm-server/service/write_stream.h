// A stream of messages to a client that may be slow: one at a time, and it ends once.
#pragma once

#include <memory>
#include <mutex>
#include <string>
#include <utility>

#include "common/status.h"
#include "grpcpp/support/server_callback.h"
#include "lm-server/service/authorization.h"
#include "lm-server/service/stalled_readers.h"

namespace kedge::lm {

// Threading: write() and finish() on any thread; on_written() on gRPC's.
template <typename Message>
class WriteStream : public grpc::ServerWriteReactor<Message> {
 public:
  void OnWriteDone(bool ok) final {
    reader_->written();
    on_written(ok);
  }

 protected:
  // Of a call by `caller` in `context`.
  WriteStream(StalledReaders& readers, std::string method, const Caller& caller, grpc::CallbackServerContext* context)
      : reader_(readers.watch(std::move(method), caller.peer, context,
                              [this](const absl::Status& status) { finish(status); })) {}
  ~WriteStream() override = default;

  // The message has gone (`ok`), or cannot go any more.
  virtual void on_written(bool ok) = 0;

  // Nothing once the stream has been finished. `message` lives until on_written().
  void write(const Message* message) {
    std::lock_guard lock(mutex_);
    if (finished_) return;
    reader_->writing();
    this->StartWrite(message);
  }
  // Only the first counts.
  void finish(const absl::Status& status) {
    std::lock_guard lock(mutex_);
    if (std::exchange(finished_, true)) return;
    reader_->finished();
    this->Finish(to_grpc_status(status));
  }
  // First thing in OnDone().
  void gone() { reader_->gone(); }

 private:
  std::shared_ptr<StalledReaders::Reader> reader_;
  std::mutex mutex_;
  bool finished_ = false;
};

}  // namespace kedge::lm
