#include "lm-server/service/mobility_service.h"

#include <algorithm>
#include <cstddef>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "boost/asio/post.hpp"
#include "common/status.h"
#include "common/text.h"
#include "lm-server/core/rules.h"
#include "lm-server/service/admission.h"
#include "lm-server/service/version.h"

namespace kedge::lm {
namespace {

constexpr std::string_view kAttach = "kedge.v1.Mobility.Attach";
constexpr std::string_view kQuery = "kedge.v1.Mobility.Query";
constexpr std::string_view kSession = "kedge.v1.Mobility.Session";

// Of one kind in one message: attaches, acknowledgements, records.
constexpr int kMostTogether = 256;

// `only`: bindings that this access router is a holder of.
absl::Status query(const Machine& machine, const v1::QueryRequest& request, const std::optional<std::string>& only,
                   v1::QueryResponse& response) {
  std::vector<const v1::Binding*> found;
  if (request.by_case() == v1::QueryRequest::kMnId) {
    found = machine.bindings_of(request.mn_id());
  } else {
    const auto prefix = parse_prefix_or_address(request.prefix());
    if (!prefix.ok()) return prefix.status();
    if (const auto* binding = machine.find(*prefix)) found.push_back(binding);
  }
  for (const auto* binding : found) {
    if (!only || find_holder(*binding, *only) != nullptr) *response.add_bindings() = *binding;
  }
  if (!response.bindings().empty()) return absl::OkStatus();
  return absl::NotFoundError(request.by_case() == v1::QueryRequest::kMnId
                                 ? absl::StrCat("mobile node ", request.mn_id(), " has no binding")
                                 : absl::StrCat("no binding covers ", request.prefix()));
}

absl::Status check_many(const v1::AttachManyRequest& request) {
  if (request.requests().empty() || request.requests_size() > kMostTogether) {
    return absl::InvalidArgumentError(absl::StrCat("requests: must be 1 to ", kMostTogether));
  }
  for (int i = 0; i < request.requests_size(); ++i) {
    if (request.requests(i).ar() == request.ar()) continue;
    return absl::InvalidArgumentError(
        absl::StrCat("requests[", i, "].ar: must be \"", shortened(request.ar()), "\" as that of the whole"));
  }
  return absl::OkStatus();
}

// For the audit trail: each attach is one, whether it came alone or with others.
Request as_attach(const Caller& caller, const v1::AttachRequest& request) {
  return as_request(caller, kAttach,
                    absl::StrCat(request.mn_id(), " at ", request.ar(), ", ", v1::Trigger_Name(request.trigger())));
}

// Its speaker has given it up: what the request says of its age may not be true any more.
absl::Status given_up() { return absl::CancelledError("the speaker does not wait for the answer"); }

// What is read ahead of the engine, in messages and bytes. More waits at the speaker, which so cannot flood it.
constexpr std::size_t kMostUntaken = 256;
constexpr std::size_t kMostUntakenBytes = 256 << 10;
// Records of one message. A client takes messages of up to 4 MiB unless it is told otherwise.
constexpr std::size_t kMostBytesTogether = 16 << 10;

// A session's stream. Messages are read on gRPC's thread as they come and taken by the engine together: after a storm
// of moves there are thousands of acknowledgements, and two wake-ups for each cost more than what is done about it.
class SessionReactor : public grpc::ServerBidiReactor<v1::SpeakerMessage, v1::LmMessage>, public SessionChannel {
 public:
  static SessionReactor* begin(boost::asio::io_context& io, Engine& engine, Authorizer& authorizer,
                               StalledReaders& readers, grpc::CallbackServerContext* context, Caller caller,
                               std::size_t queue_limit) {
    auto reactor = std::shared_ptr<SessionReactor>(
        new SessionReactor(io, engine, authorizer, readers, std::move(caller), queue_limit));
    reactor->self_ = reactor;
    reactor->weak_ = reactor;
    reactor->reader_ = readers.watch(std::string(kSession), reactor->caller_.peer, context,
                                     [self = reactor.get()](const absl::Status& status) { self->close(status); });
    reactor->in_ = std::make_unique<v1::SpeakerMessage>();
    reactor->StartRead(reactor->in_.get());
    return reactor.get();
  }

  void send(std::vector<Message> messages) override {
    std::lock_guard lock(mutex_);
    if (finished_) return;
    // Of what it has been told before: however much comes at once, it has had no time to read it.
    if (queue_.size() > queue_limit_ + snapshot_waiting_) {
      readers_.count(std::string(kSession), caller_.peer);
      return finish(absl::ResourceExhaustedError(
          absl::StrCat("the speaker is more than ", queue_limit_, " changes behind; connect again for a snapshot")));
    }
    for (auto& message : messages) {
      if (!snapshot_queued_) ++snapshot_waiting_;
      if (message.content != nullptr && message.content->has_snapshot_end()) snapshot_queued_ = true;
      queue_.push_back(std::move(message));
    }
    if (being_written_ == 0 && !queue_.empty()) write_first();
  }

  void close(const absl::Status& status) override {
    std::lock_guard lock(mutex_);
    finish(status);
  }

  void OnReadDone(bool ok) override {
    if (!ok) return close(absl::OkStatus());
    std::lock_guard lock(mutex_);
    untaken_bytes_ += in_->ByteSizeLong();
    untaken_.push_back(std::move(in_));
    if (untaken_.size() == 1) {
      boost::asio::post(io_, [self = self_] { self->handle(); });
    }
    paused_ = untaken_.size() >= kMostUntaken || untaken_bytes_ >= kMostUntakenBytes;
    if (!paused_) read_next();
  }

  void OnWriteDone(bool ok) override {
    std::lock_guard lock(mutex_);
    reader_->written();
    if (!ok || finished_) return;
    queue_.erase(queue_.begin(), queue_.begin() + static_cast<std::ptrdiff_t>(being_written_));
    snapshot_waiting_ -= std::min(snapshot_waiting_, being_written_);
    being_written_ = 0;
    if (!queue_.empty()) write_first();
  }

  bool revoked() const override { return authorizer_.is_revoked(caller_); }

  void OnCancel() override { close(absl::CancelledError("the speaker has gone")); }

  void OnDone() override {
    reader_->gone();
    const auto last = std::move(self_);
  }

 private:
  SessionReactor(boost::asio::io_context& io, Engine& engine, Authorizer& authorizer, StalledReaders& readers,
                 Caller caller, std::size_t queue_limit)
      : io_(io),
        engine_(engine),
        authorizer_(authorizer),
        readers_(readers),
        caller_(std::move(caller)),
        queue_limit_(queue_limit) {}

  // Called with the mutex held. Records that wait together go in one message: what a message costs is mostly not what
  // is in it.
  void write_first() {
    reader_->writing();
    if (takes_records_ && queue_.front().record != nullptr) {
      gather_records();
    } else {
      out_ = parsed(queue_.front());
      being_written_ = 1;
    }
    // Without set_buffer_hint(), though more may follow: gRPC 1.51 then keeps messages of some KiB back until it has
    // something else to write. A snapshot took 10 s, until the next keepalive.
    StartWrite(&out_);
  }

  // Called with the mutex held.
  void gather_records() {
    auto& records = *out_.mutable_records()->mutable_records();
    records.Clear();
    std::size_t bytes = 0;
    for (const auto& message : queue_) {
      if (message.record == nullptr || records.size() == kMostTogether || bytes > kMostBytesTogether) break;
      bytes += message.record->size();
      *records.Add() = *message.record;
    }
    being_written_ = static_cast<std::size_t>(records.size());
  }

  // Called with the mutex held.
  void read_next() {
    if (finished_) return;
    in_ = std::make_unique<v1::SpeakerMessage>();
    StartRead(in_.get());
  }

  void handle() {
    std::deque<std::unique_ptr<v1::SpeakerMessage>> messages;
    {
      std::lock_guard lock(mutex_);
      messages.swap(untaken_);
      untaken_bytes_ = 0;
    }
    absl::Status status;
    engine_.together([&] {
      for (auto message = messages.begin(); status.ok() && message != messages.end(); ++message) {
        status = take(**message);
      }
    });
    if (!status.ok()) return close(status);
    std::lock_guard lock(mutex_);
    if (std::exchange(paused_, false)) read_next();
  }

  absl::Status take(const v1::SpeakerMessage& in) {
    if (session_ == 0) {
      if (!in.has_hello()) return absl::InvalidArgumentError("the first message of a session has to be Hello");
      {
        std::lock_guard lock(mutex_);
        if (finished_) return absl::OkStatus();
        takes_records_ = in.hello().takes_records();
      }
      if (auto s = authorizer_.check(caller_, kSession, in.hello().ar()); !s.ok()) return s;
      // The engine keeps the channel until close_session(), which finish() calls.
      auto session = engine_.open_session(in.hello(), weak_.lock());
      if (!session.ok()) return session.status();
      session_ = *session;
      return absl::OkStatus();
    }
    switch (in.kind_case()) {
      case v1::SpeakerMessage::kAck:
        engine_.ack(session_, in.ack());
        return absl::OkStatus();
      case v1::SpeakerMessage::kAcks:
        if (in.acks().acks_size() > kMostTogether) {
          return absl::InvalidArgumentError(absl::StrCat("acks: at most ", kMostTogether));
        }
        for (const auto& ack : in.acks().acks()) engine_.ack(session_, ack);
        return absl::OkStatus();
      case v1::SpeakerMessage::kHealth:
        engine_.health(session_, in.health());
        return absl::OkStatus();
      case v1::SpeakerMessage::kActivity:
        engine_.activity(session_, in.activity());
        return absl::OkStatus();
      case v1::SpeakerMessage::kHello:
        return absl::InvalidArgumentError("Hello may be sent once only");
      default:
        // Of a newer speaker.
        return absl::OkStatus();
    }
  }

  // Called with the mutex held. A write that is under way keeps its messages in the queue.
  void finish(const absl::Status& status) {
    if (finished_) return;
    finished_ = true;
    reader_->finished();
    queue_.erase(queue_.begin() + static_cast<std::ptrdiff_t>(being_written_), queue_.end());
    Finish(to_grpc_status(status));
    // Not left to OnDone: the status waits for a reader that does not read.
    boost::asio::post(io_, [self = weak_.lock()] {
      if (self->session_ != 0) self->engine_.close_session(self->session_);
    });
  }

  boost::asio::io_context& io_;
  Engine& engine_;
  Authorizer& authorizer_;
  StalledReaders& readers_;
  const Caller caller_;
  const std::size_t queue_limit_;
  std::shared_ptr<StalledReaders::Reader> reader_;
  std::shared_ptr<SessionReactor> self_;  // released by OnDone
  std::weak_ptr<SessionReactor> weak_;
  // The message that is being read.
  std::unique_ptr<v1::SpeakerMessage> in_;
  std::uint64_t session_ = 0;  // used on the engine's thread only

  std::mutex mutex_;
  std::deque<std::unique_ptr<v1::SpeakerMessage>> untaken_;
  std::size_t untaken_bytes_ = 0;
  // Reading waits for the engine.
  bool paused_ = false;
  std::deque<Message> queue_;
  // Of the queue, from its front.
  std::size_t being_written_ = 0;
  bool takes_records_ = false;
  v1::LmMessage out_;
  std::size_t snapshot_waiting_ = 0;
  bool snapshot_queued_ = false;
  bool finished_ = false;
};

}  // namespace

absl::StatusOr<Ipv6Prefix> parse_prefix_or_address(const std::string& text) {
  if (absl::StrContains(text, "/")) return Ipv6Prefix::parse(text);
  auto address = Ipv6Address::parse(text);
  if (!address.ok()) return address.status();
  return Ipv6Prefix(*address, 128);
}

grpc::ServerUnaryReactor* MobilityService::Attach(grpc::CallbackServerContext* context,
                                                  const v1::AttachRequest* request, v1::AttachResponse* response) {
  auto* reactor = context->DefaultReactor();
  const auto caller = admit(authorizer_, *context, kAttach, reactor, request->ar());
  if (!caller) return reactor;
  boost::asio::post(io_, [this, context, request, response, reactor, who = as_attach(*caller, *request)] {
    if (context->IsCancelled()) return reactor->Finish(to_grpc_status(given_up()));
    engine_.attach(*request, who, [response, reactor](absl::StatusOr<v1::AttachResponse> result) {
      if (result.ok()) *response = std::move(*result);
      reactor->Finish(to_grpc_status(result.status()));
    });
  });
  return reactor;
}

grpc::ServerUnaryReactor* MobilityService::AttachMany(grpc::CallbackServerContext* context,
                                                      const v1::AttachManyRequest* request,
                                                      v1::AttachManyResponse* response) {
  auto* reactor = context->DefaultReactor();
  const auto caller = admit(authorizer_, *context, "kedge.v1.Mobility.AttachMany", reactor, request->ar());
  if (!caller) return reactor;
  if (const auto s = check_many(*request); !s.ok()) {
    reactor->Finish(to_grpc_status(s));
    return reactor;
  }
  boost::asio::post(io_, [this, context, request, response, reactor, caller = *caller] {
    if (context->IsCancelled()) return reactor->Finish(to_grpc_status(given_up()));
    const int count = request->requests_size();
    for (int i = 0; i < count; ++i) response->add_results();
    auto left = std::make_shared<int>(count);
    engine_.together([&] {
      // With the last answer, which may come at once, request and response are gone.
      for (int i = 0; i < count; ++i) {
        engine_.attach(request->requests(i), as_attach(caller, request->requests(i)),
                       [result = response->mutable_results(i), left, reactor](absl::StatusOr<v1::AttachResponse> done) {
                         if (done.ok()) *result->mutable_response() = *std::move(done);
                         const auto status = to_grpc_status(done.status());
                         result->set_code(status.error_code());
                         result->set_message(status.error_message());
                         if (--*left == 0) reactor->Finish(grpc::Status::OK);
                       });
      }
    });
  });
  return reactor;
}

grpc::ServerUnaryReactor* MobilityService::Detach(grpc::CallbackServerContext* context,
                                                  const v1::DetachRequest* request, v1::DetachResponse* response) {
  auto* reactor = context->DefaultReactor();
  const auto caller = admit(authorizer_, *context, "kedge.v1.Mobility.Detach", reactor, request->ar());
  if (!caller) return reactor;
  boost::asio::post(io_, [this, request, response, reactor,
                          who = as_request(*caller, "kedge.v1.Mobility.Detach",
                                           absl::StrCat(request->mn_id(), " at ", request->ar(), ", ",
                                                        v1::DetachReason_Name(request->reason())))] {
    engine_.detach(*request, who, [response, reactor](absl::StatusOr<v1::DetachResponse> result) {
      if (result.ok()) *response = std::move(*result);
      reactor->Finish(to_grpc_status(result.status()));
    });
  });
  return reactor;
}

grpc::ServerUnaryReactor* MobilityService::Query(grpc::CallbackServerContext* context, const v1::QueryRequest* request,
                                                 v1::QueryResponse* response) {
  auto* reactor = context->DefaultReactor();
  const auto caller = authorizer_.authorize(*context, kQuery);
  if (!caller.ok()) {
    reactor->Finish(to_grpc_status(caller.status()));
    return reactor;
  }
  boost::asio::post(io_, [this, request, response, reactor, only = authorizer_.sees_only(*caller, kQuery)] {
    reactor->Finish(to_grpc_status(query(engine_.machine(), *request, only, *response)));
  });
  return reactor;
}

grpc::ServerUnaryReactor* MobilityService::Describe(grpc::CallbackServerContext* context,
                                                    const v1::DescribeRequest* request,
                                                    v1::DescribeResponse* response) {
  auto* reactor = context->DefaultReactor();
  const auto caller = admit(authorizer_, *context, "kedge.v1.Mobility.Describe", reactor, request->ar());
  if (!caller) return reactor;
  boost::asio::post(io_, [this, request, response, reactor] {
    auto node = engine_.machine().describe_node(request->ar());
    if (!node) {
      return reactor->Finish(to_grpc_status(absl::NotFoundError(absl::StrCat("no access router ", request->ar()))));
    }
    *response->mutable_self() = std::move(*node->mutable_info());
    response->set_connected(node->connected());
    response->set_preference_levels(engine_.machine().preference_levels());
    response->set_version(kVersion);
    reactor->Finish(grpc::Status::OK);
  });
  return reactor;
}

grpc::ServerBidiReactor<v1::SpeakerMessage, v1::LmMessage>* MobilityService::Session(
    grpc::CallbackServerContext* context) {
  auto caller = authorizer_.authorize_stream(*context, kSession);
  if (!caller.ok()) {
    return new Refusal<grpc::ServerBidiReactor<v1::SpeakerMessage, v1::LmMessage>>(caller.status());
  }
  return SessionReactor::begin(io_, engine_, authorizer_, readers_, context, *std::move(caller), queue_limit_);
}

}  // namespace kedge::lm
