#include "tests/bench/swarm/flow.h"

#include <gtest/gtest.h>

#include "tests/bench/swarm/clock.h"
#include "tests/tools/flow_packet.h"

namespace kedge::bench {
namespace {

const Ipv6Address kNode = *Ipv6Address::parse("2001:db8:1000:1::11");
const Ipv6Address kPeer = *Ipv6Address::parse("2001:db8:0:4::2");

class FlowTest : public testing::Test {
 protected:
  // What `from` sends at the time; it arrives at `to`.
  void exchange(Flow& from, Flow& to, std::int64_t at) {
    const auto payload = from.next(at);
    EXPECT_TRUE(to.receive(payload, at));
    from.sent(at, 0);
  }

  Flow node_{kNode, kPeer, 9000, 100, 0, 0};
  Flow peer_{kPeer, kNode, 9000, 100, 0, 0};
};

TEST_F(FlowTest, GreetsUntilTheOtherEndIsHeard) {
  node_.next(0);
  node_.sent(0, 0);
  EXPECT_EQ(node_.due_ns(), 100 * kMillisecond);
  EXPECT_TRUE(node_.record(0, 0, 0).sent.empty());
  exchange(peer_, node_, kMillisecond);
  EXPECT_EQ(node_.due_ns(), 11 * kMillisecond);
  node_.next(11 * kMillisecond);
  node_.sent(11 * kMillisecond, 0);
  EXPECT_EQ(node_.record(0, 0, 0).sent.size(), 1u);
}

TEST_F(FlowTest, ItsRecordsMakeAReportOfWhatWasLost) {
  exchange(node_, peer_, 0);
  exchange(peer_, node_, 0);
  for (std::int64_t at = 10; at <= 50; at += 10) exchange(node_, peer_, at * kMillisecond);
  node_.next(60 * kMillisecond);
  node_.sent(60 * kMillisecond, 0);
  exchange(node_, peer_, 70 * kMillisecond);
  const auto report = tools::make_report(peer_.record(kSecond, 0, 0), node_.record(kSecond, 0, 0), {});
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_NE(report->find("\"lost\": 1"), std::string::npos) << *report;
}

TEST_F(FlowTest, GivesUpWhatIsLongOverdue) {
  exchange(peer_, node_, 0);
  node_.next(kSecond);
  node_.sent(kSecond, 0);
  EXPECT_GT(node_.due_ns(), kSecond - 20 * kMillisecond);
  EXPECT_GT(node_.record(0, 0, 0).skipped_slots, 90u);
}

TEST_F(FlowTest, RefusesWhatIsOfNoFlow) {
  EXPECT_FALSE(node_.receive({}, 0));
  // Its own.
  EXPECT_FALSE(node_.receive(node_.next(0), 0));
  EXPECT_FALSE(node_.heard());
}

}  // namespace
}  // namespace kedge::bench
