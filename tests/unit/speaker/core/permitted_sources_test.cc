#include "speaker/core/permitted_sources.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace kedge::speaker {
namespace {

using namespace std::chrono_literals;
using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::UnorderedElementsAre;

constexpr char kPrefix[] = "2001:db8:1000:1::/64";
constexpr char kMn[] = "02:00:00:00:00:11";
constexpr char kOtherMn[] = "02:00:00:00:00:22";

Ipv6Prefix prefix(const std::string& text = kPrefix) { return *Ipv6Prefix::parse(text); }
LinkLayerAddress mn(const std::string& text = kMn) { return *LinkLayerAddress::parse(text); }
PermittedSource source(const std::string& interface = "eth2", const std::string& of = kMn,
                       const std::string& from = kPrefix) {
  return {interface, mn(of), prefix(from)};
}

v1::Binding attached(const std::string& ar, const std::string& interface = "eth2", const std::string& of = kMn) {
  v1::Binding binding;
  binding.set_prefix(kPrefix);
  binding.set_mn_id(of);
  binding.set_home_ar("ar1");
  binding.set_attached_ar(ar);
  binding.set_state(v1::BINDING_STATE_MOVING);
  binding.mutable_attachment()->set_interface(interface);
  binding.mutable_attachment()->set_link_layer_address(of);
  binding.mutable_attachment()->set_link_local("fe80::ff:fe00:11");
  binding.add_holders()->set_ar("ar1");
  if (ar != "ar1") binding.add_holders()->set_ar(ar);
  return binding;
}

v1::Binding detached(v1::Binding binding, v1::BindingState state) {
  binding.set_last_ar(binding.attached_ar());
  binding.clear_attached_ar();
  binding.set_state(state);
  return binding;
}

class PermittedSourcesTest : public ::testing::Test {
 protected:
  void take(const v1::Binding& binding) { sources_.take(prefix(binding.prefix()), binding, now_); }
  void expire() {
    sources_.expire(now_, 10s, [this](const LinkLayerAddress&) { return heard_; });
  }

  PermittedSources sources_{"ar1"};
  SteadyTime now_ = SteadyTime() + 1h;
  std::optional<SteadyTime> heard_;
};

TEST_F(PermittedSourcesTest, AnMnSendsFromItsPrefixWhereItIsAttached) {
  take(attached("ar1"));
  EXPECT_THAT(sources_.all(), ElementsAre(source()));
  EXPECT_THAT(sources_.take_change().added, ElementsAre(source()));
  take(attached("ar1"));
  EXPECT_TRUE(sources_.take_change().empty());
}

TEST_F(PermittedSourcesTest, WhatIsAttachedElsewhereIsNotLetInHere) {
  take(attached("ar2"));
  EXPECT_THAT(sources_.all(), IsEmpty());
}

TEST_F(PermittedSourcesTest, InAPlannedMoveTheOldLinkStaysOpenUntilItGoes) {
  take(attached("ar1"));
  take(attached("ar2"));
  now_ += 9s;
  expire();
  EXPECT_THAT(sources_.all(), ElementsAre(source()));
  sources_.link_down("eth3");
  EXPECT_THAT(sources_.all(), ElementsAre(source()));
  sources_.link_down("eth2");
  EXPECT_THAT(sources_.all(), IsEmpty());
}

TEST_F(PermittedSourcesTest, TheOldLinkClosesWhenItsNodeHasBeenSilentThereForLong) {
  take(attached("ar1"));
  take(attached("ar2"));
  now_ += 8s;
  heard_ = now_;
  now_ += 9s;
  expire();
  EXPECT_THAT(sources_.all(), ElementsAre(source()));
  now_ += 1s;
  expire();
  EXPECT_THAT(sources_.all(), IsEmpty());
}

TEST_F(PermittedSourcesTest, ALinkThatFlapsFindsItsSourcesOpen) {
  take(attached("ar1"));
  sources_.link_down("eth2");
  sources_.departed(mn(), "eth2");
  take(detached(attached("ar1"), v1::BINDING_STATE_DETACHED_GRACE));
  now_ += 1h;
  expire();
  EXPECT_THAT(sources_.all(), ElementsAre(source()));
}

TEST_F(PermittedSourcesTest, NothingIsLeftOfANodeThatIsDetachedForGood) {
  take(attached("ar1"));
  take(attached("ar2"));
  take(detached(attached("ar2"), v1::BINDING_STATE_DETACHED_GRACE));
  EXPECT_THAT(sources_.all(), ElementsAre(source()));
  take(detached(attached("ar2"), v1::BINDING_STATE_DETACHED));
  EXPECT_THAT(sources_.all(), IsEmpty());
}

TEST_F(PermittedSourcesTest, NothingIsLeftOfAPrefixThatIsForgotten) {
  take(attached("ar1"));
  take(attached("ar1", "eth3"));
  sources_.forget(prefix());
  EXPECT_THAT(sources_.all(), IsEmpty());
  EXPECT_FALSE(sources_.has_earlier());
}

TEST_F(PermittedSourcesTest, BetweenTwoPortsOfOneRouterBothAreOpenForAWhile) {
  take(attached("ar1", "eth2"));
  take(attached("ar1", "eth3"));
  EXPECT_THAT(sources_.all(), UnorderedElementsAre(source("eth2"), source("eth3")));
  now_ += 10s;
  expire();
  EXPECT_THAT(sources_.all(), ElementsAre(source("eth3")));
}

TEST_F(PermittedSourcesTest, ADepartureClosesTheLinkForThatNodeOnly) {
  take(attached("ar1"));
  auto other = attached("ar1", "eth2", kOtherMn);
  other.set_prefix("2001:db8:1000:2::/64");
  take(other);
  take(attached("ar2"));
  other.set_attached_ar("ar2");
  take(other);
  sources_.departed(mn(), "eth2");
  EXPECT_THAT(sources_.all(), ElementsAre(source("eth2", kOtherMn, "2001:db8:1000:2::/64")));
}

TEST_F(PermittedSourcesTest, AReturnIsNoChangeForTheKernel) {
  take(attached("ar1"));
  take(attached("ar2"));
  sources_.take_change();
  take(attached("ar1"));
  EXPECT_TRUE(sources_.take_change().empty());
  EXPECT_FALSE(sources_.has_earlier());
}

TEST_F(PermittedSourcesTest, APrefixThatGoesToAnotherNodeIsClosedToTheFirst) {
  take(attached("ar1"));
  take(attached("ar1", "eth2", kOtherMn));
  EXPECT_THAT(sources_.all(), ElementsAre(source("eth2", kOtherMn)));
}

TEST_F(PermittedSourcesTest, WhatComesFromAnEndedPrefixComesInToBeAnswered) {
  // RFC 8818, 4.1, as Desired has it: the node is here, the prefix was at home at ar2.
  auto ended = detached(attached("ar1"), v1::BINDING_STATE_DETACHED);
  ended.set_home_ar("ar2");
  ended.set_released(true);
  take(ended);
  EXPECT_THAT(sources_.all(), ElementsAre(source()));
}

TEST_F(PermittedSourcesTest, WhatAnEarlierRunHasPermittedIsAnEarlierLinkUntilARecordSaysMore) {
  sources_.adopt(source(), now_);
  sources_.adopt(source("eth3", kOtherMn, "2001:db8:1000:2::/64"), now_);
  sources_.take_change();
  take(attached("ar1"));
  EXPECT_TRUE(sources_.take_change().empty());
  EXPECT_THAT(sources_.prefixes(), ElementsAre(prefix(), prefix("2001:db8:1000:2::/64")));
  now_ += 10s;
  expire();
  EXPECT_THAT(sources_.all(), ElementsAre(source()));
}

TEST_F(PermittedSourcesTest, AnAddressThatIsNoneLetsNothingIn) {
  auto binding = attached("ar1");
  binding.mutable_attachment()->set_link_layer_address("nonsense");
  take(binding);
  EXPECT_THAT(sources_.all(), IsEmpty());
}

}  // namespace
}  // namespace kedge::speaker
