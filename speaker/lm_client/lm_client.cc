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
#include "speaker/lm_client/attach_queue.h"

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
// Of Acks.
constexpr int kMostAcks = 256;

class GrpcLmClient : public LmClient {
 public:
  using Stream = ClientStream<v1::SpeakerMessage, v1::LmMessage>;

  GrpcLmClient(boost::asio::any_io_executor executor, std::shared_ptr<grpc::Channel> channel, LmClientOptions options)
      : executor_(executor),
        stub_(v1::Mobility::NewStub(channel)),
        options_(std::move(options)),
        retry_(executor),
        attaches_(attach_calls()) {}

  ~GrpcLmClient() override { stop(); }

  void start() override { connect(); }

  void stop() override {
    *alive_ = false;
    attaches_.clear();
    retry_.cancel();
    if (stream_ != nullptr) stream_->cancel();
    stream_.reset();
  }

  // Those of one turn of the executor go together.
  void ack(const v1::Ack& ack) override {
    if (!synced_) return;
    auto& acks = *acks_.mutable_acks();
    *acks.add_acks() = ack;
    if (acks.acks_size() >= kMostAcks) {
      send_acks();
    } else if (acks.acks_size() == 1) {
      boost::asio::post(executor_, [this, alive = alive_] {
        if (*alive) send_acks();
      });
    }
  }

  void report_health(const v1::SpeakerHealth& health) override {
    health_ = health;
    if (synced_) send_health();
  }

  void report_activity(const v1::Activity& activity) override {
    if (!synced_) return;
    send_acks();
    v1::SpeakerMessage message;
    *message.mutable_activity() = activity;
    stream_->write(std::move(message));
  }

  void attach(const v1::AttachRequest& request, std::function<void(const absl::Status&)> done) override {
    attaches_.add(request, [alive = alive_, done = std::move(done)](const absl::Status& status) {
      if (*alive) done(status);
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
  // `start` is given what async_unary() gives; `done` the LM's answer or why there is none.
  template <typename Response, typename Request, typename Start, typename Done>
  void call_attach(Request request, Start start, Done done) {
    async_unary<Request, Response>(
        executor_, std::move(request),
        [start](auto* context, const auto* in, auto* out, auto callback) {
          context->set_deadline(std::chrono::system_clock::now() + kLongestAttach);
          start(context, in, out, std::move(callback));
        },
        [done = std::move(done)](const grpc::Status& status, Response& response) {
          done(status.ok() ? absl::StatusOr<Response>(std::move(response)) : from_grpc_status(status));
        });
  }

  AttachQueue::Calls attach_calls() {
    return {[this](v1::AttachRequest request, auto done) {
              call_attach<v1::AttachResponse>(
                  std::move(request), [this](auto... call) { stub_->async()->Attach(std::move(call)...); },
                  std::move(done));
            },
            [this](v1::AttachManyRequest request, auto done) {
              call_attach<v1::AttachManyResponse>(
                  std::move(request), [this](auto... call) { stub_->async()->AttachMany(std::move(call)...); },
                  std::move(done));
            }};
  }

  void connect() {
    snapshot_.emplace();
    synced_ = false;
    acks_.Clear();
    broken_ = false;
    auto alive = alive_;
    stream_ = Stream::open(
        executor_,
        [this](auto* context, auto* reactor) {
          // The channel goes on connecting, more often than sessions are tried; the first failure has been told.
          context->set_wait_for_ready(unreachable_);
          stub_->async()->Session(context, reactor);
        },
        [this, alive](v1::LmMessage message) {
          if (*alive) receive(std::move(message));
        },
        [this, alive](const grpc::Status& status) {
          if (*alive) lost(from_grpc_status(status));
        });
    v1::SpeakerMessage hello;
    hello.mutable_hello()->set_ar(options_.ar);
    hello.mutable_hello()->set_incarnation(options_.incarnation);
    hello.mutable_hello()->set_version(options_.version);
    hello.mutable_hello()->set_takes_records(true);
    stream_->write(std::move(hello));
  }

  void receive(v1::LmMessage message) {
    if (broken_) return;
    switch (message.kind_case()) {
      case v1::LmMessage::kWelcome:
        if (snapshot_) snapshot_->welcome = message.welcome();
        takes_acks_ = message.welcome().takes_acks();
        break;
      case v1::LmMessage::kRecord:
        take(std::move(*message.mutable_record()));
        break;
      case v1::LmMessage::kRecords:
        take_all(message.records());
        break;
      case v1::LmMessage::kSnapshotEnd:
        if (!snapshot_) break;
        synced_ = true;
        unreachable_ = false;
        attaches_.begin_anew();
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

  void take_all(const v1::Records& records) {
    for (const auto& bytes : records.records()) {
      v1::Record record;
      if (!record.ParseFromString(bytes)) {
        // What it says is lost, and what follows would stand on it; the next session begins with all that there is.
        log_error("record_invalid", "bytes", bytes.size(), "effect", "the session begins anew");
        broken_ = true;
        return stream_->cancel();
      }
      take(std::move(record));
      // It may have ended the session.
      if (stream_ == nullptr) return;
    }
  }

  void take(v1::Record record) {
    if (synced_) {
      on_record(std::move(record));
    } else if (record.has_binding()) {
      snapshot_->bindings.push_back(std::move(*record.mutable_binding()));
    }
  }

  void send_acks() {
    auto message = std::exchange(acks_, {});
    if (!synced_ || message.acks().acks().empty()) return;
    if (takes_acks_ && message.acks().acks_size() > 1) return stream_->write(std::move(message));
    for (const auto& ack : message.acks().acks()) {
      v1::SpeakerMessage single;
      *single.mutable_ack() = ack;
      stream_->write(std::move(single));
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
  AttachQueue attaches_;
  std::optional<Snapshot> snapshot_;
  std::optional<v1::SpeakerHealth> health_;
  bool synced_ = false;
  // Acknowledgements that have not gone yet.
  v1::SpeakerMessage acks_;
  bool takes_acks_ = false;
  // Something of this session could not be read.
  bool broken_ = false;
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
