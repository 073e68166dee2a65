#include "tests/tools/flow_account.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <numeric>

namespace kedge::tools {
namespace {

using ::testing::IsEmpty;
using ::testing::SizeIs;

constexpr std::int64_t kMs = 1'000'000;
constexpr std::int64_t kStart = 1'000'000'000;

// One packet a millisecond.
std::vector<SentPacket> sent_packets(std::uint64_t count) {
  std::vector<SentPacket> sent;
  for (std::uint64_t i = 0; i < count; ++i) sent.push_back({kStart + static_cast<std::int64_t>(i) * kMs, 0});
  return sent;
}

// Each arrives 200 us after it was sent.
std::vector<ReceivedPacket> arrivals(const std::vector<SentPacket>& sent, const std::vector<std::uint64_t>& sequences) {
  std::vector<ReceivedPacket> received;
  for (const std::uint64_t sequence : sequences) received.push_back({sequence, sent[sequence].sent_ns + 200'000});
  return received;
}

std::vector<std::uint64_t> range(std::uint64_t begin, std::uint64_t end) {
  std::vector<std::uint64_t> sequences(end - begin);
  std::iota(sequences.begin(), sequences.end(), begin);
  return sequences;
}

std::vector<std::uint64_t> all_but(std::uint64_t count, std::uint64_t first, std::uint64_t last) {
  std::vector<std::uint64_t> sequences = range(0, first);
  for (std::uint64_t sequence = last + 1; sequence < count; ++sequence) sequences.push_back(sequence);
  return sequences;
}

TEST(FlowAccountTest, CountsNothingWhereAllArrived) {
  const auto sent = sent_packets(1'000);
  const auto figures = account_direction(sent, arrivals(sent, range(0, 1'000)), {});
  EXPECT_EQ(figures.sent, 1'000u);
  EXPECT_EQ(figures.received, 1'000u);
  EXPECT_EQ(figures.lost, 0u);
  EXPECT_EQ(figures.duplicated, 0u);
  EXPECT_EQ(figures.reordered, 0u);
  EXPECT_EQ(figures.longest_loss_run, 0u);
  EXPECT_THAT(figures.losses, IsEmpty());
  ASSERT_TRUE(figures.longest_gap);
  EXPECT_EQ(figures.longest_gap->length_ns, kMs);
  EXPECT_EQ(figures.longest_send_gap_ns, kMs);
}

TEST(FlowAccountTest, HasNoFiguresWithoutPackets) {
  const auto figures = account_direction({}, {}, {});
  EXPECT_EQ(figures.sent, 0u);
  EXPECT_EQ(figures.lost, 0u);
  EXPECT_FALSE(figures.longest_gap);
  EXPECT_FALSE(figures.first_sent_ns);
}

TEST(FlowAccountTest, ReportsEachRunOfLosses) {
  const auto sent = sent_packets(10);
  const auto figures = account_direction(sent, arrivals(sent, {0, 1, 4, 5, 6, 8, 9}), {});
  EXPECT_EQ(figures.lost, 3u);
  ASSERT_THAT(figures.losses, SizeIs(2));
  EXPECT_EQ(figures.losses[0].first_sequence, 2u);
  EXPECT_EQ(figures.losses[0].last_sequence, 3u);
  EXPECT_EQ(figures.losses[0].count(), 2u);
  EXPECT_EQ(figures.losses[0].first_sent_ns, kStart + 2 * kMs);
  EXPECT_EQ(figures.losses[0].last_sent_ns, kStart + 3 * kMs);
  EXPECT_EQ(figures.losses[1].first_sequence, 7u);
  EXPECT_EQ(figures.losses[1].count(), 1u);
  EXPECT_EQ(figures.longest_loss_run, 2u);
}

TEST(FlowAccountTest, MeasuresTheGapAtTheReceiver) {
  const auto sent = sent_packets(100);
  auto received = arrivals(sent, all_but(100, 40, 59));
  // The first packets after the gap were held up for up to 5 ms more.
  for (std::size_t i = 40; i < 45; ++i) received[i].received_ns = received[45].received_ns;
  const auto figures = account_direction(sent, received, {});
  ASSERT_TRUE(figures.longest_gap);
  EXPECT_EQ(figures.longest_gap->length_ns, 26 * kMs);
  EXPECT_EQ(figures.longest_gap->after_sequence, 39u);
  EXPECT_EQ(figures.longest_gap->before_sequence, 60u);
  EXPECT_EQ(figures.longest_gap->at_sent_ns, kStart + 39 * kMs);
  EXPECT_EQ(figures.longest_gap->send_gap_ns, kMs);
}

TEST(FlowAccountTest, ShowsThatAGapIsTheSendersOwn) {
  auto sent = sent_packets(100);
  for (std::size_t i = 50; i < sent.size(); ++i) sent[i].sent_ns += 30 * kMs;
  const auto figures = account_direction(sent, arrivals(sent, range(0, 100)), {});
  ASSERT_TRUE(figures.longest_gap);
  EXPECT_EQ(figures.longest_gap->length_ns, 31 * kMs);
  EXPECT_EQ(figures.longest_gap->send_gap_ns, 31 * kMs);
  EXPECT_EQ(figures.longest_send_gap_ns, 31 * kMs);
  EXPECT_EQ(figures.lost, 0u);
}

TEST(FlowAccountTest, SeesADelayWithoutLossAsAGap) {
  const auto sent = sent_packets(100);
  auto received = arrivals(sent, range(0, 100));
  for (std::size_t i = 30; i < 50; ++i) received[i].received_ns = sent[50].sent_ns;
  const auto figures = account_direction(sent, received, {});
  EXPECT_EQ(figures.lost, 0u);
  EXPECT_EQ(figures.longest_gap->length_ns, sent[50].sent_ns - received[29].received_ns);
}

TEST(FlowAccountTest, MeasuresLossesAtTheEdgesBySendTimes) {
  const auto sent = sent_packets(100);
  const auto late_start = account_direction(sent, arrivals(sent, range(30, 100)), {});
  EXPECT_EQ(late_start.longest_gap->length_ns, 30 * kMs);
  EXPECT_FALSE(late_start.longest_gap->after_sequence);
  EXPECT_EQ(late_start.longest_gap->before_sequence, 30u);

  const auto early_end = account_direction(sent, arrivals(sent, range(0, 60)), {});
  EXPECT_EQ(early_end.longest_gap->length_ns, 40 * kMs);
  EXPECT_EQ(early_end.longest_gap->after_sequence, 59u);
  EXPECT_FALSE(early_end.longest_gap->before_sequence);

  const auto nothing = account_direction(sent, {}, {});
  EXPECT_EQ(nothing.lost, 100u);
  EXPECT_EQ(nothing.longest_loss_run, 100u);
  EXPECT_EQ(nothing.longest_gap->length_ns, 99 * kMs);
}

TEST(FlowAccountTest, CountsCopiesAsDuplicatesOnly) {
  const auto sent = sent_packets(5);
  const auto figures = account_direction(sent, arrivals(sent, {0, 1, 1, 1, 2, 4, 0}), {});
  EXPECT_EQ(figures.received, 4u);
  EXPECT_EQ(figures.lost, 1u);
  EXPECT_EQ(figures.duplicated, 3u);
  EXPECT_EQ(figures.reordered, 0u);
}

TEST(FlowAccountTest, CountsReorderedPacketsAsRfc4737Does) {
  const auto sent = sent_packets(10);
  // RFC 4737, 3.3: one late packet is one reordered packet, whatever number overtook it ...
  EXPECT_EQ(account_direction(sent, arrivals(sent, {0, 1, 3, 4, 5, 2, 6}), {}).reordered, 1u);
  // ... and one early packet makes all that it overtook reordered.
  EXPECT_EQ(account_direction(sent, arrivals(sent, {0, 1, 5, 2, 3, 4, 6}), {}).reordered, 3u);
  // A loss is no reordering.
  EXPECT_EQ(account_direction(sent, arrivals(sent, {0, 2, 4, 9}), {}).reordered, 0u);
}

TEST(FlowAccountTest, TakesPacketsOfTheWindowBySendTime) {
  const auto sent = sent_packets(100);
  AccountOptions options;
  options.from_ns = kStart + 20 * kMs;
  options.to_ns = kStart + 50 * kMs;
  const auto figures = account_direction(sent, arrivals(sent, all_but(100, 45, 59)), options);
  EXPECT_EQ(figures.sent, 30u);
  EXPECT_EQ(figures.received, 25u);
  EXPECT_EQ(figures.lost, 5u);
  ASSERT_THAT(figures.losses, SizeIs(1));
  EXPECT_EQ(figures.losses[0].first_sequence, 45u);
  EXPECT_EQ(figures.losses[0].last_sequence, 49u);
  EXPECT_EQ(figures.first_sent_ns, kStart + 20 * kMs);
  EXPECT_EQ(figures.last_sent_ns, kStart + 49 * kMs);
  EXPECT_EQ(figures.longest_gap->length_ns, 5 * kMs);
}

TEST(FlowAccountTest, WindowsAddUpToTheWhole) {
  const auto sent = sent_packets(100);
  const auto received = arrivals(sent, all_but(100, 33, 71));
  const auto whole = account_direction(sent, received, {});
  std::uint64_t count = 0;
  std::uint64_t lost = 0;
  for (std::int64_t begin = 0; begin < 100; begin += 10) {
    AccountOptions options;
    options.from_ns = kStart + begin * kMs;
    options.to_ns = kStart + (begin + 10) * kMs;
    const auto figures = account_direction(sent, received, options);
    count += figures.sent;
    lost += figures.lost;
  }
  EXPECT_EQ(count, whole.sent);
  EXPECT_EQ(lost, whole.lost);
  EXPECT_EQ(lost, 39u);
}

TEST(FlowAccountTest, CountsReorderingAcrossTheEdgeOfTheWindow) {
  const auto sent = sent_packets(10);
  AccountOptions options;
  options.to_ns = kStart + 5 * kMs;
  const auto figures = account_direction(sent, arrivals(sent, {0, 1, 2, 3, 7, 4, 5, 6, 8, 9}), options);
  EXPECT_EQ(figures.sent, 5u);
  EXPECT_EQ(figures.reordered, 1u);
}

TEST(FlowAccountTest, HasNoFiguresForAWindowOutsideTheFlow) {
  const auto sent = sent_packets(10);
  AccountOptions options;
  options.from_ns = kStart + 1'000 * kMs;
  const auto figures = account_direction(sent, arrivals(sent, range(0, 10)), options);
  EXPECT_EQ(figures.sent, 0u);
  EXPECT_EQ(figures.received, 0u);
  EXPECT_EQ(figures.lost, 0u);
  EXPECT_FALSE(figures.longest_gap);
}

TEST(FlowAccountTest, JudgesNothingWhileTheReceiverWasAway) {
  const auto sent = sent_packets(100);
  AccountOptions options;
  options.judged_from_ns = kStart + 10 * kMs;
  options.judged_until_ns = kStart + 79 * kMs;
  const auto figures = account_direction(sent, arrivals(sent, range(10, 85)), options);
  EXPECT_EQ(figures.sent, 70u);
  EXPECT_EQ(figures.received, 70u);
  EXPECT_EQ(figures.lost, 0u);
  EXPECT_EQ(figures.not_judged, 30u);
}

TEST(FlowAccountTest, CountsRefusedPacketsAsSentAndLost) {
  auto sent = sent_packets(10);
  sent[3].error = 101;
  sent[4].error = 101;
  const auto figures = account_direction(sent, arrivals(sent, all_but(10, 3, 4)), {});
  EXPECT_EQ(figures.sent, 10u);
  EXPECT_EQ(figures.send_failed, 2u);
  EXPECT_EQ(figures.lost, 2u);
}

TEST(FlowAccountTest, KeepsNumbersThatWereNeverSentApart) {
  const auto sent = sent_packets(3);
  const auto figures = account_direction(sent, {{0, kStart}, {1, kStart}, {2, kStart}, {3, kStart}}, {});
  EXPECT_EQ(figures.received, 3u);
  EXPECT_EQ(figures.impossible, 1u);
}

TEST(FlowAccountTest, GivesDelaysOnlyWithASharedClock) {
  const auto sent = sent_packets(5);
  auto received = arrivals(sent, range(0, 5));
  received[4].received_ns += 7 * kMs;
  EXPECT_FALSE(account_direction(sent, received, {}).delay);
  AccountOptions options;
  options.shared_clock = true;
  const auto figures = account_direction(sent, received, options);
  ASSERT_TRUE(figures.delay);
  EXPECT_EQ(figures.delay->min_ns, 200'000);
  EXPECT_EQ(figures.delay->median_ns, 200'000);
  EXPECT_EQ(figures.delay->max_ns, 7 * kMs + 200'000);
}

}  // namespace
}  // namespace kedge::tools
