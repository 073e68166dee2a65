// Cuts off clients that do not take what a stream has for them: what waits for them keeps memory, and of a backup or
// the audit trail a view of the store too.
//
// First the stream ends with RESOURCE_EXHAUSTED, which a client that reads on sees. A stream that has ended, for
// whatever reason, and whose client does not read to the end within the same time again is cancelled, so that nothing
// of it stays.
//
// Monitoring: kedge_lm_slow_readers_total{method}.
#pragma once

#include <atomic>
#include <chrono>
#include <functional>
#include <list>
#include <memory>
#include <mutex>
#include <string>

#include "absl/status/status.h"
#include "boost/asio/io_context.hpp"
#include "boost/asio/steady_timer.hpp"
#include "common/metrics.h"
#include "grpcpp/server_context.h"

namespace kedge::lm {

class StalledReaders {
  static constexpr auto kNever = std::chrono::steady_clock::time_point::max();

 public:
  // One stream. Thread-safe.
  class Reader {
   public:
    // A write has begun; it is over.
    void writing();
    void written();
    // The stream has been finished; its status waits behind what the client has not read yet.
    void finished();
    // The call has ended: nothing of it is touched any more.
    void gone();

   private:
    friend class StalledReaders;
    using Time = std::chrono::steady_clock::time_point;

    // Of the write that is under way; kNever: there is none.
    std::atomic<Time> writing_since_ = kNever;
    // kNever: it has not been.
    std::atomic<Time> finished_at_ = kNever;
    // Held while the call is touched.
    std::mutex mutex_;
    std::string method_;
    std::string peer_;
    grpc::CallbackServerContext* context_ = nullptr;
    std::function<void(const absl::Status&)> end_;
  };

  // Looks after all streams on the thread that runs `io`.
  StalledReaders(boost::asio::io_context& io, std::chrono::milliseconds patience, Metrics& metrics);

  // `end` finishes the call; it runs on the thread that runs `io`, at most once, and not after gone(). `context` lives
  // until gone().
  std::shared_ptr<Reader> watch(std::string method, std::string peer, grpc::CallbackServerContext* context,
                                std::function<void(const absl::Status&)> end);
  // Counts and logs one that is cut off for another reason.
  void count(const std::string& method, const std::string& peer);

 private:
  void arm();
  void look();
  void look_at(Reader& reader, std::chrono::steady_clock::time_point now);

  const std::chrono::milliseconds patience_;
  Metrics& metrics_;
  boost::asio::steady_timer timer_;
  std::mutex mutex_;
  std::list<std::weak_ptr<Reader>> readers_;
};

}  // namespace kedge::lm
