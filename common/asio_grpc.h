// Between gRPC's callback threads and Asio: a client's unary call and bidirectional stream, whose
// events arrive on one executor. User code never runs on a gRPC thread.
#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <utility>

#include "boost/asio/any_io_executor.hpp"
#include "boost/asio/post.hpp"
#include "grpcpp/client_context.h"
#include "grpcpp/support/client_callback.h"
#include "grpcpp/support/server_callback.h"

namespace kedge {

// Starts a unary call. `start` is given the context, the request, the response and gRPC's completion callback, and
// passes them to the stub's async() method. `done` runs on `executor` with the status and the response. No deadline is
// set here. Returns the context, by which the call can be cancelled; it lives until `done` has run.
template <typename Request, typename Response, typename Start, typename Done>
std::shared_ptr<grpc::ClientContext> async_unary(boost::asio::any_io_executor executor, Request request, Start start,
                                                 Done done) {
  struct Call {
    grpc::ClientContext context;
    Request request;
    Response response;
  };
  auto call = std::make_shared<Call>();
  call->request = std::move(request);
  std::shared_ptr<grpc::ClientContext> handle(call, &call->context);
  start(&call->context, &call->request, &call->response,
        [call, executor, done = std::move(done)](grpc::Status status) mutable {
          boost::asio::post(executor, [call, status = std::move(status), done = std::move(done)]() mutable {
            done(status, call->response);
          });
        });
  return handle;
}

// A bidirectional stream as a client. Writes are queued and sent in order. `on_message` and `on_done` run on
// `executor`; `on_done` runs exactly once and is the last. Any thread may call write() and cancel().
template <typename Out, typename In>
class ClientStream : public std::enable_shared_from_this<ClientStream<Out, In>> {
 public:
  using OnMessage = std::function<void(In)>;
  using OnDone = std::function<void(grpc::Status)>;
  using Open = std::function<void(grpc::ClientContext*, grpc::ClientBidiReactor<Out, In>*)>;

  static std::shared_ptr<ClientStream> open(boost::asio::any_io_executor executor, const Open& open,
                                            OnMessage on_message, OnDone on_done) {
    auto stream =
        std::shared_ptr<ClientStream>(new ClientStream(std::move(executor), std::move(on_message), std::move(on_done)));
    stream->reactor_.self = stream;
    open(&stream->context_, &stream->reactor_);
    stream->reactor_.AddHold();  // write() comes from outside of the reactor; given back when reading has ended
    stream->reactor_.StartRead(&stream->reactor_.in);
    stream->reactor_.StartCall();
    return stream;
  }

  void write(Out message) {
    std::lock_guard lock(mutex_);
    if (closed_) return;
    queue_.push_back(std::move(message));
    if (queue_.size() == 1) start_write();
  }

  void cancel() { context_.TryCancel(); }

 private:
  struct Reactor : grpc::ClientBidiReactor<Out, In> {
    std::shared_ptr<ClientStream> self;  // released in OnDone
    In in;

    void OnReadDone(bool ok) override {
      if (!ok) {
        {
          std::lock_guard lock(self->mutex_);
          self->closed_ = true;
        }
        this->RemoveHold();
        return;
      }
      boost::asio::post(self->executor_, [stream = self, message = std::move(in)]() mutable {
        stream->on_message_(std::move(message));
      });
      in = In();
      this->StartRead(&in);
    }
    void OnWriteDone(bool ok) override {
      std::lock_guard lock(self->mutex_);
      if (!ok) self->closed_ = true;
      if (self->closed_) return;
      self->queue_.pop_front();
      if (!self->queue_.empty()) self->start_write();
    }
    void OnDone(const grpc::Status& status) override {
      auto stream = std::move(self);
      auto executor = stream->executor_;
      boost::asio::post(executor, [stream = std::move(stream), status] { stream->on_done_(status); });
    }
  };

  ClientStream(boost::asio::any_io_executor executor, OnMessage on_message, OnDone on_done)
      : executor_(std::move(executor)), on_message_(std::move(on_message)), on_done_(std::move(on_done)) {}

  // Without set_buffer_hint(), though more may follow: gRPC 1.51 then keeps messages of some KiB back until it has
  // something else to write.
  void start_write() { reactor_.StartWrite(&queue_.front()); }

  boost::asio::any_io_executor executor_;
  OnMessage on_message_;
  OnDone on_done_;
  grpc::ClientContext context_;
  Reactor reactor_;
  std::mutex mutex_;
  std::deque<Out> queue_;
  bool closed_ = false;
};

}  // namespace kedge
