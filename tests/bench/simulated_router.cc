#include "tests/bench/simulated_router.h"

#include "grpcpp/channel.h"
#include "lm-server/core/rules.h"
#include "speaker/core/desired.h"

namespace kedge::bench {
namespace {

using speaker::Anchoring;
using speaker::Forwarding;

}  // namespace

SimulatedRouter::SimulatedRouter(boost::asio::any_io_executor executor, std::shared_ptr<grpc::Channel> channel,
                                 std::string name, std::uint64_t incarnation,
                                 std::function<void(const grpc::Status&)> on_end)
    : executor_(std::move(executor)),
      name_(std::move(name)),
      incarnation_(incarnation),
      stub_(v1::Mobility::NewStub(channel)),
      on_end_(std::move(on_end)) {}

SimulatedRouter::~SimulatedRouter() {
  *alive_ = false;
  if (stream_ != nullptr) stream_->cancel();
}

void SimulatedRouter::connect(std::function<void()> on_synced) {
  on_synced_ = std::move(on_synced);
  stream_ = Stream::open(
      executor_, [this](auto* context, auto* reactor) { stub_->async()->Session(context, reactor); },
      [this, alive = alive_](const v1::LmMessage& message) {
        if (*alive) receive(message);
      },
      [this, alive = alive_](const grpc::Status& status) {
        if (*alive) on_end_(status);
      });
  v1::SpeakerMessage hello;
  hello.mutable_hello()->set_ar(name_);
  hello.mutable_hello()->set_incarnation(incarnation_);
  hello.mutable_hello()->set_version("bench");
  stream_->write(std::move(hello));
}

void SimulatedRouter::receive(const v1::LmMessage& message) {
  if (message.has_snapshot_end()) {
    synced_ = true;
    on_synced_();
  } else if (message.has_record()) {
    ++(synced_ ? records_ : snapshot_bindings_);
    if (message.record().has_binding()) {
      act(message.record().binding());
    } else {
      held_.erase(message.record().forget().prefix());
    }
  }
}

void SimulatedRouter::act(const v1::Binding& binding) {
  const auto* own = lm::find_holder(binding, name_);
  if (own == nullptr) return;
  auto& held = held_[binding.prefix()];
  if (speaker::compare(held.generation, binding.generation()) != 0) {
    held.generation = binding.generation();
    held.acknowledged.clear();
  }
  const auto ack = [&](v1::Stage stage, const std::string& redirects_to = {}, std::uint32_t level = 0) {
    if (!held.acknowledged.emplace(stage, redirects_to, level, own->releasing()).second) return;
    v1::SpeakerMessage message;
    auto& said = *message.mutable_ack();
    said.set_prefix(binding.prefix());
    *said.mutable_generation() = binding.generation();
    said.set_stage(stage);
    said.set_redirects_to(redirects_to);
    said.set_preference(level);
    stream_->write(std::move(message));
  };

  const auto desired = speaker::desired(binding, name_);
  switch (desired.forwarding.kind) {
    case Forwarding::Kind::kDeliver:
      if (binding.attached_ar() == name_) ack(v1::STAGE_DELIVERING);
      break;
    case Forwarding::Kind::kRedirect:
      if (speaker::attached_delivers(binding)) ack(v1::STAGE_REDIRECTING, desired.forwarding.redirect_to);
      break;
    case Forwarding::Kind::kUnreachable:
    case Forwarding::Kind::kRefuse:
      ack(v1::STAGE_UNREACHABLE);
      break;
    case Forwarding::Kind::kNone:
      break;
  }
  switch (desired.anchoring.kind) {
    case Anchoring::Kind::kAdvertise:
      held.level = desired.anchoring.level;
      ack(v1::STAGE_ADVERTISED, {}, held.level);
      break;
    case Anchoring::Kind::kUntilSuperseded:
      held.level = 0;
      ack(v1::STAGE_SUPERSEDED, {}, desired.anchoring.level);
      break;
    case Anchoring::Kind::kNone:
      held.level = 0;
      break;
  }
  if (own->advertises_preference() > 0 && held.level == 0) ack(v1::STAGE_WITHDRAWN);
  if (own->releasing()) ack(v1::STAGE_CLEARED);
}

}  // namespace kedge::bench
