#include "speaker/frr/vty_client.h"

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "boost/asio/io_context.hpp"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/unit/speaker/frr/fake_vty.h"

namespace kedge::speaker {
namespace {

using namespace std::string_literals;

TEST(VtyDecoder, ReadsAReplyHoweverItIsSplit) {
  const std::string bytes = "{ \"a\": 1 }\n\0\0\0\1"s;
  for (std::size_t cut = 0; cut < bytes.size(); ++cut) {
    VtyDecoder decoder(100);
    const auto first = decoder.feed(bytes.substr(0, cut));
    ASSERT_TRUE(first.ok());
    EXPECT_TRUE(first->empty()) << cut;
    const auto second = decoder.feed(bytes.substr(cut));
    ASSERT_TRUE(second.ok());
    ASSERT_EQ(second->size(), 1u) << cut;
    EXPECT_EQ(second->front().text, "{ \"a\": 1 }\n");
    EXPECT_EQ(second->front().status, 1);
  }
}

TEST(VtyDecoder, TakesAnEmptyReplyAndAStatusOfZero) {
  VtyDecoder decoder(100);
  const auto reply = decoder.feed("\0\0\0\0"s);
  ASSERT_TRUE(reply.ok());
  ASSERT_EQ(reply->size(), 1u);
  EXPECT_EQ(reply->front().text, "");
  EXPECT_EQ(reply->front().status, 0);
}

TEST(VtyDecoder, ReadsRepliesThatComeTogether) {
  VtyDecoder decoder(100);
  const auto replies = decoder.feed("one\0\0\0\0two\0\0\0\1thr"s);
  ASSERT_TRUE(replies.ok());
  ASSERT_EQ(replies->size(), 2u);
  EXPECT_EQ((*replies)[0].text, "one");
  EXPECT_EQ((*replies)[1].text, "two");
  EXPECT_EQ((*replies)[1].status, 1);
  const auto rest = decoder.feed("ee\0\0\0\0"s);
  ASSERT_TRUE(rest.ok());
  ASSERT_EQ(rest->size(), 1u);
  EXPECT_EQ(rest->front().text, "three");
}

TEST(VtyDecoder, RefusesGarbageAndWhatIsTooLarge) {
  EXPECT_EQ(VtyDecoder(100).feed("text\0more"s).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_TRUE(VtyDecoder(100).feed(std::string(100, 'x')).ok());
  EXPECT_EQ(VtyDecoder(100).feed(std::string(101, 'x')).status().code(), absl::StatusCode::kResourceExhausted);
}

class VtyClientTest : public testing::Test {
 protected:
  // Whatever is asked.
  void answer(const std::string& bytes) {
    vty_.reply = [bytes](const std::string&) { return bytes; };
  }

  absl::StatusOr<VtyReply> ask(VtyClient& client, const std::string& command) {
    std::optional<absl::StatusOr<VtyReply>> answer;
    client.ask(command, [&answer](absl::StatusOr<VtyReply> reply) { answer = std::move(reply); });
    EXPECT_FALSE(answer.has_value());
    EXPECT_TRUE(run_until(context_, [&answer] { return answer.has_value(); }));
    return *answer;
  }

  boost::asio::io_context context_;
  FakeVty vty_{context_, "bgpd"};
};

TEST_F(VtyClientTest, KeepsItsConnectionAndMakesANewOneWhenItEnds) {
  vty_.listen();
  answer("hello\0\0\0\0"s);
  auto client = make_vty_client(context_.get_executor(), vty_.directory(), "bgpd");
  bool closed = false;
  client->on_closed = [&closed] { closed = true; };
  ASSERT_EQ(ask(*client, "show version")->text, "hello");
  ASSERT_EQ(ask(*client, "show clock")->text, "hello");
  EXPECT_EQ(vty_.received, "show version\0show clock\0"s);
  EXPECT_EQ(vty_.connections, 1);

  vty_.close_connection();
  ASSERT_TRUE(run_until(context_, [&closed] { return closed; }));
  EXPECT_EQ(ask(*client, "show version")->text, "hello");
  EXPECT_EQ(vty_.connections, 2);
}

TEST_F(VtyClientTest, SaysWhatToDoWithoutADaemon) {
  auto client = make_vty_client(context_.get_executor(), vty_.directory(), "bgpd");
  const auto missing = ask(*client, "show version").status();
  EXPECT_EQ(missing.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(missing.message()),
              testing::AllOf(testing::HasSubstr("bgpd.vty"), testing::HasSubstr("start it")));

  vty_.listen();
  vty_.stop_listening();
  EXPECT_EQ(ask(*client, "show version").status().code(), absl::StatusCode::kUnavailable);

  vty_.listen();
  answer("hello\0\0\0\0"s);
  EXPECT_TRUE(ask(*client, "show version").ok());
}

TEST_F(VtyClientTest, GivesUpAConnectionThatSpeaksNonsense) {
  vty_.listen();
  answer("a\0b"s);
  auto client = make_vty_client(context_.get_executor(), vty_.directory(), "bgpd");
  EXPECT_EQ(ask(*client, "show version").status().code(), absl::StatusCode::kInvalidArgument);
  answer("hello\0\0\0\0"s);
  EXPECT_TRUE(ask(*client, "show version").ok());
  EXPECT_EQ(vty_.connections, 2);
}

TEST_F(VtyClientTest, AnswersSeveralCommandsInTheirOrder) {
  vty_.listen();
  vty_.reply = [](const std::string& command) { return "to " + command + "\0\0\0\0"s; };
  auto client = make_vty_client(context_.get_executor(), vty_.directory(), "bgpd");
  std::vector<std::string> answers;
  const auto note = [&answers](absl::StatusOr<VtyReply> reply) { answers.push_back(reply.ok() ? reply->text : "?"); };
  for (const auto* command : {"a", "b", "c"}) client->ask(command, note);
  EXPECT_TRUE(answers.empty());
  ASSERT_TRUE(run_until(context_, [&] { return answers.size() == 3; }));
  EXPECT_THAT(answers, testing::ElementsAre("to a", "to b", "to c"));
  EXPECT_EQ(vty_.connections, 1);
}

TEST_F(VtyClientTest, RefusesMoreRepliesThanCommands) {
  vty_.listen();
  answer("hello\0\0\0\0and\0\0\0\0"s);
  auto client = make_vty_client(context_.get_executor(), vty_.directory(), "bgpd");
  bool closed = false;
  client->on_closed = [&closed] { closed = true; };
  EXPECT_EQ(ask(*client, "show version")->text, "hello");
  EXPECT_TRUE(run_until(context_, [&closed] { return closed; }));
}

TEST_F(VtyClientTest, IsAnsweredWhenTheDaemonEndsDuringACommand) {
  vty_.listen();
  auto client = make_vty_client(context_.get_executor(), vty_.directory(), "bgpd");
  std::optional<absl::StatusOr<VtyReply>> answer;
  std::optional<absl::StatusOr<VtyReply>> second;
  client->ask("show version", [&answer](absl::StatusOr<VtyReply> reply) { answer = std::move(reply); });
  client->ask("show clock", [&second](absl::StatusOr<VtyReply> reply) { second = std::move(reply); });
  ASSERT_TRUE(run_until(context_, [this] { return !vty_.received.empty(); }));
  vty_.close_connection();
  ASSERT_TRUE(run_until(context_, [&answer] { return answer.has_value(); }));
  EXPECT_EQ(answer->status().code(), absl::StatusCode::kUnavailable);
  ASSERT_TRUE(second.has_value());
  EXPECT_EQ(second->status().code(), absl::StatusCode::kUnavailable);
}

}  // namespace
}  // namespace kedge::speaker
