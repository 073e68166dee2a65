#include "speaker/packet_filter/activity_meter.h"

#include <chrono>
#include <cstdio>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "speaker/packet_filter/nftables.h"
#include "tests/component/kernel/topology.h"
#include "tests/component/packet_filter/access_link_test.h"

namespace kedge::speaker {
namespace {

using std::chrono::milliseconds;
using ::testing::HasSubstr;
using testing::Namespace;
using ::testing::Not;
using testing::prefix;

constexpr char kPrefix[] = "2001:db8:d:1::/64";
constexpr char kOther[] = "2001:db8:d:2::/64";
// Of the MN, one in each.
constexpr char kAddress[] = "2001:db8:d:1::11";
constexpr char kOtherAddress[] = "2001:db8:d:2::11";
constexpr char kCn[] = "2001:db8:c::2";

// Both of the MN's prefixes are delivered to it.
class ActivityMeterTest : public testing::AccessLinkTest {
 protected:
  void SetUp() override {
    testing::AccessLinkTest::SetUp();
    if (IsSkipped()) return;
    ar_->shell("ip addr add 2001:db8:d:1::1/64 dev acc nodad");
    ar_->shell("ip -6 route add 2001:db8:d::/48 via fe80::11 dev acc");
    for (const char* address : {kAddress, kOtherAddress}) {
      mn_->shell("ip addr add " + std::string(address) + "/128 dev eth nodad");
      EXPECT_TRUE(testing::eventually([&] { return reaches(address); }));
    }
    start();
  }

  void start() {
    ar_->run([&] {
      auto made = make_activity_meter({{"acc"}});
      ASSERT_TRUE(made.ok()) << made.status();
      meter_ = *std::move(made);
    });
  }
  void watch(const std::set<Ipv6Prefix>& prefixes) {
    ar_->run([&] {
      const auto status = meter_->replace_all(prefixes);
      ASSERT_TRUE(status.ok()) << status;
    });
  }
  absl::Status change(const std::vector<Ipv6Prefix>& added, const std::vector<Ipv6Prefix>& removed) {
    return ar_->run([&] { return meter_->change(added, removed); });
  }
  std::map<Ipv6Prefix, ActivityMeter::Reading> read() {
    return ar_->run([&] {
      const auto readings = meter_->read();
      EXPECT_TRUE(readings.ok()) << readings.status();
      return readings.value_or(std::map<Ipv6Prefix, ActivityMeter::Reading>());
    });
  }
  std::optional<ActivityMeter::Reading> read_one(const std::string& text) {
    return ar_->run([&] {
      const auto reading = meter_->read(prefix(text));
      EXPECT_TRUE(reading.ok()) << reading.status();
      return reading.value_or(std::nullopt);
    });
  }
  bool unused(const std::string& text) {
    const auto one = read_one(text);
    EXPECT_TRUE(one);
    EXPECT_EQ(read().at(prefix(text)).unused, one->unused);
    return one->unused;
  }
  bool reaches(const std::string& from) { return mn_->try_shell("ping -n -c 1 -W 1 -I " + from + " " + kCn); }
  std::string tables() { return ar_->shell("nft list tables"); }

  std::unique_ptr<ActivityMeter> meter_;
};

TEST_F(ActivityMeterTest, WhatIsForwardedCountsForItsPrefixOnly) {
  watch({prefix(kPrefix), prefix(kOther)});
  EXPECT_TRUE(unused(kPrefix));
  EXPECT_TRUE(unused(kOther));
  EXPECT_TRUE(reaches(kAddress));
  EXPECT_FALSE(unused(kPrefix));
  EXPECT_TRUE(unused(kOther));
}

TEST_F(ActivityMeterTest, EitherDirectionAloneCounts) {
  watch({prefix(kPrefix), prefix(kOther)});
  // Nobody has the address, so there is no answer.
  mn_->try_shell("ping -n -c 1 -W 1 -I " + std::string(kAddress) + " 2001:db8:c::9");
  EXPECT_FALSE(unused(kPrefix));
  mn_->shell("ip addr del " + std::string(kOtherAddress) + "/128 dev eth");
  cn_->try_shell("ping -n -c 1 -W 1 " + std::string(kOtherAddress));
  EXPECT_FALSE(unused(kOther));
}

TEST_F(ActivityMeterTest, WhatIsBetweenTheNodeAndTheRouterDoesNotCount) {
  watch({prefix(kPrefix)});
  mn_->shell("ip -6 route add 2001:db8:d:1::1/128 dev eth");
  // Neighbour discovery for the address, both ways, and echo requests and replies.
  ar_->shell("ip neigh flush dev acc");
  mn_->shell("ip neigh flush dev eth");
  EXPECT_TRUE(mn_->try_shell("ping -n -c 2 -i 0.2 -W 1 -I " + std::string(kAddress) + " 2001:db8:d:1::1"));
  EXPECT_TRUE(ar_->try_shell("ping -n -c 1 -W 1 " + std::string(kAddress)));
  EXPECT_TRUE(unused(kPrefix));
}

TEST_F(ActivityMeterTest, AnAgeGrowsAndBeginsAnewWithTheNextPacket) {
  watch({prefix(kPrefix)});
  const auto at_first = read_one(kPrefix)->age;
  EXPECT_TRUE(testing::eventually([&] { return read_one(kPrefix)->age > at_first + milliseconds(50); }));
  EXPECT_TRUE(reaches(kAddress));
  EXPECT_TRUE(testing::eventually([&] { return read_one(kPrefix)->age > milliseconds(300); }));
  const auto before = read_one(kPrefix)->age;
  EXPECT_TRUE(reaches(kAddress));
  EXPECT_LT(read_one(kPrefix)->age, before + milliseconds(1000));
  EXPECT_FALSE(unused(kPrefix));
}

TEST_F(ActivityMeterTest, AnotherRunKnowsWhatWasSeenBefore) {
  watch({prefix(kPrefix), prefix(kOther)});
  EXPECT_TRUE(reaches(kAddress));
  EXPECT_TRUE(testing::eventually([&] { return read_one(kOther)->age > milliseconds(300); }));
  meter_.reset();
  start();
  watch({prefix(kPrefix), prefix(kOther)});
  EXPECT_FALSE(unused(kPrefix));
  EXPECT_TRUE(unused(kOther));
  EXPECT_GT(read_one(kOther)->age, milliseconds(300));
}

TEST_F(ActivityMeterTest, OneThatIsRemovedAndComesBackBeginsAnew) {
  watch({prefix(kPrefix), prefix(kOther)});
  EXPECT_TRUE(reaches(kAddress));
  EXPECT_TRUE(change({}, {prefix(kPrefix)}).ok());
  EXPECT_FALSE(read_one(kPrefix));
  EXPECT_EQ(read().size(), 1U);
  EXPECT_TRUE(reaches(kAddress));
  EXPECT_TRUE(change({prefix(kPrefix)}, {prefix(kOther)}).ok());
  EXPECT_TRUE(unused(kPrefix));
  EXPECT_TRUE(reaches(kAddress));
  EXPECT_FALSE(unused(kPrefix));
}

TEST_F(ActivityMeterTest, WithoutAnyThereIsNoTable) {
  EXPECT_THAT(tables(), Not(HasSubstr("kedge_activity")));
  watch({prefix(kPrefix)});
  EXPECT_THAT(tables(), HasSubstr("kedge_activity"));
  watch({});
  EXPECT_THAT(tables(), Not(HasSubstr("kedge_activity")));
  watch({prefix(kPrefix)});
  ar_->run([] { EXPECT_TRUE(remove_activity_meter().ok()); });
  EXPECT_THAT(tables(), Not(HasSubstr("kedge_activity")));
  ar_->run([] { EXPECT_TRUE(remove_activity_meter().ok()); });
}

TEST_F(ActivityMeterTest, WhatSomebodyHasTakenAwayIsNoticedAndPutRight) {
  watch({prefix(kPrefix)});
  for (const char* command : {"nft flush ruleset", "nft flush chain inet kedge_activity forward"}) {
    ar_->shell(command);
    ar_->run([&] {
      EXPECT_EQ(meter_->read().status().code(), absl::StatusCode::kNotFound) << command;
      EXPECT_EQ(meter_->read(prefix(kPrefix)).status().code(), absl::StatusCode::kNotFound) << command;
    });
    watch({prefix(kPrefix)});
    EXPECT_TRUE(unused(kPrefix));
    EXPECT_TRUE(reaches(kAddress));
    EXPECT_FALSE(unused(kPrefix));
  }
  ar_->shell("nft flush set inet kedge_activity watched");
  EXPECT_TRUE(read().empty());
  watch({prefix(kPrefix)});
  EXPECT_TRUE(unused(kPrefix)) << "what came in between was not seen";
  // Of another make.
  ar_->shell("nft delete table inet kedge_activity");
  ar_->shell("nft 'add table inet kedge_activity; add set inet kedge_activity watched { type ipv4_addr; }'");
  watch({prefix(kPrefix)});
  EXPECT_TRUE(unused(kPrefix));
}

TEST_F(ActivityMeterTest, AnOperatorCanListIt) {
  watch({prefix(kPrefix)});
  EXPECT_TRUE(reaches(kAddress));
  const auto text = ar_->shell("nft list table inet kedge_activity");
  EXPECT_THAT(text, HasSubstr("2001:db8:d:1:: comment"));
  EXPECT_THAT(text, HasSubstr("2001:db8:d:1:: expires"));
}

TEST_F(ActivityMeterTest, ManyAtOnce) {
  std::set<Ipv6Prefix> many;
  for (int i = 0; i < 10'000; ++i) {
    char text[64];
    std::snprintf(text, sizeof text, "2001:db8:d:%x::/64", i);
    many.insert(prefix(text));
  }
  watch(many);
  EXPECT_EQ(read().size(), many.size());
  EXPECT_TRUE(reaches(kAddress));
  EXPECT_FALSE(unused(kPrefix));
  EXPECT_TRUE(unused(kOther));
  watch({prefix(kPrefix)});
  EXPECT_EQ(read().size(), 1U);
  EXPECT_FALSE(unused(kPrefix));
}

// What docs/forwarding.md says of it: --gtest_also_run_disabled_tests --gtest_filter=*Times*
TEST_F(ActivityMeterTest, DISABLED_Times) {
  std::set<Ipv6Prefix> many;
  std::string all;
  for (int i = 0; i < 10'000; ++i) {
    char text[64];
    std::snprintf(text, sizeof text, "2001:db8:d:%x::", i);
    all += std::string(i == 0 ? "" : ", ") + text;
    many.insert(prefix(std::string(text) + "/64"));
  }
  const auto time = [&](const char* what, const std::function<void()>& action) {
    const auto begin = std::chrono::steady_clock::now();
    ar_->run(action);
    const std::chrono::duration<double, std::milli> took = std::chrono::steady_clock::now() - begin;
    std::printf("%s: %.2f ms\n", what, took.count());
  };
  time("replace_all with 10,000", [&] { EXPECT_TRUE(meter_->replace_all(many).ok()); });
  time("read, none used", [&] { EXPECT_EQ(meter_->read()->size(), many.size()); });
  ar_->run([&] { EXPECT_TRUE(Nftables().run("add element inet kedge_activity used { " + all + " }").ok()); });
  for (int i = 0; i < 3; ++i) time("read, all used", [&] { EXPECT_EQ(meter_->read()->size(), many.size()); });
  for (int i = 0; i < 3; ++i) {
    time("read one, 100 times", [&] {
      for (int k = 0; k < 100; ++k) EXPECT_TRUE(meter_->read(prefix(kPrefix))->has_value());
    });
  }
  for (int i = 0; i < 3; ++i) {
    time("one less", [&] { EXPECT_TRUE(meter_->change({}, {prefix(kPrefix)}).ok()); });
    time("one more", [&] { EXPECT_TRUE(meter_->change({prefix(kPrefix)}, {}).ok()); });
  }
  time("replace_all with the same", [&] { EXPECT_TRUE(meter_->replace_all(many).ok()); });
}

TEST(ActivityMeter, RefusesNamesThatCannotBeWritten) {
  EXPECT_EQ(make_activity_meter({{"acc*"}}).status().code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace kedge::speaker
