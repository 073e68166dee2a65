#include <algorithm>
#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "boost/asio/io_context.hpp"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "speaker/frr/anchoring_plane.h"
#include "tests/unit/speaker/frr/fake_vty.h"

namespace kedge::speaker {
namespace {

using namespace std::chrono_literals;
using namespace std::string_literals;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

const Ipv6Prefix kPrefix = Ipv6Prefix::parse("2001:db8:1:2::/64").value();
const Ipv6Address kSuccessor = Ipv6Address::parse("2001:db8:a2::1").value();
constexpr std::uint32_t kLevels = 8;
// Of a path of bgpd's own, and of one that it was told of by the successor.
constexpr char kOwn[] = R"({"locPrf":101,"tag":1,"sourced":true,"nexthops":[{"ip":"::","scope":"global"}]})";
constexpr char kLearned[] =
    R"({"locPrf":102,"bestpath":{"overall":true},"nexthops":[{"ip":"2001:db8:a2::1","scope":"global"}]})";

class BgpdObserverTest : public testing::Test {
 protected:
  BgpdObserverTest() {
    vty_.reply = [this](const std::string& command) {
      commands_.push_back(command);
      return answer_to(command) + "\0\0\0\0"s;
    };
  }

  void start(std::chrono::milliseconds stale_time = 10s) {
    observer_ = make_bgpd_observer(context_.get_executor(), {vty_.directory(), stale_time});
    observer_->on_superseded = [this](const Ipv6Prefix& prefix) { superseded_.push_back(prefix); };
    observer_->on_withdrawn = [this](const Ipv6Prefix& prefix) { withdrawn_.push_back(prefix); };
    observer_->on_health = [this](const absl::Status& status) { health_ = status; };
  }

  std::string answer_to(const std::string& command) const {
    if (command == "show bgp neighbors json") {
      return R"({"2001:db8:c0::1":{"bgpState":"Established","addressFamilyInfo":{"ipv6Unicast":{}},)"
             R"("neighborCapabilities":{"gracefulRestart":"advertisedAndReceived"},)"
             R"("gracefulRestartInfo":{"endOfRibSend":{)" +
             std::string(end_of_rib_sent_ ? R"("ipv6Unicast":true)" : "") + "}}}}";
    }
    if (command != "show bgp ipv6 unicast 2001:db8:1:2::/64 json" || paths_.empty()) return "{}";
    return R"({"prefix":"2001:db8:1:2::/64","paths":[)" + paths_ + "]}";
  }

  // Until bgpd was asked so often since now.
  void wait_for_commands(std::size_t count, const std::string& text) {
    const auto asked = [&] {
      return std::count_if(commands_.begin(), commands_.end(),
                           [&](const auto& command) { return command.find(text) != std::string::npos; });
    };
    const auto before = asked();
    ASSERT_TRUE(run_until(context_, [&] { return asked() >= before + static_cast<std::ptrdiff_t>(count); }));
  }

  boost::asio::io_context context_;
  FakeVty vty_{context_, "bgpd"};
  std::string paths_;
  bool end_of_rib_sent_ = true;
  std::vector<std::string> commands_;
  std::vector<Ipv6Prefix> superseded_;
  std::vector<Ipv6Prefix> withdrawn_;
  absl::Status health_;
  std::unique_ptr<BestPathObserver> observer_;
};

TEST_F(BgpdObserverTest, TellsOfAWithdrawalOnceBgpdHasNoPathOfItsOwn) {
  vty_.listen();
  paths_ = std::string(kOwn) + "," + kLearned;
  start();
  observer_->await_withdrawal(kPrefix, kLevels);
  wait_for_commands(5, "2001:db8:1:2::/64");
  EXPECT_THAT(withdrawn_, IsEmpty());
  paths_ = kLearned;
  ASSERT_TRUE(run_until(context_, [this] { return !withdrawn_.empty(); }));
  EXPECT_THAT(withdrawn_, ElementsAre(kPrefix));
}

TEST_F(BgpdObserverTest, AStaticOfTheOperatorsIsNotWaitedFor) {
  vty_.listen();
  paths_ = R"({"locPrf":101,"tag":9,"sourced":true,"nexthops":[{"ip":"::","scope":"global"}]},)"
           R"({"locPrf":100,"sourced":true,"local":true,"nexthops":[{"ip":"::","scope":"global"}]})";
  start();
  observer_->await_withdrawal(kPrefix, kLevels);
  EXPECT_TRUE(run_until(context_, [this] { return !withdrawn_.empty(); }));
}

TEST_F(BgpdObserverTest, ANeighbourThatPreservesRoutesFollowsAtEndOfRib) {
  vty_.listen();
  end_of_rib_sent_ = false;
  start();
  observer_->await_withdrawal(kPrefix, kLevels);
  wait_for_commands(3, "neighbors");
  EXPECT_THAT(withdrawn_, IsEmpty());
  end_of_rib_sent_ = true;
  EXPECT_TRUE(run_until(context_, [this] { return !withdrawn_.empty(); }));
}

TEST_F(BgpdObserverTest, AnotherBgpdIsAskedAnew) {
  vty_.listen();
  end_of_rib_sent_ = false;
  start();
  observer_->await_withdrawal(kPrefix, kLevels);
  wait_for_commands(1, "neighbors");
  // It comes back with the route, and loses it later.
  paths_ = kOwn;
  end_of_rib_sent_ = true;
  vty_.close_connection();
  wait_for_commands(3, "2001:db8:1:2::/64");
  EXPECT_THAT(withdrawn_, IsEmpty());
  paths_.clear();
  EXPECT_TRUE(run_until(context_, [this] { return !withdrawn_.empty(); }));
}

TEST_F(BgpdObserverTest, ABgpdThatStaysAwayCountsAsOneWithoutARoute) {
  start(100ms);
  observer_->await_withdrawal(kPrefix, kLevels);
  EXPECT_TRUE(run_until(context_, [this] { return !withdrawn_.empty(); }));
  EXPECT_FALSE(health_.ok());
}

TEST_F(BgpdObserverTest, ABgpdThatCannotSayWhatItsNeighboursKnowIsNotWaitedForForEver) {
  vty_.listen();
  end_of_rib_sent_ = false;
  start(100ms);
  observer_->await_withdrawal(kPrefix, kLevels);
  EXPECT_TRUE(run_until(context_, [this] { return !withdrawn_.empty(); }));
}

TEST_F(BgpdObserverTest, ARouteThatStaysIsToldAndWaitedFor) {
  vty_.listen();
  paths_ = kOwn;
  start(100ms);
  observer_->await_withdrawal(kPrefix, kLevels);
  ASSERT_TRUE(run_until(context_, [this] { return !health_.ok(); }));
  EXPECT_THAT(std::string(health_.message()), HasSubstr("goes on announcing 2001:db8:1:2::/64"));
  EXPECT_THAT(withdrawn_, IsEmpty());
  paths_.clear();
  EXPECT_TRUE(run_until(context_, [this] { return !withdrawn_.empty(); }));
  EXPECT_TRUE(health_.ok());
}

TEST_F(BgpdObserverTest, WhatIsForgottenIsNotTold) {
  vty_.listen();
  paths_ = kOwn;
  start();
  observer_->await_withdrawal(kPrefix, kLevels);
  observer_->watch(kPrefix, kSuccessor, 102);
  wait_for_commands(2, "2001:db8:1:2::/64");
  observer_->forget_withdrawal(kPrefix);
  paths_ = kLearned;
  ASSERT_TRUE(run_until(context_, [this] { return !superseded_.empty(); }));
  EXPECT_THAT(withdrawn_, IsEmpty());
}

TEST_F(BgpdObserverTest, ASuccessorIsWatchedForApartFromAWithdrawal) {
  vty_.listen();
  paths_ = std::string(kOwn) + "," + kLearned;
  start();
  observer_->watch(kPrefix, kSuccessor, 102);
  observer_->await_withdrawal(kPrefix, kLevels);
  ASSERT_TRUE(run_until(context_, [this] { return !superseded_.empty(); }));
  EXPECT_THAT(withdrawn_, IsEmpty());
  paths_ = kLearned;
  EXPECT_TRUE(run_until(context_, [this] { return !withdrawn_.empty(); }));
  EXPECT_THAT(superseded_, ElementsAre(kPrefix));
}

TEST_F(BgpdObserverTest, APathThatIsWorseThanWantedDoesNotSupersede) {
  vty_.listen();
  paths_ = kLearned;
  start();
  observer_->watch(kPrefix, kSuccessor, 103);
  wait_for_commands(3, "2001:db8:1:2::/64");
  EXPECT_THAT(superseded_, IsEmpty());
}

}  // namespace
}  // namespace kedge::speaker
