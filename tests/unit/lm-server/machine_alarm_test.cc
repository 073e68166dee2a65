// One MN-ID at two access routers at once: when an alarm is due, and when not.
#include <chrono>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "lm-server/core/machine.h"
#include "tests/unit/lm-server/machine_harness.h"

namespace kedge::lm {
namespace {

using std::chrono::milliseconds;
using std::chrono::minutes;
using std::chrono::seconds;

const std::string kMn = mn_name(1);

class MachineAlarmTest : public testing::Test {
 protected:
  MachineAlarmTest() : h(make_test_settings(3)) {}

  // As a node whose link is new.
  void arrive(const std::string& ar) { come(ar, v1::TRIGGER_ROUTER_SOLICITATION, false); }
  // As one that was moved away from `ar`, and is still on the same link there.
  void speak_again(const std::string& ar, v1::Trigger trigger = v1::TRIGGER_DATA_FRAME) { come(ar, trigger, true); }
  std::vector<v1::Event> alarms() const {
    std::vector<v1::Event> found;
    for (const auto& event : h.events) {
      if (event.type() == v1::EVENT_TYPE_TWO_ACCESS_ROUTERS) found.push_back(event);
    }
    return found;
  }
  std::string attached_ar() const { return h.machine.bindings_of(kMn).front()->attached_ar(); }

  Harness h;

 private:
  void come(const std::string& ar, v1::Trigger trigger, bool link_unchanged) {
    h.now += milliseconds(10);
    auto request = attach_request(ar, kMn);
    request.set_trigger(trigger);
    request.set_link_unchanged(link_unchanged);
    ASSERT_TRUE(h.attach(request).status.ok());
    ASSERT_EQ(attached_ar(), ar) << "the newest wins";
  }
};

TEST_F(MachineAlarmTest, ANodeThatIsStillOnTheLinkThatItWasMovedAwayFromIsAtTwo) {
  arrive("ar1");
  arrive("ar2");
  const auto there_since = h.binding(h.prefix_of(kMn, "ar1")).arrived_at().seconds();
  h.now += seconds(5);
  speak_again("ar1");
  ASSERT_EQ(alarms().size(), 1U);
  EXPECT_EQ(alarms()[0].mn_id(), kMn);
  EXPECT_EQ(alarms()[0].ar(), "ar1");
  ASSERT_EQ(there_since, 1'800'000'000);
  EXPECT_EQ(alarms()[0].detail(), "still at ar2, since 2027-01-15T08:00:00Z");
}

TEST_F(MachineAlarmTest, MovesWithChangesOfTheLinkGiveNone) {
  for (const char* ar : {"ar1", "ar2", "ar1", "ar2", "ar3", "ar1"}) arrive(ar);
  EXPECT_TRUE(alarms().empty());
}

TEST_F(MachineAlarmTest, ANodeThatHasLeftTheOtherAccessRouterGivesNone) {
  arrive("ar1");
  arrive("ar2");
  h.detach("ar2", kMn);
  speak_again("ar1");
  EXPECT_TRUE(alarms().empty());
}

TEST_F(MachineAlarmTest, ARouterSolicitationSaysThatTheNodeHasReallyCome) {
  arrive("ar1");
  arrive("ar2");
  speak_again("ar1", v1::TRIGGER_ROUTER_SOLICITATION);
  EXPECT_TRUE(alarms().empty());
}

TEST_F(MachineAlarmTest, TwoPortsOfOneAccessRouterAreOne) {
  arrive("ar1");
  h.now += milliseconds(10);
  auto request = attach_request("ar1", kMn, "access1");
  request.set_link_unchanged(true);
  request.set_trigger(v1::TRIGGER_DATA_FRAME);
  ASSERT_TRUE(h.attach(request).status.ok());
  EXPECT_EQ(h.binding(h.prefix_of(kMn, "ar1")).attachment().interface(), "access1") << "the newest port";
  EXPECT_TRUE(alarms().empty());
}

TEST_F(MachineAlarmTest, AFightIsToldOnceAMinuteWithWhatWasNotTold) {
  arrive("ar1");
  arrive("ar2");
  for (int i = 0; i < 30; ++i) {
    speak_again(i % 2 == 0 ? "ar1" : "ar2");
    h.now += seconds(2) - milliseconds(10);
  }
  EXPECT_EQ(alarms().size(), 1U);
  speak_again("ar1");
  ASSERT_EQ(alarms().size(), 2U);
  EXPECT_THAT(alarms()[1].detail(), testing::EndsWith("; 29 more times since the last alarm"));
  h.now += minutes(10);
  speak_again("ar2");
  EXPECT_EQ(alarms().size(), 3U);
}

TEST_F(MachineAlarmTest, EachNodeHasItsOwn) {
  arrive("ar1");
  arrive("ar2");
  speak_again("ar1");
  for (const char* ar : {"ar1", "ar2", "ar1"}) {
    h.now += milliseconds(10);
    auto request = attach_request(ar, mn_name(2));
    request.set_link_unchanged(true);
    request.set_trigger(v1::TRIGGER_NEIGHBOUR_DISCOVERY);
    ASSERT_TRUE(h.attach(request).status.ok());
  }
  EXPECT_EQ(alarms().size(), 2U);
}

}  // namespace
}  // namespace kedge::lm
