#include "tests/tools/flow_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cerrno>

namespace kedge::tools {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

EndRecord sample(const std::string& name, std::uint64_t flow, std::uint64_t peer_flow) {
  EndRecord record;
  record.name = name;
  record.local = "2001:db8::1";
  record.remote = "2001:db8::2";
  record.port = 5'000;
  record.rate_pps = 1'000;
  record.size_bytes = 100;
  record.flow = flow;
  record.clock_id = "one";
  record.receiving_from_ns = 0;
  record.receiving_until_ns = 10'000'000'000;
  record.drain_ns = 500'000'000;
  record.sent = {{1'000'000'000, 0}, {1'001'000'000, ENETUNREACH}, {1'002'000'123, 0}};
  record.received = {{peer_flow, {{0, 1'000'200'000}, {2, 1'002'200'000}, {1, 1'002'300'000}, {1, 1'002'300'001}}}};
  record.skipped_slots = 3;
  record.late_sends = 4;
  record.max_send_jitter_ns = 1'234'567;
  record.max_send_call_ns = 89;
  record.local_drops = 5;
  record.rejected = {{"malformed", 2}};
  record.icmp_errors = {{"1/0", 7}};
  record.receive_buffer_bytes = 1'024;
  record.realtime_scheduling = true;
  return record;
}

TEST(FlowFileTest, ReadsWhatItWrote) {
  const EndRecord record = sample("a \"quoted\"\\name", 0xfedcba9876543210, 2);
  const auto read = decode_end_record(encode_end_record(record));
  ASSERT_TRUE(read.ok()) << read.status().ToString();
  EXPECT_EQ(read->name, record.name);
  EXPECT_EQ(read->flow, record.flow);
  EXPECT_EQ(read->drain_ns, record.drain_ns);
  EXPECT_EQ(read->max_send_jitter_ns, record.max_send_jitter_ns);
  EXPECT_EQ(read->max_send_call_ns, record.max_send_call_ns);
  EXPECT_EQ(read->rejected, record.rejected);
  EXPECT_EQ(read->icmp_errors, record.icmp_errors);
  EXPECT_EQ(read->realtime_scheduling, true);
  ASSERT_EQ(read->sent.size(), 3u);
  EXPECT_EQ(read->sent[1].error, ENETUNREACH);
  EXPECT_EQ(read->sent[2].sent_ns, 1'002'000'123);
  ASSERT_EQ(read->received.size(), 1u);
  ASSERT_EQ(read->received[0].packets.size(), 4u);
  EXPECT_EQ(read->received[0].packets[2].sequence, 1u);
  EXPECT_EQ(read->received[0].packets[3].received_ns, 1'002'300'001);
  EXPECT_EQ(encode_end_record(*read), encode_end_record(record));
}

TEST(FlowFileTest, KeepsThatIcmpErrorsCouldNotBeCounted) {
  EndRecord record = sample("a", 1, 2);
  record.icmp_errors.reset();
  const auto read = decode_end_record(encode_end_record(record));
  ASSERT_TRUE(read.ok()) << read.status().ToString();
  EXPECT_FALSE(read->icmp_errors);
}

TEST(FlowFileTest, RefusesWhatIsNoFileOfAnEnd) {
  const std::string good = encode_end_record(sample("a", 1, 2));
  EXPECT_FALSE(decode_end_record("").ok());
  EXPECT_FALSE(decode_end_record("{}").ok());
  EXPECT_FALSE(decode_end_record(good.substr(0, good.size() / 2)).ok());
  std::string wrong = good;
  wrong.replace(wrong.find("\"packets_sent\": 3"), 17, "\"packets_sent\": 4");
  EXPECT_THAT(std::string(decode_end_record(wrong).status().message()), HasSubstr("disagree"));
}

TEST(FlowFileTest, ReportsEachDirectionFromItsSenderAndItsReceiver) {
  EndRecord b = sample("b", 2, 1);
  b.received[0].packets = {{0, 1'000'200'000}};
  const auto report = make_report(sample("a", 1, 2), b, {});
  ASSERT_TRUE(report.ok()) << report.status().ToString();
  const std::string forward = report->substr(report->find("\"a_to_b\""), report->find("\"b_to_a\""));
  EXPECT_THAT(forward, HasSubstr("\"lost\": 2,"));
  const std::string backward = report->substr(report->find("\"b_to_a\""));
  EXPECT_THAT(backward, HasSubstr("\"lost\": 0,"));
  EXPECT_THAT(backward, HasSubstr("\"reordered\": 1,"));
  EXPECT_THAT(backward, HasSubstr("\"duplicated\": 1,"));
}

TEST(FlowFileTest, CutsLongListsOfLossesAndSaysSo) {
  EndRecord b = sample("b", 2, 1);
  b.received[0].packets = {{1, 1'000'200'000}};
  ReportOptions options;
  options.max_losses = 1;
  const auto report = make_report(sample("a", 1, 2), b, options);
  ASSERT_TRUE(report.ok());
  EXPECT_THAT(*report, HasSubstr("\"losses_truncated\": true"));
  EXPECT_THAT(*report, HasSubstr("\"lost\": 2,"));
}

TEST(FlowFileTest, GivesNoDelaysBetweenTwoClocks) {
  EndRecord b = sample("b", 2, 1);
  b.clock_id = "two";
  const auto report = make_report(sample("a", 1, 2), b, {});
  ASSERT_TRUE(report.ok());
  EXPECT_THAT(*report, HasSubstr("\"shared_clock\": false"));
  EXPECT_THAT(*report, HasSubstr("\"delay_ms\": null"));
  EXPECT_THAT(*report, Not(HasSubstr("\"median\"")));
}

TEST(FlowFileTest, RefusesFilesOfDifferentRuns) {
  EXPECT_FALSE(make_report(sample("a", 1, 2), sample("a", 1, 2), {}).ok());
  EXPECT_FALSE(make_report(sample("a", 1, 3), sample("b", 2, 4), {}).ok());
}

}  // namespace
}  // namespace kedge::tools
