#include "speaker/core/desired.h"

#include "gtest/gtest.h"

namespace kedge::speaker {
namespace {

// P is at home at ar1 and moves to ar2 with generation 1.20.
v1::Binding moving_to_ar2() {
  v1::Binding binding;
  binding.set_prefix("2001:db8:1000::/64");
  binding.set_home_ar("ar1");
  binding.set_attached_ar("ar2");
  binding.set_state(v1::BINDING_STATE_MOVING);
  binding.set_preference(1);
  binding.mutable_generation()->set_epoch(1);
  binding.mutable_generation()->set_revision(20);
  auto* ar1 = binding.add_holders();
  ar1->set_ar("ar1");
  ar1->set_delivers(true);
  ar1->mutable_generation()->set_epoch(1);
  ar1->mutable_generation()->set_revision(10);
  auto* ar2 = binding.add_holders();
  ar2->set_ar("ar2");
  ar2->set_advertises_preference(1);
  return binding;
}

void ar2_delivers(v1::Binding& binding, std::uint64_t epoch, std::uint64_t revision) {
  auto* ar2 = binding.mutable_holders(1);
  ar2->set_delivers(true);
  ar2->mutable_generation()->set_epoch(epoch);
  ar2->mutable_generation()->set_revision(revision);
}

TEST(DesiredTest, AttachedArDeliversAndAdvertises) {
  const auto result = desired(moving_to_ar2(), "ar2");
  EXPECT_EQ(result.forwarding.kind, Forwarding::Kind::kDeliver);
  EXPECT_EQ(result.anchoring, (Anchoring{Anchoring::Kind::kAdvertise, 1, ""}));
}

TEST(DesiredTest, OldArKeepsDeliveringUntilTheNewOneHasAcknowledged) {
  EXPECT_EQ(desired(moving_to_ar2(), "ar1").forwarding.kind, Forwarding::Kind::kDeliver);
}

TEST(DesiredTest, OldArRedirectsOnceTheNewOneDeliversAtThisGeneration) {
  auto binding = moving_to_ar2();
  ar2_delivers(binding, 1, 20);
  EXPECT_EQ(desired(binding, "ar1").forwarding, (Forwarding{Forwarding::Kind::kRedirect, "ar2", "", false}));
  EXPECT_EQ(desired(binding, "ar1").anchoring, (Anchoring{Anchoring::Kind::kUntilSuperseded, 1, "ar2"}));
}

TEST(DesiredTest, AnAcknowledgementOfAnOlderGenerationDoesNotCountAsDelivering) {
  auto binding = moving_to_ar2();
  ar2_delivers(binding, 1, 12);
  EXPECT_EQ(desired(binding, "ar1").forwarding.kind, Forwarding::Kind::kDeliver);
  ar2_delivers(binding, 0, 20);
  EXPECT_EQ(desired(binding, "ar1").forwarding.kind, Forwarding::Kind::kDeliver);
}

TEST(DesiredTest, AtHomeNothingIsAdvertised) {
  auto binding = moving_to_ar2();
  binding.set_attached_ar("ar1");
  binding.set_preference(0);
  EXPECT_EQ(desired(binding, "ar1").forwarding.kind, Forwarding::Kind::kDeliver);
  EXPECT_EQ(desired(binding, "ar1").anchoring.kind, Anchoring::Kind::kNone);
}

TEST(DesiredTest, AnArThatIsNoHolderHoldsNothing) { EXPECT_EQ(desired(moving_to_ar2(), "ar3"), Desired{}); }

TEST(DesiredTest, AnArThatIsReleasedHoldsNothing) {
  auto binding = moving_to_ar2();
  binding.mutable_holders(0)->set_releasing(true);
  EXPECT_EQ(desired(binding, "ar1"), Desired{});
}

TEST(DesiredTest, DuringTheGraceTimeOfADetachmentEverythingStays) {
  auto binding = moving_to_ar2();
  ar2_delivers(binding, 1, 20);
  binding.mutable_holders(0)->set_delivers(false);
  binding.mutable_holders(0)->set_redirects_to("ar2");
  binding.set_attached_ar("");
  binding.set_state(v1::BINDING_STATE_DETACHED_GRACE);
  EXPECT_EQ(desired(binding, "ar1").forwarding, (Forwarding{Forwarding::Kind::kRedirect, "ar2", "", false}));
  EXPECT_EQ(desired(binding, "ar2").forwarding.kind, Forwarding::Kind::kDeliver);
  EXPECT_EQ(desired(binding, "ar2").anchoring, (Anchoring{Anchoring::Kind::kAdvertise, 1, ""}));
}

TEST(DesiredTest, AfterADetachmentOnlyTheHomeArAnswers) {
  auto binding = moving_to_ar2();
  binding.set_attached_ar("");
  binding.set_state(v1::BINDING_STATE_DETACHED);
  EXPECT_EQ(desired(binding, "ar1").forwarding, (Forwarding{Forwarding::Kind::kUnreachable, "", "", false}));
  EXPECT_EQ(desired(binding, "ar2"), Desired{});
}

TEST(DesiredTest, WhereTheNodeOfAnEndedPrefixIsItIsRefused) {
  auto binding = moving_to_ar2();
  binding.set_attached_ar("");
  binding.set_state(v1::BINDING_STATE_DETACHED);
  binding.set_released(true);
  EXPECT_EQ(desired(binding, "ar1").forwarding, (Forwarding{Forwarding::Kind::kUnreachable, "", "", true}));
  EXPECT_EQ(desired(binding, "ar2").forwarding.kind, Forwarding::Kind::kRefuse);
  binding.mutable_holders(1)->set_releasing(true);
  EXPECT_EQ(desired(binding, "ar2"), Desired{});
}

TEST(DesiredTest, TheUplinkOfARedirectedPrefixLeavesThroughItsHome) {
  auto binding = moving_to_ar2();
  binding.set_mode(v1::MODE_REDIRECT);
  binding.set_preference(0);
  EXPECT_EQ(desired(binding, "ar2").forwarding, (Forwarding{Forwarding::Kind::kDeliver, "", "ar1", false}));
  binding.set_direct_uplink(true);
  EXPECT_EQ(desired(binding, "ar2").forwarding, (Forwarding{Forwarding::Kind::kDeliver, "", "", false}));
  binding.set_direct_uplink(false);
  binding.set_mode(v1::MODE_RELOCATE);
  EXPECT_EQ(desired(binding, "ar2").forwarding, (Forwarding{Forwarding::Kind::kDeliver, "", "", false}));
}

TEST(DesiredTest, TheUplinkAtHomeIsDirect) {
  auto binding = moving_to_ar2();
  binding.set_mode(v1::MODE_REDIRECT);
  binding.set_attached_ar("ar1");
  EXPECT_EQ(desired(binding, "ar1").forwarding, (Forwarding{Forwarding::Kind::kDeliver, "", "", false}));
}

TEST(DesiredTest, TheHomeKeepsDeliveringDirectlyUntilTheNewArDelivers) {
  auto binding = moving_to_ar2();
  binding.set_mode(v1::MODE_REDIRECT);
  EXPECT_EQ(desired(binding, "ar1").forwarding, (Forwarding{Forwarding::Kind::kDeliver, "", "", false}));
}

TEST(DesiredTest, AnArThatTheMnHasLeftKeepsTheUplinkThroughHomeUntilTheNextDelivers) {
  auto binding = moving_to_ar2();
  binding.set_mode(v1::MODE_REDIRECT);
  ar2_delivers(binding, 1, 20);
  binding.mutable_generation()->set_revision(30);
  binding.set_attached_ar("ar3");
  auto* ar3 = binding.add_holders();
  ar3->set_ar("ar3");
  EXPECT_EQ(desired(binding, "ar2").forwarding, (Forwarding{Forwarding::Kind::kDeliver, "", "ar1", false}));
  ar3->set_delivers(true);
  *ar3->mutable_generation() = binding.generation();
  EXPECT_EQ(desired(binding, "ar2").forwarding, (Forwarding{Forwarding::Kind::kRedirect, "ar3", "", false}));
  binding.set_attached_ar("");
  binding.set_state(v1::BINDING_STATE_DETACHED_GRACE);
  EXPECT_EQ(desired(binding, "ar2").forwarding, (Forwarding{Forwarding::Kind::kDeliver, "", "ar1", false}));
}

TEST(DesiredTest, WithoutRelocationTheOldArWaitsForNoRoute) {
  auto binding = moving_to_ar2();
  binding.set_preference(0);
  EXPECT_EQ(desired(binding, "ar1").anchoring.kind, Anchoring::Kind::kNone);
}

TEST(DesiredTest, GenerationsCompareByEpochFirst) {
  v1::Generation a;
  v1::Generation b;
  a.set_epoch(1);
  a.set_revision(900);
  b.set_epoch(2);
  b.set_revision(1);
  EXPECT_TRUE(compare(a, b) < 0);
  b.set_epoch(1);
  EXPECT_TRUE(compare(a, b) > 0);
  b.set_revision(900);
  EXPECT_TRUE(compare(a, b) == 0);
}

}  // namespace
}  // namespace kedge::speaker
