// Any order of arrivals, departures, acknowledgements, lost sessions and restarts: what the access routers hold stays
// safe at each moment, and comes to rest when nothing happens any more.
#include <algorithm>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "speaker/core/desired.h"
#include "tests/unit/lm-server/machine_harness.h"

namespace kedge::lm {
namespace {

using speaker::Anchoring;
using speaker::Forwarding;

constexpr int kAccessRouters = 5;
constexpr int kMobileNodes = 3;

// Literally what desired() says, with acknowledgements that travel in order.
struct Speaker {
  std::string name;
  std::map<std::string, v1::Binding> records;
  std::map<std::string, Forwarding> forwarding;
  std::map<std::string, std::uint32_t> advertises;
  std::deque<v1::Ack> outbox;
  std::map<std::string, std::set<std::string>> acknowledged;
  std::set<std::string> in_snapshot;
  bool in_sync = false;
};

class World {
 public:
  World(unsigned seed, std::uint32_t levels, bool departures)
      : random_(seed), departures_(departures), harness_(make(levels)) {
    for (int i = 1; i <= kAccessRouters; ++i) {
      Speaker speaker;
      speaker.name = "ar" + std::to_string(i);
      speakers_.emplace(speaker.name, speaker);
      harness_.connect(speaker.name);
    }
  }

  void step() {
    const int dice = pick(1000);
    Speaker& speaker = any_speaker();
    if (dice < 60) {
      attach(speaker.name);
      check_pools();
    } else if (dice < 68) {
      operate(speaker.name);
      check_pools();
    } else if (dice < 80) {
      if (departures_) harness_.detach(speaker.name, mn_name(pick(kMobileNodes)));
    } else if (dice < 400) {
      receive(speaker);
    } else if (dice < 700) {
      acknowledge(speaker);
    } else if (dice < 900) {
      reconcile_all(speaker);
    } else if (dice < 960) {
      harness_.advance(std::chrono::milliseconds(pick(3000)));
    } else if (dice < 975) {
      lose_session(speaker);
    } else if (dice < 990) {
      if (harness_.sessions.count(speaker.name) == 0) connect(speaker);
    } else if (dice < 994) {
      restart(speaker);
    } else if (dice < 998) {
      restart_lm(pick(2) == 0);
    }
    check();
  }

  void come_to_rest() {
    for (int round = 0; round < 200; ++round) {
      for (auto& [name, speaker] : speakers_) {
        if (harness_.sessions.count(name) == 0) connect(speaker);
        while (receive(speaker)) check();
        reconcile_all(speaker);
        while (acknowledge(speaker)) check();
      }
      harness_.advance(std::chrono::milliseconds(500));
      check();
    }
    ASSERT_TRUE(std::all_of(speakers_.begin(), speakers_.end(), [](const auto& s) { return s.second.outbox.empty(); }))
        << "acknowledgements chase records for ever";
    harness_.machine.visit_bindings(std::nullopt, [&](const v1::Binding& binding) {
      check_at_rest(binding);
      return true;
    });
  }

 private:
  static Settings make(std::uint32_t levels) {
    auto settings = make_test_settings(kAccessRouters);
    settings.preference_levels = levels;
    settings.max_prefixes_per_mn = 3;
    settings.flap_window = std::chrono::seconds(20);
    settings.prefix_quarantine = std::chrono::seconds(40);
    return settings;
  }
  int pick(int n) { return std::uniform_int_distribution<int>(0, n - 1)(random_); }
  Speaker& any_speaker() { return speakers_.at("ar" + std::to_string(1 + pick(kAccessRouters))); }

  void attach(const std::string& ar) {
    harness_.attach(attach_request(ar, mn_name(pick(kMobileNodes)), pick(8) == 0 ? "access1" : "access0"));
  }

  void operate(const std::string& ar) {
    const int choice = pick(departures_ ? 8 : 7);
    if (choice < 2) return drain(ar);
    if (choice < 7) return change_policy(ar);
    harness_.take(harness_.machine.detach_by_operator(mn_name(pick(kMobileNodes)), harness_.now));
  }

  void drain(const std::string& ar) {
    if (!draining_.erase(ar)) draining_.insert(ar);
    harness_.take(harness_.machine.set_draining(ar, draining_.count(ar) != 0, harness_.now));
  }

  // Of a world without departures: what makes prefixes end is left out.
  void change_policy(const std::string& ar) {
    const std::string mn = mn_name(pick(kMobileNodes));
    const int kind = pick(4);
    const auto scope = kind == 0 ? default_scope() : kind == 1 ? ar_scope(ar) : mn_scope(mn);
    if (pick(4) == 0) {
      harness_.take(harness_.machine.delete_policy(scope, harness_.now));
      return;
    }
    v1::Policy policy;
    const int choice = pick(departures_ ? 4 : 2);
    policy.set_mode(choice == 0 ? v1::MODE_RELOCATE : choice == 3 ? v1::MODE_NOMADIC : v1::MODE_REDIRECT);
    if (choice == 2) policy.set_prefix_type(v1::PREFIX_TYPE_GRACEFUL_REPLACEMENT);
    if (pick(2) == 0) policy.mutable_relocate_after()->set_seconds(pick(5));
    if (pick(2) == 0) policy.set_direct_uplink(pick(2) == 0);
    policy.mutable_replacement_time()->set_seconds(pick(10));
    if (scope.has_mn_id() && pick(2) == 0) {
      auto& fixed = *policy.add_fixed_prefixes();
      const std::string n(1, ar.back());
      fixed.set_prefix("2001:db8:" + n + ":f" + mn.back() + "::/64");
      fixed.set_home_ar(ar);
    }
    if (departures_ && scope.has_mn_id() && pick(2) == 0) {
      auto& network = *policy.add_mobile_network_prefixes();
      network.set_prefix(std::string("2001:db8:") + ar.back() + ":e0" + mn.back() + "0::/60");
      network.set_home_ar(ar);
    }
    const auto inherit = choice == 2 ? std::vector<std::string>{} : std::vector<std::string>{"prefix_type"};
    const auto status = harness_.set_policy(scope, policy, inherit).status;
    ASSERT_TRUE(status.ok()) << status;
  }

  void connect(Speaker& speaker) {
    speaker.in_sync = false;
    speaker.in_snapshot.clear();
    speaker.outbox.clear();
    speaker.acknowledged.clear();
    harness_.connect(speaker.name);
  }
  void lose_session(Speaker& speaker) {
    if (harness_.sessions.count(speaker.name) == 0) return;
    harness_.disconnect(speaker.name);
    speaker.outbox.clear();
  }
  void restart(Speaker& speaker) {
    lose_session(speaker);
    speaker.records.clear();
    speaker.forwarding.clear();
    speaker.advertises.clear();
  }
  void restart_lm(bool power_failure) {
    for (auto& [name, speaker] : speakers_) speaker.outbox.clear();
    harness_.restart(power_failure);
  }

  bool receive(Speaker& speaker) {
    const auto session = harness_.sessions.find(speaker.name);
    if (session == harness_.sessions.end()) return false;
    auto& inbox = harness_.inbox[session->second];
    if (inbox.empty()) return false;
    const auto message = inbox.front();
    inbox.pop_front();
    if (message->has_snapshot_end()) {
      for (auto it = speaker.records.begin(); it != speaker.records.end();) {
        it = speaker.in_snapshot.count(it->first) == 0 ? speaker.records.erase(it) : std::next(it);
      }
      for (const auto& prefix : held(speaker)) {
        if (speaker.records.count(prefix) == 0) clear(speaker, prefix);
      }
      speaker.in_sync = true;
      return true;
    }
    if (!message->has_record()) return true;
    const auto& record = message->record();
    if (record.has_forget()) {
      speaker.records.erase(record.forget().prefix());
      speaker.acknowledged.erase(record.forget().prefix());
      clear(speaker, record.forget().prefix());
      return true;
    }
    speaker.in_snapshot.insert(record.binding().prefix());
    speaker.records[record.binding().prefix()] = record.binding();
    if (speaker.in_sync || pick(2) == 0) reconcile(speaker, record.binding().prefix());
    return true;
  }

  std::set<std::string> held(const Speaker& speaker) const {
    std::set<std::string> prefixes;
    for (const auto& [prefix, forwarding] : speaker.forwarding) prefixes.insert(prefix);
    for (const auto& [prefix, level] : speaker.advertises) prefixes.insert(prefix);
    return prefixes;
  }
  void clear(Speaker& speaker, const std::string& prefix) {
    speaker.forwarding.erase(prefix);
    speaker.advertises.erase(prefix);
  }

  void say(Speaker& speaker, const v1::Binding& record, v1::Stage stage, std::uint32_t preference = 0,
           const std::string& to = {}) {
    const auto* own = find_holder(record, speaker.name);
    const std::string key = std::to_string(record.generation().revision()) + "/" + std::to_string(stage) + "/" +
                            std::to_string(preference) + "/" + to + (own != nullptr && own->releasing() ? "r" : "");
    auto& done = speaker.acknowledged[record.prefix()];
    if (!done.insert(key).second) return;
    if (stage == v1::STAGE_ADVERTISED) {
      std::erase_if(done, [](const std::string& k) { return k.find("/6/") != std::string::npos; });
    }
    v1::Ack ack;
    ack.set_prefix(record.prefix());
    *ack.mutable_generation() = record.generation();
    ack.set_stage(stage);
    ack.set_preference(preference);
    ack.set_redirects_to(to);
    speaker.outbox.push_back(ack);
  }

  void reconcile_all(Speaker& speaker) {
    std::vector<std::string> prefixes;
    for (const auto& [prefix, record] : speaker.records) prefixes.push_back(prefix);
    for (const auto& prefix : prefixes) reconcile(speaker, prefix);
  }

  void reconcile(Speaker& speaker, const std::string& prefix) {
    const v1::Binding& record = speaker.records.at(prefix);
    const auto desired = speaker::desired(record, speaker.name);
    forward(speaker, record, desired.forwarding);
    anchor(speaker, record, desired.anchoring);
    if (desired == speaker::Desired{}) say(speaker, record, v1::STAGE_CLEARED);
  }

  void forward(Speaker& speaker, const v1::Binding& record, const Forwarding& wanted) {
    const auto& prefix = record.prefix();
    if (wanted.kind == Forwarding::Kind::kNone) {
      speaker.forwarding.erase(prefix);
      return;
    }
    if (wanted.kind == Forwarding::Kind::kRedirect) check_redirect(record, wanted.redirect_to);
    speaker.forwarding[prefix] = wanted;
    switch (wanted.kind) {
      case Forwarding::Kind::kDeliver:
        return say(speaker, record, v1::STAGE_DELIVERING);
      case Forwarding::Kind::kRedirect:
        return say(speaker, record, v1::STAGE_REDIRECTING, 0, wanted.redirect_to);
      default:
        return say(speaker, record, v1::STAGE_UNREACHABLE);
    }
  }

  void anchor(Speaker& speaker, const v1::Binding& record, const Anchoring& wanted) {
    const auto& prefix = record.prefix();
    if (wanted.kind == Anchoring::Kind::kAdvertise) {
      speaker.advertises[prefix] = wanted.level;
      return say(speaker, record, v1::STAGE_ADVERTISED, wanted.level);
    }
    if (wanted.kind == Anchoring::Kind::kUntilSuperseded) {
      const auto& successor = speakers_.at(wanted.successor).advertises;
      const auto route = successor.find(prefix);
      const auto own = speaker.advertises.find(prefix);
      const bool superseded = route != successor.end() && route->second >= wanted.level &&
                              (own == speaker.advertises.end() || route->second > own->second);
      if (superseded) {
        say(speaker, record, v1::STAGE_SUPERSEDED, route->second);
      } else if (own != speaker.advertises.end()) {
        return;
      }
    }
    speaker.advertises.erase(prefix);
    const auto* own = find_holder(record, speaker.name);
    if (own != nullptr && own->advertises_preference() > 0) say(speaker, record, v1::STAGE_WITHDRAWN);
  }

  bool acknowledge(Speaker& speaker) {
    if (speaker.outbox.empty() || harness_.sessions.count(speaker.name) == 0) return false;
    const v1::Ack ack = speaker.outbox.front();
    if (pick(5) != 0) speaker.outbox.pop_front();  // or it is sent twice
    if (ack.stage() == v1::STAGE_DELIVERING) {
      delivered_.insert({ack.prefix(), ack.generation().revision(), speaker.name});
      delivered_ever_.insert({ack.prefix(), speaker.name});
    }
    harness_.take(harness_.machine.ack(harness_.sessions[speaker.name], ack, harness_.now));
    return true;
  }

  void check_redirect(const v1::Binding& record, const std::string& to) {
    const auto* attached = find_holder(record, record.attached_ar());
    if (to == record.attached_ar() && attached->delivers() && same(attached->generation(), record.generation())) {
      ASSERT_TRUE(delivered_.count({record.prefix(), record.generation().revision(), to}) != 0)
          << "redirect to " << to << ", which has not acknowledged to deliver: " << record.ShortDebugString();
    } else {
      ASSERT_TRUE(delivered_ever_.count({record.prefix(), to}) != 0) << record.ShortDebugString();
    }
  }

  void check() {
    for (const auto& [name, speaker] : speakers_) {
      for (const auto& prefix : held(speaker)) {
        const auto* binding = harness_.find(prefix);
        ASSERT_NE(binding, nullptr);
        const auto* holder = find_holder(*binding, name);
        ASSERT_NE(holder, nullptr) << name << " holds something unknown: " << binding->ShortDebugString();
        const auto level = speaker.advertises.find(prefix);
        if (level != speaker.advertises.end()) {
          ASSERT_LE(level->second, holder->advertises_preference()) << name << " " << binding->ShortDebugString();
        }
        check_no_loop(prefix, name);
        if (!departures_) check_target_stays(*binding, speaker);
      }
    }
    harness_.machine.visit_bindings(std::nullopt, [](const v1::Binding& b) {
      if (b.preference() > 0 && !is_detached(b)) {
        EXPECT_GT(b.preference(), highest_other_preference(b, b.attached_ar())) << b.ShortDebugString();
      }
      return true;
    });
  }

  // What is used of a pool is what bindings and profiles have of it, each once.
  void check_pools() {
    std::map<std::string, std::set<Ipv6Prefix>> used;
    harness_.machine.visit_bindings(std::nullopt, [&](const v1::Binding& b) {
      used[b.home_ar()].insert(*Ipv6Prefix::parse(b.prefix()));
      return true;
    });
    for (const auto& entry : harness_.machine.policies()) {
      for (const auto& fixed : fixed_prefixes(entry.policy())) used[fixed.home_ar].insert(fixed.prefix);
    }
    for (const auto& node : harness_.machine.nodes()) {
      std::uint64_t count = 0;
      for (const auto& prefix : used[node.info().name()]) count += prefix.count(64);
      ASSERT_EQ(node.pool_used(), count) << node.info().name();
    }
  }

  // An AR is not told to let go for as long as another one tunnels to it.
  void check_target_stays(const v1::Binding& binding, const Speaker& speaker) {
    const auto it = speaker.forwarding.find(binding.prefix());
    if (it == speaker.forwarding.end() || it->second.kind != Forwarding::Kind::kRedirect) return;
    const auto* target = find_holder(binding, it->second.redirect_to);
    ASSERT_TRUE(target != nullptr && !target->releasing())
        << speaker.name << " -> " << it->second.redirect_to << " " << binding.ShortDebugString();
  }

  void check_no_loop(const std::string& prefix, std::string at) {
    for (int hops = 0; hops <= kAccessRouters; ++hops) {
      const auto& forwarding = speakers_.at(at).forwarding;
      const auto it = forwarding.find(prefix);
      if (it == forwarding.end() || it->second.kind != Forwarding::Kind::kRedirect) return;
      at = it->second.redirect_to;
    }
    FAIL() << "redirects of " << prefix << " form a loop";
  }

  void check_at_rest(const v1::Binding& binding) {
    SCOPED_TRACE(binding.ShortDebugString());
    const bool detached = is_detached(binding);
    EXPECT_EQ(binding.state(), detached ? v1::BINDING_STATE_DETACHED : v1::BINDING_STATE_SETTLED);
    // Where the MN is told that the prefix has ended.
    std::string refuses;
    for (const auto* other : harness_.machine.bindings_of(binding.mn_id())) {
      if (binding.released() && other->attached_ar() != binding.home_ar()) refuses += other->attached_ar();
      if (!refuses.empty()) break;
    }
    for (const auto& holder : binding.holders()) {
      EXPECT_TRUE(holder.ar() == binding.home_ar() || holder.ar() == binding.attached_ar() || holder.ar() == refuses);
    }
    for (const auto& [name, speaker] : speakers_) {
      Forwarding expected;
      if (detached && name == binding.home_ar())
        expected = {Forwarding::Kind::kUnreachable, {}, {}, binding.released()};
      if (detached && name == refuses) expected.kind = Forwarding::Kind::kRefuse;
      if (!detached && name == binding.home_ar())
        expected = {Forwarding::Kind::kRedirect, binding.attached_ar(), {}, false};
      if (!detached && name == binding.attached_ar()) {
        const bool tunnelled = is_away(binding) && binding.mode() == v1::MODE_REDIRECT && !binding.direct_uplink();
        expected = {Forwarding::Kind::kDeliver, {}, tunnelled ? binding.home_ar() : std::string(), false};
      }
      const auto it = speaker.forwarding.find(binding.prefix());
      EXPECT_EQ(it == speaker.forwarding.end() ? Forwarding{} : it->second, expected) << name;
      const auto level = speaker.advertises.find(binding.prefix());
      const bool anchors = is_away(binding) && name == binding.attached_ar() && binding.mode() == v1::MODE_RELOCATE;
      const std::uint32_t expected_level = anchors ? 1 : 0;
      EXPECT_EQ(level == speaker.advertises.end() ? 0 : level->second, expected_level) << name;
    }
    if (!detached) check_follows_policy(binding);
    EXPECT_EQ(detached && binding.prefix_type() != v1::PREFIX_TYPE_FIXED, binding.has_free_at());
  }

  void check_follows_policy(const v1::Binding& binding) {
    v1::GetEffectivePolicyRequest request;
    request.set_mn_id(binding.mn_id());
    const auto effective = harness_.machine.effective_policy(request);
    ASSERT_TRUE(effective.ok());
    const auto& policy = effective->policy();
    SCOPED_TRACE(policy.ShortDebugString());
    EXPECT_FALSE(binding.flapping());
    EXPECT_FALSE(binding.has_relocate_at());
    EXPECT_FALSE(binding.released());
    EXPECT_EQ(binding.direct_uplink(), policy.direct_uplink());
    const auto named = fixed_prefixes(policy);
    const auto it = std::find_if(named.begin(), named.end(),
                                 [&](const auto& f) { return f.prefix.to_string() == binding.prefix(); });
    const bool fixed = it != named.end();
    EXPECT_EQ(binding.mobile_network(), fixed && it->mobile_network);
    EXPECT_EQ(binding.prefix_type(), fixed ? v1::PREFIX_TYPE_FIXED : policy.prefix_type());
    v1::Mode expected = policy.mode();
    if (fixed && expected == v1::MODE_NOMADIC) expected = v1::MODE_RELOCATE;
    const bool driven_out = is_away(binding) && draining_.count(binding.home_ar()) != 0;
    if (driven_out && expected == v1::MODE_REDIRECT) expected = v1::MODE_RELOCATE;
    EXPECT_EQ(binding.mode(), expected);
    EXPECT_FALSE(expected == v1::MODE_NOMADIC && is_away(binding));
    EXPECT_FALSE(binding.prefix_type() == v1::PREFIX_TYPE_GRACEFUL_REPLACEMENT && is_away(binding));
  }

  std::mt19937 random_;
  const bool departures_;
  std::set<std::string> draining_;
  Harness harness_;
  std::map<std::string, Speaker> speakers_;
  std::set<std::tuple<std::string, std::uint64_t, std::string>> delivered_;
  std::set<std::pair<std::string, std::string>> delivered_ever_;
};

class RandomOrder : public testing::TestWithParam<int> {};

TEST_P(RandomOrder, StaysSafeAndComesToRest) {
  for (int i = 0; i < 20; ++i) {
    const auto seed = static_cast<unsigned>(GetParam() * 1000 + i);
    SCOPED_TRACE("seed " + std::to_string(seed));
    World world(seed, i % 2 == 0 ? 8 : 3, i % 4 < 2);
    for (int step = 0; step < 1500 && !testing::Test::HasFailure(); ++step) world.step();
    if (!testing::Test::HasFailure()) world.come_to_rest();
    if (testing::Test::HasFailure()) return;
  }
}

INSTANTIATE_TEST_SUITE_P(Seeds, RandomOrder, testing::Range(0, 10));

}  // namespace
}  // namespace kedge::lm
