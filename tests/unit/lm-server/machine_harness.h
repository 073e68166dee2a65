// A state machine with a store that is a map, and access routers' inboxes; time stands still until told otherwise.
#pragma once

#include <chrono>
#include <deque>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "common/time.h"
#include "gtest/gtest.h"
#include "lm-server/core/generation.h"
#include "lm-server/core/machine.h"
#include "lm-server/core/rules.h"
#include "lm-server/core/settings.h"

namespace kedge::lm {

inline AccessRouter make_access_router(int number, const std::string& pool = {}) {
  AccessRouter ar;
  const std::string n = std::to_string(number);
  ar.info.set_name("ar" + n);
  ar.info.set_locator("2001:db8:ffff:" + n + "::1");
  ar.info.set_deliver_sid("2001:db8:ffff:" + n + "::d");
  const std::string text = pool.empty() ? "2001:db8:" + n + "::/48" : pool;
  ar.info.add_pools(text);
  ar.pools.push_back(*Ipv6Prefix::parse(text));
  return ar;
}

inline Settings make_test_settings(int access_routers) {
  Settings settings;
  // Tests move their nodes more often than any node does.
  settings.flap_window = {};
  for (int i = 1; i <= access_routers; ++i) settings.access_routers.push_back(make_access_router(i));
  return settings;
}

inline std::string mn_name(int number) { return "02:00:00:00:00:1" + std::to_string(number); }

inline v1::AttachRequest attach_request(const std::string& ar, const std::string& mn,
                                        const std::string& interface = "access0") {
  v1::AttachRequest request;
  request.set_ar(ar);
  request.set_mn_id(mn);
  request.mutable_attachment()->set_interface(interface);
  request.mutable_attachment()->set_link_layer_address(mn);
  request.mutable_attachment()->set_link_local("fe80::11");
  request.set_trigger(v1::TRIGGER_ROUTER_SOLICITATION);
  request.set_incarnation(1);
  return request;
}

inline v1::PolicyScope mn_scope(const std::string& mn) {
  v1::PolicyScope scope;
  scope.set_mn_id(mn);
  return scope;
}
inline v1::PolicyScope ar_scope(const std::string& ar) {
  v1::PolicyScope scope;
  scope.set_ar(ar);
  return scope;
}
inline v1::PolicyScope default_scope() {
  v1::PolicyScope scope;
  scope.set_defaults(true);
  return scope;
}
inline v1::Policy mode_policy(v1::Mode mode) {
  v1::Policy policy;
  policy.set_mode(mode);
  return policy;
}

class Harness {
 public:
  explicit Harness(Settings settings) : settings_(std::move(settings)), machine(settings_, 1) {
    EXPECT_TRUE(machine.load(1, 0, {}, now, nullptr).ok());
  }

  // Takes an Output as the engine does: commits, then lets messages and events out.
  Output take(Output output) {
    if (output.commit) {
      EXPECT_EQ(output.commit->previous, revision);
      EXPECT_GT(output.commit->revision, revision);
      revision = output.commit->revision;
      for (const auto& write : output.commit->writes) {
        if (write.value) {
          values[write.key] = *write.value;
        } else {
          values.erase(write.key);
        }
      }
      // What comes before a synchronous commit is on disk with it.
      if (output.commit->durability == Durability::kSync) {
        durable_values = values;
        durable_revision = revision;
      }
    }
    for (const auto& message : output.messages) {
      inbox[message.session].push_back(std::make_shared<const v1::LmMessage>(parsed(message)));
    }
    for (const auto& event : output.events) events.push_back(event);
    return output;
  }

  Output attach(const std::string& ar, const std::string& mn, std::chrono::nanoseconds age = {}) {
    auto request = attach_request(ar, mn);
    return attach(request, age);
  }
  Output attach(v1::AttachRequest request, std::chrono::nanoseconds age = {}) {
    if (request.sequence() == 0) request.set_sequence(++sequence_);
    *request.mutable_age() = to_proto(age);
    return take(machine.attach(request, now));
  }
  Output detach(const std::string& ar, const std::string& mn, const v1::Generation& generation = {}) {
    v1::DetachRequest request;
    request.set_ar(ar);
    request.set_mn_id(mn);
    *request.mutable_generation() = generation;
    request.set_reason(v1::DETACH_REASON_LINK_DOWN);
    request.set_incarnation(1);
    request.set_sequence(++sequence_);
    return take(machine.detach(request, now));
  }
  Output set_policy(const v1::PolicyScope& scope, const v1::Policy& policy,
                    const std::vector<std::string>& inherit = {}) {
    v1::SetPolicyRequest request;
    *request.mutable_scope() = scope;
    *request.mutable_policy() = policy;
    for (const auto& field : inherit) request.add_inherit(field);
    return take(machine.set_policy(request, now));
  }
  std::uint64_t connect(const std::string& ar, std::uint64_t incarnation = 1) {
    v1::Hello hello;
    hello.set_ar(ar);
    hello.set_incarnation(incarnation);
    const std::uint64_t session = ++last_session_;
    take(machine.session_up(hello, session, now));
    sessions[ar] = session;
    return session;
  }
  void disconnect(const std::string& ar) {
    take(machine.session_down(sessions[ar], now));
    inbox.erase(sessions[ar]);
    sessions.erase(ar);
  }
  // At the binding's present generation unless told otherwise.
  Output ack(const std::string& ar, const std::string& prefix, v1::Stage stage, std::uint32_t preference = 0,
             const std::string& redirects_to = {}, const v1::Generation& generation = {}) {
    v1::Ack ack;
    ack.set_prefix(prefix);
    ack.set_stage(stage);
    ack.set_preference(preference);
    ack.set_redirects_to(redirects_to);
    *ack.mutable_generation() =
        is_none(generation) && find(prefix) != nullptr ? find(prefix)->generation() : generation;
    return take(machine.ack(sessions[ar], ack, now));
  }
  void advance(std::chrono::nanoseconds time) {
    const SystemTime until = now + time;
    while (machine.next_deadline() && *machine.next_deadline() <= until) {
      now = std::max(now, *machine.next_deadline());
      take(machine.tick(now));
    }
    now = until;
  }
  // The process dies, and a new one takes over what the store has. `power_failure`: what was not synchronised is lost.
  void restart(bool power_failure) {
    if (power_failure) {
      values = durable_values;
      revision = durable_revision;
    }
    revision += 1'000'000;
    durable_values = values;
    durable_revision = revision;
    sessions.clear();
    inbox.clear();
    auto output = machine.load(1, revision, values, now, &dropped);
    ASSERT_TRUE(output.ok()) << output.status();
    take(std::move(*output));
  }

  const v1::Binding* find(const std::string& prefix) const {
    const auto parsed = Ipv6Prefix::parse(prefix);
    return parsed.ok() ? machine.find(*parsed) : nullptr;
  }
  const v1::Binding& binding(const std::string& prefix) const { return *find(prefix); }
  // The only prefix of an MN whose home is `ar`.
  std::string prefix_of(const std::string& mn, const std::string& ar) const {
    for (const auto* b : machine.bindings_of(mn)) {
      if (b->home_ar() == ar) return b->prefix();
    }
    return {};
  }
  const v1::Holder* holder(const std::string& prefix, const std::string& ar) const {
    return find_holder(binding(prefix), ar);
  }
  int count(v1::EventType type, const std::string& prefix = {}) const {
    int n = 0;
    for (const auto& e : events) n += e.type() == type && (prefix.empty() || e.prefix() == prefix) ? 1 : 0;
    return n;
  }

 private:
  Settings settings_;
  std::uint64_t sequence_ = 0;
  std::uint64_t last_session_ = 0;

 public:
  SystemTime now = SystemTime(std::chrono::seconds(1'800'000'000));
  Machine machine;
  std::uint64_t revision = 0;
  std::uint64_t durable_revision = 0;
  std::map<std::string, std::string> values;
  std::map<std::string, std::string> durable_values;
  std::map<std::uint64_t, std::deque<std::shared_ptr<const v1::LmMessage>>> inbox;
  std::map<std::string, std::uint64_t> sessions;
  std::vector<v1::Event> events;
  std::vector<std::string> dropped;
};

}  // namespace kedge::lm
