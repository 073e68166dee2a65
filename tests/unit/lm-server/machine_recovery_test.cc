// A store restored from a backup: what access routers tell makes good what was lost.
#include <chrono>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/unit/lm-server/machine_harness.h"

namespace kedge::lm {
namespace {

using std::chrono::hours;
using std::chrono::milliseconds;
using std::chrono::minutes;
using std::chrono::seconds;
using testing::HasSubstr;

const std::string kMn = mn_name(1);
const std::string kOther = mn_name(2);
const std::string kPrefix = "2001:db8:1:1::/64";
const std::vector<std::string> kAccessRouters = {"ar1", "ar2", "ar3", "ar4"};

class MachineRecoveryTest : public testing::Test {
 protected:
  explicit MachineRecoveryTest(Settings settings = make_test_settings(4)) : h(std::move(settings)) { connect(); }

  void connect() {
    for (const auto& ar : kAccessRouters) h.connect(ar);
  }
  // Everybody does what the record says, until all is at rest.
  void settle() {
    for (int round = 0; round < 10; ++round) {
      std::vector<std::pair<std::string, std::string>> holders;
      h.machine.visit_bindings(std::nullopt, [&](const v1::Binding& binding) {
        for (const auto& holder : binding.holders()) holders.emplace_back(binding.prefix(), holder.ar());
        return true;
      });
      for (const auto& [prefix, ar] : holders) do_what_is_said(prefix, ar);
      h.advance(milliseconds(300));
    }
  }
  void do_what_is_said(const std::string& prefix, const std::string& ar) {
    const auto* binding = h.find(prefix);
    if (binding == nullptr || is_detached(*binding) || h.holder(prefix, ar) == nullptr) return;
    if (h.holder(prefix, ar)->releasing()) {
      h.ack(ar, prefix, v1::STAGE_CLEARED);
    } else if (binding->attached_ar() == ar) {
      h.ack(ar, prefix, v1::STAGE_DELIVERING);
      const auto level = h.binding(prefix).preference();
      if (level > 0) h.ack(ar, prefix, v1::STAGE_ADVERTISED, level);
      if (level == 0) h.ack(ar, prefix, v1::STAGE_WITHDRAWN);
    } else if (attached_delivers(*binding)) {
      h.ack(ar, prefix, v1::STAGE_REDIRECTING, 0, binding->attached_ar());
      h.ack(ar, prefix, v1::STAGE_SUPERSEDED, h.binding(prefix).preference());
      h.ack(ar, prefix, v1::STAGE_WITHDRAWN);
    }
  }
  void expect_settled(const std::string& prefix, const std::string& ar) {
    ASSERT_NE(h.find(prefix), nullptr);
    EXPECT_EQ(h.binding(prefix).attached_ar(), ar);
    EXPECT_EQ(h.binding(prefix).state(), v1::BINDING_STATE_SETTLED) << h.binding(prefix).ShortDebugString();
  }
  void attach(const std::string& ar, const std::string& mn = kMn) {
    h.now += milliseconds(10);
    ASSERT_TRUE(h.attach(ar, mn).status.ok());
    settle();
  }
  Output recover(const std::string& ar, const std::vector<std::string>& held, std::chrono::nanoseconds age = {},
                 const std::string& mn = kMn) {
    auto request = attach_request(ar, mn);
    request.set_trigger(v1::TRIGGER_RECOVERY);
    for (const auto& prefix : held) request.add_held_prefixes(prefix);
    return h.attach(request, age);
  }
  void back_up() {
    backup_ = h.values;
    backup_revision_ = h.revision;
  }
  void restore() {
    v1::BackupHeader header;
    header.set_format(1);
    header.mutable_revision()->set_epoch(epoch_);
    header.mutable_revision()->set_revision(backup_revision_);
    header.mutable_made_at()->set_seconds(1'800'000'000);
    h.values = backup_;
    h.values[Machine::kRestoredFromKey] = header.SerializeAsString();
    h.revision = backup_revision_;
    ++epoch_;
    load();
  }
  void load() {
    h.revision += 1'000'000;
    h.sessions.clear();
    h.inbox.clear();
    auto output = h.machine.load(epoch_, h.revision, h.values, h.now, &h.dropped);
    ASSERT_TRUE(output.ok()) << output.status();
    h.take(std::move(*output));
    connect();
  }

  Harness h;
  std::uint64_t epoch_ = 1;
  std::map<std::string, std::string> backup_;
  std::uint64_t backup_revision_ = 0;
};

TEST_F(MachineRecoveryTest, IsToldOnce) {
  attach("ar1");
  back_up();
  restore();
  EXPECT_EQ(h.count(v1::EVENT_TYPE_STORE_RESTORED), 1);
  for (const auto& event : h.events) {
    if (event.type() == v1::EVENT_TYPE_STORE_RESTORED) {
      EXPECT_THAT(event.detail(), testing::AllOf(HasSubstr("revision 1."), HasSubstr("2027-01-15")));
    }
  }
  load();
  EXPECT_EQ(h.count(v1::EVENT_TYPE_STORE_RESTORED), 1);
}

TEST_F(MachineRecoveryTest, NothingThatWasAcknowledgedBeforeCounts) {
  attach("ar1");
  attach("ar2");
  expect_settled(kPrefix, "ar2");
  back_up();
  restore();
  const auto& binding = h.binding(kPrefix);
  EXPECT_EQ(binding.state(), v1::BINDING_STATE_DETACHED_GRACE);
  EXPECT_EQ(binding.generation().epoch(), 2U);
  EXPECT_EQ(binding.last_ar(), "ar2");
  ASSERT_NE(h.holder(kPrefix, "ar1"), nullptr);
  for (const auto& holder : binding.holders()) {
    EXPECT_FALSE(holder.delivers() || holder.unreachable() || holder.releasing());
    EXPECT_EQ(holder.redirects_to(), "");
    EXPECT_TRUE(is_none(holder.generation()));
  }
  EXPECT_EQ(h.holder(kPrefix, "ar2")->advertises_preference(), 1U) << "it may announce it still";
}

TEST_F(MachineRecoveryTest, ANodeThatHasNotMovedSinceIsTakenUpWhereItIs) {
  attach("ar1");
  attach("ar2");
  const auto arrived = h.binding(kPrefix).arrived_at();
  back_up();
  h.now += hours(1);
  restore();
  const auto output = recover("ar2", {kPrefix, h.prefix_of(kMn, "ar2")});
  ASSERT_TRUE(output.status.ok()) << output.status;
  EXPECT_EQ(h.binding(kPrefix).arrived_at().seconds(), arrived.seconds()) << "it has been there all the time";
  settle();
  expect_settled(kPrefix, "ar2");
  EXPECT_EQ(h.machine.bindings_of(kMn).size(), 2U);
}

TEST_F(MachineRecoveryTest, ANodeThatHasMovedSinceIsWhereItIsNow) {
  attach("ar1");
  attach("ar2");
  back_up();
  attach("ar3");
  h.now += hours(1);
  restore();
  ASSERT_TRUE(recover("ar3", {kPrefix}).status.ok());
  EXPECT_FALSE(attached_delivers(h.binding(kPrefix)));
  EXPECT_GT(h.binding(kPrefix).preference(), 1U) << "ar2 may announce at 1";
  settle();
  expect_settled(kPrefix, "ar3");
  EXPECT_EQ(h.holder(kPrefix, "ar2"), nullptr);
}

TEST_F(MachineRecoveryTest, ANodeThatWasLostKeepsItsPrefixes) {
  back_up();
  attach("ar1");
  attach("ar2");
  const auto second = h.prefix_of(kMn, "ar2");
  restore();
  ASSERT_EQ(h.machine.binding_count(), 0U);
  ASSERT_TRUE(recover("ar2", {kPrefix, second}).status.ok());
  EXPECT_EQ(h.binding(kPrefix).home_ar(), "ar1");
  EXPECT_NE(h.holder(kPrefix, "ar1"), nullptr) << "the home may redirect anywhere";
  settle();
  expect_settled(kPrefix, "ar2");
  expect_settled(second, "ar2");
  EXPECT_EQ(h.machine.bindings_of(kMn).size(), 2U) << "it needs no other of ar2";
}

TEST_F(MachineRecoveryTest, WhatIsSomebodyElsesOrInNoPoolIsNotTakenUp) {
  attach("ar1", kOther);
  v1::Policy policy;
  auto* fixed = policy.add_fixed_prefixes();
  fixed->set_prefix("2001:db8:1:f0::/64");
  fixed->set_home_ar("ar1");
  ASSERT_TRUE(h.set_policy(mn_scope(kOther), policy).status.ok());
  back_up();
  restore();
  const auto output = recover("ar2", {h.prefix_of(kOther, "ar1"), "2001:db8:1:f0::/64", "2001:db8:9:1::/64"});
  ASSERT_TRUE(output.status.ok()) << output.status;
  const auto bindings = h.machine.bindings_of(kMn);
  ASSERT_EQ(bindings.size(), 1U);
  EXPECT_EQ(bindings[0]->home_ar(), "ar2") << "what it would get anyway";
  EXPECT_EQ(h.binding(h.prefix_of(kOther, "ar1")).mn_id(), kOther);
}

TEST_F(MachineRecoveryTest, ItsOwnFixedPrefixIsAssignedByItsProfile) {
  v1::Policy policy;
  auto* fixed = policy.add_fixed_prefixes();
  fixed->set_prefix("2001:db8:1:f0::/64");
  fixed->set_home_ar("ar1");
  ASSERT_TRUE(h.set_policy(mn_scope(kMn), policy).status.ok());
  back_up();
  attach("ar2");
  restore();
  ASSERT_TRUE(recover("ar2", {"2001:db8:1:f0::/64"}).status.ok());
  ASSERT_NE(h.find("2001:db8:1:f0::/64"), nullptr);
  EXPECT_EQ(h.binding("2001:db8:1:f0::/64").prefix_type(), v1::PREFIX_TYPE_FIXED);
}

TEST_F(MachineRecoveryTest, OnlyARecoveryTakesUpPrefixes) {
  auto request = attach_request("ar2", kMn);
  request.add_held_prefixes(kPrefix);
  ASSERT_TRUE(h.attach(request).status.ok());
  EXPECT_EQ(h.find(kPrefix), nullptr);
  request.set_held_prefixes(0, "2001:db8:1:1::1/64");
  EXPECT_THAT(std::string(h.attach(request).status.message()), HasSubstr("held_prefixes"));
}

TEST_F(MachineRecoveryTest, WhatIsLostIsNotGivenToAnother) {
  back_up();
  for (int i = 1; i <= 5; ++i) attach("ar1", mn_name(i));
  const auto lost = h.prefix_of(mn_name(5), "ar1");
  restore();
  attach("ar1", mn_name(6));
  EXPECT_NE(h.prefix_of(mn_name(6), "ar1"), kPrefix);
  ASSERT_TRUE(recover("ar1", {lost}, {}, mn_name(5)).status.ok());
  EXPECT_EQ(h.binding(lost).mn_id(), mn_name(5));
  // Nor later, though what was taken up is the last that came.
  load();
  attach("ar1", mn_name(7));
  const auto next = Ipv6Prefix::parse(h.prefix_of(mn_name(7), "ar1"))->address();
  EXPECT_GT(next, Ipv6Prefix::parse("2001:db8:1:1000::/64")->address());
}

TEST_F(MachineRecoveryTest, WhoIsNotHeardOfAgainEndsWhenItsTimeIsOver) {
  attach("ar1");
  back_up();
  h.now += hours(1);
  restore();
  h.advance(seconds(59));
  EXPECT_EQ(h.binding(kPrefix).state(), v1::BINDING_STATE_DETACHED_GRACE);
  load();
  h.advance(milliseconds(900));
  EXPECT_EQ(h.binding(kPrefix).state(), v1::BINDING_STATE_DETACHED_GRACE) << "also over a restart";
  h.advance(seconds(20));
  EXPECT_EQ(h.binding(kPrefix).state(), v1::BINDING_STATE_DETACHED);
  EXPECT_GT(from_proto(h.binding(kPrefix).free_at()), h.now + minutes(100));
}

TEST_F(MachineRecoveryTest, ANodeThatHadLeftByTheBackupAndCameBackIsTakenUp) {
  attach("ar1");
  h.detach("ar1", kMn);
  h.advance(seconds(11));
  ASSERT_EQ(h.binding(kPrefix).state(), v1::BINDING_STATE_DETACHED);
  back_up();
  attach("ar2");
  restore();
  EXPECT_EQ(h.binding(kPrefix).state(), v1::BINDING_STATE_DETACHED_GRACE) << "its home keeps what it has";
  ASSERT_TRUE(recover("ar2", {kPrefix}).status.ok());
  settle();
  expect_settled(kPrefix, "ar2");
}

TEST_F(MachineRecoveryTest, TheYoungestWinsInWhateverOrderTheyTell) {
  for (const bool old_first : {true, false}) {
    SCOPED_TRACE(old_first ? "the old first" : "the new first");
    back_up();
    attach("ar1");
    restore();
    const auto tell_old = [&] { return recover("ar1", {kPrefix}, seconds(20)).status; };
    const auto tell_new = [&] { return h.attach("ar2", kMn, seconds(1)).status; };
    if (old_first) {
      EXPECT_TRUE(tell_old().ok());
      EXPECT_TRUE(tell_new().ok());
    } else {
      EXPECT_TRUE(tell_new().ok());
      ASSERT_EQ(h.find(kPrefix), nullptr);
      EXPECT_TRUE(tell_old().ok()) << "it brings a prefix";
      EXPECT_NE(h.holder(kPrefix, "ar1"), nullptr);
      EXPECT_EQ(tell_old().code(), absl::StatusCode::kFailedPrecondition) << "it brings nothing any more";
    }
    EXPECT_EQ(h.binding(kPrefix).attached_ar(), "ar2");
    settle();
    expect_settled(kPrefix, "ar2");
    backup_.clear();
    h.values.clear();
  }
}

TEST_F(MachineRecoveryTest, AnArThatHoldsWhatItsNodeHasElsewhereLetsGoInOrder) {
  attach("ar1");
  back_up();
  attach("ar3");
  restore();
  ASSERT_TRUE(h.attach("ar2", kMn).status.ok());
  ASSERT_EQ(h.holder(kPrefix, "ar3"), nullptr);
  ASSERT_TRUE(recover("ar3", {kPrefix}, seconds(5)).status.ok());
  EXPECT_EQ(h.binding(kPrefix).attached_ar(), "ar2");
  ASSERT_NE(h.holder(kPrefix, "ar3"), nullptr);
  // It announces, which nobody knew.
  h.ack("ar3", kPrefix, v1::STAGE_ADVERTISED, 1);
  EXPECT_GT(h.binding(kPrefix).preference(), 1U);
  settle();
  expect_settled(kPrefix, "ar2");
  EXPECT_EQ(h.holder(kPrefix, "ar3"), nullptr);
}

TEST_F(MachineRecoveryTest, ARepeatedRecoveryTakesUpNothingThatHasEndedSince) {
  back_up();
  attach("ar1");
  attach("ar2");
  const auto second = h.prefix_of(kMn, "ar2");
  restore();
  auto request = attach_request("ar2", kMn);
  request.set_trigger(v1::TRIGGER_RECOVERY);
  request.add_held_prefixes(kPrefix);
  request.add_held_prefixes(second);
  request.set_sequence(1000);
  ASSERT_TRUE(h.attach(request).status.ok());
  settle();
  // kPrefix ends, and its quarantine with it.
  ASSERT_TRUE(h.set_policy(mn_scope(kMn), mode_policy(v1::MODE_NOMADIC)).status.ok());
  h.advance(hours(3));
  for (const char* ar : {"ar1", "ar2"}) {
    if (h.find(kPrefix) != nullptr) h.ack(ar, kPrefix, v1::STAGE_CLEARED);
  }
  ASSERT_EQ(h.find(kPrefix), nullptr);
  ASSERT_TRUE(h.set_policy(mn_scope(kMn), mode_policy(v1::MODE_RELOCATE)).status.ok());
  const auto output = h.attach(request);
  EXPECT_FALSE(output.commit);
  EXPECT_EQ(h.find(kPrefix), nullptr);
}

TEST_F(MachineRecoveryTest, ADrainedAccessRouterKeepsWhomItServes) {
  back_up();
  attach("ar1");
  restore();
  h.take(h.machine.set_draining("ar1", true, h.now));
  EXPECT_TRUE(recover("ar1", {kPrefix}).status.ok());
  EXPECT_FALSE(h.attach("ar1", kOther).status.ok());
}

class NomadicRecoveryTest : public MachineRecoveryTest {
 protected:
  static Settings nomadic() {
    auto settings = make_test_settings(4);
    settings.mode = v1::MODE_NOMADIC;
    return settings;
  }
  NomadicRecoveryTest() : MachineRecoveryTest(nomadic()) {}
};

TEST_F(NomadicRecoveryTest, APrefixIsTakenUpAtItsHomeOnly) {
  back_up();
  attach("ar1");
  restore();
  ASSERT_TRUE(recover("ar2", {kPrefix}).status.ok());
  EXPECT_EQ(h.find(kPrefix), nullptr);
  ASSERT_TRUE(recover("ar1", {kPrefix}, {}, kOther).status.ok());
  EXPECT_EQ(h.binding(kPrefix).mn_id(), kOther);
}

// Replay without a restore, and clocks.

TEST_F(MachineRecoveryTest, OfThoseThatReplayTheYoungestWinsInEveryOrder) {
  std::vector<std::pair<std::string, int>> replays = {{"ar2", 30}, {"ar3", 10}, {"ar4", 20}};
  do {
    h.now += minutes(5);
    attach("ar1");
    h.now += minutes(2);
    load();
    for (const auto& [ar, age] : replays) h.attach(ar, kMn, seconds(age));
    EXPECT_EQ(h.binding(kPrefix).attached_ar(), "ar3");
    settle();
    expect_settled(kPrefix, "ar3");
  } while (std::next_permutation(replays.begin(), replays.end()));
}

TEST_F(MachineRecoveryTest, AClockThatWasSetBackNeitherMakesReplaysStaleNorPutsOffWhatIsDue) {
  v1::Policy policy;
  *policy.mutable_relocate_after() = kedge::to_proto(seconds(30));
  ASSERT_TRUE(h.set_policy(default_scope(), policy).status.ok());
  attach("ar1");
  attach("ar2");
  ASSERT_EQ(h.binding(kPrefix).mode(), v1::MODE_REDIRECT);
  h.now -= hours(1);
  load();
  EXPECT_TRUE(h.attach("ar3", kMn, seconds(30)).status.ok()) << "heard while the LM was away";
  EXPECT_EQ(h.binding(kPrefix).attached_ar(), "ar3");
  settle();
  h.now -= hours(1);
  load();
  h.advance(seconds(40));
  EXPECT_EQ(h.binding(kPrefix).mode(), v1::MODE_RELOCATE);
}

TEST_F(MachineRecoveryTest, TheClockOfAnotherMachineDoesNotMatter) {
  attach("ar1");
  back_up();
  for (const auto clock : {-hours(5), hours(10)}) {
    h.now += clock;
    restore();
    ASSERT_TRUE(recover("ar2", {kPrefix}, seconds(30)).status.ok());
    settle();
    expect_settled(kPrefix, "ar2");
  }
}

}  // namespace
}  // namespace kedge::lm
