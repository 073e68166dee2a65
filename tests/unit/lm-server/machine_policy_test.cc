// Policies, the flap rule, draining, ends of prefixes: rule by rule.
#include <chrono>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "lm-server/core/machine.h"
#include "tests/unit/lm-server/machine_harness.h"

namespace kedge::lm {
namespace {

using std::chrono::hours;
using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::AllOf;
using testing::HasSubstr;

const std::string kMn = mn_name(1);
const std::string kPrefix = "2001:db8:1:1::/64";
const std::string kFixed = "2001:db8:1:f0::/64";

v1::Policy fixed_policy(const std::string& prefix = kFixed, const std::string& home = "ar1") {
  v1::Policy policy;
  policy.add_fixed_prefixes()->set_prefix(prefix);
  policy.mutable_fixed_prefixes(0)->set_home_ar(home);
  return policy;
}

class MachinePolicyTest : public testing::Test {
 protected:
  explicit MachinePolicyTest(Settings settings = make_test_settings(4)) : h(std::move(settings)) {
    for (const char* ar : {"ar1", "ar2", "ar3", "ar4"}) h.connect(ar);
  }

  void arrive(const std::string& ar) {
    h.now += milliseconds(10);
    ASSERT_TRUE(h.attach(ar, kMn).status.ok());
  }
  // Every AR does what it is told and says so.
  void settle(const std::string& prefix = kPrefix) {
    const auto b = h.binding(prefix);
    h.ack(b.attached_ar(), prefix, v1::STAGE_DELIVERING);
    if (b.preference() > 0) h.ack(b.attached_ar(), prefix, v1::STAGE_ADVERTISED, b.preference());
    if (b.preference() == 0) h.ack(b.attached_ar(), prefix, v1::STAGE_WITHDRAWN);
    for (const auto& holder : b.holders()) {
      if (holder.ar() == b.attached_ar()) continue;
      h.ack(holder.ar(), prefix, v1::STAGE_REDIRECTING, 0, b.attached_ar());
      if (b.preference() > 0) h.ack(holder.ar(), prefix, v1::STAGE_SUPERSEDED, b.preference());
      h.ack(holder.ar(), prefix, v1::STAGE_WITHDRAWN);
    }
    ASSERT_EQ(h.binding(prefix).state(), v1::BINDING_STATE_SETTLED) << h.binding(prefix).ShortDebugString();
  }
  // The attached AR delivers, and `ar` redirects to it.
  void follow(const std::string& ar, const std::string& prefix = kPrefix) {
    const std::string to = h.binding(prefix).attached_ar();
    h.ack(to, prefix, v1::STAGE_DELIVERING);
    h.ack(ar, prefix, v1::STAGE_REDIRECTING, 0, to);
  }
  void set(const v1::PolicyScope& scope, const v1::Policy& policy, const std::vector<std::string>& inherit = {}) {
    const auto status = h.set_policy(scope, policy, inherit).status;
    ASSERT_TRUE(status.ok()) << status;
  }
  std::string refusal(const v1::PolicyScope& scope, const v1::Policy& policy) {
    const auto status = h.set_policy(scope, policy).status;
    EXPECT_FALSE(status.ok());
    return std::string(status.message());
  }
  v1::EffectivePolicy effective(const std::string& ar = {}) {
    v1::GetEffectivePolicyRequest request;
    request.set_mn_id(kMn);
    request.set_ar(ar);
    return *h.machine.effective_policy(request);
  }
  v1::Node node(const std::string& ar) { return *h.machine.describe_node(ar); }
  void drain(const std::string& ar, bool on = true) { h.take(h.machine.set_draining(ar, on, h.now)); }

  Harness h;
};

TEST_F(MachinePolicyTest, TheMostSpecificScopeThatSetsAFieldWins) {
  EXPECT_EQ(effective().policy().mode(), v1::MODE_RELOCATE);
  EXPECT_EQ(effective().sources().at("mode"), "configuration");
  v1::Policy defaults = mode_policy(v1::MODE_REDIRECT);
  defaults.set_direct_uplink(true);
  set(default_scope(), defaults);
  set(ar_scope("ar2"), mode_policy(v1::MODE_RELOCATE));
  EXPECT_EQ(effective("ar1").policy().mode(), v1::MODE_REDIRECT);
  EXPECT_EQ(effective("ar1").sources().at("mode"), "default");
  EXPECT_EQ(effective("ar2").policy().mode(), v1::MODE_RELOCATE);
  EXPECT_EQ(effective("ar2").sources().at("mode"), "ar");
  EXPECT_TRUE(effective("ar2").policy().direct_uplink());
  set(mn_scope(kMn), mode_policy(v1::MODE_NOMADIC));
  EXPECT_EQ(effective("ar2").sources().at("mode"), "mn");
  EXPECT_EQ(effective("ar2").policy().prefix_type(), v1::PREFIX_TYPE_NON_PERSISTENT);
  EXPECT_EQ(effective("ar2").sources().at("prefix_type"), "derived");
  set(mn_scope(kMn), {}, {"mode"});
  EXPECT_EQ(effective("ar2").sources().at("mode"), "ar");
}

TEST_F(MachinePolicyTest, WhatCannotBeIsRefusedByName) {
  v1::Policy policy;
  policy.add_allowed_ars("ar9");
  EXPECT_THAT(refusal(mn_scope(kMn), policy), AllOf(HasSubstr("allowed_ars"), HasSubstr("ar9"), HasSubstr("ar1, ar2")));
  EXPECT_THAT(refusal(ar_scope("ar9"), mode_policy(v1::MODE_REDIRECT)), HasSubstr("ar9"));
  EXPECT_THAT(refusal(mn_scope("nobody"), {}), HasSubstr("scope.mn_id"));
  EXPECT_THAT(refusal({}, {}), HasSubstr("scope"));
  EXPECT_THAT(refusal(mn_scope(kMn), fixed_policy("2001:db8:2:f0::/64")), HasSubstr("in no pool of its home ar1"));
  EXPECT_THAT(refusal(mn_scope(kMn), fixed_policy("2001:db8:1::/56")), HasSubstr("no /64"));
  EXPECT_THAT(refusal(default_scope(), fixed_policy()), HasSubstr("belong to a mobile node"));
  v1::Policy contradiction = mode_policy(v1::MODE_NOMADIC);
  contradiction.set_prefix_type(v1::PREFIX_TYPE_SESSION_LASTING);
  EXPECT_THAT(refusal(default_scope(), contradiction), HasSubstr("contradicts mode"));
  v1::Policy late;
  late.mutable_relocate_after()->set_seconds(90'000);
  EXPECT_THAT(refusal(default_scope(), late), HasSubstr("relocate_after: must be 0s to 24h"));
  set(mn_scope(kMn), fixed_policy());
  EXPECT_THAT(refusal(mn_scope(mn_name(2)), fixed_policy()), HasSubstr(kMn));
  ASSERT_TRUE(h.attach("ar1", mn_name(2)).status.ok());
  EXPECT_THAT(refusal(mn_scope(kMn), fixed_policy(h.prefix_of(mn_name(2), "ar1"))), HasSubstr("is assigned to"));
  EXPECT_EQ(h.machine.policies().size(), 1U) << "what is refused changes nothing";
}

TEST_F(MachinePolicyTest, AllowedAccessRoutersAndProfilesAreEnforced) {
  v1::Policy policy;
  policy.add_allowed_ars("ar1");
  set(mn_scope(kMn), policy);
  EXPECT_TRUE(h.attach("ar1", kMn).status.ok());
  const auto elsewhere = h.attach("ar2", kMn).status;
  EXPECT_EQ(elsewhere.code(), absl::StatusCode::kPermissionDenied);
  EXPECT_THAT(std::string(elsewhere.message()), HasSubstr("allowed_ars"));
  EXPECT_EQ(h.binding(kPrefix).attached_ar(), "ar1");
  policy.set_allowed_ars(0, "ar2");
  set(mn_scope(kMn), policy);
  EXPECT_TRUE(h.attach(attach_request("ar1", kMn, "access1")).status.ok()) << "it stays until it moves";
  v1::Policy closed;
  closed.set_serve_unknown(false);
  set(default_scope(), closed);
  const auto stranger = h.attach("ar1", mn_name(2)).status;
  EXPECT_EQ(stranger.code(), absl::StatusCode::kPermissionDenied);
  EXPECT_THAT(std::string(stranger.message()), AllOf(HasSubstr("no profile"), HasSubstr("serve_unknown")));
  EXPECT_EQ(h.count(v1::EVENT_TYPE_ATTACH_REFUSED), 2);
}

TEST_F(MachinePolicyTest, WhereAuthenticationIsRequiredALinkLayerAddressAloneGetsNobodyIn) {
  arrive("ar1");
  v1::Policy policy;
  policy.set_require_authentication(true);
  set(mn_scope(kMn), policy);
  EXPECT_TRUE(h.attach(attach_request("ar1", kMn, "access1")).status.ok()) << "it stays until it moves";
  auto request = attach_request("ar2", kMn, "access1");
  const auto forged = h.attach(request).status;
  EXPECT_EQ(forged.code(), absl::StatusCode::kPermissionDenied);
  EXPECT_THAT(std::string(forged.message()), AllOf(HasSubstr("require_authentication"), HasSubstr("ar2")));
  EXPECT_EQ(h.binding(kPrefix).attached_ar(), "ar1");
  EXPECT_EQ(h.count(v1::EVENT_TYPE_ATTACH_REFUSED), 1);
  request.set_authenticated(true);
  request.set_sequence(request.sequence() + 1);
  EXPECT_TRUE(h.attach(request).status.ok());
  EXPECT_EQ(h.binding(kPrefix).attached_ar(), "ar2");
  EXPECT_TRUE(h.attach("ar2", mn_name(2)).status.ok()) << "others have to do nothing of the kind";
}

TEST_F(MachinePolicyTest, AChangedModeTakesEffectInTheSameCommit) {
  set(default_scope(), mode_policy(v1::MODE_REDIRECT));
  arrive("ar1");
  arrive("ar2");
  settle();
  EXPECT_EQ(h.binding(kPrefix).preference(), 0U);
  const auto attachment = h.binding(kPrefix).generation();
  const auto output = h.set_policy(mn_scope(kMn), mode_policy(v1::MODE_RELOCATE));
  EXPECT_EQ(output.commit->writes.size(), 3U) << "the policy and both prefixes";
  EXPECT_EQ(h.binding(kPrefix).mode(), v1::MODE_RELOCATE);
  EXPECT_EQ(h.binding(kPrefix).preference(), 1U);
  settle();
  set(mn_scope(kMn), mode_policy(v1::MODE_REDIRECT));
  EXPECT_EQ(h.binding(kPrefix).mode(), v1::MODE_REDIRECT);
  EXPECT_EQ(h.binding(kPrefix).preference(), 1U) << "until its home redirects";
  follow("ar1");
  EXPECT_EQ(h.binding(kPrefix).preference(), 0U);
  EXPECT_EQ(h.holder(kPrefix, "ar2")->advertises_preference(), 1U) << "until it has acknowledged";
  settle();
  EXPECT_EQ(h.holder(kPrefix, "ar2")->advertises_preference(), 0U);
  EXPECT_FALSE(h.detach("ar2", kMn, attachment).stale) << "a departure is none of another mode";
}

TEST_F(MachinePolicyTest, PoliciesSurviveARestart) {
  set(mn_scope(kMn), fixed_policy());
  set(default_scope(), mode_policy(v1::MODE_REDIRECT));
  drain("ar3");
  h.restart(true);
  EXPECT_EQ(effective().policy().mode(), v1::MODE_REDIRECT);
  EXPECT_EQ(effective().policy().fixed_prefixes_size(), 1);
  EXPECT_TRUE(node("ar3").draining());
  EXPECT_EQ(node("ar1").pool_used(), 1U);
  EXPECT_TRUE(h.take(h.machine.delete_policy(default_scope(), h.now)).status.ok());
  EXPECT_EQ(h.machine.delete_policy(default_scope(), h.now).status.code(), absl::StatusCode::kNotFound);
  h.restart(true);
  EXPECT_EQ(effective().policy().mode(), v1::MODE_RELOCATE);
}

TEST_F(MachinePolicyTest, AFixedPrefixIsThereWhereverItsNodeIs) {
  v1::Policy policy = fixed_policy();
  policy.set_mode(v1::MODE_NOMADIC);
  set(mn_scope(kMn), policy);
  arrive("ar2");
  EXPECT_EQ(h.binding(kFixed).home_ar(), "ar1");
  EXPECT_EQ(h.binding(kFixed).attached_ar(), "ar2");
  EXPECT_EQ(h.binding(kFixed).prefix_type(), v1::PREFIX_TYPE_FIXED);
  EXPECT_EQ(h.binding(kFixed).mode(), v1::MODE_RELOCATE) << "the others are nomadic, this one stays";
  const std::string other = h.prefix_of(kMn, "ar2");
  arrive("ar3");
  EXPECT_EQ(h.binding(kFixed).attached_ar(), "ar3");
  EXPECT_TRUE(h.binding(other).released());
  h.detach("ar3", kMn);
  h.advance(hours(5));
  ASSERT_NE(h.find(kFixed), nullptr);
  EXPECT_FALSE(h.binding(kFixed).has_free_at());
}

TEST_F(MachinePolicyTest, APrefixThatHasEndedIsUsedAtOnceWhenItBecomesFixed) {
  set(mn_scope(kMn), mode_policy(v1::MODE_NOMADIC));
  arrive("ar1");
  arrive("ar2");
  ASSERT_TRUE(h.binding(kPrefix).released());
  set(mn_scope(kMn), fixed_policy(kPrefix));
  EXPECT_EQ(h.binding(kPrefix).attached_ar(), "ar2");
  EXPECT_EQ(h.binding(kPrefix).prefix_type(), v1::PREFIX_TYPE_FIXED);
  EXPECT_FALSE(h.binding(kPrefix).released());
}

TEST_F(MachinePolicyTest, NomadicByPolicyEndsWhatIsAwayAndAssignsAtOnce) {
  v1::Policy one;
  one.set_max_prefixes(1);
  set(mn_scope(kMn), one);
  arrive("ar1");
  arrive("ar2");
  ASSERT_EQ(h.machine.bindings_of(kMn).size(), 1U);
  set(mn_scope(kMn), mode_policy(v1::MODE_NOMADIC));
  EXPECT_TRUE(h.binding(kPrefix).released());
  EXPECT_EQ(h.binding(h.prefix_of(kMn, "ar2")).attached_ar(), "ar2");
}

// RFC 8818, 4.1.
TEST_F(MachinePolicyTest, WhereItsNodeIsAnEndedPrefixIsRefused) {
  set(default_scope(), mode_policy(v1::MODE_NOMADIC));
  arrive("ar1");
  arrive("ar2");
  ASSERT_NE(h.holder(kPrefix, "ar2"), nullptr);
  EXPECT_FALSE(h.holder(kPrefix, "ar2")->releasing());
  EXPECT_EQ(h.binding(kPrefix).attachment().interface(), "access0");
  h.ack("ar2", kPrefix, v1::STAGE_UNREACHABLE);
  EXPECT_TRUE(h.holder(kPrefix, "ar2")->unreachable());
  const auto generation = h.binding(kPrefix).generation();
  arrive("ar3");
  EXPECT_TRUE(h.holder(kPrefix, "ar2")->releasing());
  EXPECT_FALSE(h.holder(kPrefix, "ar3")->releasing());
  h.ack("ar2", kPrefix, v1::STAGE_CLEARED, 0, {}, generation);
  EXPECT_NE(h.holder(kPrefix, "ar2"), nullptr) << "an old acknowledgement";
  h.ack("ar2", kPrefix, v1::STAGE_CLEARED);
  EXPECT_EQ(h.holder(kPrefix, "ar2"), nullptr);
  arrive("ar1");
  EXPECT_EQ(h.binding(kPrefix).attached_ar(), "ar1") << "at home it is revived";
  EXPECT_FALSE(h.holder(h.prefix_of(kMn, "ar2"), "ar1")->releasing());
}

TEST_F(MachinePolicyTest, NobodyIsRefusedAnythingOnceTheNodeHasLeftOrTheQuarantineIsOver) {
  set(default_scope(), mode_policy(v1::MODE_NOMADIC));
  arrive("ar1");
  arrive("ar2");
  h.detach("ar2", kMn);
  EXPECT_FALSE(h.holder(kPrefix, "ar2")->releasing()) << "it may come back";
  h.advance(seconds(11));
  EXPECT_TRUE(h.holder(kPrefix, "ar2")->releasing());
  arrive("ar2");
  EXPECT_FALSE(h.holder(kPrefix, "ar2")->releasing());
  h.restart(true);
  EXPECT_FALSE(h.holder(kPrefix, "ar2")->releasing());
  h.advance(hours(2));
  EXPECT_TRUE(h.holder(kPrefix, "ar2")->releasing());
}

TEST_F(MachinePolicyTest, RelocateAfterWaitsAndEachMoveBeginsAnew) {
  v1::Policy policy;
  policy.mutable_relocate_after()->set_seconds(30);
  set(default_scope(), policy);
  arrive("ar1");
  EXPECT_EQ(h.binding(kPrefix).mode(), v1::MODE_RELOCATE) << "at home there is nothing to wait for";
  arrive("ar2");
  EXPECT_EQ(h.binding(kPrefix).mode(), v1::MODE_REDIRECT);
  settle();
  h.advance(seconds(20));
  h.attach(attach_request("ar2", kMn, "access1"));
  h.advance(seconds(9));
  EXPECT_EQ(h.binding(kPrefix).preference(), 0U);
  h.advance(seconds(1));
  EXPECT_EQ(h.binding(kPrefix).mode(), v1::MODE_RELOCATE) << "another interface is no other access router";
  EXPECT_EQ(h.binding(kPrefix).preference(), 1U);
  EXPECT_FALSE(h.binding(kPrefix).has_relocate_at());
  settle();
  arrive("ar3");
  EXPECT_EQ(h.binding(kPrefix).preference(), 0U);
  h.restart(false);
  h.advance(seconds(31));
  EXPECT_EQ(h.binding(kPrefix).mode(), v1::MODE_RELOCATE);
}

class FlapTest : public MachinePolicyTest {
 protected:
  FlapTest() : MachinePolicyTest(settings()) {}
  static Settings settings() {
    Settings s = make_test_settings(4);
    s.flap_window = std::chrono::minutes(3);
    return s;
  }
  void flap() {
    arrive("ar1");
    for (int i = 0; i < 5; ++i) arrive(i % 2 == 0 ? "ar2" : "ar1");
  }
};

TEST_F(FlapTest, StaysInRedirectionUntilItIsQuiet) {
  arrive("ar1");
  for (int i = 0; i < 4; ++i) arrive(i % 2 == 0 ? "ar2" : "ar1");
  EXPECT_FALSE(h.binding(kPrefix).flapping());
  arrive("ar2");
  EXPECT_TRUE(h.binding(kPrefix).flapping());
  EXPECT_EQ(h.binding(kPrefix).mode(), v1::MODE_REDIRECT);
  EXPECT_EQ(h.binding(kPrefix).preference(), 0U);
  EXPECT_EQ(h.count(v1::EVENT_TYPE_FLAPPING), 1);
  h.advance(seconds(179));
  EXPECT_TRUE(h.binding(kPrefix).flapping());
  arrive("ar3");
  h.advance(seconds(179));
  EXPECT_TRUE(h.binding(kPrefix).flapping()) << "it has moved again";
  h.advance(seconds(1));
  EXPECT_FALSE(h.binding(kPrefix).flapping());
  EXPECT_EQ(h.binding(kPrefix).mode(), v1::MODE_RELOCATE);
  EXPECT_EQ(h.count(v1::EVENT_TYPE_FLAPPING), 1);
  EXPECT_EQ(h.count(v1::EVENT_TYPE_FLAPPING_ENDED), 1);
}

TEST_F(FlapTest, AReturnHomeWithdrawsLastAllTheSame) {
  for (const char* ar : {"ar1", "ar2", "ar3", "ar1", "ar2"}) arrive(ar);
  follow("ar1");
  h.ack("ar2", kPrefix, v1::STAGE_ADVERTISED, h.binding(kPrefix).preference());
  for (const char* ar : {"ar1", "ar3"}) h.ack(ar, kPrefix, v1::STAGE_WITHDRAWN);
  const std::uint32_t before = h.holder(kPrefix, "ar2")->advertises_preference();
  ASSERT_GT(before, 0U);
  arrive("ar1");
  ASSERT_TRUE(h.binding(kPrefix).flapping());
  EXPECT_EQ(h.binding(kPrefix).mode(), v1::MODE_REDIRECT);
  EXPECT_GT(h.binding(kPrefix).preference(), before) << "what ar2 still announces would beat the aggregate";
  follow("ar2");
  h.ack("ar1", kPrefix, v1::STAGE_ADVERTISED, h.binding(kPrefix).preference());
  EXPECT_GT(h.binding(kPrefix).preference(), before);
  h.ack("ar2", kPrefix, v1::STAGE_WITHDRAWN);
  EXPECT_EQ(h.binding(kPrefix).preference(), 0U);
}

TEST_F(FlapTest, AnEarlierAnchorWhoseSpeakerIsAwayIsBeaten) {
  arrive("ar1");
  arrive("ar2");
  settle();
  h.disconnect("ar2");
  for (const char* ar : {"ar3", "ar4", "ar3"}) arrive(ar);
  for (const char* ar : {"ar3", "ar4"}) h.ack(ar, kPrefix, v1::STAGE_WITHDRAWN);
  arrive("ar4");
  ASSERT_EQ(h.binding(kPrefix).mode(), v1::MODE_REDIRECT);
  EXPECT_GT(h.binding(kPrefix).preference(), 1U) << "ar2 may go on announcing where nobody is";
  follow("ar1");
  h.ack("ar3", kPrefix, v1::STAGE_WITHDRAWN);
  EXPECT_EQ(h.binding(kPrefix).preference(), 2U);
  h.connect("ar2");
  EXPECT_EQ(h.binding(kPrefix).preference(), 2U);
  h.ack("ar2", kPrefix, v1::STAGE_WITHDRAWN);
  EXPECT_EQ(h.binding(kPrefix).preference(), 0U);
}

TEST_F(FlapTest, SlowMovesAreNone) {
  arrive("ar1");
  for (int i = 0; i < 20; ++i) {
    h.advance(seconds(46));
    arrive(i % 2 == 0 ? "ar2" : "ar1");
  }
  EXPECT_EQ(h.count(v1::EVENT_TYPE_FLAPPING), 0);
}

TEST_F(FlapTest, SurvivesARestart) {
  flap();
  h.restart(false);
  EXPECT_TRUE(h.binding(kPrefix).flapping());
  arrive("ar3");
  EXPECT_EQ(h.binding(kPrefix).mode(), v1::MODE_REDIRECT);
  h.advance(seconds(181));
  EXPECT_EQ(h.binding(kPrefix).mode(), v1::MODE_RELOCATE);
}

TEST_F(MachinePolicyTest, DrainMovesAnchorsRefusesArrivalsAndIsUndone) {
  set(default_scope(), mode_policy(v1::MODE_REDIRECT));
  arrive("ar1");
  ASSERT_TRUE(h.attach("ar1", mn_name(2)).status.ok());
  arrive("ar2");
  settle();
  drain("ar1");
  EXPECT_EQ(node("ar1").drain_remaining(), 2U) << "one is anchored there, one attached";
  EXPECT_EQ(h.binding(kPrefix).preference(), 1U);
  const auto status = h.attach("ar1", kMn).status;
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()), HasSubstr("draining"));
  EXPECT_TRUE(h.attach("ar1", mn_name(2)).status.ok()) << "it is there already";
  settle();
  EXPECT_EQ(node("ar1").drain_remaining(), 1U);
  h.restart(true);
  EXPECT_TRUE(node("ar1").draining());
  EXPECT_EQ(h.binding(kPrefix).mode(), v1::MODE_RELOCATE);
  for (const char* ar : {"ar1", "ar2"}) h.connect(ar);
  drain("ar1", false);
  EXPECT_EQ(h.binding(kPrefix).mode(), v1::MODE_REDIRECT);
  follow("ar1");
  EXPECT_EQ(h.binding(kPrefix).preference(), 0U);
  EXPECT_TRUE(h.attach("ar1", kMn).status.ok());
  EXPECT_EQ(h.machine.set_draining("ar9", true, h.now).status.code(), absl::StatusCode::kNotFound);
}

TEST_F(MachinePolicyTest, ADepartureEndsAllPrefixesOfItsNodeThoughOneHasANewerGeneration) {
  set(default_scope(), mode_policy(v1::MODE_REDIRECT));
  arrive("ar1");
  arrive("ar2");
  const std::string at_home = h.prefix_of(kMn, "ar2");
  drain("ar1");
  ASSERT_GT(h.binding(kPrefix).generation().revision(), h.binding(at_home).generation().revision());
  EXPECT_FALSE(h.detach("ar2", kMn, h.binding(kPrefix).generation()).stale) << "the latest that ar2 knows";
  for (const auto& prefix : {kPrefix, at_home}) EXPECT_TRUE(h.binding(prefix).attached_ar().empty()) << prefix;
}

TEST_F(MachinePolicyTest, AnEndedPrefixIsQuarantinedAndThenForgotten) {
  set(default_scope(), mode_policy(v1::MODE_NOMADIC));
  arrive("ar1");
  arrive("ar2");
  EXPECT_TRUE(h.binding(kPrefix).released());
  h.advance(hours(2) - seconds(1));
  EXPECT_FALSE(h.holder(kPrefix, "ar1")->releasing()) << "it answers unreachable for as long";
  h.advance(seconds(1));
  EXPECT_TRUE(h.holder(kPrefix, "ar1")->releasing());
  EXPECT_EQ(node("ar1").pool_used(), 1U);
  h.ack("ar1", kPrefix, v1::STAGE_CLEARED);
  h.ack("ar2", kPrefix, v1::STAGE_CLEARED);
  EXPECT_EQ(h.find(kPrefix), nullptr);
  EXPECT_EQ(node("ar1").pool_used(), 0U);
  EXPECT_EQ(h.values.count("binding/" + kPrefix), 0U);
  EXPECT_EQ(h.count(v1::EVENT_TYPE_PREFIX_FREED), 1);
}

TEST_F(MachinePolicyTest, AGracefulReplacementIsRedirectedForItsTime) {
  v1::Policy policy;
  policy.set_prefix_type(v1::PREFIX_TYPE_GRACEFUL_REPLACEMENT);
  policy.mutable_replacement_time()->set_seconds(60);
  set(default_scope(), policy);
  arrive("ar1");
  arrive("ar2");
  EXPECT_EQ(h.binding(kPrefix).mode(), v1::MODE_REDIRECT);
  h.advance(seconds(30));
  arrive("ar3");
  h.advance(seconds(29));
  EXPECT_EQ(h.binding(kPrefix).attached_ar(), "ar3");
  h.advance(seconds(1));
  EXPECT_TRUE(h.binding(kPrefix).released());
  EXPECT_EQ(h.count(v1::EVENT_TYPE_PREFIX_RELEASED, kPrefix), 1);
}

TEST_F(MachinePolicyTest, AtTheCapItKeepsWhatItHas) {
  v1::Policy policy;
  policy.set_max_prefixes(2);
  set(default_scope(), policy);
  arrive("ar1");
  arrive("ar2");
  h.now += hours(24);
  arrive("ar3");
  EXPECT_EQ(h.prefix_of(kMn, "ar3"), "") << "nobody knows of either that it is idle";
  EXPECT_EQ(h.binding(kPrefix).attached_ar(), "ar3");
  EXPECT_EQ(h.binding(h.prefix_of(kMn, "ar2")).attached_ar(), "ar3");
}

TEST_F(MachinePolicyTest, AnExhaustedPoolIsToldOnce) {
  Settings settings = make_test_settings(2);
  settings.access_routers[0] = make_access_router(1, "2001:db8:1:1::/64");
  Harness small(settings);
  ASSERT_TRUE(small.attach("ar1", kMn).status.ok());
  for (int i = 2; i < 5; ++i) {
    const auto status = small.attach("ar1", mn_name(i)).status;
    EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
    EXPECT_THAT(std::string(status.message()), HasSubstr("2001:db8:1:1::/64"));
  }
  EXPECT_EQ(small.count(v1::EVENT_TYPE_POOL_EXHAUSTED), 1);
}

TEST_F(MachinePolicyTest, NodesOfWhichNothingIsKnownAreTakenInAtARateOnly) {
  Settings settings = make_test_settings(2);
  settings.new_nodes = 2;
  settings.new_nodes_window = std::chrono::minutes(10);
  Harness few(settings);
  EXPECT_TRUE(few.attach("ar1", mn_name(1)).status.ok());
  EXPECT_TRUE(few.attach("ar1", mn_name(2)).status.ok());
  for (int i = 3; i < 6; ++i) {
    EXPECT_EQ(few.attach("ar1", mn_name(i)).status.code(), absl::StatusCode::kResourceExhausted);
    EXPECT_EQ(few.prefix_of(mn_name(i), "ar1"), "");
  }
  EXPECT_EQ(few.count(v1::EVENT_TYPE_TOO_MANY_NEW_NODES), 1) << "told once a minute";
  // Elsewhere there have been none; a node that is known is not new; nor one with a profile.
  EXPECT_TRUE(few.attach("ar2", mn_name(3)).status.ok());
  EXPECT_TRUE(few.attach("ar1", mn_name(3)).status.ok());
  few.set_policy(mn_scope(mn_name(4)), mode_policy(v1::MODE_REDIRECT));
  EXPECT_TRUE(few.attach("ar1", mn_name(4)).status.ok());
  few.now += std::chrono::minutes(5);
  EXPECT_TRUE(few.attach("ar1", mn_name(5)).status.ok());
  EXPECT_FALSE(few.attach("ar1", mn_name(6)).status.ok());
  EXPECT_EQ(few.count(v1::EVENT_TYPE_TOO_MANY_NEW_NODES), 2);
}

TEST_F(MachinePolicyTest, WithoutAWindowAllNewNodesAreTakenIn) {
  Settings settings = make_test_settings(1);
  settings.new_nodes = 1;
  settings.new_nodes_window = {};
  Harness all(settings);
  for (int i = 1; i < 9; ++i) EXPECT_TRUE(all.attach("ar1", mn_name(i)).status.ok());
}

TEST_F(MachinePolicyTest, TheOperatorDetaches) {
  EXPECT_EQ(h.machine.detach_by_operator(kMn, h.now).status.code(), absl::StatusCode::kNotFound);
  arrive("ar1");
  arrive("ar2");
  const auto output = h.take(h.machine.detach_by_operator(kMn, h.now));
  EXPECT_TRUE(output.status.ok());
  EXPECT_EQ(output.prefixes, 2U);
  EXPECT_EQ(h.binding(kPrefix).state(), v1::BINDING_STATE_DETACHED_GRACE);
  EXPECT_EQ(h.machine.detach_by_operator(kMn, h.now).status.code(), absl::StatusCode::kFailedPrecondition);
  arrive("ar2");
  EXPECT_EQ(h.binding(kPrefix).attached_ar(), "ar2");
}

}  // namespace
}  // namespace kedge::lm
