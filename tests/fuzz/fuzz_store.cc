// A store with whatever is in it, as a damaged disk or a forged backup would leave it: it is refused, or everything
// goes on as always.
#include "tests/fuzz/machine_world.h"

namespace {

using namespace kedge;
using fuzz::Input;
using fuzz::World;

// Keys that the record's own content says, so that what is changed in it is still found.
std::string key_of(std::size_t kind, const std::string& value, Input& in) {
  v1::Binding binding;
  v1::PolicyEntry policy;
  switch (kind) {
    case 0:
      return binding.ParseFromString(value) ? "binding/" + binding.prefix() : "binding/2001:db8:1:1::/64";
    case 1:
      return policy.ParseFromString(value) ? lm::PolicyBook::key_of(policy.scope()) : "policy/=";
    case 2:
      return "drain/" + value;
    case 3:
      return lm::Machine::kRestoredFromKey;
    case 4:
      return "restored/at";
    default:
      return in.text8();
  }
}

void go_on(World& world) {
  world.check();
  world.advance(std::chrono::seconds(1));
  world.check();
  for (std::size_t i = 0; i < fuzz::kKnownAccessRouters; ++i) world.connect(fuzz::kAccessRouters[i]);
  std::uint64_t sequence = 0;
  for (const char* ar : {"ar2", "ar1"}) {
    for (const char* mn : fuzz::kMobileNodes) {
      v1::AttachRequest request;
      request.set_ar(ar);
      request.set_mn_id(mn);
      request.mutable_attachment()->set_interface("access0");
      request.mutable_attachment()->set_link_layer_address(mn);
      request.mutable_attachment()->set_link_local("fe80::11");
      request.set_trigger(v1::TRIGGER_ROUTER_SOLICITATION);
      request.set_incarnation(1);
      request.set_sequence(++sequence);
      world.take(world.machine.attach(request, world.now));
    }
    world.check();
    world.advance(std::chrono::seconds(1));
  }
  std::vector<v1::Ack> acks;
  world.machine.visit_bindings(std::nullopt, [&](const v1::Binding& binding) {
    for (const auto stage : {v1::STAGE_DELIVERING, v1::STAGE_WITHDRAWN, v1::STAGE_CLEARED}) {
      auto& ack = acks.emplace_back();
      ack.set_prefix(binding.prefix());
      *ack.mutable_generation() = binding.generation();
      ack.set_stage(stage);
    }
    return true;
  });
  for (const auto& ack : acks) {
    for (const auto& [ar, session] : world.sessions) world.take(world.machine.ack(session, ack, world.now));
  }
  for (const char* mn : fuzz::kMobileNodes) world.take(world.machine.detach_by_operator(mn, world.now));
  world.check();
  world.advance(std::chrono::hours(3));
  world.check();
  fuzz::require(world.load(3), "what was stored is taken over: " + world.refusal);
  world.check();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  Input in(data, size);
  World world(in.flag());
  world.revision = 1000;
  while (!in.empty()) {
    const std::size_t kind = in.below(6);
    std::string value = in.text16();
    const std::string key = key_of(kind, value, in);
    world.values[key] = std::move(value);
  }
  if (world.load(2)) go_on(world);
  return 0;
}
