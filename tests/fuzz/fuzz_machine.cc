// Everything that speakers and operators may ask of the LM's state machine, in any order, with restarts between.
#include "tests/fuzz/machine_world.h"

namespace {

using namespace kedge;
using fuzz::Input;
using fuzz::require;
using fuzz::World;

constexpr std::array<const char*, 5> kPrefixes = {"2001:db8:1:1::/64", "2001:db8:2:1::/64", "2001:db8:3::/63",
                                                  "2001:db8:1:2::/64", "2001:db8:9::/64"};

// Mostly none; sometimes any.
google::protobuf::Timestamp time(Input& in) {
  google::protobuf::Timestamp time;
  if (in.below(4) != 0) return time;
  time.set_seconds(static_cast<std::int64_t>(in.u64()));
  time.set_nanos(static_cast<std::int32_t>(in.u32()));
  return time;
}

// Protobuf lets nothing else through but UTF-8.
std::string ascii(std::string text) {
  for (char& c : text) c = static_cast<char>(c & 0x7f);
  return text;
}

std::string prefix(Input& in, const World& world) {
  std::vector<std::string> assigned;
  world.machine.visit_bindings(std::nullopt, [&](const v1::Binding& binding) {
    assigned.push_back(binding.prefix());
    return true;
  });
  const std::size_t which = in.u8();
  return which < 192 && !assigned.empty() ? assigned[which % assigned.size()] : kPrefixes[which % kPrefixes.size()];
}

v1::Generation generation(Input& in, const v1::Binding* binding) {
  v1::Generation generation;
  if (binding != nullptr) generation = binding->generation();
  switch (in.below(8)) {
    case 0:
      generation.set_revision(in.u64());
      break;
    case 1:
      generation.set_epoch(in.u8());
      break;
    case 2:
      generation.set_revision(generation.revision() - 1);
      break;
    default:
      break;
  }
  return generation;
}

class Commands {
 public:
  explicit Commands(bool relocates) : world_(relocates) {
    world_.load(1);
    for (std::size_t i = 0; i < fuzz::kKnownAccessRouters; ++i) world_.connect(fuzz::kAccessRouters[i]);
  }

  void step(Input& in) {
    switch (in.below(16)) {
      case 0:
      case 1:
      case 2:
        attach(in);
        break;
      case 3:
        detach(in);
        break;
      case 4:
      case 5:
      case 6:
        acknowledge(in);
        break;
      case 7:
        tell_of_use(in);
        break;
      case 8:
        world_.advance(std::chrono::milliseconds(in.u16()));
        break;
      case 9:
        set_policy(in);
        break;
      case 10: {
        const auto scope = policy_scope(in);
        world_.take(world_.machine.delete_policy(scope, world_.now));
        break;
      }
      case 11: {
        const std::string ar = in.choice(fuzz::kAccessRouters);
        world_.take(world_.machine.set_draining(ar, in.flag(), world_.now));
        break;
      }
      case 12:
        if (in.flag()) {
          world_.connect(in.choice(fuzz::kAccessRouters));
        } else {
          disconnect(in.choice(fuzz::kAccessRouters));
        }
        break;
      case 13:
        restart(in);
        break;
      case 14:
        world_.take(world_.machine.detach_by_operator(in.choice(fuzz::kMobileNodes), world_.now));
        break;
      case 15:
        anything(in);
        break;
    }
    world_.check();
    for (const auto& [key, value] : world_.values) require(value.size() < 4000, "no record grows without bound");
  }

  void end() {
    load(epoch_);
    world_.check();
  }

 private:
  void attach(Input& in) {
    v1::AttachRequest request;
    request.set_ar(in.choice(fuzz::kAccessRouters));
    request.set_mn_id(in.choice(fuzz::kMobileNodes));
    request.mutable_attachment()->set_interface(in.below(8) == 0 ? ascii(in.text8()) : "access0");
    request.mutable_attachment()->set_link_layer_address(request.mn_id());
    request.mutable_attachment()->set_link_local(in.below(8) == 0 ? "fe80::12" : "fe80::11");
    request.set_trigger(static_cast<v1::Trigger>(in.below(7)));
    request.mutable_age()->set_seconds(in.below(4) == 0 ? in.u8() : 0);
    *request.mutable_heard_at() = time(in);
    request.set_incarnation(in.below(16) == 0 ? 2 : 1);
    request.set_sequence(in.below(8) == 0 ? in.u8() : ++sequence_);
    request.set_link_unchanged(in.flag());
    if (request.trigger() == v1::TRIGGER_RECOVERY) {
      for (std::size_t i = in.below(4); i > 0; --i) request.add_held_prefixes(prefix(in, world_));
    }
    world_.take(world_.machine.attach(request, world_.now));
  }

  void detach(Input& in) {
    v1::DetachRequest request;
    request.set_ar(in.choice(fuzz::kAccessRouters));
    request.set_mn_id(in.choice(fuzz::kMobileNodes));
    const auto bindings = world_.machine.bindings_of(request.mn_id());
    if (in.flag()) *request.mutable_generation() = generation(in, bindings.empty() ? nullptr : bindings.front());
    request.set_reason(static_cast<v1::DetachReason>(in.below(5)));
    request.set_incarnation(1);
    request.set_sequence(in.below(8) == 0 ? in.u8() : ++sequence_);
    world_.take(world_.machine.detach(request, world_.now));
  }

  void tell_of_use(Input& in) {
    v1::Activity activity;
    for (std::size_t i = in.below(4); i > 0; --i) {
      auto& use = *activity.add_uses();
      use.set_prefix(prefix(in, world_));
      use.mutable_age()->set_seconds(in.below(16) == 0 ? static_cast<std::int32_t>(in.u32()) : in.u8());
      use.set_unused(in.flag());
      use.set_last(in.flag());
    }
    const auto session = world_.sessions.find(in.choice(fuzz::kAccessRouters));
    world_.take(world_.machine.activity(session == world_.sessions.end() ? 0 : session->second, activity, world_.now));
  }

  void acknowledge(Input& in) {
    v1::Ack ack;
    ack.set_prefix(prefix(in, world_));
    const auto parsed = Ipv6Prefix::parse(ack.prefix());
    const auto* binding = world_.machine.find(*parsed);
    *ack.mutable_generation() = generation(in, binding);
    ack.set_stage(static_cast<v1::Stage>(in.below(10)));
    ack.set_redirects_to(in.choice(fuzz::kAccessRouters));
    ack.set_preference(in.below(16) == 0 ? in.u32() : static_cast<std::uint32_t>(in.below(5)));
    *ack.mutable_at() = time(in);
    const auto session = world_.sessions.find(in.choice(fuzz::kAccessRouters));
    world_.take(world_.machine.ack(session == world_.sessions.end() ? 0 : session->second, ack, world_.now));
  }

  static v1::PolicyScope policy_scope(Input& in) {
    v1::PolicyScope scope;
    switch (in.below(4)) {
      case 0:
      case 1:
        scope.set_mn_id(in.choice(fuzz::kMobileNodes));
        break;
      case 2:
        scope.set_ar(in.choice(fuzz::kAccessRouters));
        break;
      default:
        scope.set_defaults(true);
        break;
    }
    return scope;
  }

  void set_policy(Input& in) {
    v1::SetPolicyRequest request;
    *request.mutable_scope() = policy_scope(in);
    auto& policy = *request.mutable_policy();
    const std::uint8_t fields = in.u8();
    if ((fields & 1U) != 0) policy.set_mode(static_cast<v1::Mode>(in.below(5)));
    if ((fields & 2U) != 0) policy.set_prefix_type(static_cast<v1::PrefixType>(in.below(6)));
    if ((fields & 4U) != 0) policy.add_allowed_ars(in.choice(fuzz::kAccessRouters));
    if ((fields & 8U) != 0) policy.mutable_relocate_after()->set_seconds(in.u8());
    if ((fields & 16U) != 0) policy.set_max_prefixes(static_cast<std::uint32_t>(in.below(17)));
    if ((fields & 32U) != 0) policy.set_serve_unknown(in.flag());
    for (auto* list : {(fields & 64U) != 0 ? policy.mutable_fixed_prefixes() : nullptr,
                       (fields & 128U) != 0 ? policy.mutable_mobile_network_prefixes() : nullptr}) {
      if (list == nullptr) continue;
      auto& fixed = *list->Add();
      fixed.set_prefix(prefix(in, world_));
      fixed.set_home_ar(in.choice(fuzz::kAccessRouters));
      fixed.set_mode(static_cast<v1::Mode>(in.below(5)));
    }
    if (in.below(8) == 0) request.add_inherit("mode");
    world_.take(world_.machine.set_policy(request, world_.now));
  }

  void disconnect(const std::string& ar) {
    const auto session = world_.sessions.find(ar);
    if (session == world_.sessions.end()) return;
    world_.take(world_.machine.session_down(session->second, world_.now));
    world_.sessions.erase(session);
  }

  void load(std::uint64_t epoch) { require(world_.load(epoch), "what was stored is taken over: " + world_.refusal); }

  // Also with a store that was restored from a backup, or by a clock that was set back.
  void restart(Input& in) {
    const std::size_t how = in.below(4);
    if (how == 1) world_.now -= std::chrono::seconds(in.u16());
    world_.revision += 1000;
    if (how == 2) {
      ++epoch_;
      v1::BackupHeader header;
      *header.mutable_revision() = world_.machine.revision();
      world_.values[lm::Machine::kRestoredFromKey] = header.SerializeAsString();
    }
    load(epoch_);
  }

  // Of whatever bytes.
  void anything(Input& in) {
    const std::size_t kind = in.below(4);
    const std::string bytes = in.text16();
    v1::AttachRequest attach;
    v1::Ack ack;
    v1::SetPolicyRequest policy;
    v1::SpeakerHealth health;
    if (kind == 0 && attach.ParseFromString(bytes)) world_.take(world_.machine.attach(attach, world_.now));
    if (kind == 1 && ack.ParseFromString(bytes)) {
      for (const auto& [ar, session] : world_.sessions) world_.take(world_.machine.ack(session, ack, world_.now));
    }
    if (kind == 2 && policy.ParseFromString(bytes)) world_.take(world_.machine.set_policy(policy, world_.now));
    if (kind == 3 && health.ParseFromString(bytes)) {
      for (const auto& [ar, session] : world_.sessions) world_.machine.health(session, health);
    }
  }

  World world_;
  std::uint64_t sequence_ = 0;
  std::uint64_t epoch_ = 1;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  Input in(data, size);
  Commands commands(in.flag());
  for (int i = 0; i < 300 && !in.empty(); ++i) commands.step(in);
  commands.end();
  return 0;
}
