// The rules of the state machine, one by one.
#include "lm-server/core/machine.h"

#include <chrono>
#include <limits>
#include <string>

#include "gmock/gmock.h"
#include "google/protobuf/util/json_util.h"
#include "gtest/gtest.h"
#include "tests/unit/lm-server/machine_harness.h"

namespace kedge::lm {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::AllOf;
using testing::HasSubstr;

const std::string kMn = mn_name(1);
const std::string kPrefix = "2001:db8:1:1::/64";

class MachineTest : public testing::Test {
 protected:
  explicit MachineTest(Settings settings = make_test_settings(4)) : h(std::move(settings)) {
    for (const char* ar : {"ar1", "ar2", "ar3", "ar4"}) h.connect(ar);
  }

  void settle_at_home() {
    ASSERT_TRUE(h.attach("ar1", kMn).status.ok());
    h.ack("ar1", kPrefix, v1::STAGE_DELIVERING);
    ASSERT_EQ(h.binding(kPrefix).state(), v1::BINDING_STATE_SETTLED);
  }
  void arrive(const std::string& ar) {
    h.now += milliseconds(10);
    ASSERT_TRUE(h.attach(ar, kMn).status.ok());
  }
  void deliver_and_advertise(const std::string& ar) {
    h.ack(ar, kPrefix, v1::STAGE_DELIVERING);
    if (h.binding(kPrefix).preference() > 0) {
      h.ack(ar, kPrefix, v1::STAGE_ADVERTISED, h.binding(kPrefix).preference());
    }
  }
  void redirect(const std::string& ar) {
    h.ack(ar, kPrefix, v1::STAGE_REDIRECTING, 0, h.binding(kPrefix).attached_ar());
  }
  void superseded(const std::string& ar) {
    h.ack(ar, kPrefix, v1::STAGE_SUPERSEDED, h.binding(kPrefix).preference());
    h.ack(ar, kPrefix, v1::STAGE_WITHDRAWN);
  }
  void settle_away(const std::string& ar) {
    settle_at_home();
    arrive(ar);
    deliver_and_advertise(ar);
    redirect("ar1");
    superseded("ar1");
    ASSERT_EQ(h.binding(kPrefix).state(), v1::BINDING_STATE_SETTLED);
  }

  Harness h;
};

// Arrival

TEST_F(MachineTest, AnUnknownNodeGetsAPrefixOfTheAccessRouter) {
  const auto output = h.attach("ar1", kMn);
  ASSERT_TRUE(output.status.ok()) << output.status;
  const auto& b = h.binding(kPrefix);
  EXPECT_EQ(b.home_ar(), "ar1");
  EXPECT_EQ(b.attached_ar(), "ar1");
  EXPECT_EQ(b.preference(), 0U);
  EXPECT_EQ(b.state(), v1::BINDING_STATE_MOVING);
  EXPECT_TRUE(same(b.generation(), output.generation));
  EXPECT_EQ(output.commit->durability, Durability::kSync);
  EXPECT_EQ(h.count(v1::EVENT_TYPE_PREFIX_ASSIGNED), 1);
  EXPECT_EQ(h.count(v1::EVENT_TYPE_ARRIVAL_SEEN), 1);
  EXPECT_EQ(h.count(v1::EVENT_TYPE_ATTACH_COMMITTED), 1);
}

TEST_F(MachineTest, AllRecordsOfAMoveButTheLastSayThatMoreFollow) {
  settle_at_home();
  h.now += milliseconds(10);
  const auto output = h.attach("ar2", kMn);
  ASSERT_TRUE(output.status.ok()) << output.status;
  std::map<std::uint64_t, std::vector<bool>> more;
  for (const auto& message : output.messages) more[message.session].push_back(parsed(message).record().more());
  ASSERT_EQ(more.size(), 2U) << "ar1 holds one of the two prefixes, ar2 both";
  std::vector<std::vector<bool>> seen;
  for (const auto& [session, flags] : more) seen.push_back(flags);
  EXPECT_THAT(seen, testing::UnorderedElementsAre(std::vector<bool>{false}, std::vector<bool>{true, false}));
}

TEST_F(MachineTest, AnUnknownAccessRouterIsRefusedWithTheKnownOnes) {
  const auto status = h.attach("ar9", kMn).status;
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(status.message()), AllOf(HasSubstr("ar9"), HasSubstr("ar1, ar2, ar3, ar4")));
  EXPECT_EQ(h.count(v1::EVENT_TYPE_ATTACH_REFUSED), 1);
  EXPECT_EQ(h.machine.binding_count(), 0U);
}

TEST_F(MachineTest, ARedirectToAnUnknownAccessRouterIsNotBelieved) {
  settle_at_home();
  arrive("ar2");
  deliver_and_advertise("ar2");
  const auto output = h.ack("ar1", kPrefix, v1::STAGE_REDIRECTING, 0, "ar9");
  EXPECT_EQ(output.status.code(), absl::StatusCode::kNotFound);
  EXPECT_FALSE(output.commit.has_value());
  EXPECT_EQ(find_holder(h.binding(kPrefix), "ar1")->redirects_to(), "");
}

TEST_F(MachineTest, ALevelThatDoesNotExistIsToldAsTheHighestOnce) {
  settle_at_home();
  arrive("ar2");
  h.ack("ar2", kPrefix, v1::STAGE_DELIVERING);
  const auto before = h.count(v1::EVENT_TYPE_ADVERTISED);
  for (std::uint32_t level = 1000; level < 1100; ++level) h.ack("ar2", kPrefix, v1::STAGE_ADVERTISED, level);
  EXPECT_EQ(h.count(v1::EVENT_TYPE_ADVERTISED), before + 1);
  EXPECT_EQ(h.events.back().detail(), "level 8");
  for (std::uint32_t level = 1000; level < 1100; ++level) h.ack("ar1", kPrefix, v1::STAGE_SUPERSEDED, level);
  EXPECT_EQ(h.count(v1::EVENT_TYPE_SUPERSEDED), 1);
}

TEST_F(MachineTest, ATimeThatIsNoneIsNotTold) {
  settle_at_home();
  v1::Ack ack;
  ack.set_prefix(kPrefix);
  *ack.mutable_generation() = h.binding(kPrefix).generation();
  ack.set_stage(v1::STAGE_RA_SENT);
  ack.mutable_at()->set_seconds(1LL << 60U);
  h.take(h.machine.ack(h.sessions["ar1"], ack, h.now));
  EXPECT_EQ(h.events.back().type(), v1::EVENT_TYPE_RA_SENT);
  EXPECT_EQ(h.events.back().at().seconds(), to_proto(h.now).seconds());

  auto request = attach_request("ar2", kMn);
  request.mutable_heard_at()->set_seconds(1'800'000'000);
  request.mutable_heard_at()->set_nanos(-1);
  h.now += milliseconds(10);
  ASSERT_TRUE(h.attach(request).status.ok());
  request.set_ar("ar9");
  h.attach(request);
  for (const auto& event : h.events) {
    std::string json;
    EXPECT_TRUE(google::protobuf::util::MessageToJsonString(event, &json).ok()) << event.ShortDebugString();
  }
}

TEST_F(MachineTest, FieldsThatNobodyKnowsAreNeitherKeptNorHandedOn) {
  auto request = attach_request("ar1", kMn);
  request.mutable_attachment()
      ->GetReflection()
      ->MutableUnknownFields(request.mutable_attachment())
      ->AddLengthDelimited(1000, std::string(100'000, 'x'));
  ASSERT_TRUE(h.attach(request).status.ok());
  EXPECT_LT(h.values.at("binding/" + kPrefix).size(), 1000U);

  v1::Policy policy = mode_policy(v1::MODE_REDIRECT);
  policy.GetReflection()->MutableUnknownFields(&policy)->AddLengthDelimited(1000, std::string(100'000, 'x'));
  policy.mutable_relocate_after()
      ->GetReflection()
      ->MutableUnknownFields(policy.mutable_relocate_after())
      ->AddVarint(1000, 1);
  ASSERT_TRUE(h.set_policy(mn_scope(kMn), policy).status.ok());
  const auto stored = h.machine.find_policy(mn_scope(kMn))->SerializeAsString();
  EXPECT_LT(stored.size(), 1000U);
  ASSERT_TRUE(h.set_policy(mn_scope(kMn), policy).status.ok());
  EXPECT_LT(h.machine.find_policy(mn_scope(kMn))->ByteSizeLong(), stored.size() + 20);
}

TEST_F(MachineTest, WhatASpeakerSaysOfItselfIsCutShort) {
  v1::Hello hello;
  hello.set_ar("ar1");
  hello.set_version(std::string(1'000'000, 'v'));
  h.take(h.machine.session_up(hello, 99, h.now));
  EXPECT_LT(h.events.back().detail().size(), 200U);
  v1::SpeakerHealth health;
  // A character of three bytes across the limit.
  health.set_kernel(std::string(998, 'k') + "\u20ac" + std::string(1'000'000, 'k'));
  health.set_frr("synced");
  h.machine.health(99, health);
  EXPECT_EQ(h.machine.describe_node("ar1")->health().kernel(), std::string(998, 'k') + "...");
  EXPECT_EQ(h.machine.describe_node("ar1")->health().frr(), "synced");
  EXPECT_LT(h.attach("ar" + std::string(1'000'000, '9'), kMn).status.message().size(), 1000U);
  EXPECT_LT(h.attach("ar1", std::string(1'000'000, 'm')).status.message().size(), 1000U);
  EXPECT_LT(h.detach(std::string(1'000'000, 'a'), kMn).status.message().size(), 1000U);
}

TEST_F(MachineTest, ADataFrameThatIsReplayedCreatesNoNodeEither) {
  auto request = attach_request("ar1", kMn);
  request.set_trigger(v1::TRIGGER_REPLAY);
  EXPECT_EQ(h.attach(request).status.code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(h.machine.binding_count(), 0U);
  settle_at_home();
  request.set_ar("ar2");
  EXPECT_TRUE(h.attach(request).status.ok());
}

TEST_F(MachineTest, ADataFrameCreatesNoNodeButMovesAKnownOne) {
  auto request = attach_request("ar1", kMn);
  request.set_trigger(v1::TRIGGER_DATA_FRAME);
  EXPECT_EQ(h.attach(request).status.code(), absl::StatusCode::kNotFound);
  settle_at_home();
  request.set_ar("ar2");
  EXPECT_TRUE(h.attach(request).status.ok());
  EXPECT_EQ(h.binding(kPrefix).attached_ar(), "ar2");
}

TEST_F(MachineTest, MalformedFieldsAreRefusedByName) {
  const auto message = [&](auto&& spoil) {
    auto request = attach_request("ar1", kMn);
    spoil(request);
    const auto status = h.attach(request).status;
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    return std::string(status.message());
  };
  EXPECT_THAT(message([](auto& r) { r.set_mn_id("nobody"); }), HasSubstr("mn_id"));
  EXPECT_THAT(message([](auto& r) { r.set_mn_id("02:00:00:00:00:AA"); }), HasSubstr("mn_id"));
  EXPECT_THAT(message([](auto& r) { r.set_mn_id("33:33:00:00:00:01"); }), HasSubstr("mn_id"));
  EXPECT_THAT(message([](auto& r) { r.clear_attachment(); }), HasSubstr("attachment.interface"));
  EXPECT_THAT(message([](auto& r) { r.mutable_attachment()->set_interface("sixteen-letters!"); }),
              HasSubstr("attachment.interface"));
  EXPECT_THAT(message([](auto& r) { r.mutable_attachment()->set_link_local("2001:db8::1"); }),
              HasSubstr("attachment.link_local"));
  EXPECT_THAT(message([](auto& r) { r.mutable_attachment()->set_link_layer_address("x"); }),
              HasSubstr("attachment.link_layer_address"));
  EXPECT_THAT(message([](auto& r) { r.clear_trigger(); }), HasSubstr("trigger"));
  auto request = attach_request("ar1", kMn);
  request.set_sequence(100);
  request.mutable_age()->set_seconds(-1);
  EXPECT_EQ(h.take(h.machine.attach(request, h.now)).status.code(), absl::StatusCode::kInvalidArgument);
  request.mutable_age()->set_seconds(std::numeric_limits<std::int64_t>::max());
  EXPECT_EQ(h.take(h.machine.attach(request, h.now)).status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(h.machine.binding_count(), 0U);
}

TEST_F(MachineTest, ARepeatedAttachChangesNothing) {
  settle_at_home();
  const auto before = h.binding(kPrefix).SerializeAsString();
  const auto output = h.attach("ar1", kMn);
  EXPECT_TRUE(output.status.ok());
  EXPECT_TRUE(same(output.generation, h.binding(kPrefix).generation()));
  EXPECT_FALSE(output.commit);
  EXPECT_EQ(h.binding(kPrefix).SerializeAsString(), before);
}

TEST_F(MachineTest, AnotherInterfaceIsANewGeneration) {
  settle_at_home();
  const auto before = h.binding(kPrefix).generation();
  h.attach(attach_request("ar1", kMn, "access1"));
  EXPECT_GT(h.binding(kPrefix).generation().revision(), before.revision());
  EXPECT_EQ(h.binding(kPrefix).attachment().interface(), "access1");
  EXPECT_EQ(h.binding(kPrefix).preference(), 0U);
}

TEST_F(MachineTest, TheYoungestAttachmentWinsWhateverTheOrder) {
  settle_at_home();
  h.now += seconds(10);
  ASSERT_TRUE(h.attach("ar3", kMn, seconds(1)).status.ok());
  const auto late = h.attach("ar2", kMn, seconds(5));
  EXPECT_EQ(late.status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(h.binding(kPrefix).attached_ar(), "ar3");
}

TEST_F(MachineTest, ALateReplayDoesNotReviveADetachedNode) {
  settle_at_home();
  h.now += seconds(10);
  h.attach("ar3", kMn);
  h.now += seconds(1);
  h.detach("ar3", kMn);
  EXPECT_EQ(h.attach("ar2", kMn, seconds(5)).status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_TRUE(h.attach("ar2", kMn).status.ok());
}

TEST_F(MachineTest, ALowerSequenceForTheSameNodeIsStale) {
  auto request = attach_request("ar1", kMn);
  request.set_sequence(5);
  ASSERT_TRUE(h.attach(request).status.ok());
  request.set_sequence(4);
  request.mutable_attachment()->set_interface("access1");
  EXPECT_EQ(h.attach(request).status.code(), absl::StatusCode::kFailedPrecondition);
  // Calls for two nodes may overtake each other.
  auto other = attach_request("ar1", mn_name(2));
  other.set_sequence(3);
  EXPECT_TRUE(h.attach(other).status.ok());
  // A speaker that was restarted counts anew.
  h.connect("ar1", 2);
  request.set_incarnation(2);
  request.set_sequence(1);
  EXPECT_TRUE(h.attach(request).status.ok());
}

TEST_F(MachineTest, AnAttachThatArrivesTwiceMovesItsNodeOnce) {
  auto request = attach_request("ar1", kMn);
  request.set_sequence(5);
  const auto first = h.attach(request);
  ASSERT_TRUE(first.status.ok());
  const auto second = h.attach(request);
  EXPECT_TRUE(second.status.ok());
  EXPECT_TRUE(same(second.generation, first.generation));
  EXPECT_FALSE(second.commit);
  arrive("ar2");
  EXPECT_EQ(h.attach(request).status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(h.binding(kPrefix).attached_ar(), "ar2");
}

TEST_F(MachineTest, OnlyTheRunOfTheSpeakerThatHasTheSessionCounts) {
  auto early = attach_request("ar1", kMn);
  early.set_sequence(5);
  ASSERT_TRUE(h.attach(early).status.ok());
  auto request = attach_request("ar1", kMn, "access1");
  request.set_incarnation(2);
  request.set_sequence(1);
  EXPECT_EQ(h.attach(request).status.code(), absl::StatusCode::kUnavailable) << "tried again once its session is there";
  h.connect("ar1", 2);
  ASSERT_TRUE(h.attach(request).status.ok());
  early.set_sequence(6);
  EXPECT_EQ(h.attach(early).status.code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(h.binding(kPrefix).attachment().interface(), "access1");
  EXPECT_EQ(h.detach("ar1", kMn).status.code(), absl::StatusCode::kUnavailable) << "also of the first run";
  EXPECT_EQ(h.count(v1::EVENT_TYPE_ATTACH_REFUSED), 0);
}

class SmallPoolTest : public MachineTest {
 protected:
  SmallPoolTest() : MachineTest(small()) {}
  static Settings small() {
    Settings settings = make_test_settings(4);
    settings.access_routers[0] = make_access_router(1, "2001:db8:1:1::/64");
    settings.access_routers[1] = make_access_router(2, "2001:db8:2:1::/64");
    return settings;
  }
};

TEST_F(SmallPoolTest, AnExhaustedPoolIsNamed) {
  ASSERT_TRUE(h.attach("ar1", mn_name(1)).status.ok());
  const auto status = h.attach("ar1", mn_name(2)).status;
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(status.message()), AllOf(HasSubstr("ar1"), HasSubstr("2001:db8:1:1::/64")));
}

TEST_F(SmallPoolTest, ANodeStillMovesToAnAccessRouterWithoutFreePrefixes) {
  h.attach("ar2", mn_name(2));
  h.attach("ar1", kMn);
  ASSERT_TRUE(h.attach("ar2", kMn).status.ok());
  EXPECT_EQ(h.binding(kPrefix).attached_ar(), "ar2");
  EXPECT_EQ(h.machine.bindings_of(kMn).size(), 1U);
}

// Relocation

TEST_F(MachineTest, AllPrefixesMoveTogetherAndANewOneIsAdded) {
  settle_at_home();
  arrive("ar2");
  const std::string second = h.prefix_of(kMn, "ar2");
  EXPECT_EQ(second, "2001:db8:2:1::/64");
  const auto output_generation = h.binding(kPrefix).generation();
  EXPECT_TRUE(same(h.binding(second).generation(), output_generation));
  EXPECT_EQ(h.binding(second).preference(), 0U);
  arrive("ar3");
  EXPECT_EQ(h.binding(kPrefix).attached_ar(), "ar3");
  EXPECT_EQ(h.binding(second).attached_ar(), "ar3");
  EXPECT_TRUE(same(h.binding(second).generation(), h.binding(kPrefix).generation()));
  EXPECT_EQ(h.machine.bindings_of(kMn).size(), 3U);
}

TEST_F(MachineTest, TheNewAnchorIsEnteredWithItsPreferenceInTheSameCommit) {
  settle_at_home();
  arrive("ar2");
  EXPECT_EQ(h.binding(kPrefix).preference(), 1U);
  ASSERT_NE(h.holder(kPrefix, "ar2"), nullptr);
  EXPECT_EQ(h.holder(kPrefix, "ar2")->advertises_preference(), 1U);
  EXPECT_FALSE(h.holder(kPrefix, "ar2")->delivers());
}

TEST_F(MachineTest, APlannedMoveSettles) {
  settle_away("ar2");
  EXPECT_EQ(h.binding(kPrefix).preference(), 1U);
  EXPECT_EQ(h.holder(kPrefix, "ar1")->redirects_to(), "ar2");
  EXPECT_EQ(h.binding(kPrefix).holders_size(), 2);
  EXPECT_EQ(h.count(v1::EVENT_TYPE_SETTLED, kPrefix), 2);
  h.advance(seconds(60));
  EXPECT_EQ(h.holder(kPrefix, "ar1")->redirects_to(), "ar2") << "the home AR keeps its redirect";
  EXPECT_FALSE(h.holder(kPrefix, "ar1")->releasing());
}

TEST_F(MachineTest, AnIntermediateAnchorIsReleasedAfterTheHoldAndTheLevelSettles) {
  settle_away("ar2");
  arrive("ar3");
  EXPECT_EQ(h.binding(kPrefix).preference(), 2U);
  EXPECT_FALSE(h.holder(kPrefix, "ar1")->superseded());
  deliver_and_advertise("ar3");
  redirect("ar1");
  redirect("ar2");
  h.ack("ar1", kPrefix, v1::STAGE_SUPERSEDED, 2);
  h.advance(seconds(5));
  EXPECT_FALSE(h.holder(kPrefix, "ar2")->releasing()) << "it still announces";
  superseded("ar2");
  EXPECT_EQ(h.binding(kPrefix).preference(), 1U) << "sole announcer";
  EXPECT_EQ(h.holder(kPrefix, "ar3")->advertises_preference(), 2U) << "until it has acknowledged";
  h.ack("ar3", kPrefix, v1::STAGE_ADVERTISED, 1);
  EXPECT_EQ(h.holder(kPrefix, "ar3")->advertises_preference(), 1U);
  h.advance(milliseconds(999));
  EXPECT_FALSE(h.holder(kPrefix, "ar2")->releasing());
  h.advance(milliseconds(1));
  EXPECT_TRUE(h.holder(kPrefix, "ar2")->releasing());
  EXPECT_EQ(h.binding(kPrefix).state(), v1::BINDING_STATE_MOVING);
  h.inbox.clear();
  h.ack("ar2", kPrefix, v1::STAGE_CLEARED);
  EXPECT_EQ(h.holder(kPrefix, "ar2"), nullptr);
  EXPECT_EQ(h.binding(kPrefix).state(), v1::BINDING_STATE_SETTLED);
  ASSERT_EQ(h.inbox[h.sessions["ar2"]].size(), 1U);
  EXPECT_EQ(h.inbox[h.sessions["ar2"]][0]->record().forget().prefix(), kPrefix);
}

TEST_F(MachineTest, NobodyIsReleasedWhileAnotherMayPointAtIt) {
  settle_away("ar2");
  arrive("ar3");
  deliver_and_advertise("ar3");
  redirect("ar2");
  superseded("ar2");
  h.disconnect("ar1");
  h.advance(seconds(60));
  EXPECT_FALSE(h.holder(kPrefix, "ar2")->releasing()) << "ar1 has not acknowledged to point at ar3";
  h.connect("ar1");
  redirect("ar1");
  superseded("ar1");
  h.advance(seconds(1));
  EXPECT_TRUE(h.holder(kPrefix, "ar2")->releasing());
}

TEST_F(MachineTest, AReturnHomeAnnouncesAndWithdrawsLast) {
  settle_away("ar2");
  arrive("ar1");
  EXPECT_EQ(h.binding(kPrefix).preference(), 2U);
  EXPECT_EQ(h.machine.bindings_of(kMn).size(), 2U) << "the prefix of ar1 is used again";
  deliver_and_advertise("ar1");
  redirect("ar2");
  superseded("ar2");
  EXPECT_EQ(h.binding(kPrefix).preference(), 0U);
  EXPECT_EQ(h.holder(kPrefix, "ar1")->advertises_preference(), 2U);
  h.ack("ar1", kPrefix, v1::STAGE_WITHDRAWN);
  EXPECT_EQ(h.holder(kPrefix, "ar1")->advertises_preference(), 0U);
  h.advance(seconds(1));
  EXPECT_TRUE(h.holder(kPrefix, "ar2")->releasing());
  h.ack("ar2", kPrefix, v1::STAGE_CLEARED);
  EXPECT_EQ(h.binding(kPrefix).state(), v1::BINDING_STATE_SETTLED);
  EXPECT_EQ(h.binding(kPrefix).holders_size(), 1);
}

TEST_F(MachineTest, LevelsThatAreUsedUpFallBackOnTheHomeAggregate) {
  settle_at_home();
  // Nobody withdraws: each move needs a higher level.
  for (int i = 0; i < 8; ++i) arrive(i % 2 == 0 ? "ar2" : "ar3");
  EXPECT_EQ(h.binding(kPrefix).preference(), 8U);
  arrive("ar2");
  EXPECT_EQ(h.binding(kPrefix).preference(), 0U);
  h.ack("ar3", kPrefix, v1::STAGE_WITHDRAWN);
  EXPECT_EQ(h.binding(kPrefix).preference(), 0U) << "ar2 may announce from before";
  h.ack("ar2", kPrefix, v1::STAGE_WITHDRAWN);
  EXPECT_EQ(h.binding(kPrefix).preference(), 1U);
  EXPECT_EQ(h.holder(kPrefix, "ar2")->advertises_preference(), 1U);
  h.ack("ar2", kPrefix, v1::STAGE_WITHDRAWN);
  EXPECT_EQ(h.holder(kPrefix, "ar2")->advertises_preference(), 1U) << "it has been told to announce again";
}

TEST_F(MachineTest, TheCapStopsNewPrefixesButNotMoves) {
  Settings settings = make_test_settings(4);
  settings.max_prefixes_per_mn = 2;
  Harness capped(settings);
  for (const char* ar : {"ar1", "ar2", "ar3"}) ASSERT_TRUE(capped.attach(ar, kMn).status.ok());
  EXPECT_EQ(capped.machine.bindings_of(kMn).size(), 2U);
  for (const auto* b : capped.machine.bindings_of(kMn)) EXPECT_EQ(b->attached_ar(), "ar3");
}

// Acknowledgements

TEST_F(MachineTest, AnOlderAcknowledgementNeverTakesAway) {
  settle_away("ar2");
  const auto old = h.binding(kPrefix).generation();
  arrive("ar3");
  arrive("ar2");
  ASSERT_EQ(h.binding(kPrefix).attached_ar(), "ar2");
  const auto level = h.holder(kPrefix, "ar2")->advertises_preference();
  h.ack("ar2", kPrefix, v1::STAGE_WITHDRAWN, 0, {}, old);
  h.ack("ar2", kPrefix, v1::STAGE_CLEARED, 0, {}, old);
  h.ack("ar2", kPrefix, v1::STAGE_DELIVERING, 0, {}, old);
  ASSERT_NE(h.holder(kPrefix, "ar2"), nullptr);
  EXPECT_EQ(h.holder(kPrefix, "ar2")->advertises_preference(), level);
  EXPECT_FALSE(attached_delivers(h.binding(kPrefix)));
}

TEST_F(MachineTest, AnOlderAnnouncementIsRemembered) {
  settle_at_home();
  arrive("ar2");
  const auto old = h.binding(kPrefix).generation();
  arrive("ar1");
  h.ack("ar2", kPrefix, v1::STAGE_WITHDRAWN);
  EXPECT_EQ(h.holder(kPrefix, "ar2")->advertises_preference(), 0U);
  h.ack("ar2", kPrefix, v1::STAGE_ADVERTISED, 1, {}, old);
  EXPECT_EQ(h.holder(kPrefix, "ar2")->advertises_preference(), 1U);
}

TEST_F(MachineTest, AGenerationThatWasNeverHandedOutIsRefused) {
  settle_at_home();
  const auto output = h.ack("ar1", kPrefix, v1::STAGE_CLEARED, 0, {}, make_generation(1, 999'999));
  EXPECT_FALSE(output.status.ok());
  EXPECT_TRUE(h.holder(kPrefix, "ar1")->delivers());
}

TEST_F(MachineTest, DeliveringIsToldToTheOthersAndAcksAreLazy) {
  settle_at_home();
  arrive("ar2");
  h.inbox.clear();
  const auto output = h.ack("ar2", kPrefix, v1::STAGE_DELIVERING);
  EXPECT_EQ(output.commit->durability, Durability::kLazy);
  ASSERT_EQ(h.inbox[h.sessions["ar1"]].size(), 1U);
  const auto& record = h.inbox[h.sessions["ar1"]][0]->record().binding();
  EXPECT_TRUE(attached_delivers(record));
  EXPECT_TRUE(h.inbox[h.sessions["ar3"]].empty()) << "it is no holder";
}

TEST_F(MachineTest, ARepeatedAcknowledgementChangesNothing) {
  settle_away("ar2");
  const auto before = h.revision;
  const auto events = h.events.size();
  h.ack("ar2", kPrefix, v1::STAGE_DELIVERING);
  h.ack("ar2", kPrefix, v1::STAGE_ADVERTISED, 1);
  redirect("ar1");
  superseded("ar1");
  EXPECT_EQ(h.revision, before);
  EXPECT_EQ(h.events.size(), events);
}

TEST_F(MachineTest, ASupersededOfALowerLevelDoesNotCount) {
  settle_away("ar2");
  arrive("ar3");
  h.ack("ar1", kPrefix, v1::STAGE_SUPERSEDED, 1);
  EXPECT_FALSE(h.holder(kPrefix, "ar1")->superseded());
}

TEST_F(MachineTest, ALeftoverIsForgottenAndACleanUpIsNotAnswered) {
  settle_at_home();
  h.inbox.clear();
  h.ack("ar4", kPrefix, v1::STAGE_REDIRECTING, 0, "ar1");
  h.ack("ar4", "2001:db8:4:9::/64", v1::STAGE_ADVERTISED, 3, {}, make_generation(1, 1));
  ASSERT_EQ(h.inbox[h.sessions["ar4"]].size(), 2U);
  EXPECT_EQ(h.inbox[h.sessions["ar4"]][0]->record().forget().prefix(), kPrefix);
  h.ack("ar4", kPrefix, v1::STAGE_CLEARED);
  h.ack("ar4", kPrefix, v1::STAGE_WITHDRAWN);
  EXPECT_EQ(h.inbox[h.sessions["ar4"]].size(), 2U);
}

TEST_F(MachineTest, AnAcknowledgementOfAnEndedSessionIsIgnored) {
  h.attach("ar1", kMn);
  const auto old = h.sessions["ar1"];
  h.connect("ar1");
  v1::Ack ack;
  ack.set_prefix(kPrefix);
  ack.set_stage(v1::STAGE_DELIVERING);
  *ack.mutable_generation() = h.binding(kPrefix).generation();
  h.take(h.machine.ack(old, ack, h.now));
  EXPECT_FALSE(h.holder(kPrefix, "ar1")->delivers());
}

TEST_F(MachineTest, AMalformedAcknowledgementIsAnError) {
  EXPECT_FALSE(h.ack("ar1", "not a prefix", v1::STAGE_DELIVERING).status.ok());
}

// Departure

TEST_F(MachineTest, DetachKeepsWhatIsThereForTheGraceTime) {
  settle_away("ar2");
  const auto holders = h.binding(kPrefix).holders_size();
  EXPECT_FALSE(h.detach("ar2", kMn, h.binding(kPrefix).generation()).stale);
  EXPECT_EQ(h.binding(kPrefix).state(), v1::BINDING_STATE_DETACHED_GRACE);
  EXPECT_EQ(h.binding(kPrefix).attached_ar(), "");
  EXPECT_EQ(h.binding(kPrefix).holders_size(), holders);
  EXPECT_EQ(h.holder(kPrefix, "ar2")->advertises_preference(), 1U);
  h.ack("ar2", kPrefix, v1::STAGE_WITHDRAWN);
  EXPECT_EQ(h.holder(kPrefix, "ar2")->advertises_preference(), 1U) << "it is told to keep announcing";
  h.advance(milliseconds(9'999));
  EXPECT_EQ(h.binding(kPrefix).state(), v1::BINDING_STATE_DETACHED_GRACE);
  h.advance(milliseconds(1));
  EXPECT_EQ(h.binding(kPrefix).state(), v1::BINDING_STATE_DETACHED);
  EXPECT_TRUE(h.holder(kPrefix, "ar2")->releasing());
  EXPECT_FALSE(h.holder(kPrefix, "ar1")->releasing());
  h.ack("ar1", kPrefix, v1::STAGE_UNREACHABLE);
  EXPECT_TRUE(h.holder(kPrefix, "ar1")->unreachable());
  h.ack("ar2", kPrefix, v1::STAGE_CLEARED);
  EXPECT_EQ(h.binding(kPrefix).holders_size(), 1);
}

TEST_F(MachineTest, ADetachedNodeGetsItsPrefixBack) {
  settle_at_home();
  h.detach("ar1", kMn);
  h.advance(seconds(3600));
  h.attach("ar1", mn_name(2));
  h.attach("ar1", kMn);
  EXPECT_EQ(h.machine.bindings_of(kMn).size(), 1U);
  EXPECT_EQ(h.binding(kPrefix).attached_ar(), "ar1");
  EXPECT_EQ(h.binding(kPrefix).mn_id(), kMn);
}

TEST_F(MachineTest, ADetachThatIsOvertakenIsStale) {
  settle_at_home();
  const auto old = h.binding(kPrefix).generation();
  arrive("ar2");
  EXPECT_TRUE(h.detach("ar1", kMn).stale);
  arrive("ar1");
  EXPECT_TRUE(h.detach("ar1", kMn, old).stale);
  EXPECT_EQ(h.binding(kPrefix).attached_ar(), "ar1");
  EXPECT_EQ(h.detach("ar9", kMn).status.code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(h.detach("ar1", mn_name(9)).status.code(), absl::StatusCode::kNotFound);
}

TEST_F(MachineTest, ReattachDuringTheGraceEndsIt) {
  settle_away("ar2");
  h.detach("ar2", kMn);
  h.advance(seconds(1));
  h.attach("ar2", kMn);
  EXPECT_EQ(h.binding(kPrefix).preference(), 1U);
  h.advance(seconds(60));
  EXPECT_EQ(h.binding(kPrefix).attached_ar(), "ar2");
}

// Sessions

TEST_F(MachineTest, ASessionBeginsWithWhatConcernsTheAccessRouter) {
  settle_away("ar2");
  h.attach("ar3", mn_name(2));
  const auto session = h.connect("ar2");
  const auto& inbox = h.inbox[session];
  ASSERT_EQ(inbox.size(), 4U);
  EXPECT_EQ(inbox[0]->welcome().self().name(), "ar2");
  EXPECT_EQ(inbox[0]->welcome().nodes_size(), 4);
  EXPECT_EQ(inbox[0]->welcome().preference_levels(), 8U);
  EXPECT_EQ(inbox[1]->record().binding().prefix(), kPrefix);
  EXPECT_EQ(inbox[2]->record().binding().prefix(), "2001:db8:2:1::/64");
  EXPECT_EQ(inbox[3]->snapshot_end().revision().revision(), h.revision);
}

TEST_F(MachineTest, AnUnknownSpeakerIsRefused) {
  v1::Hello hello;
  hello.set_ar("ar9");
  EXPECT_EQ(h.machine.session_up(hello, 99, h.now).status.code(), absl::StatusCode::kNotFound);
}

TEST_F(MachineTest, ASecondSessionReplacesTheFirst) {
  const auto first = h.sessions["ar1"];
  v1::Hello hello;
  hello.set_ar("ar1");
  EXPECT_EQ(h.machine.session_up(hello, 99, h.now).replaced_session, first);
  EXPECT_TRUE(h.machine.session_down(first, h.now).events.empty());
  EXPECT_EQ(h.machine.connected_count(), 4U);
}

// Recovery

TEST_F(MachineTest, ARestartKeepsEverythingAndGenerationsGrow) {
  settle_away("ar2");
  const auto before = h.binding(kPrefix).SerializeAsString();
  const auto generation = h.binding(kPrefix).generation();
  h.restart(false);
  EXPECT_EQ(h.binding(kPrefix).SerializeAsString(), before);
  h.now += seconds(1);
  const auto output = h.attach("ar3", kMn);
  EXPECT_TRUE(compare(output.generation, generation) > 0);
  h.attach("ar1", mn_name(2));
  EXPECT_EQ(h.prefix_of(mn_name(2), "ar1"), "2001:db8:1:2::/64");
}

TEST_F(MachineTest, APowerFailureLosesAcknowledgementsOnly) {
  settle_at_home();
  arrive("ar2");
  const auto generation = h.binding(kPrefix).generation();
  h.ack("ar2", kPrefix, v1::STAGE_DELIVERING);
  h.restart(true);
  EXPECT_EQ(h.binding(kPrefix).attached_ar(), "ar2");
  EXPECT_TRUE(same(h.binding(kPrefix).generation(), generation));
  EXPECT_FALSE(h.holder(kPrefix, "ar2")->delivers());
  h.connect("ar2");
  h.ack("ar2", kPrefix, v1::STAGE_DELIVERING);
  EXPECT_TRUE(attached_delivers(h.binding(kPrefix)));
}

TEST_F(MachineTest, AClockThatWasSetBackMakesNobodyStale) {
  settle_at_home();
  h.now -= seconds(3600);
  h.restart(false);
  EXPECT_TRUE(h.attach("ar2", kMn).status.ok());
}

TEST_F(MachineTest, WhatAProfileAddsAfterTheClockWasSetBackHasNotBeenThereForever) {
  settle_at_home();
  h.now -= seconds(3600);
  h.restart(false);
  v1::Policy policy;
  auto& fixed = *policy.add_fixed_prefixes();
  fixed.set_prefix("2001:db8:2:7::/64");
  fixed.set_home_ar("ar2");
  ASSERT_TRUE(h.set_policy(mn_scope(kMn), policy).status.ok());
  EXPECT_EQ(from_proto(h.binding("2001:db8:2:7::/64").attached_at()), h.now);
  EXPECT_EQ(from_proto(h.binding("2001:db8:2:7::/64").arrived_at()), h.now);
}

TEST_F(MachineTest, AnAccessRouterThatIsGoneFromTheConfigurationIsDropped) {
  settle_away("ar4");
  Settings fewer = make_test_settings(3);
  Machine machine(fewer, 1);
  std::vector<std::string> dropped;
  const auto output = machine.load(1, h.revision, h.values, h.now, &dropped);
  ASSERT_TRUE(output.ok());
  EXPECT_EQ(dropped.size(), 2U);
  EXPECT_EQ(output->commit->writes.size(), 2U);
  ASSERT_EQ(machine.binding_count(), 1U) << "the prefix of ar4 is gone";
  EXPECT_EQ(machine.bindings_of(kMn)[0]->attached_ar(), "");
}

TEST_F(MachineTest, AValueThatIsNoBindingIsDataLoss) {
  Machine machine(make_test_settings(2), 1);
  EXPECT_EQ(machine.load(1, 5, {{"binding/2001:db8:1:1::/64", "rubbish"}}, h.now, nullptr).status().code(),
            absl::StatusCode::kDataLoss);
}

TEST_F(MachineTest, ABindingThatContradictsItselfIsDataLossThatSaysWhy) {
  settle_at_home();
  const std::string key = "binding/" + kPrefix;
  const auto error_of = [&](auto&& spoil) {
    v1::Binding binding = h.binding(kPrefix);
    spoil(binding);
    Machine machine(make_test_settings(4), 1);
    const auto status = machine.load(1, h.revision, {{key, binding.SerializeAsString()}}, h.now, nullptr).status();
    EXPECT_EQ(status.code(), status.ok() ? absl::StatusCode::kOk : absl::StatusCode::kDataLoss);
    return std::string(status.message());
  };
  EXPECT_EQ(error_of([](auto&) {}), "");
  EXPECT_THAT(error_of([](auto& b) { b.set_attached_ar("ar2"); }),
              AllOf(HasSubstr(key), HasSubstr("ar2 is not among its holders"), HasSubstr("restore a backup")));
  EXPECT_THAT(error_of([](auto& b) {
                b.set_home_ar("ar3");
                b.set_prefix(kPrefix);
              }),
              HasSubstr("ar3 is not among its holders"));
  EXPECT_THAT(error_of([](auto& b) { b.clear_holders(); }), HasSubstr("is not among its holders"));
  EXPECT_THAT(error_of([](auto& b) { *b.add_holders() = b.holders(0); }), HasSubstr("twice"));
  EXPECT_THAT(error_of([](auto& b) { b.clear_attached_ar(); }), HasSubstr("its state"));
  EXPECT_THAT(error_of([](auto& b) { b.set_state(v1::BINDING_STATE_DETACHED); }), HasSubstr("its state"));
  EXPECT_THAT(error_of([](auto& b) { b.set_mn_id("nobody"); }), HasSubstr("mn_id"));
  EXPECT_THAT(error_of([](auto& b) { b.mutable_generation()->set_epoch(2); }), HasSubstr("ahead of the store"));
  EXPECT_THAT(error_of([](auto& b) { b.mutable_arrived_at()->set_seconds(1LL << 62U); }), HasSubstr("times"));
}

// Home has been told to let go and has done so; ar4, where the MN once was, is away.
class OnlyHeldElsewhereTest : public MachineTest {
 protected:
  void SetUp() override {
    settle_away("ar4");
    h.disconnect("ar4");
    arrive("ar1");
    h.ack("ar1", kPrefix, v1::STAGE_DELIVERING);
    h.detach("ar1", kMn);
    h.advance(std::chrono::hours(3));
    h.ack("ar1", kPrefix, v1::STAGE_CLEARED);
    ASSERT_NE(h.find(kPrefix), nullptr);
    ASSERT_EQ(h.binding(kPrefix).holders_size(), 1);
    ASSERT_EQ(h.binding(kPrefix).holders(0).ar(), "ar4");
  }
  // Without ar4.
  Output load(Machine& machine) {
    auto output = machine.load(1, h.revision, h.values, h.now, &h.dropped);
    EXPECT_TRUE(output.ok()) << output.status();
    return *std::move(output);
  }
  const v1::Binding* find(const Machine& machine) const { return machine.find(*Ipv6Prefix::parse(kPrefix)); }
};

TEST_F(OnlyHeldElsewhereTest, APrefixIsFreeOnceItsLastHolderHasLeftTheConfiguration) {
  Machine machine(make_test_settings(3), 1);
  load(machine);
  ASSERT_TRUE(machine.next_deadline().has_value());
  EXPECT_LE(*machine.next_deadline(), h.now);
  const auto output = machine.tick(h.now);
  EXPECT_EQ(find(machine), nullptr);
  ASSERT_TRUE(output.commit.has_value());
  EXPECT_THAT(output.events, testing::Contains(testing::Property(&v1::Event::type, v1::EVENT_TYPE_PREFIX_FREED)));
  EXPECT_THAT(output.changes, testing::Contains(testing::Field(&AuditedChange::subject, kPrefix)));
  EXPECT_EQ(machine.describe_node("ar1")->pool_used(), 0U);
}

TEST_F(OnlyHeldElsewhereTest, APrefixInQuarantineIsHeldByItsHomeUntilThatIsOver) {
  v1::Binding binding = h.binding(kPrefix);
  *binding.mutable_free_at() = to_proto(h.now + std::chrono::minutes(5));
  h.values["binding/" + kPrefix] = binding.SerializeAsString();
  Machine machine(make_test_settings(3), 1);
  const auto output = load(machine);
  ASSERT_NE(find(machine), nullptr);
  ASSERT_EQ(find(machine)->holders_size(), 1);
  EXPECT_EQ(find(machine)->holders(0).ar(), "ar1");
  EXPECT_THAT(output.commit->writes, testing::Contains(testing::Field(&Write::key, "binding/" + kPrefix)));
  EXPECT_EQ(machine.next_deadline(), h.now + std::chrono::minutes(5));
}

// The other two modes

class RedirectModeTest : public MachineTest {
 protected:
  RedirectModeTest() : MachineTest(settings()) {}
  static Settings settings() {
    Settings s = make_test_settings(4);
    s.mode = v1::MODE_REDIRECT;
    return s;
  }
};

TEST_F(RedirectModeTest, NothingIsEverAnnounced) {
  settle_at_home();
  arrive("ar2");
  EXPECT_EQ(h.binding(kPrefix).preference(), 0U);
  h.ack("ar2", kPrefix, v1::STAGE_DELIVERING);
  redirect("ar1");
  EXPECT_EQ(h.binding(kPrefix).state(), v1::BINDING_STATE_SETTLED);
  arrive("ar3");
  h.ack("ar3", kPrefix, v1::STAGE_DELIVERING);
  redirect("ar2");
  h.advance(seconds(5));
  EXPECT_FALSE(h.holder(kPrefix, "ar2")->releasing());
  redirect("ar1");
  h.advance(seconds(1));
  EXPECT_TRUE(h.holder(kPrefix, "ar2")->releasing());
  h.ack("ar2", kPrefix, v1::STAGE_CLEARED);
  EXPECT_EQ(h.binding(kPrefix).state(), v1::BINDING_STATE_SETTLED);
}

class NomadicModeTest : public MachineTest {
 protected:
  NomadicModeTest() : MachineTest(settings()) {}
  static Settings settings() {
    Settings s = make_test_settings(4);
    s.mode = v1::MODE_NOMADIC;
    return s;
  }
};

TEST_F(NomadicModeTest, ThePrefixEndsAndAnotherBegins) {
  settle_at_home();
  arrive("ar2");
  EXPECT_EQ(h.binding(kPrefix).state(), v1::BINDING_STATE_DETACHED);
  EXPECT_EQ(h.binding(kPrefix).attached_ar(), "");
  EXPECT_EQ(h.binding(h.prefix_of(kMn, "ar2")).attached_ar(), "ar2");
  h.ack("ar1", kPrefix, v1::STAGE_UNREACHABLE);
  EXPECT_TRUE(h.holder(kPrefix, "ar1")->unreachable());
  const auto again = h.attach("ar2", kMn);
  EXPECT_FALSE(again.commit);
  arrive("ar1");
  EXPECT_EQ(h.binding(kPrefix).attached_ar(), "ar1") << "the same prefix again";
  EXPECT_EQ(h.binding(h.prefix_of(kMn, "ar2")).state(), v1::BINDING_STATE_DETACHED);
}

}  // namespace
}  // namespace kedge::lm
