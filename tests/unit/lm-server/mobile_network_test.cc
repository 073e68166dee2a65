// Mobile routers: prefixes of the networks behind them (RFC 8818, 2: MNP).
#include <chrono>
#include <set>
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

const std::string kRouter = mn_name(1);
const std::string kOther = mn_name(2);
const std::string kOwn = "2001:db8:1:1::/64";
const std::string kNetwork = "2001:db8:1:f00::/56";
constexpr std::uint64_t kNetworkSize = 256;

v1::Policy network_policy(const std::string& prefix = kNetwork, const std::string& home = "ar1",
                          v1::Mode mode = v1::MODE_UNSPECIFIED) {
  v1::Policy policy;
  auto& network = *policy.add_mobile_network_prefixes();
  network.set_prefix(prefix);
  network.set_home_ar(home);
  network.set_mode(mode);
  return policy;
}

class MobileNetworkTest : public testing::Test {
 protected:
  explicit MobileNetworkTest(Settings settings = make_test_settings(3)) : h(std::move(settings)) {
    for (const auto& node : h.machine.nodes()) h.connect(node.info().name());
  }

  Output arrive(const std::string& ar) {
    h.now += milliseconds(10);
    auto output = h.attach(ar, kRouter);
    EXPECT_TRUE(output.status.ok()) << output.status;
    return output;
  }
  void set(const std::string& mn, const v1::Policy& policy, const std::vector<std::string>& inherit = {}) {
    const auto status = h.set_policy(mn_scope(mn), policy, inherit).status;
    ASSERT_TRUE(status.ok()) << status;
  }
  std::string refusal(const v1::PolicyScope& scope, const v1::Policy& policy) {
    const auto status = h.set_policy(scope, policy).status;
    EXPECT_FALSE(status.ok());
    return std::string(status.message());
  }
  std::string refusal(const v1::Policy& policy) { return refusal(mn_scope(kRouter), policy); }
  std::uint64_t used(const std::string& ar) { return h.machine.describe_node(ar)->pool_used(); }

  Harness h;
};

TEST_F(MobileNetworkTest, MovesWithTheOtherPrefixesInOneCommit) {
  set(kRouter, network_policy());
  arrive("ar1");
  EXPECT_TRUE(h.binding(kNetwork).mobile_network());
  EXPECT_EQ(h.binding(kNetwork).prefix_type(), v1::PREFIX_TYPE_FIXED);
  EXPECT_FALSE(h.binding(kOwn).mobile_network());
  for (const char* ar : {"ar2", "ar3", "ar1", "ar2"}) {
    h.inbox.clear();
    const auto moved = arrive(ar);
    std::set<std::string> written;
    for (const auto& write : moved.commit->writes) written.insert(write.key);
    EXPECT_TRUE(written.count("binding/" + kOwn) == 1 && written.count("binding/" + kNetwork) == 1);
    for (const auto& prefix : {kOwn, kNetwork}) {
      EXPECT_EQ(h.binding(prefix).attached_ar(), ar);
      EXPECT_EQ(h.binding(prefix).revision().revision(), moved.commit->revision);
      EXPECT_TRUE(same(h.binding(prefix).generation(), moved.generation));
    }
    // The AR learns that more belongs to the same change, so that one RA tells the MN of all.
    const auto& inbox = h.inbox[h.sessions[ar]];
    for (const auto& message : inbox) EXPECT_EQ(message->record().more(), message != inbox.back());
  }
}

TEST_F(MobileNetworkTest, IsFoundByAnythingInside) {
  set(kRouter, network_policy());
  arrive("ar2");
  ASSERT_TRUE(h.attach("ar1", kOther).status.ok());
  for (const char* inside : {"2001:db8:1:f00::/56", "2001:db8:1:f00::/64", "2001:db8:1:fff:ffff:ffff:ffff:ffff/128",
                             "2001:db8:1:f80::/57", "2001:db8:1:f12::1/128"}) {
    ASSERT_NE(h.find(inside), nullptr) << inside;
    EXPECT_EQ(h.find(inside)->prefix(), kNetwork);
  }
  for (const char* outside : {"2001:db8:1:f00::/55", "2001:db8:1:eff::1/128", "2001:db8:1:1000::/64", "::/0",
                              "ffff::/128", "2001:db8:1::/48"}) {
    EXPECT_EQ(h.find(outside), nullptr) << outside;
  }
  const std::string others = h.prefix_of(kOther, "ar1");
  EXPECT_EQ(h.find(others)->mn_id(), kOther);
}

class NetworkInASmallPoolTest : public MobileNetworkTest {
 protected:
  NetworkInASmallPoolTest() : MobileNetworkTest(settings()) {}
  static Settings settings() {
    Settings s = make_test_settings(2);
    s.access_routers[0] = make_access_router(1, "2001:db8:1::/62");
    return s;
  }
};

TEST_F(NetworkInASmallPoolTest, KeepsItsWholeRangeFromOthers) {
  set(kRouter, network_policy("2001:db8:1:2::/63"));
  EXPECT_EQ(used("ar1"), 2U);
  EXPECT_TRUE(h.attach("ar1", mn_name(3)).status.ok());
  EXPECT_TRUE(h.attach("ar1", mn_name(4)).status.ok());
  EXPECT_EQ(used("ar1"), 4U);
  const auto none = h.attach("ar1", mn_name(5)).status;
  EXPECT_EQ(none.code(), absl::StatusCode::kResourceExhausted);
  set(kRouter, {}, {"mobile_network_prefixes"});
  EXPECT_EQ(used("ar1"), 2U) << "it was never assigned: nothing to wait for";
  EXPECT_TRUE(h.attach("ar1", mn_name(5)).status.ok());
}

TEST_F(NetworkInASmallPoolTest, IsServedAloneWhenNoPrefixIsLeftForTheRouterItself) {
  set(kRouter, network_policy("2001:db8:1:2::/63"));
  ASSERT_TRUE(h.attach("ar1", mn_name(3)).status.ok());
  ASSERT_TRUE(h.attach("ar1", mn_name(4)).status.ok());
  arrive("ar1");
  EXPECT_EQ(h.machine.bindings_of(kRouter).size(), 1U);
  EXPECT_EQ(h.count(v1::EVENT_TYPE_POOL_EXHAUSTED), 1);
  arrive("ar2");
  EXPECT_EQ(h.machine.bindings_of(kRouter).size(), 2U);
}

TEST_F(MobileNetworkTest, WhatCannotBeIsRefusedByName) {
  EXPECT_THAT(refusal(network_policy("2001:db8:1::/47")), HasSubstr("bits set past its length"));
  EXPECT_THAT(refusal(network_policy("2001:db8::/47")),
              AllOf(HasSubstr("mobile_network_prefixes"), HasSubstr("/48 to /64")));
  EXPECT_THAT(refusal(network_policy("2001:db8:1:f00::/65")), HasSubstr("is not /48 to /64"));
  EXPECT_THAT(refusal(network_policy("2001:0db8:1:f00::/56")), HasSubstr("must be written 2001:db8:1:f00::/56"));
  EXPECT_THAT(refusal(network_policy(kNetwork, "ar2")), HasSubstr("is in no pool of its home ar2"));
  EXPECT_THAT(refusal(network_policy(kNetwork, "ar9")), HasSubstr("ar9"));
  EXPECT_THAT(refusal(network_policy(kNetwork, "ar1", v1::MODE_NOMADIC)), HasSubstr("redirect or relocate"));
  EXPECT_THAT(refusal(default_scope(), network_policy()),
              HasSubstr("mobile_network_prefixes: belong to a mobile node"));
  EXPECT_THAT(refusal(ar_scope("ar1"), network_policy()), HasSubstr("belong to a mobile node"));
  v1::Policy many;
  for (int i = 0; i < 8; ++i) {
    many.MergeFrom(network_policy("2001:db8:1:f" + std::to_string(i) + "0::/60"));
    auto& fixed = *many.add_fixed_prefixes();
    fixed.set_prefix("2001:db8:1:e" + std::to_string(i) + "::/64");
    fixed.set_home_ar("ar1");
  }
  EXPECT_THAT(refusal(many), HasSubstr("at most 15"));
  many.mutable_fixed_prefixes()->RemoveLast();
  set(kRouter, many);
}

TEST_F(MobileNetworkTest, OverlapsNothingElse) {
  v1::Policy policy = network_policy();
  policy.MergeFrom(network_policy("2001:db8:1:f10::/60"));
  EXPECT_THAT(refusal(policy), AllOf(HasSubstr("2001:db8:1:f10::/60"), HasSubstr("overlaps 2001:db8:1:f00::/56")));
  policy = network_policy();
  policy.MergeFrom(network_policy());
  EXPECT_THAT(refusal(policy), HasSubstr("is there twice"));
  policy = network_policy();
  policy.add_fixed_prefixes()->set_prefix("2001:db8:1:fab::/64");
  policy.mutable_fixed_prefixes(0)->set_home_ar("ar1");
  EXPECT_THAT(refusal(policy), HasSubstr("overlaps 2001:db8:1:fab::/64 of fixed_prefixes"));

  set(kOther, network_policy("2001:db8:1:f10::/60"));
  EXPECT_THAT(refusal(network_policy()), AllOf(HasSubstr("overlaps 2001:db8:1:f10::/60"), HasSubstr(kOther)));
  EXPECT_THAT(refusal(network_policy("2001:db8:1:f1a::/64")), HasSubstr("overlaps 2001:db8:1:f10::/60"));
  v1::Policy fixed;
  fixed.add_fixed_prefixes()->set_prefix("2001:db8:1:f1a::/64");
  fixed.mutable_fixed_prefixes(0)->set_home_ar("ar1");
  EXPECT_THAT(refusal(fixed), HasSubstr("overlaps 2001:db8:1:f10::/60"));

  arrive("ar1");
  ASSERT_TRUE(h.attach("ar1", mn_name(3)).status.ok());
  const std::string third = h.prefix_of(mn_name(3), "ar1");
  EXPECT_THAT(refusal(network_policy("2001:db8:1::/56")), AllOf(HasSubstr("is assigned to"), HasSubstr(kRouter)));
  EXPECT_THAT(refusal(network_policy(third)), AllOf(HasSubstr("is assigned to"), HasSubstr(mn_name(3))));
  EXPECT_EQ(h.machine.policies().size(), 1U) << "what is refused changes nothing";
  EXPECT_EQ(used("ar1"), 16U + 2U);
}

TEST_F(MobileNetworkTest, SurvivesARestart) {
  set(kRouter, network_policy());
  set(kOther, network_policy("2001:db8:1::/60"));
  arrive("ar1");
  arrive("ar2");
  const auto before = h.binding(kNetwork).SerializeAsString();
  const auto used_before = used("ar1");
  EXPECT_EQ(used_before, kNetworkSize + 16 + 1);
  h.restart(true);
  EXPECT_EQ(used("ar1"), used_before);
  EXPECT_EQ(h.binding(kNetwork).SerializeAsString(), before);
  EXPECT_EQ(h.find("2001:db8:1:f42::1/128")->prefix(), kNetwork);
  for (const char* ar : {"ar1", "ar2", "ar3"}) h.connect(ar);
  arrive("ar3");
  EXPECT_EQ(h.binding(kNetwork).attached_ar(), "ar3");
  ASSERT_TRUE(h.attach("ar1", mn_name(3)).status.ok());
  EXPECT_EQ(h.prefix_of(mn_name(3), "ar1"), "2001:db8:1:11::/64") << "behind the youngest, which is no network";
  ASSERT_TRUE(h.attach("ar1", kOther).status.ok());
  EXPECT_TRUE(h.binding("2001:db8:1::/60").mobile_network());
}

TEST_F(MobileNetworkTest, ComesAndGoesWithTheProfile) {
  arrive("ar1");
  arrive("ar2");
  set(kRouter, network_policy());
  EXPECT_EQ(h.binding(kNetwork).attached_ar(), "ar2") << "at once, where its router is";

  const auto removed = h.set_policy(mn_scope(kRouter), {}, {"mobile_network_prefixes"});
  EXPECT_TRUE(h.binding(kNetwork).released());
  EXPECT_EQ(h.binding(kNetwork).state(), v1::BINDING_STATE_DETACHED);
  EXPECT_FALSE(h.holder(kNetwork, "ar2")->releasing()) << "refuses what nodes of the network still send";
  EXPECT_FALSE(h.holder(kNetwork, "ar1")->releasing()) << "answers unreachable until the quarantine is over";
  EXPECT_EQ(h.binding(kOwn).attached_ar(), "ar2") << "its own prefix stays";
  EXPECT_EQ(h.count(v1::EVENT_TYPE_PREFIX_RELEASED, kNetwork), 1);
  EXPECT_EQ(removed.commit->revision, h.binding(kNetwork).revision().revision());
  arrive("ar1");
  EXPECT_TRUE(h.binding(kNetwork).released()) << "at home too there is nothing behind its router";
  EXPECT_EQ(h.count(v1::EVENT_TYPE_PREFIX_RELEASED, kNetwork), 1);
  EXPECT_THAT(refusal(network_policy("2001:db8:1:f00::/57")),
              AllOf(HasSubstr("overlaps " + kNetwork), HasSubstr("still in quarantine")));

  set(kRouter, network_policy());
  EXPECT_FALSE(h.binding(kNetwork).released());
  EXPECT_EQ(h.binding(kNetwork).attached_ar(), "ar1");
  EXPECT_FALSE(h.binding(kNetwork).has_free_at());

  ASSERT_TRUE(h.take(h.machine.delete_policy(mn_scope(kRouter), h.now)).status.ok());
  h.ack("ar2", kNetwork, v1::STAGE_CLEARED);
  h.advance(hours(2));
  h.ack("ar1", kNetwork, v1::STAGE_CLEARED);
  EXPECT_EQ(h.find(kNetwork), nullptr);
  EXPECT_EQ(used("ar1"), 1U);
  EXPECT_EQ(h.values.count("binding/" + kNetwork), 0U);
}

TEST_F(MobileNetworkTest, TakenFromTheProfileDuringTheGraceItEndsAtOnce) {
  set(kRouter, network_policy());
  arrive("ar2");
  h.detach("ar2", kRouter);
  ASSERT_EQ(h.binding(kNetwork).state(), v1::BINDING_STATE_DETACHED_GRACE);
  set(kRouter, {}, {"mobile_network_prefixes"});
  EXPECT_EQ(h.binding(kNetwork).state(), v1::BINDING_STATE_DETACHED);
  EXPECT_TRUE(h.binding(kNetwork).has_free_at());
  arrive("ar2");
  EXPECT_TRUE(h.binding(kNetwork).released());
}

TEST_F(MobileNetworkTest, StaysItsRoutersWhenThatLeaves) {
  set(kRouter, network_policy());
  arrive("ar2");
  h.detach("ar2", kRouter);
  h.advance(seconds(10));
  EXPECT_EQ(h.binding(kNetwork).state(), v1::BINDING_STATE_DETACHED);
  EXPECT_FALSE(h.binding(kNetwork).has_free_at());
  h.advance(hours(9));
  EXPECT_EQ(used("ar1"), kNetworkSize);
  arrive("ar3");
  EXPECT_EQ(h.binding(kNetwork).attached_ar(), "ar3");
}

TEST_F(MobileNetworkTest, DoesNotCountAmongTheRoutersOwnPrefixes) {
  v1::Policy policy = network_policy();
  policy.set_max_prefixes(1);
  set(kRouter, policy);
  arrive("ar1");
  EXPECT_EQ(h.binding(kOwn).attached_ar(), "ar1") << "a network with its home here is no address of the router";
  arrive("ar2");
  EXPECT_EQ(h.machine.bindings_of(kRouter).size(), 2U);
}

TEST_F(MobileNetworkTest, StaysReachableWhenItsRouterIsNomadic) {
  v1::Policy policy = network_policy();
  policy.set_mode(v1::MODE_NOMADIC);
  set(kRouter, policy);
  arrive("ar1");
  arrive("ar2");
  EXPECT_TRUE(h.binding(kOwn).released());
  EXPECT_EQ(h.binding(kNetwork).attached_ar(), "ar2");
  EXPECT_EQ(h.binding(kNetwork).mode(), v1::MODE_RELOCATE);
  EXPECT_NE(h.prefix_of(kRouter, "ar2"), "");
}

TEST_F(MobileNetworkTest, ARouterWhoseOwnPrefixEndsByPolicyGetsAnotherAtOnce) {
  v1::Policy policy = network_policy();
  policy.set_max_prefixes(1);
  set(kRouter, policy);
  arrive("ar1");
  arrive("ar2");
  set(kRouter, mode_policy(v1::MODE_NOMADIC));
  EXPECT_TRUE(h.binding(kOwn).released());
  EXPECT_EQ(h.binding(kNetwork).attached_ar(), "ar2");
  ASSERT_NE(h.prefix_of(kRouter, "ar2"), "");
  EXPECT_EQ(h.binding(h.prefix_of(kRouter, "ar2")).attached_ar(), "ar2");
}

TEST_F(MobileNetworkTest, HasAModeOfItsOwn) {
  v1::Policy policy = network_policy(kNetwork, "ar1", v1::MODE_REDIRECT);
  policy.MergeFrom(network_policy("2001:db8:2:f00::/60", "ar2"));
  set(kRouter, policy);
  arrive("ar1");
  arrive("ar3");
  EXPECT_EQ(h.binding(kNetwork).mode(), v1::MODE_REDIRECT);
  EXPECT_EQ(h.binding(kNetwork).preference(), 0U);
  EXPECT_EQ(h.binding(kOwn).mode(), v1::MODE_RELOCATE);
  EXPECT_GT(h.binding(kOwn).preference(), 0U);
  EXPECT_GT(h.binding("2001:db8:2:f00::/60").preference(), 0U);
  EXPECT_TRUE(same(h.binding(kNetwork).revision(), h.binding("2001:db8:2:f00::/60").revision()));
  EXPECT_TRUE(same(h.binding(kNetwork).revision(), h.binding(kOwn).revision()));
  h.take(h.machine.set_draining("ar1", true, h.now));
  EXPECT_EQ(h.binding(kNetwork).mode(), v1::MODE_RELOCATE) << "its home is to go down";
}

// The modes of an MN's prefixes change at different times; each change is a generation of that prefix alone.
TEST_F(MobileNetworkTest, LeavesWithItsRouterWhicheverPrefixHasTheNewestGeneration) {
  v1::Policy policy = network_policy(kNetwork, "ar1", v1::MODE_REDIRECT);
  policy.mutable_relocate_after()->set_seconds(30);
  set(kRouter, policy);
  arrive("ar1");
  arrive("ar2");
  const auto attachment = h.binding(kNetwork).generation();
  h.advance(seconds(31));
  const auto newest = h.binding(kOwn).generation();
  ASSERT_TRUE(compare(newest, h.binding(kNetwork).generation()) > 0);
  arrive("ar3");
  EXPECT_TRUE(h.detach("ar3", kRouter, attachment).stale);
  EXPECT_TRUE(h.detach("ar3", kRouter, newest).stale) << "of the attachment before";
  h.advance(seconds(31));
  EXPECT_FALSE(h.detach("ar3", kRouter, h.binding(kOwn).generation()).stale);
  for (const auto& prefix : {kOwn, kNetwork}) {
    EXPECT_EQ(h.binding(prefix).state(), v1::BINDING_STATE_DETACHED_GRACE);
  }
}

TEST_F(MobileNetworkTest, AFixedPrefixCanBecomeANetworkAndBack) {
  const std::string prefix = "2001:db8:1:f0::/64";
  v1::Policy fixed;
  fixed.add_fixed_prefixes()->set_prefix(prefix);
  fixed.mutable_fixed_prefixes(0)->set_home_ar("ar1");
  set(kRouter, fixed);
  arrive("ar2");
  EXPECT_FALSE(h.binding(prefix).mobile_network());
  set(kRouter, network_policy(prefix), {"fixed_prefixes"});
  EXPECT_TRUE(h.binding(prefix).mobile_network());
  EXPECT_EQ(h.binding(prefix).attached_ar(), "ar2");
  set(kRouter, fixed, {"mobile_network_prefixes"});
  EXPECT_FALSE(h.binding(prefix).mobile_network());
  EXPECT_FALSE(h.binding(prefix).released());
  h.detach("ar2", kRouter);
  h.advance(seconds(10));
  set(kRouter, network_policy(prefix), {"fixed_prefixes"});
  EXPECT_TRUE(h.binding(prefix).mobile_network()) << "also while its router is away";
  EXPECT_EQ(used("ar1"), 1U);
}

}  // namespace
}  // namespace kedge::lm
