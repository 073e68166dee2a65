#include "speaker/lm_client/lm_client.h"

#include <algorithm>
#include <chrono>
#include <optional>
#include <utility>

#include "boost/asio/steady_timer.hpp"
#include "common/asio_grpc.h"
#include "common/log.h"
#include "common/status.h"
#include "kedge/v1/mobility.grpc.pb.h"

namespace kedge::speaker {
namespace {

using namespace std::chrono_literals;

constexpr auto kFirstRetry = 50ms;
// While the LM cannot be reached: MNs that arrive wait for it.
constexpr std::chrono::milliseconds kLastRetryUnreachable = 250ms;
// When it answers, and ends or refuses the session.
constexpr std::chrono::milliseconds kLastRetry = 1000ms;
// A session that the LM has ended sooner does not make the next attempt an early one: two speakers of one name would
// end each other's sessions without a pause.
constexpr auto kLastingSession = 5s;
// The request says how long ago the MN was heard: one that comes late would make it look younger than it is, so it is
// given up and sent anew.
constexpr auto kLongestAttach = 2s;

class GrpcLmClient : public LmClient {
 public:
  using Stream = ClientStream<v1::SpeakerMessage, v1::LmMessage>;

  GrpcLmClient(boost::asio::any_io_executor executor, std::shared_ptr<grpc::Channel> channel, LmClientOptions options)
      : executor_(executor), stub_(v1::Mobility::NewStub(channel)), options_(std::move(options)), retry_(executor) {}

  ~GrpcLmClient() override { stop(); }

  void start() override { connect(); }

  void stop() override {
    *alive_ = false;
    retry_.cancel();
    if (stream_ != nullptr) stream_->cancel();
    stream_.reset();
  }

  void ack(const v1::Ack& ack) override {
    v1::SpeakerMessage message;
    *message.mutable_ack() = ack;
    if (synced_) stream_->write(std::move(message));
  }

  void report_health(const v1::SpeakerHealth& health) override {
    health_ = health;
    if (synced_) send_health();
  }

  void report_activity(const v1::Activity& activity) override {
    v1::SpeakerMessage message;
    *message.mutable_activity() = activity;
    if (synced_) stream_->write(std::move(message));
  }

  void attach(const v1::AttachRequest& request, std::function<void(const absl::Status&)> done) override {
    async_unary<v1::AttachRequest, v1::AttachResponse>(
        executor_, request,
        [this](auto* context, const auto* in, auto* out, auto callback) {
          context->set_deadline(std::chrono::system_clock::now() + kLongestAttach);
          stub_->async()->Attach(context, in, out, std::move(callback));
        },
        [alive = alive_, done = std::move(done)](const grpc::Status& status, const v1::AttachResponse&) {
          if (*alive) done(from_grpc_status(status));
        });
  }

  void detach(const v1::DetachRequest& request, std::function<void(const absl::Status&)> done) override {
    async_unary<v1::DetachRequest, v1::DetachResponse>(
        executor_, request,
        [this](auto* context, const auto* in, auto* out, auto callback) {
          stub_->async()->Detach(context, in, out, std::move(callback));
        },
        [alive = alive_, done = std::move(done)](const grpc::Status& status, const v1::DetachResponse&) {
          if (*alive) done(from_grpc_status(status));
        });
  }

 private:
  void connect() {
    snapshot_.emplace();
    synced_ = false;
    auto alive = alive_;
    stream_ = Stream::open(
        executor_,
        [this](auto* context, auto* reactor) {
          // The channel goes on connecting, more often than sessions are tried; the first failure has been told.
          context->set_wait_for_ready(unreachable_);
          stub_->async()->Session(context, reactor);
        },
        [this, alive](v1::LmMessage message) {
          if (*alive) receive(message);
        },
        [this, alive](const grpc::Status& status) {
          if (*alive) lost(from_grpc_status(status));
        });
    v1::SpeakerMessage hello;
    hello.mutable_hello()->set_ar(options_.ar);
    hello.mutable_hello()->set_incarnation(options_.incarnation);
    hello.mutable_hello()->set_version(options_.version);
    stream_->write(std::move(hello));
  }

  void receive(const v1::LmMessage& message) {
    switch (message.kind_case()) {
      case v1::LmMessage::kWelcome:
        if (snapshot_) snapshot_->welcome = message.welcome();
        break;
      case v1::LmMessage::kRecord:
        if (synced_) {
          on_record(message.record());
        } else if (message.record().has_binding()) {
          snapshot_->bindings.push_back(message.record().binding());
        }
        break;
      case v1::LmMessage::kSnapshotEnd:
        if (!snapshot_) break;
        synced_ = true;
        unreachable_ = false;
        synced_at_ = std::chrono::steady_clock::now();
        on_connection(absl::OkStatus());
        on_snapshot(*std::exchange(snapshot_, std::nullopt));
        send_health();
        break;
      case v1::LmMessage::KIND_NOT_SET:
        // From a newer LM.
        break;
    }
  }

  void send_health() {
    if (!health_) return;
    v1::SpeakerMessage message;
    *message.mutable_health() = *health_;
    stream_->write(std::move(message));
  }

  void lost(const absl::Status& status) {
    unreachable_ = absl::IsUnavailable(status);
    const bool lasted = std::chrono::steady_clock::now() - synced_at_ > kLastingSession;
    if (synced_ && (unreachable_ || lasted)) retry_after_ = kFirstRetry;
    synced_ = false;
    stream_.reset();
    on_connection(status.ok() ? absl::UnavailableError("the LM has ended the session") : status);
    retry_.expires_after(retry_after_);
    retry_after_ = std::min(retry_after_ * 2, unreachable_ ? kLastRetryUnreachable : kLastRetry);
    retry_.async_wait([this, alive = alive_](boost::system::error_code error) {
      if (!error && *alive) connect();
    });
  }

  boost::asio::any_io_executor executor_;
  std::unique_ptr<v1::Mobility::Stub> stub_;
  LmClientOptions options_;
  boost::asio::steady_timer retry_;
  std::chrono::milliseconds retry_after_ = kFirstRetry;
  std::shared_ptr<Stream> stream_;
  std::optional<Snapshot> snapshot_;
  std::optional<v1::SpeakerHealth> health_;
  bool synced_ = false;
  // The last session ended because of the way to the LM.
  bool unreachable_ = false;
  std::chrono::steady_clock::time_point synced_at_;
  // False once stopped: callbacks that are still queued then do nothing.
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace

std::unique_ptr<LmClient> make_lm_client(boost::asio::any_io_executor executor, std::shared_ptr<grpc::Channel> channel,
                                         LmClientOptions options) {
  return std::make_unique<GrpcLmClient>(std::move(executor), std::move(channel), std::move(options));
}

}  // namespace kedge::speaker
