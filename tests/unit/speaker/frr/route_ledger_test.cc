#include "speaker/frr/route_ledger.h"

#include <limits>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace kedge::speaker {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;
using testing::Pair;

constexpr std::size_t kAll = std::numeric_limits<std::size_t>::max();

const Ipv6Prefix kP1 = Ipv6Prefix::parse("2001:db8:0:1::/64").value();
const Ipv6Prefix kP2 = Ipv6Prefix::parse("2001:db8:0:2::/64").value();
const Ipv6Prefix kP3 = Ipv6Prefix::parse("2001:db8:0:3::/64").value();

TEST(RouteLedger, PlansNothingBeforeItKnowsAllThatIsDesired) {
  RouteLedger ledger(8);
  ledger.take_held({{kP2, {3, true, ""}}}, true);
  ledger.set(kP1, 1);
  EXPECT_THAT(ledger.plan(kAll).changes, IsEmpty());
  ledger.replace_all({{kP1, 1}});
  EXPECT_THAT(ledger.plan(kAll).changes, ElementsAre(Pair(kP1, RouteChange{1}), Pair(kP2, RouteChange{0})));
}

TEST(RouteLedger, KeepsTheWishOfAPrefixUntilItIsCommitted) {
  RouteLedger ledger(8);
  ledger.replace_all({});
  ledger.set(kP1, 1);
  EXPECT_EQ(ledger.plan(kAll).changes.size(), 1u);
  EXPECT_EQ(ledger.plan(kAll).changes.size(), 1u);
  ledger.take_committed({{kP1, {1}}});
  EXPECT_THAT(ledger.plan(kAll).changes, IsEmpty());
}

TEST(RouteLedger, CancelsAnAdditionByItsWithdrawalAndStillAnswers) {
  RouteLedger ledger(8);
  ledger.replace_all({});
  ledger.set(kP1, 1);
  ledger.set(kP1, 0);
  const auto plan = ledger.plan(kAll);
  EXPECT_THAT(plan.changes, IsEmpty());
  EXPECT_THAT(plan.met, ElementsAre(Pair(kP1, 0u)));
  EXPECT_THAT(ledger.plan(kAll).met, IsEmpty());
}

TEST(RouteLedger, PlansAgainWhatChangedDuringACommit) {
  RouteLedger ledger(8);
  ledger.replace_all({{kP1, 1}});
  const auto plan = ledger.plan(kAll);
  ledger.set(kP1, 2);
  ledger.take_committed(plan.changes);
  EXPECT_THAT(ledger.plan(kAll).changes, ElementsAre(Pair(kP1, RouteChange{2})));
}

TEST(RouteLedger, LeavesWhatIsUnderWayToALaterPlan) {
  RouteLedger ledger(8);
  ledger.take_held({{kP1, {1, true, ""}}}, true);
  ledger.replace_all({});
  const auto removals = ledger.plan(kAll).changes;
  ASSERT_THAT(removals, ElementsAre(Pair(kP1, RouteChange{0})));
  ledger.set(kP1, 1);
  ledger.set(kP2, 1);
  const auto plan = ledger.plan(kAll, removals);
  EXPECT_THAT(plan.changes, ElementsAre(Pair(kP2, RouteChange{1})));
  // FRR still has it, but not after the commit.
  EXPECT_THAT(plan.met, IsEmpty());
  ledger.take_committed(removals);
  EXPECT_THAT(ledger.plan(kAll).changes, ElementsAre(Pair(kP1, RouteChange{1}), Pair(kP2, RouteChange{1})));
}

TEST(RouteLedger, LeavesTheOperatorsStaticsAlone) {
  RouteLedger ledger(8);
  ledger.take_held({{kP1, {0, false, "via eth0"}}, {kP2, {9, true, ""}}, {kP3, {9, true, ""}}}, true);
  ledger.replace_all({{kP1, 1}, {kP2, 1}});
  EXPECT_THAT(ledger.plan(kAll).changes, IsEmpty());
  EXPECT_THAT(ledger.conflicts(), ElementsAre(Pair(kP1, "via eth0"), Pair(kP2, "blackhole tag 9")));

  ledger.take_held({{kP2, {9, true, ""}}}, false);
  EXPECT_THAT(ledger.plan(kAll).changes, ElementsAre(Pair(kP1, RouteChange{1})));
  EXPECT_THAT(ledger.conflicts(), ElementsAre(Pair(kP2, "blackhole tag 9")));

  ledger.set(kP2, 0);
  ledger.plan(kAll);
  EXPECT_THAT(ledger.conflicts(), IsEmpty());
}

TEST(RouteLedger, TakesOnlyItsOwnPathFromARouteThatIsShared) {
  RouteLedger ledger(8);
  ledger.take_held({{kP1, {2, true, "via eth0 distance 250"}}}, true);
  ledger.replace_all({{kP1, 3}});
  EXPECT_THAT(ledger.plan(kAll).changes, ElementsAre(Pair(kP1, RouteChange{3})));
  ledger.set(kP1, 0);
  EXPECT_THAT(ledger.plan(kAll).changes, ElementsAre(Pair(kP1, RouteChange{0, true})));
}

TEST(RouteLedger, RemovesABlackholeWithOtherKeysBeforeItSetsItsOwn) {
  RouteLedger ledger(8);
  ledger.take_held({{kP1, {2, false, ""}}}, true);
  ledger.replace_all({{kP1, 3}});
  const auto plan = ledger.plan(kAll);
  EXPECT_THAT(plan.changes, ElementsAre(Pair(kP1, RouteChange{0})));
  ledger.take_committed(plan.changes);
  EXPECT_THAT(ledger.plan(kAll).changes, ElementsAre(Pair(kP1, RouteChange{3})));
}

TEST(RouteLedger, LeavesRefusedPrefixesOutUntilTheyAreTriedAgain) {
  RouteLedger ledger(8);
  ledger.replace_all({{kP1, 1}, {kP2, 1}});
  ledger.reject(kP1, "bad");
  EXPECT_THAT(ledger.plan(kAll).changes, ElementsAre(Pair(kP2, RouteChange{1})));
  ledger.retry_rejected();
  EXPECT_THAT(ledger.plan(kAll).changes, ElementsAre(Pair(kP1, RouteChange{1}), Pair(kP2, RouteChange{1})));
}

TEST(RouteLedger, RefusesALevelThatHasNoTag) {
  RouteLedger ledger(4);
  ledger.replace_all({{kP1, 5}});
  EXPECT_THAT(ledger.plan(kAll).changes, IsEmpty());
  EXPECT_EQ(ledger.rejected().count(kP1), 1u);
  ledger.retry_rejected();
  EXPECT_THAT(ledger.plan(kAll).changes, IsEmpty());
}

TEST(RouteLedger, TakesUpLevelsThatAreAddedAndKeepsThoseThatGo) {
  RouteLedger ledger(3);
  ledger.replace_all({{kP1, 5}});
  ledger.take_held({{kP2, {6, true, ""}}}, true);
  EXPECT_THAT(ledger.plan(kAll).changes, IsEmpty());
  ledger.raise_levels(8);
  ledger.raise_levels(3);
  ledger.replace_all({{kP1, 5}});
  EXPECT_THAT(ledger.plan(kAll).changes, ElementsAre(Pair(kP1, RouteChange{5}), Pair(kP2, RouteChange{0})));
}

TEST(RouteLedger, PlansNoMoreThanTheLimit) {
  RouteLedger ledger(8);
  ledger.replace_all({{kP1, 1}, {kP2, 1}, {kP3, 1}});
  const auto first = ledger.plan(2);
  EXPECT_THAT(first.changes, ElementsAre(Pair(kP1, RouteChange{1}), Pair(kP2, RouteChange{1})));
  ledger.take_committed(first.changes);
  EXPECT_THAT(ledger.plan(2).changes, ElementsAre(Pair(kP3, RouteChange{1})));
}

TEST(RouteLedger, AnAuditAnswersOnlyForWhatDiffers) {
  RouteLedger ledger(8);
  ledger.take_held({{kP1, {1, true, ""}}, {kP2, {1, true, ""}}}, true);
  ledger.replace_all({{kP1, 1}, {kP2, 1}});
  EXPECT_EQ(ledger.plan(kAll).met.size(), 2u);
  ledger.take_held({{kP1, {1, true, ""}}, {kP3, {2, true, ""}}}, false);
  const auto plan = ledger.plan(kAll);
  EXPECT_THAT(plan.changes, ElementsAre(Pair(kP2, RouteChange{1}), Pair(kP3, RouteChange{0})));
  EXPECT_THAT(plan.met, IsEmpty());
}

}  // namespace
}  // namespace kedge::speaker
