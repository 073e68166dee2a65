#include "speaker/frr/vty_client.h"

#include <stdlib.h>

#include <chrono>
#include <filesystem>
#include <string>
#include <thread>

#include "boost/asio/io_context.hpp"
#include "boost/asio/local/stream_protocol.hpp"
#include "boost/asio/write.hpp"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace kedge::speaker {
namespace {

using boost::asio::local::stream_protocol;
using namespace std::chrono_literals;
using namespace std::string_literals;

TEST(VtyDecoder, ReadsAReplyHoweverItIsSplit) {
  const std::string bytes = "{ \"a\": 1 }\n\0\0\0\1"s;
  for (std::size_t cut = 0; cut < bytes.size(); ++cut) {
    VtyDecoder decoder(100);
    const auto first = decoder.feed(bytes.substr(0, cut));
    ASSERT_TRUE(first.ok());
    EXPECT_FALSE(first->has_value()) << cut;
    const auto second = decoder.feed(bytes.substr(cut));
    ASSERT_TRUE(second.ok());
    ASSERT_TRUE(second->has_value()) << cut;
    EXPECT_EQ((*second)->text, "{ \"a\": 1 }\n");
    EXPECT_EQ((*second)->status, 1);
  }
}

TEST(VtyDecoder, TakesAnEmptyReplyAndAStatusOfZero) {
  VtyDecoder decoder(100);
  const auto reply = decoder.feed("\0\0\0\0"s);
  ASSERT_TRUE(reply.ok());
  ASSERT_TRUE(reply->has_value());
  EXPECT_EQ((*reply)->text, "");
  EXPECT_EQ((*reply)->status, 0);
}

TEST(VtyDecoder, RefusesGarbageAndWhatIsTooLarge) {
  EXPECT_EQ(VtyDecoder(100).feed("text\0more"s).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(VtyDecoder(100).feed("\0\0\0\0text"s).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_TRUE(VtyDecoder(100).feed(std::string(100, 'x')).ok());
  EXPECT_EQ(VtyDecoder(100).feed(std::string(101, 'x')).status().code(), absl::StatusCode::kResourceExhausted);
}

class VtyClientTest : public testing::Test {
 protected:
  VtyClientTest() {
    char name[] = "/tmp/vty_client_test.XXXXXX";
    directory_ = ::mkdtemp(name);
  }
  ~VtyClientTest() override { std::filesystem::remove_all(directory_); }

  void listen() {
    std::filesystem::remove(directory_ + "/bgpd.vty");
    acceptor_.emplace(context_, stream_protocol::endpoint(directory_ + "/bgpd.vty"));
    accept();
  }

  void accept() {
    acceptor_->async_accept([this](const boost::system::error_code& error, stream_protocol::socket socket) {
      if (error) return;
      ++connections_;
      peer_.emplace(std::move(socket));
      read();
      accept();
    });
  }

  void read() {
    peer_->async_read_some(boost::asio::buffer(buffer_), [this](const boost::system::error_code& error, std::size_t n) {
      if (error) return;
      received_.append(buffer_.data(), n);
      if (received_.back() == '\0' && !reply_.empty()) boost::asio::write(*peer_, boost::asio::buffer(reply_));
      read();
    });
  }

  template <typename Condition>
  bool wait_for(Condition condition) {
    const auto end = std::chrono::steady_clock::now() + 20s;
    while (!condition() && std::chrono::steady_clock::now() < end) {
      context_.restart();
      context_.run_one_for(50ms);
    }
    return condition();
  }

  absl::StatusOr<VtyReply> ask(VtyClient& client, const std::string& command) {
    std::optional<absl::StatusOr<VtyReply>> answer;
    client.ask(command, [&answer](absl::StatusOr<VtyReply> reply) { answer = std::move(reply); });
    EXPECT_FALSE(answer.has_value());
    EXPECT_TRUE(wait_for([&answer] { return answer.has_value(); }));
    return *answer;
  }

  std::string directory_;
  boost::asio::io_context context_;
  std::optional<stream_protocol::acceptor> acceptor_;
  std::optional<stream_protocol::socket> peer_;
  std::array<char, 1000> buffer_{};
  std::string received_;
  std::string reply_;
  int connections_ = 0;
};

TEST_F(VtyClientTest, KeepsItsConnectionAndMakesANewOneWhenItEnds) {
  listen();
  reply_ = "hello\0\0\0\0"s;
  auto client = make_vty_client(context_.get_executor(), directory_, "bgpd");
  bool closed = false;
  client->on_closed = [&closed] { closed = true; };
  ASSERT_EQ(ask(*client, "show version")->text, "hello");
  ASSERT_EQ(ask(*client, "show clock")->text, "hello");
  EXPECT_EQ(received_, "show version\0show clock\0"s);
  EXPECT_EQ(connections_, 1);

  peer_.reset();
  ASSERT_TRUE(wait_for([&closed] { return closed; }));
  EXPECT_EQ(ask(*client, "show version")->text, "hello");
  EXPECT_EQ(connections_, 2);
}

TEST_F(VtyClientTest, SaysWhatToDoWithoutADaemon) {
  auto client = make_vty_client(context_.get_executor(), directory_, "bgpd");
  const auto missing = ask(*client, "show version").status();
  EXPECT_EQ(missing.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(missing.message()),
              testing::AllOf(testing::HasSubstr("bgpd.vty"), testing::HasSubstr("start it")));

  listen();
  acceptor_.reset();
  EXPECT_EQ(ask(*client, "show version").status().code(), absl::StatusCode::kUnavailable);

  listen();
  reply_ = "hello\0\0\0\0"s;
  EXPECT_TRUE(ask(*client, "show version").ok());
}

TEST_F(VtyClientTest, GivesUpAConnectionThatSpeaksNonsense) {
  listen();
  reply_ = "a\0b"s;
  auto client = make_vty_client(context_.get_executor(), directory_, "bgpd");
  EXPECT_EQ(ask(*client, "show version").status().code(), absl::StatusCode::kInvalidArgument);
  reply_ = "hello\0\0\0\0"s;
  EXPECT_TRUE(ask(*client, "show version").ok());
  EXPECT_EQ(connections_, 2);
}

TEST_F(VtyClientTest, IsAnsweredWhenTheDaemonEndsDuringACommand) {
  listen();
  auto client = make_vty_client(context_.get_executor(), directory_, "bgpd");
  std::optional<absl::StatusOr<VtyReply>> answer;
  client->ask("show version", [&answer](absl::StatusOr<VtyReply> reply) { answer = std::move(reply); });
  ASSERT_TRUE(wait_for([this] { return !received_.empty(); }));
  peer_.reset();
  ASSERT_TRUE(wait_for([&answer] { return answer.has_value(); }));
  EXPECT_EQ(answer->status().code(), absl::StatusCode::kUnavailable);
}

}  // namespace
}  // namespace kedge::speaker
