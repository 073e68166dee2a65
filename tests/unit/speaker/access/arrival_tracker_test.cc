#include "speaker/access/arrival_tracker.h"

#include "gtest/gtest.h"
#include "speaker/access/icmpv6_codec.h"

namespace kedge::speaker {
namespace {

using std::chrono::milliseconds;

constexpr auto kRs = v1::TRIGGER_ROUTER_SOLICITATION;
constexpr auto kNd = v1::TRIGGER_NEIGHBOUR_DISCOVERY;
constexpr auto kData = v1::TRIGGER_DATA_FRAME;

LinkLayerAddress mac(std::uint32_t n) {
  return LinkLayerAddress({0x02, 0, static_cast<std::uint8_t>(n >> 24), static_cast<std::uint8_t>(n >> 16),
                           static_cast<std::uint8_t>(n >> 8), static_cast<std::uint8_t>(n)});
}

class ArrivalTrackerTest : public testing::Test {
 protected:
  SteadyTime at(int ms) const { return SteadyTime() + std::chrono::hours(1) + milliseconds(ms); }
  ArrivalTracker::Verdict hear(int ms, v1::Trigger trigger, std::optional<Ipv6Address> link_local = std::nullopt,
                               std::size_t port = 0) {
    return tracker_.heard({.station = {port, mn_}, .trigger = trigger, .link_local = link_local, .at = at(ms)});
  }
  bool reports(int ms, v1::Trigger trigger, std::size_t port = 0) {
    return hear(ms, trigger, std::nullopt, port).report;
  }
  void serve(int ms, const Ipv6Address& link_local, std::size_t port = 0) {
    tracker_.serve({port, mn_}, link_local, at(ms));
  }

  const LinkLayerAddress mn_ = mac(1);
  const Ipv6Address guess_ = eui64_link_local(mn_);
  const Ipv6Address real_ = *Ipv6Address::parse("fe80::abcd");
  ArrivalTracker tracker_{
      {.report_interval = milliseconds(100), .overlap_guard = milliseconds(2000), .max_unknown = 4}};
};

TEST_F(ArrivalTrackerTest, ReportsOneMnAtMostEveryInterval) {
  EXPECT_TRUE(reports(0, kNd));
  EXPECT_FALSE(reports(1, kNd));
  EXPECT_FALSE(reports(99, kNd));
  EXPECT_TRUE(reports(100, kNd));
}

TEST_F(ArrivalTrackerTest, WhatWasNotReportedIsWhenItIsHeardAgain) {
  EXPECT_FALSE(hear(0, kRs).heard_before);
  tracker_.unreported({0, mn_});
  const auto again = hear(1, kNd);
  EXPECT_TRUE(again.report);
  EXPECT_TRUE(again.heard_before);
  EXPECT_FALSE(reports(2, kNd));
}

TEST_F(ArrivalTrackerTest, AStrongerTriggerDoesNotWaitForTheInterval) {
  EXPECT_TRUE(reports(0, kData));
  EXPECT_FALSE(reports(1, kData));
  EXPECT_TRUE(reports(2, kNd));
  EXPECT_TRUE(reports(3, kRs));
  EXPECT_FALSE(reports(4, kRs));
}

TEST_F(ArrivalTrackerTest, GuessesTheLinkLocalAddressUntilItIsSeen) {
  ArrivalTracker::Verdict verdict = hear(0, kNd);
  EXPECT_FALSE(verdict.link_local_seen);
  EXPECT_EQ(verdict.link_local, guess_);
  verdict = hear(1, kNd, real_);
  EXPECT_TRUE(verdict.report);
  EXPECT_TRUE(verdict.link_local_seen);
  EXPECT_EQ(verdict.link_local, real_);
  EXPECT_EQ(hear(200, kData).link_local, real_);
}

TEST_F(ArrivalTrackerTest, AServedMnIsReportedForSolicitationsOnly) {
  hear(0, kNd, guess_);
  serve(1, guess_);
  EXPECT_FALSE(reports(200, kData));
  EXPECT_FALSE(reports(201, kNd));
  EXPECT_TRUE(reports(202, kRs));
  EXPECT_FALSE(reports(203, kRs));
}

TEST_F(ArrivalTrackerTest, AGuessedAddressOfAServedMnIsCorrectedOnce) {
  hear(0, kData);
  serve(1, guess_);
  EXPECT_TRUE(hear(200, kNd, real_).report);
  serve(201, real_);
  EXPECT_FALSE(hear(400, kNd, real_).report);
}

TEST_F(ArrivalTrackerTest, AnMnWithTwoLinkLocalAddressesIsNotReportedForever) {
  hear(0, kNd, guess_);
  serve(1, guess_);
  EXPECT_FALSE(hear(200, kNd, real_).report);
  EXPECT_FALSE(hear(400, kNd, guess_).report);
}

TEST_F(ArrivalTrackerTest, NothingIsAnArrivalWhileTheOverlapGuardRuns) {
  hear(0, kNd);
  serve(1, guess_);
  tracker_.release(mn_, 2, at(1000));
  EXPECT_FALSE(reports(1001, kRs));
  EXPECT_FALSE(reports(2000, kNd));
  EXPECT_FALSE(reports(2999, kData));
  EXPECT_TRUE(reports(3000, kData));
}

TEST_F(ArrivalTrackerTest, WhatGoesToAGroupBringsNobodyBackOnALinkThatStayedUp) {
  const auto to_group = [&](int ms, v1::Trigger trigger) {
    return tracker_
        .heard({.station = {0, mn_}, .trigger = trigger, .link_local = std::nullopt, .at = at(ms), .to_group = true})
        .report;
  };
  serve(0, real_);
  tracker_.release(mn_, 2, at(1));
  EXPECT_FALSE(to_group(5000, kNd));
  EXPECT_TRUE(to_group(5001, kRs)) << "it asks for a router";
  EXPECT_TRUE(reports(6000, kData)) << "it sends to this router";
  tracker_.end_guards(0);
  EXPECT_TRUE(to_group(7000, kNd)) << "the link came up";
}

TEST_F(ArrivalTrackerTest, SaysThatAnMnThatWasMovedAwayIsStillOnTheSameLink) {
  EXPECT_FALSE(hear(0, kData).link_unchanged);
  serve(1, guess_);
  EXPECT_FALSE(hear(200, kRs).link_unchanged);
  tracker_.release(mn_, 2, at(1000));
  EXPECT_TRUE(hear(4000, kData).link_unchanged);
  EXPECT_TRUE(hear(5000, kRs).link_unchanged) << "until it is served here again";
  serve(5001, guess_);
  EXPECT_FALSE(hear(6000, kRs).link_unchanged);
}

TEST_F(ArrivalTrackerTest, ALinkThatWentDownOrCameUpIsNotTheSame) {
  for (const bool up : {false, true}) {
    serve(0, guess_);
    tracker_.release(mn_, 2, at(1));
    if (up) {
      tracker_.end_guards(0);
    } else {
      tracker_.link_changed(0);
    }
    EXPECT_FALSE(hear(4000, kData).link_unchanged);
  }
}

TEST_F(ArrivalTrackerTest, AnMnThatHasDepartedComesAnew) {
  serve(0, guess_);
  tracker_.release(mn_, 2, at(1));
  tracker_.depart({0, mn_});
  EXPECT_FALSE(hear(4000, kData).link_unchanged);
}

TEST_F(ArrivalTrackerTest, OfALinkThatWasNotWatchedNothingIsSaid) {
  // A restarted speaker learns from the LM that the MN has moved away.
  tracker_.release(mn_, 2, at(0));
  EXPECT_TRUE(reports(4000, kData));
  EXPECT_FALSE(hear(5000, kData).link_unchanged);
}

TEST_F(ArrivalTrackerTest, AnMnThatIsElsewhereIsHeldBackAlsoWhereItWasNeverHeard) {
  EXPECT_EQ(tracker_.release(mn_, 2, at(0)).size(), 2U);
  EXPECT_FALSE(reports(1, kRs));
  EXPECT_FALSE(reports(1, kRs, 1));
  EXPECT_TRUE(reports(2001, kRs));
}

TEST_F(ArrivalTrackerTest, AfterARestartASolicitationCountsAndWhatTheQuestionWhoIsThereBringsDoesNot) {
  tracker_.release_after_restart({0, mn_}, at(0));
  EXPECT_FALSE(reports(1, kData));
  EXPECT_FALSE(reports(2, kNd));
  EXPECT_TRUE(reports(3, kNd, 1)) << "on another port";
  EXPECT_TRUE(reports(4, kRs));
  EXPECT_TRUE(reports(2000, kData)) << "the guard has ended";
}

TEST_F(ArrivalTrackerTest, ALinkThatComesUpEndsTheGuardButServesOn) {
  const Station other{0, mac(2)};
  serve(0, real_);
  tracker_.serve(other, real_, at(0));
  tracker_.release(mn_, 2, at(1));
  EXPECT_FALSE(reports(2, kData));
  EXPECT_EQ(tracker_.end_guards(0).size(), 1U);
  EXPECT_TRUE(reports(3, kData));
  EXPECT_TRUE(tracker_.heard({.station = other, .trigger = kData, .link_local = std::nullopt, .at = at(4)}).served);
}

TEST_F(ArrivalTrackerTest, AChangeOfTheLinkEndsTheGuardOnItsPortOnly) {
  reports(0, kNd, 0);
  reports(0, kNd, 1);
  tracker_.release(mn_, 2, at(1));
  tracker_.link_changed(1);
  EXPECT_FALSE(reports(2, kNd, 0));
  EXPECT_TRUE(reports(2, kNd, 1));
}

TEST_F(ArrivalTrackerTest, AChangeOfTheLinkIsReportedWithoutWaiting) {
  EXPECT_TRUE(reports(0, kNd));
  tracker_.link_changed(0);
  EXPECT_TRUE(reports(1, kNd));
}

TEST_F(ArrivalTrackerTest, MovingToAnotherPortReleasesTheFormerOne) {
  reports(0, kNd, 0);
  serve(1, guess_, 0);
  EXPECT_TRUE(reports(500, kNd, 1));
  serve(501, guess_, 1);
  EXPECT_FALSE(reports(502, kNd, 0));
  EXPECT_FALSE(reports(503, kNd, 1));
  EXPECT_TRUE(reports(2501, kNd, 0));
}

TEST_F(ArrivalTrackerTest, ARefusalHoldsForTriggersThatAreNotStronger) {
  EXPECT_TRUE(reports(0, kData));
  tracker_.refuse(mn_, milliseconds(10000), at(1));
  EXPECT_FALSE(reports(500, kData));
  EXPECT_TRUE(reports(501, kNd));
  tracker_.refuse(mn_, milliseconds(10000), at(502));
  EXPECT_FALSE(reports(1000, kNd));
  EXPECT_TRUE(reports(1001, kRs));
  tracker_.refuse(mn_, milliseconds(10000), at(1002));
  EXPECT_TRUE(reports(1500, kRs));
  EXPECT_TRUE(reports(11002, kData));
}

TEST_F(ArrivalTrackerTest, TellsUntilWhenDataIsUnneeded) {
  EXPECT_EQ(hear(0, kData).data_unneeded_until, at(100));
  serve(10, guess_);
  EXPECT_EQ(tracker_.data_unneeded_until({0, mn_}, at(10)), SteadyTime::max());
  tracker_.release(mn_, 2, at(20));
  EXPECT_EQ(tracker_.data_unneeded_until({0, mn_}, at(20)), at(2020));
  EXPECT_EQ(tracker_.data_unneeded_until({0, mn_}, at(2020)), std::nullopt);
  serve(3000, guess_);
  tracker_.depart({0, mn_});
  EXPECT_EQ(tracker_.data_unneeded_until({0, mn_}, at(3001)), std::nullopt);
}

TEST_F(ArrivalTrackerTest, RemembersWhenAnMnWasHeard) {
  EXPECT_EQ(tracker_.last_heard(mn_), std::nullopt);
  reports(7, kData, 0);
  reports(5, kData, 2);
  EXPECT_EQ(tracker_.last_heard(mn_), at(7));
  EXPECT_EQ(tracker_.last_heard(Station{2, mn_}), at(5));
}

TEST_F(ArrivalTrackerTest, AFloodOfUnknownStationsForgetsNeitherTheServedNorTheHeldBack) {
  hear(0, kNd);
  serve(1, guess_);
  const LinkLayerAddress released = mac(2);
  tracker_.heard({.station = {0, released}, .trigger = kNd, .link_local = std::nullopt, .at = at(2)});
  tracker_.release(released, 2, at(3));
  for (std::uint32_t n = 100; n < 10100; ++n) {
    tracker_.heard({.station = {0, mac(n)}, .trigger = kData, .link_local = std::nullopt, .at = at(4)});
  }
  EXPECT_EQ(tracker_.size(), 6U);
  EXPECT_FALSE(reports(500, kNd));
  EXPECT_FALSE(
      tracker_.heard({.station = {0, released}, .trigger = kRs, .link_local = std::nullopt, .at = at(500)}).report);
}

TEST_F(ArrivalTrackerTest, ThoseWhoWereServedCountAmongTheUnknownOnceTheyHaveLeft) {
  for (std::uint32_t n = 0; n < 100; ++n) tracker_.serve({0, mac(100 + n)}, guess_, at(1));
  EXPECT_EQ(tracker_.size(), 100U);
  for (std::uint32_t n = 0; n < 100; ++n) tracker_.depart({0, mac(100 + n)});
  EXPECT_EQ(tracker_.size(), 4U);
  EXPECT_TRUE(tracker_.data_unneeded_until({0, mac(199)}, at(2)) == std::nullopt);
}

TEST_F(ArrivalTrackerTest, MemoryStaysBoundedWhateverHappensToManyStations) {
  for (std::uint32_t n = 0; n < 1000; ++n) {
    const Station station{0, mac(100 + n)};
    tracker_.heard({.station = station, .trigger = kNd, .link_local = std::nullopt, .at = at(1)});
    if (n % 3 == 0) tracker_.release(station.link_layer_address, 2, at(2));
    if (n % 3 == 1) tracker_.refuse(station.link_layer_address, milliseconds(1000), at(2));
  }
  EXPECT_LE(tracker_.size(), 8U);
  tracker_.link_changed(0);
  EXPECT_LE(tracker_.size(), 4U);
}

}  // namespace
}  // namespace kedge::speaker
