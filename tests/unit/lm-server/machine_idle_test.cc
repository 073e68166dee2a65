// Prefixes that end since nobody uses them, as access routers tell.
#include <chrono>
#include <limits>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/unit/lm-server/machine_harness.h"

namespace kedge::lm {
namespace {

using namespace std::chrono_literals;
using ::testing::HasSubstr;

constexpr auto kIdle = 80min;

Settings make_settings() {
  Settings settings = make_test_settings(3);
  settings.idle_after = kIdle;
  return settings;
}

class MachineIdleTest : public ::testing::Test {
 protected:
  explicit MachineIdleTest(Settings settings = make_settings()) : h(std::move(settings)) {
    for (const char* ar : {"ar1", "ar2", "ar3"}) h.connect(ar);
    arrive("ar1");
    h.advance(1h);
    arrive("ar2");
    prefix = h.prefix_of(mn, "ar1");
  }

  void arrive(const std::string& ar) { ASSERT_TRUE(h.attach(ar, mn).status.ok()); }

  Output tell(const std::string& ar, std::chrono::nanoseconds age, bool unused) {
    v1::Activity activity;
    auto& use = *activity.add_uses();
    use.set_prefix(prefix);
    *use.mutable_age() = to_proto(age);
    use.set_unused(unused);
    use.set_last(h.binding(prefix).attached_ar() != ar);
    return h.take(h.machine.activity(h.sessions.at(ar), activity, h.now));
  }
  Output used(const std::string& ar, std::chrono::nanoseconds age = {}) { return tell(ar, age, false); }
  // Since the AR began to look, `age` ago.
  Output unused(const std::string& ar, std::chrono::nanoseconds age) { return tell(ar, age, true); }
  std::optional<SystemTime> idle_since() const { return h.machine.idle_since(*Ipv6Prefix::parse(prefix)); }
  bool ended() const { return h.binding(prefix).released(); }

  const std::string mn = mn_name(1);
  Harness h;
  std::string prefix;
};

TEST_F(MachineIdleTest, AWelcomeTellsSpeakersTheTime) {
  const auto session = h.connect("ar2");
  EXPECT_EQ(from_proto(h.inbox[session].front()->welcome().idle_after()), kIdle);
  Settings settings = make_settings();
  settings.idle_after = {};
  Harness without(settings);
  EXPECT_FALSE(without.inbox[without.connect("ar2")].front()->welcome().has_idle_after());
}

TEST_F(MachineIdleTest, OneThatIsNotUsedEnds) {
  h.advance(kIdle - 1s);
  unused("ar2", kIdle - 1s);
  EXPECT_FALSE(ended());
  h.advance(1s);
  const auto output = unused("ar2", kIdle);
  EXPECT_TRUE(ended());
  ASSERT_TRUE(output.commit);
  EXPECT_EQ(output.commit->durability, Durability::kSync);
  EXPECT_EQ(h.count(v1::EVENT_TYPE_PREFIX_RELEASED, prefix), 1);
  ASSERT_FALSE(output.events.empty());
  EXPECT_THAT(output.events.front().detail(), HasSubstr("idle for 4800 s"));
  EXPECT_EQ(h.binding(h.prefix_of(mn, "ar2")).attached_ar(), "ar2");
}

TEST_F(MachineIdleTest, OneThatIsUsedStaysForAsLongAsItIs) {
  for (int i = 0; i < 50; ++i) {
    h.advance(kIdle / 2);
    used("ar2", kIdle / 4);
    EXPECT_EQ(idle_since(), h.now - kIdle / 4);
  }
  EXPECT_FALSE(ended());
  h.advance(kIdle / 2);
  used("ar2", 3 * kIdle / 4);
  EXPECT_FALSE(ended());
  h.advance(kIdle / 4);
  used("ar2", kIdle);
  EXPECT_TRUE(ended());
}

TEST_F(MachineIdleTest, WhatNobodyHasLookedAtIsNotIdle) {
  h.advance(10 * kIdle);
  EXPECT_FALSE(ended()) << "no AR has told anything";
  unused("ar2", 1min);
  EXPECT_FALSE(ended());
  // The AR began to look anew, and may have missed something.
  h.advance(kIdle - 2min);
  unused("ar2", 1min);
  EXPECT_EQ(idle_since(), h.now - 1min);
  h.advance(kIdle - 2min);
  unused("ar2", kIdle - 1min);
  EXPECT_FALSE(ended());
  h.advance(1min);
  unused("ar2", kIdle);
  EXPECT_TRUE(ended());
}

TEST_F(MachineIdleTest, ItGoesOnOverAMove) {
  h.advance(kIdle / 2);
  arrive("ar3");
  h.advance(100ms);
  unused("ar2", kIdle / 2 + 100ms);
  h.advance(kIdle / 2 - 200ms);
  unused("ar3", kIdle / 2 - 200ms);
  EXPECT_FALSE(ended());
  h.advance(100ms);
  unused("ar3", kIdle / 2 - 100ms);
  EXPECT_TRUE(ended());
}

TEST_F(MachineIdleTest, WhatTheLastAccessRouterHasNotToldOfIsNotIdle) {
  h.advance(kIdle / 2);
  // Not since it has heard of the move.
  unused("ar2", kIdle / 2);
  h.advance(1s);
  arrive("ar3");
  h.advance(kIdle / 2);
  unused("ar3", kIdle / 2);
  EXPECT_FALSE(ended());
  EXPECT_EQ(idle_since(), h.now - kIdle / 2);
}

TEST_F(MachineIdleTest, WhatAnAccessRouterHasSeenInAnEarlierStayDoesNotCount) {
  h.advance(2 * kIdle);
  arrive("ar3");
  h.advance(1min);
  arrive("ar2");
  used("ar3", 30s);
  h.advance(1min);
  unused("ar2", 3 * kIdle);
  EXPECT_FALSE(ended());
  EXPECT_EQ(idle_since(), h.now - 1min - 30s) << "nobody has missed anything since the use at ar3";
  h.restart(false);
  h.connect("ar2");
  unused("ar2", 3 * kIdle);
  EXPECT_FALSE(ended());
  EXPECT_EQ(idle_since(), h.now - 1min);
}

TEST_F(MachineIdleTest, OnlyTheAttachedAccessRouterEndsIt) {
  h.advance(kIdle);
  used("ar2", 1s);
  h.advance(kIdle);
  unused("ar3", kIdle);
  EXPECT_EQ(idle_since(), h.now - kIdle - 1s) << "ar3 has nothing to do with it";
  unused("ar1", 2 * kIdle);
  EXPECT_FALSE(ended());
}

TEST_F(MachineIdleTest, AReportCostsNoCommit) {
  h.advance(1min);
  EXPECT_FALSE(used("ar2", 1s).commit);
  h.advance(1min);
  EXPECT_FALSE(unused("ar2", 1min).commit);
}

TEST_F(MachineIdleTest, AfterARestartOfTheServerAccessRoutersTellAnew) {
  h.advance(kIdle / 2);
  used("ar2", 1min);
  h.restart(true);
  h.advance(kIdle / 2 - 1min);
  EXPECT_FALSE(idle_since());
  h.connect("ar2");
  used("ar2", kIdle / 2);
  EXPECT_FALSE(ended());
  h.advance(kIdle / 2);
  used("ar2", kIdle);
  EXPECT_TRUE(ended());
}

TEST_F(MachineIdleTest, AnOutageOfTheSessionIsNoIdleness) {
  h.advance(kIdle / 2);
  unused("ar2", kIdle / 2);
  h.disconnect("ar2");
  h.advance(10 * kIdle);
  EXPECT_FALSE(ended());
  h.connect("ar2");
  used("ar2", 1s);
  EXPECT_FALSE(ended());
}

TEST_F(MachineIdleTest, AtHomeNothingEnds) {
  unused("ar2", 1s);
  arrive("ar1");
  EXPECT_FALSE(idle_since());
  h.advance(kIdle);
  unused("ar1", kIdle);
  EXPECT_FALSE(ended());
  arrive("ar2");
  h.advance(kIdle);
  unused("ar2", kIdle / 2);
  EXPECT_FALSE(ended());
}

TEST_F(MachineIdleTest, AFixedPrefixDoesNotEnd) {
  v1::Policy policy;
  policy.add_fixed_prefixes()->set_prefix(prefix);
  policy.mutable_fixed_prefixes(0)->set_home_ar("ar1");
  ASSERT_TRUE(h.set_policy(mn_scope(mn), policy).status.ok());
  h.advance(kIdle);
  unused("ar2", kIdle);
  EXPECT_FALSE(ended());
}

TEST_F(MachineIdleTest, TheAccessRouterThatTheNodeHasLeftHasTheLastWord) {
  arrive("ar3");
  h.advance(kIdle);
  unused("ar3", kIdle);
  EXPECT_FALSE(ended()) << "ar2 may have seen it used";
  used("ar2", 1s);
  unused("ar3", kIdle);
  EXPECT_FALSE(ended());
  h.advance(kIdle);
  unused("ar3", 2 * kIdle);
  EXPECT_TRUE(ended());
}

TEST_F(MachineIdleTest, NoLastWordIsWaitedForWithoutASession) {
  arrive("ar3");
  h.advance(kIdle);
  unused("ar3", kIdle);
  EXPECT_FALSE(ended());
  h.take(h.machine.session_down(h.sessions.at("ar2"), h.now));
  unused("ar3", kIdle);
  EXPECT_TRUE(ended());
}

TEST_F(MachineIdleTest, AtTheCapOneThatHasEndedMakesRoom) {
  v1::Policy policy;
  policy.set_max_prefixes(2);
  ASSERT_TRUE(h.set_policy(default_scope(), policy).status.ok());
  arrive("ar3");
  unused("ar2", {});
  EXPECT_EQ(h.prefix_of(mn, "ar3"), "");
  h.advance(kIdle);
  unused("ar3", kIdle);
  EXPECT_TRUE(ended());
  const auto fresh = h.prefix_of(mn, "ar3");
  ASSERT_NE(fresh, "");
  EXPECT_EQ(h.binding(fresh).attached_ar(), "ar3");
  EXPECT_EQ(h.binding(h.prefix_of(mn, "ar2")).attached_ar(), "ar3") << "goes on";
  // It leaves with the attachment that the MN had.
  h.detach("ar3", mn, h.binding(h.prefix_of(mn, "ar2")).generation());
  EXPECT_EQ(h.binding(fresh).state(), v1::BINDING_STATE_DETACHED_GRACE);
}

TEST_F(MachineIdleTest, TheOnlyOneStaysWhenThereIsNoOther) {
  Settings settings = make_settings();
  settings.max_prefixes_per_mn = 1;
  settings.access_routers[1] = make_access_router(2, "2001:db8:2:1::/64");
  Harness small(settings);
  small.connect("ar2");
  ASSERT_TRUE(small.attach("ar1", mn).status.ok());
  ASSERT_TRUE(small.attach("ar2", mn_name(2)).status.ok()) << "has the only prefix of ar2";
  ASSERT_TRUE(small.attach("ar2", mn).status.ok());
  const auto only = small.prefix_of(mn, "ar1");
  small.advance(kIdle);
  v1::Activity activity;
  activity.add_uses()->set_prefix(only);
  *activity.mutable_uses(0)->mutable_age() = to_proto(kIdle);
  small.take(small.machine.activity(small.sessions.at("ar2"), activity, small.now));
  EXPECT_EQ(small.binding(only).attached_ar(), "ar2");
  EXPECT_EQ(small.count(v1::EVENT_TYPE_PREFIX_RELEASED), 0);
}

TEST_F(MachineIdleTest, WhatIsMalformedIsRefusedAndTheRestCounts) {
  h.advance(kIdle);
  v1::Activity activity;
  activity.add_uses()->set_prefix("nonsense");
  activity.add_uses()->set_prefix(prefix);
  activity.mutable_uses(1)->mutable_age()->set_seconds(-1);
  activity.add_uses()->set_prefix(prefix);
  activity.mutable_uses(2)->mutable_age()->set_seconds(std::numeric_limits<std::int64_t>::max());
  activity.add_uses()->set_prefix("2001:db8:9:9::/64");
  activity.add_uses()->set_prefix(prefix);
  *activity.mutable_uses(4)->mutable_age() = to_proto(1s);
  const auto output = h.take(h.machine.activity(h.sessions.at("ar2"), activity, h.now));
  EXPECT_EQ(output.status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_FALSE(ended());
  EXPECT_EQ(idle_since(), h.now - 1s);

  v1::Activity many;
  for (int i = 0; i < 300; ++i) many.add_uses()->set_prefix(prefix);
  EXPECT_EQ(h.machine.activity(h.sessions.at("ar2"), many, h.now).status.code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(MachineIdleTest, ASessionThatHasEndedTellsNothing) {
  h.advance(kIdle);
  const auto session = h.sessions.at("ar2");
  h.connect("ar2");
  v1::Activity activity;
  activity.add_uses()->set_prefix(prefix);
  *activity.mutable_uses(0)->mutable_age() = to_proto(kIdle);
  h.take(h.machine.activity(session, activity, h.now));
  EXPECT_FALSE(ended());
}

class WithoutIdleTimeTest : public MachineIdleTest {
 protected:
  static Settings settings() {
    Settings settings = make_settings();
    settings.idle_after = {};
    return settings;
  }
  WithoutIdleTimeTest() : MachineIdleTest(settings()) {}
};

TEST_F(WithoutIdleTimeTest, NothingEnds) {
  h.advance(kIdle);
  unused("ar2", kIdle);
  EXPECT_FALSE(ended());
  EXPECT_FALSE(idle_since());
}

}  // namespace
}  // namespace kedge::lm
