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
                                 std::function<void(const absl::Status&)> on_end)
    : name_(std::move(name)),
      lm_(speaker::make_lm_client(std::move(executor), std::move(channel), {name_, incarnation, "bench"})) {
  lm_->on_connection = [on_end = std::move(on_end), connected = false](const absl::Status& status) mutable {
    // With hundreds of them in one process, a first attempt may take longer than gRPC allows; the client tries again.
    if (!status.ok() && connected) on_end(status);
    connected = status.ok();
  };
}

void SimulatedRouter::connect(std::function<void()> on_synced) {
  lm_->on_snapshot = [this, on_synced = std::move(on_synced)](const speaker::LmClient::Snapshot& snapshot) {
    snapshot_bindings_ = snapshot.bindings.size();
    for (const auto& binding : snapshot.bindings) act(binding);
    on_synced();
  };
  lm_->on_record = [this](const v1::Record& record) {
    ++records_;
    if (record.has_binding()) {
      act(record.binding());
    } else {
      held_.erase(record.forget().prefix());
    }
  };
  lm_->start();
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
    v1::Ack said;
    said.set_prefix(binding.prefix());
    *said.mutable_generation() = binding.generation();
    said.set_stage(stage);
    said.set_redirects_to(redirects_to);
    said.set_preference(level);
    lm_->ack(said);
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
