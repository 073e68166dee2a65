// A state machine of the LM with a store that is a map, for the targets that feed it; and what is always true of it.
#pragma once

#include <map>
#include <string>

#include "google/protobuf/util/json_util.h"
#include "lm-server/core/generation.h"
#include "lm-server/core/machine.h"
#include "lm-server/core/rules.h"
#include "tests/fuzz/input.h"

namespace kedge::fuzz {

constexpr std::array<const char*, 4> kAccessRouters = {"ar1", "ar2", "ar3", "ar9"};
constexpr std::size_t kKnownAccessRouters = 3;
constexpr std::array<const char*, 4> kMobileNodes = {"02:00:00:00:00:11", "02:00:00:00:00:12", "02:00:00:00:00:13",
                                                     "nobody"};

// "ar1" to "ar3" with four /64s each; all that waits, waits for seconds.
inline lm::Settings small_settings(bool relocates) {
  lm::Settings settings;
  for (std::size_t i = 0; i < kKnownAccessRouters; ++i) {
    lm::AccessRouter ar;
    const std::string number = std::to_string(i + 1);
    ar.info.set_name(kAccessRouters[i]);
    ar.info.set_locator("2001:db8:ffff:" + number + "::1");
    ar.info.set_deliver_sid("2001:db8:ffff:" + number + "::d");
    ar.info.set_uplink_sid("2001:db8:ffff:" + number + "::e");
    ar.info.add_pools("2001:db8:" + number + "::/62");
    ar.pools.push_back(*Ipv6Prefix::parse(ar.info.pools(0)));
    settings.access_routers.push_back(std::move(ar));
  }
  settings.mode = relocates ? v1::MODE_RELOCATE : v1::MODE_REDIRECT;
  settings.preference_levels = 3;
  settings.max_prefixes_per_mn = 3;
  settings.flap_moves = 3;
  settings.flap_window = std::chrono::seconds(5);
  settings.prefix_quarantine = std::chrono::seconds(20);
  settings.idle_after = std::chrono::seconds(20);
  settings.replacement_time = std::chrono::seconds(5);
  settings.recovery_time = std::chrono::seconds(5);
  return settings;
}

class World {
 public:
  explicit World(bool relocates) : settings_(small_settings(relocates)), machine(settings_, 1) {}

  // False: the store is refused as damaged.
  bool load(std::uint64_t epoch) {
    std::vector<std::string> dropped;
    auto output = machine.load(epoch, revision, values, now, &dropped);
    if (!output.ok()) {
      require(output.status().code() == absl::StatusCode::kDataLoss, "a damaged store is told so");
      refusal = std::string(output.status().message());
      return false;
    }
    sessions.clear();
    take(std::move(*output));
    return true;
  }

  // As the engine does. Returns whether the command was obeyed.
  bool take(lm::Output output) {
    if (output.commit) {
      require(output.commit->previous == revision && output.commit->revision > revision, "revisions grow");
      revision = output.commit->revision;
      for (auto& write : output.commit->writes) {
        if (write.value) {
          values[write.key] = *std::move(write.value);
        } else {
          values.erase(write.key);
        }
      }
    }
    if (!output.status.ok()) require(output.status.message().size() < 2000, "an error is short");
    for (const auto& event : output.events) check_event(event);
    for (const auto& message : output.messages) require(message.session != 0, "a message has an addressee");
    return output.status.ok();
  }

  void connect(const std::string& ar) {
    v1::Hello hello;
    hello.set_ar(ar);
    hello.set_incarnation(1);
    if (take(machine.session_up(hello, ++last_session_, now))) sessions[ar] = last_session_;
  }

  void advance(std::chrono::milliseconds time) {
    const SystemTime until = now + time;
    for (int i = 0; i < 100 && machine.next_deadline() && *machine.next_deadline() <= until; ++i) {
      now = std::max(now, *machine.next_deadline());
      take(machine.tick(now));
    }
    now = std::max(now, until);
  }

  void check() const {
    std::uint64_t attached = 0;
    std::uint64_t moving = 0;
    std::optional<Ipv6Prefix> before;
    machine.visit_bindings(std::nullopt, [&](const v1::Binding& binding) {
      const auto prefix = Ipv6Prefix::parse(binding.prefix());
      require(prefix.ok() && (!before || !before->overlaps(*prefix)), "no prefix is assigned twice");
      before = *prefix;
      check_binding(binding);
      const auto stored = values.find(lm::Machine::key_of(*prefix));
      require(stored != values.end(), "what is assigned is in the store");
      attached += lm::is_detached(binding) ? 0 : 1;
      moving += binding.state() == v1::BINDING_STATE_MOVING ? 1 : 0;
      return true;
    });
    require(attached == machine.attached_count() && moving == machine.moving_count(), "counts are right");
    for (const auto& node : machine.nodes()) {
      require(node.pool_used() <= node.pool_size(), "no more is assigned than there is");
    }
    require(machine.connected_count() == sessions.size(), "sessions are known");
  }

 private:
  lm::Settings settings_;
  std::uint64_t last_session_ = 0;

  static bool is_known(const std::string& ar) {
    return std::find(kAccessRouters.begin(), kAccessRouters.begin() + kKnownAccessRouters, ar) !=
           kAccessRouters.begin() + kKnownAccessRouters;
  }

  void check_binding(const v1::Binding& binding) const {
    if (!lm::is_detached(binding)) {
      require(lm::find_holder(binding, binding.attached_ar()) != nullptr, "the attached AR is a holder");
      require(lm::find_holder(binding, binding.home_ar()) != nullptr, "the home AR of an attached prefix is a holder");
    }
    require(!binding.holders().empty() || binding.state() == v1::BINDING_STATE_DETACHED, "somebody holds it");
    for (const auto& holder : binding.holders()) {
      require(is_known(holder.ar()), "a holder is an access router");
      require(holder.redirects_to().empty() || is_known(holder.redirects_to()), "a redirect leads to an access router");
    }
    require(lm::compare(binding.generation(), machine.revision()) <= 0, "no generation is ahead of its store");
  }

  static void check_event(const v1::Event& event) {
    std::string json;
    require(google::protobuf::util::MessageToJsonString(event, &json).ok(), "an event can be printed");
    require(json.size() < 4000, "an event is small");
  }

 public:
  SystemTime now = SystemTime(std::chrono::seconds(1'800'000'000));
  lm::Machine machine;
  std::uint64_t revision = 0;
  std::map<std::string, std::string> values;
  std::map<std::string, std::uint64_t> sessions;
  // Why the store was refused.
  std::string refusal;
};

}  // namespace kedge::fuzz
