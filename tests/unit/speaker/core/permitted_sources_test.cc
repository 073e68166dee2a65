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
constexpr char kLinkLocal[] = "fe80::ff:fe00:11";
constexpr char kMn[] = "02:00:00:00:00:11";
constexpr char kOtherMn[] = "02:00:00:00:00:22";

Ipv6Prefix prefix(const std::string& text = kPrefix) { return *Ipv6Prefix::parse(text); }
LinkLayerAddress mn(const std::string& text = kMn) { return *LinkLayerAddress::parse(text); }
PermittedSource source(const std::string& interface = "eth2", const std::string& of = kMn,
                       const std::string& from = kPrefix) {
  return {interface, mn(of), prefix(from)};
}

PermittedSource link_local(const std::string& interface = "eth2", const std::string& address = kLinkLocal) {
  return {interface, mn(), prefix(address + "/128")};
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
  binding.mutable_attachment()->set_link_local(kLinkLocal);
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
    sources_.expire(now_, 10s, [this](const std::string& interface, const LinkLayerAddress&) {
      return interface == heard_on_ ? heard_ : std::nullopt;
    });
  }

  // Prefixes; what is permitted beside them has tests of its own.
  std::set<PermittedSource> permitted() const {
    std::set<PermittedSource> found;
    for (const auto& source : sources_.all()) {
      if (!source.prefix.address().is_link_local()) found.insert(source);
    }
    EXPECT_EQ(found.size(), sources_.count());
    return found;
  }

  PermittedSources sources_{"ar1"};
  SteadyTime now_ = SteadyTime() + 1h;
  std::optional<SteadyTime> heard_;
  std::string heard_on_ = "eth2";
};

TEST_F(PermittedSourcesTest, AnMnSendsFromItsPrefixWhereItIsAttached) {
  take(attached("ar1"));
  EXPECT_THAT(permitted(), ElementsAre(source()));
  EXPECT_THAT(sources_.take_change().added, UnorderedElementsAre(source(), link_local()));
  take(attached("ar1"));
  EXPECT_TRUE(sources_.take_change().empty());
}

TEST_F(PermittedSourcesTest, WhatIsAttachedElsewhereIsNotLetInHere) {
  take(attached("ar2"));
  EXPECT_THAT(permitted(), IsEmpty());
}

TEST_F(PermittedSourcesTest, InAPlannedMoveTheOldLinkStaysOpenUntilItGoes) {
  take(attached("ar1"));
  take(attached("ar2"));
  now_ += 9s;
  expire();
  EXPECT_THAT(permitted(), ElementsAre(source()));
  sources_.link_down("eth3");
  EXPECT_THAT(permitted(), ElementsAre(source()));
  sources_.link_down("eth2");
  EXPECT_THAT(permitted(), IsEmpty());
}

TEST_F(PermittedSourcesTest, TheOldLinkClosesWhenItsNodeHasBeenSilentThereForLong) {
  take(attached("ar1"));
  take(attached("ar2"));
  now_ += 8s;
  heard_ = now_;
  now_ += 9s;
  expire();
  EXPECT_THAT(permitted(), ElementsAre(source()));
  now_ += 1s;
  expire();
  EXPECT_THAT(permitted(), IsEmpty());
}

TEST_F(PermittedSourcesTest, ALinkThatFlapsFindsItsSourcesOpen) {
  take(attached("ar1"));
  sources_.link_down("eth2");
  sources_.departed(mn(), "eth2");
  take(detached(attached("ar1"), v1::BINDING_STATE_DETACHED_GRACE));
  now_ += 1h;
  expire();
  EXPECT_THAT(permitted(), ElementsAre(source()));
}

TEST_F(PermittedSourcesTest, NothingIsLeftOfANodeThatIsDetachedForGood) {
  take(attached("ar1"));
  take(attached("ar2"));
  take(detached(attached("ar2"), v1::BINDING_STATE_DETACHED_GRACE));
  EXPECT_THAT(permitted(), ElementsAre(source()));
  take(detached(attached("ar2"), v1::BINDING_STATE_DETACHED));
  EXPECT_THAT(permitted(), IsEmpty());
}

TEST_F(PermittedSourcesTest, NothingIsLeftOfAPrefixThatIsForgotten) {
  take(attached("ar1"));
  take(attached("ar1", "eth3"));
  sources_.forget(prefix(), now_);
  EXPECT_THAT(permitted(), IsEmpty());
  EXPECT_FALSE(sources_.has_earlier());
}

TEST_F(PermittedSourcesTest, BetweenTwoPortsOfOneRouterBothAreOpenForAWhile) {
  take(attached("ar1", "eth2"));
  take(attached("ar1", "eth3"));
  EXPECT_THAT(permitted(), UnorderedElementsAre(source("eth2"), source("eth3")));
  EXPECT_TRUE(sources_.any_of(mn(), "eth2"));
  now_ += 10s;
  // On the new one.
  heard_ = now_;
  heard_on_ = "eth3";
  expire();
  EXPECT_THAT(permitted(), ElementsAre(source("eth3")));
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
  EXPECT_THAT(permitted(), ElementsAre(source("eth2", kOtherMn, "2001:db8:1000:2::/64")));
}

TEST_F(PermittedSourcesTest, AReturnOpensForDiscoveryAloneWhatIsOpenOtherwise) {
  take(attached("ar1"));
  sources_.take_change();
  take(attached("ar2"));
  EXPECT_THAT(sources_.take_change().removed, ElementsAre(link_local()));
  take(attached("ar1"));
  const auto change = sources_.take_change();
  EXPECT_THAT(change.added, ElementsAre(link_local()));
  EXPECT_THAT(change.removed, IsEmpty());
  EXPECT_FALSE(sources_.has_earlier());
}

TEST_F(PermittedSourcesTest, APrefixThatGoesToAnotherNodeIsClosedToTheFirst) {
  take(attached("ar1"));
  take(attached("ar1", "eth2", kOtherMn));
  EXPECT_THAT(permitted(), ElementsAre(source("eth2", kOtherMn)));
}

TEST_F(PermittedSourcesTest, WhatComesFromAnEndedPrefixComesInToBeAnswered) {
  // RFC 8818, 4.1, as Desired has it: the node is here, the prefix was at home at ar2.
  auto ended = detached(attached("ar1"), v1::BINDING_STATE_DETACHED);
  ended.set_home_ar("ar2");
  ended.set_released(true);
  take(ended);
  EXPECT_THAT(permitted(), ElementsAre(source()));
}

TEST_F(PermittedSourcesTest, WhatAnEarlierRunHasPermittedIsAnEarlierLinkUntilARecordSaysMore) {
  for (const auto& left : {source(), source("eth3", kOtherMn, "2001:db8:1000:2::/64"), link_local()}) {
    sources_.adopt(left, now_);
  }
  sources_.take_change();
  EXPECT_THAT(sources_.prefixes(), UnorderedElementsAre(prefix(), prefix("2001:db8:1000:2::/64"), link_local().prefix));
  // No record is of a link-local address.
  sources_.forget(link_local().prefix, now_);
  take(attached("ar1"));
  EXPECT_TRUE(sources_.take_change().empty());
  now_ += 10s;
  expire();
  EXPECT_THAT(permitted(), ElementsAre(source()));
}

TEST_F(PermittedSourcesTest, AnMnThatMayNotHaveHeardOfItsMoveSendsOnWhereItWas) {
  take(attached("ar1"));
  take(attached("ar2"));
  now_ += 5s;
  sources_.forget(prefix(), now_);
  EXPECT_THAT(sources_.prefixes(), IsEmpty());
  now_ += 9s;
  // Not for longer, whether it is heard or not, and however often this AR is told to let go.
  heard_ = now_;
  sources_.forget(prefix(), now_);
  expire();
  EXPECT_THAT(permitted(), ElementsAre(source()));
  now_ += 1s;
  expire();
  EXPECT_THAT(permitted(), IsEmpty());
  EXPECT_FALSE(sources_.has_earlier());
}

TEST_F(PermittedSourcesTest, WhereAnMnHasForgottenPrefixesTheyEndWithTheLinkOrComeBack) {
  take(attached("ar1"));
  take(attached("ar2"));
  sources_.forget(prefix(), now_);
  sources_.link_down("eth2");
  EXPECT_THAT(permitted(), IsEmpty());

  take(attached("ar1"));
  take(attached("ar2"));
  sources_.forget(prefix(), now_);
  take(attached("ar1"));
  now_ += 1h;
  expire();
  EXPECT_THAT(permitted(), ElementsAre(source()));
  EXPECT_THAT(sources_.prefixes(), ElementsAre(prefix()));
}

TEST_F(PermittedSourcesTest, TheKernelHearsTheLinkLocalAddressThatIsKnownAndOnlyWhereItsMnIs) {
  take(attached("ar1"));
  auto other = attached("ar1");
  other.set_prefix("2001:db8:1000:2::/64");
  take(other);
  EXPECT_TRUE(sources_.all().contains(link_local()));
  EXPECT_EQ(sources_.all().size(), 3U);
  // One of its prefixes goes.
  take(detached(other, v1::BINDING_STATE_DETACHED));
  EXPECT_TRUE(sources_.all().contains(link_local()));
  // Another address turns out to be its own.
  auto corrected = attached("ar1");
  corrected.mutable_attachment()->set_link_local("fe80::1234");
  take(corrected);
  EXPECT_FALSE(sources_.all().contains(link_local()));
  EXPECT_TRUE(sources_.all().contains(link_local("eth2", "fe80::1234")));
  take(attached("ar1", "eth3"));
  EXPECT_TRUE(sources_.all().contains(link_local("eth3")));
  EXPECT_FALSE(sources_.all().contains(link_local("eth2", "fe80::1234")));
  take(attached("ar2"));
  EXPECT_THAT(sources_.all(), UnorderedElementsAre(source("eth2"), source("eth3")));
}

TEST_F(PermittedSourcesTest, TellsWhoIsLetInByAnInterface) {
  take(attached("ar1"));
  EXPECT_TRUE(sources_.any_of(mn(), "eth2"));
  EXPECT_FALSE(sources_.any_of(mn(), "eth1"));
  EXPECT_FALSE(sources_.any_of(mn(kOtherMn), "eth2"));
  take(attached("ar2"));
  EXPECT_TRUE(sources_.any_of(mn(), "eth2"));
  sources_.link_down("eth2");
  EXPECT_FALSE(sources_.any_of(mn(), "eth2"));
}

TEST_F(PermittedSourcesTest, NoOtherSourceIsTakenForALinkLocalOne) {
  for (const std::string address : {"", "nonsense", "2001:db8:1000:9::1"}) {
    auto binding = attached("ar1");
    binding.mutable_attachment()->set_link_local(address);
    take(binding);
    EXPECT_THAT(sources_.all(), ElementsAre(source())) << address;
  }
}

TEST_F(PermittedSourcesTest, AnAddressThatIsNoneLetsNothingIn) {
  auto binding = attached("ar1");
  binding.mutable_attachment()->set_link_layer_address("nonsense");
  take(binding);
  EXPECT_THAT(permitted(), IsEmpty());
}

}  // namespace
}  // namespace kedge::speaker
