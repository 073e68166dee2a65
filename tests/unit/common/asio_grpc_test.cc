#include "common/asio_grpc.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <thread>
#include <vector>

#include "boost/asio/executor_work_guard.hpp"
#include "boost/asio/io_context.hpp"
#include "common/credentials.h"
#include "common/log.h"
#include "grpcpp/security/server_credentials.h"
#include "grpcpp/server.h"
#include "grpcpp/server_builder.h"
#include "kedge/v1/mobility.grpc.pb.h"

namespace kedge {
namespace {

using namespace std::chrono_literals;
constexpr auto kBound = 20s;

// Session echoes each acknowledgement's prefix as a Forget. "finish" ends with OK after what was sent so far, "abort"
// with ABORTED; Query answers the prefix, "wait" until it is cancelled.
class EchoServer final : public v1::Mobility::Service {
 public:
  grpc::Status Session(grpc::ServerContext*,
                       grpc::ServerReaderWriter<v1::LmMessage, v1::SpeakerMessage>* stream) override {
    v1::SpeakerMessage in;
    while (stream->Read(&in)) {
      if (in.ack().prefix() == "finish") return grpc::Status::OK;
      if (in.ack().prefix() == "abort") return {grpc::StatusCode::ABORTED, "a second session"};
      v1::LmMessage out;
      out.mutable_record()->mutable_forget()->set_prefix(in.ack().prefix());
      stream->Write(out);
    }
    return grpc::Status::OK;
  }

  grpc::Status Query(grpc::ServerContext* context, const v1::QueryRequest* request,
                     v1::QueryResponse* response) override {
    if (request->prefix() == "nothing") return {grpc::StatusCode::NOT_FOUND, "no binding"};
    if (request->prefix() == "wait") {
      waiting_ = true;
      waiting_.notify_all();
      while (!context->IsCancelled()) std::this_thread::sleep_for(1ms);
    }
    response->add_bindings()->set_prefix(request->prefix());
    return grpc::Status::OK;
  }

  std::atomic<bool> waiting_ = false;
};

v1::SpeakerMessage ack(const std::string& prefix) {
  v1::SpeakerMessage message;
  message.mutable_ack()->set_prefix(prefix);
  return message;
}

class AsioGrpc : public testing::Test {
 protected:
  using Stream = ClientStream<v1::SpeakerMessage, v1::LmMessage>;

  void SetUp() override {
    set_log_level(LogLevel::kError);
    grpc::ServerBuilder builder;
    builder.AddListeningPort("[::1]:0", grpc::InsecureServerCredentials(), &port_);
    builder.RegisterService(&service_);
    server_ = builder.BuildAndStart();
    ASSERT_NE(server_, nullptr);
    stub_ = v1::Mobility::NewStub(*make_channel("[::1]:" + std::to_string(port_), {.insecure_plaintext = true}));
    loop_thread_ = std::thread([this] { loop_.run(); });
  }

  void TearDown() override {
    if (server_) server_->Shutdown(std::chrono::system_clock::now());
    work_.reset();
    loop_thread_.join();
    set_log_level(LogLevel::kInfo);
  }

  std::shared_ptr<Stream> open() {
    return Stream::open(
        loop_.get_executor(), [this](auto* context, auto* reactor) { stub_->async()->Session(context, reactor); },
        [this](v1::LmMessage message) {
          std::lock_guard lock(mutex_);
          if (std::this_thread::get_id() != loop_thread_.get_id()) ++strays_;
          if (done_ != 0) ++messages_after_done_;
          received_.push_back(message.record().forget().prefix());
          changed_.notify_all();
        },
        [this](grpc::Status status) {
          std::lock_guard lock(mutex_);
          if (std::this_thread::get_id() != loop_thread_.get_id()) ++strays_;
          ++done_;
          status_ = std::move(status);
          changed_.notify_all();
        });
  }

  template <typename Condition>
  bool wait(Condition condition) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, kBound, condition);
  }
  bool wait_done() {
    return wait([this] { return done_ == 1; });
  }
  // Runs everything that has been posted so far.
  void drain() {
    std::atomic<bool> reached = false;
    boost::asio::post(loop_, [&reached] {
      reached = true;
      reached.notify_all();
    });
    reached.wait(false);
  }

  EchoServer service_;
  int port_ = 0;
  std::unique_ptr<grpc::Server> server_;
  std::unique_ptr<v1::Mobility::Stub> stub_;
  boost::asio::io_context loop_;
  boost::asio::executor_work_guard<boost::asio::io_context::executor_type> work_ = boost::asio::make_work_guard(loop_);
  std::thread loop_thread_;

  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<std::string> received_;
  grpc::Status status_;
  int done_ = 0;
  int messages_after_done_ = 0;
  int strays_ = 0;
};

TEST_F(AsioGrpc, WritesArriveInOrderAndMessagesComeBeforeDone) {
  constexpr int kCount = 2'000;
  auto stream = open();
  for (int i = 0; i < kCount; ++i) stream->write(ack(std::to_string(i)));
  stream->write(ack("finish"));
  ASSERT_TRUE(wait_done());
  drain();
  std::lock_guard lock(mutex_);
  EXPECT_TRUE(status_.ok()) << status_.error_message();
  ASSERT_EQ(received_.size(), std::size_t{kCount});
  for (int i = 0; i < kCount; ++i) ASSERT_EQ(received_[static_cast<std::size_t>(i)], std::to_string(i));
  EXPECT_EQ(messages_after_done_, 0);
  EXPECT_EQ(strays_, 0);
}

TEST_F(AsioGrpc, WritesOfManyThreadsAllArrive) {
  constexpr int kThreads = 4;
  constexpr int kEach = 250;
  auto stream = open();
  std::vector<std::thread> writers;
  for (int t = 0; t < kThreads; ++t) {
    writers.emplace_back([&stream, t] {
      for (int i = 0; i < kEach; ++i) stream->write(ack(std::to_string(t) + ":" + std::to_string(i)));
    });
  }
  for (auto& writer : writers) writer.join();
  EXPECT_TRUE(wait([this] { return received_.size() == kThreads * kEach; }));
  std::vector<int> next(kThreads);
  {
    std::lock_guard lock(mutex_);
    for (const auto& text : received_) {
      const auto colon = text.find(':');
      auto& expected = next[static_cast<std::size_t>(std::stoi(text.substr(0, colon)))];
      ASSERT_EQ(std::stoi(text.substr(colon + 1)), expected++);
    }
  }
  stream->cancel();
  EXPECT_TRUE(wait_done());
}

TEST_F(AsioGrpc, TheServersEndReachesDoneWithItsStatus) {
  auto stream = open();
  stream->write(ack("a"));
  stream->write(ack("abort"));
  stream->write(ack("never read"));
  ASSERT_TRUE(wait_done());
  EXPECT_EQ(status_.error_code(), grpc::StatusCode::ABORTED);
  EXPECT_EQ(status_.error_message(), "a second session");
  EXPECT_EQ(received_, std::vector<std::string>{"a"});
  stream->write(ack("after the end"));
  stream->cancel();
  drain();
  EXPECT_EQ(done_, 1);
}

TEST_F(AsioGrpc, CancelEndsTheStreamOnce) {
  auto stream = open();
  stream->write(ack("a"));
  ASSERT_TRUE(wait([this] { return received_.size() == 1; }));
  stream->cancel();
  stream->cancel();
  ASSERT_TRUE(wait_done());
  EXPECT_EQ(status_.error_code(), grpc::StatusCode::CANCELLED);
  drain();
  EXPECT_EQ(done_, 1);
}

TEST_F(AsioGrpc, CancelAtOnceEndsTheStreamOnce) {
  auto stream = open();
  stream->cancel();
  ASSERT_TRUE(wait_done());
  EXPECT_EQ(status_.error_code(), grpc::StatusCode::CANCELLED);
}

TEST_F(AsioGrpc, AServerThatGoesAwayEndsTheStream) {
  auto stream = open();
  stream->write(ack("a"));
  ASSERT_TRUE(wait([this] { return received_.size() == 1; }));
  server_->Shutdown(std::chrono::system_clock::now());
  ASSERT_TRUE(wait_done());
  EXPECT_FALSE(status_.ok());
}

TEST_F(AsioGrpc, AnAbsentServerEndsTheStreamAsUnavailable) {
  server_->Shutdown(std::chrono::system_clock::now());
  server_.reset();
  auto stream = open();
  stream->write(ack("a"));
  ASSERT_TRUE(wait_done());
  EXPECT_EQ(status_.error_code(), grpc::StatusCode::UNAVAILABLE);
}

TEST_F(AsioGrpc, AStreamOutlivesItsOwnersHandle) {
  open()->write(ack("abort"));
  EXPECT_TRUE(wait_done());
}

// A write that meets the stream's end from another thread touches nothing that is gone.
TEST_F(AsioGrpc, WritesMayRaceWithTheEnd) {
  for (int round = 0; round < 100; ++round) {
    {
      std::lock_guard lock(mutex_);
      done_ = 0;
    }
    auto stream = open();
    std::atomic<bool> stop = false;
    std::thread writer([&] {
      while (!stop) stream->write(ack("x"));
    });
    if (round % 2 == 0) {
      stream->write(ack("finish"));
    } else {
      stream->cancel();
    }
    const bool ended = wait_done();
    stop = true;
    writer.join();
    ASSERT_TRUE(ended) << "round " << round;
  }
}

TEST_F(AsioGrpc, AUnaryCallAnswersOnTheExecutor) {
  std::mutex guard;
  std::string prefix;
  std::thread::id where;
  int calls = 0;
  v1::QueryRequest request;
  request.set_prefix("2001:db8::/64");
  async_unary<v1::QueryRequest, v1::QueryResponse>(
      loop_.get_executor(), request,
      [this](auto* context, auto* in, auto* out, auto done) { stub_->async()->Query(context, in, out, done); },
      [&](const grpc::Status& status, const v1::QueryResponse& response) {
        std::lock_guard lock(mutex_);
        ++calls;
        where = std::this_thread::get_id();
        if (status.ok()) prefix = response.bindings(0).prefix();
        changed_.notify_all();
      });
  ASSERT_TRUE(wait([&] { return calls == 1; }));
  EXPECT_EQ(prefix, "2001:db8::/64");
  EXPECT_EQ(where, loop_thread_.get_id());
}

TEST_F(AsioGrpc, AUnaryErrorReachesDone) {
  grpc::Status result;
  int calls = 0;
  v1::QueryRequest request;
  request.set_prefix("nothing");
  async_unary<v1::QueryRequest, v1::QueryResponse>(
      loop_.get_executor(), request,
      [this](auto* context, auto* in, auto* out, auto done) { stub_->async()->Query(context, in, out, done); },
      [&](const grpc::Status& status, const v1::QueryResponse&) {
        std::lock_guard lock(mutex_);
        ++calls;
        result = status;
        changed_.notify_all();
      });
  ASSERT_TRUE(wait([&] { return calls == 1; }));
  EXPECT_EQ(result.error_code(), grpc::StatusCode::NOT_FOUND);
}

TEST_F(AsioGrpc, AUnaryCallCanBeCancelled) {
  grpc::Status result;
  int calls = 0;
  v1::QueryRequest request;
  request.set_prefix("wait");
  auto context = async_unary<v1::QueryRequest, v1::QueryResponse>(
      loop_.get_executor(), request,
      [this](auto* c, auto* in, auto* out, auto done) { stub_->async()->Query(c, in, out, done); },
      [&](const grpc::Status& status, const v1::QueryResponse&) {
        std::lock_guard lock(mutex_);
        ++calls;
        result = status;
        changed_.notify_all();
      });
  service_.waiting_.wait(false);
  context->TryCancel();
  ASSERT_TRUE(wait([&] { return calls == 1; }));
  EXPECT_EQ(result.error_code(), grpc::StatusCode::CANCELLED);
}

}  // namespace
}  // namespace kedge
