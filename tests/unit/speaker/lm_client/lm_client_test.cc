// The client against a scripted LM behind real gRPC.
#include "speaker/lm_client/lm_client.h"

#include <chrono>
#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "boost/asio/io_context.hpp"
#include "gmock/gmock.h"
#include "grpcpp/create_channel.h"
#include "grpcpp/security/credentials.h"
#include "grpcpp/security/server_credentials.h"
#include "grpcpp/server_builder.h"
#include "gtest/gtest.h"
#include "kedge/v1/mobility.grpc.pb.h"

namespace kedge::speaker {
namespace {

using testing::ElementsAre;

constexpr auto kPatience = std::chrono::seconds(20);

// Notes what comes by the sessions, and sends what the test says.
class ScriptedLm : public v1::Mobility::Service {
 public:
  using Stream = grpc::ServerReaderWriter<v1::LmMessage, v1::SpeakerMessage>;

  grpc::Status Session(grpc::ServerContext*, Stream* stream) override {
    std::unique_lock lock(mutex_);
    stream_ = stream;
    const int number = ++sessions_;
    lock.unlock();
    v1::SpeakerMessage message;
    while (stream->Read(&message)) {
      lock.lock();
      received_.emplace_back(number, message);
      changed_.notify_all();
      lock.unlock();
    }
    lock.lock();
    if (sessions_ == number) stream_ = nullptr;
    return grpc::Status::OK;
  }

  void send(const v1::LmMessage& message) {
    std::lock_guard lock(mutex_);
    if (stream_ != nullptr) stream_->Write(message);
  }
  // What has come of this session so far, Hello included.
  std::vector<v1::SpeakerMessage> received(int session) {
    std::lock_guard lock(mutex_);
    std::vector<v1::SpeakerMessage> found;
    for (const auto& [number, message] : received_) {
      if (number == session) found.push_back(message);
    }
    return found;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  Stream* stream_ = nullptr;
  int sessions_ = 0;
  std::vector<std::pair<int, v1::SpeakerMessage>> received_;
};

v1::Record record(const std::string& prefix) {
  v1::Record record;
  record.mutable_binding()->set_prefix(prefix);
  return record;
}

v1::LmMessage together(const std::vector<std::string>& records) {
  v1::LmMessage message;
  for (const auto& one : records) message.mutable_records()->add_records(one);
  return message;
}

v1::Ack ack(const std::string& prefix) {
  v1::Ack ack;
  ack.set_prefix(prefix);
  ack.set_stage(v1::STAGE_DELIVERING);
  return ack;
}

class LmClientTest : public testing::Test {
 protected:
  LmClientTest() {
    grpc::ServerBuilder builder;
    int port = 0;
    builder.AddListeningPort("[::1]:0", grpc::InsecureServerCredentials(), &port);
    builder.RegisterService(&lm_);
    server_ = builder.BuildAndStart();
    client_ = make_lm_client(io_.get_executor(),
                             grpc::CreateChannel("[::1]:" + std::to_string(port), grpc::InsecureChannelCredentials()),
                             {"ar1", 1, "test"});
    client_->on_connection = [this](const absl::Status& status) { connected_ = status.ok(); };
    client_->on_snapshot = [this](const LmClient::Snapshot& snapshot) {
      ++snapshots_;
      for (const auto& binding : snapshot.bindings) in_snapshot_.push_back(binding.prefix());
    };
    client_->on_record = [this](const v1::Record& record) { records_.push_back(record.binding().prefix()); };
    client_->start();
  }
  ~LmClientTest() override {
    client_->stop();
    server_->Shutdown(std::chrono::system_clock::now());
    io_.run_for(std::chrono::milliseconds(10));
  }

  void run_until(const std::function<bool()>& done) {
    const auto deadline = std::chrono::steady_clock::now() + kPatience;
    while (!done()) {
      ASSERT_LT(std::chrono::steady_clock::now(), deadline);
      io_.run_one_for(std::chrono::milliseconds(5));
      io_.restart();
    }
  }
  // Of the session with this number: the speaker has said Hello.
  void greet(int session, bool takes_acks, const std::vector<std::string>& snapshot = {}) {
    run_until([&] { return !lm_.received(session).empty(); });
    v1::LmMessage welcome;
    welcome.mutable_welcome()->set_takes_acks(takes_acks);
    lm_.send(welcome);
    if (!snapshot.empty()) lm_.send(together(snapshot));
    v1::LmMessage end;
    end.mutable_snapshot_end();
    lm_.send(end);
    run_until([&] { return snapshots_ == session; });
  }
  // Prefixes of the acknowledgements of each message.
  std::vector<std::vector<std::string>> acks(int session) {
    std::vector<std::vector<std::string>> found;
    for (const auto& message : lm_.received(session)) {
      if (message.has_ack()) found.push_back({message.ack().prefix()});
      if (!message.has_acks()) continue;
      found.emplace_back();
      for (const auto& one : message.acks().acks()) found.back().push_back(one.prefix());
    }
    return found;
  }

  ScriptedLm lm_;
  std::unique_ptr<grpc::Server> server_;
  boost::asio::io_context io_{1};
  std::unique_ptr<LmClient> client_;
  bool connected_ = false;
  int snapshots_ = 0;
  std::vector<std::string> in_snapshot_;
  std::vector<std::string> records_;
};

TEST_F(LmClientTest, TakesRecordsTogetherInTheSnapshotAndAfterIt) {
  greet(1, true, {record("2001:db8::/64").SerializeAsString(), record("2001:db8:0:1::/64").SerializeAsString()});
  EXPECT_TRUE(lm_.received(1).front().hello().takes_records());
  EXPECT_THAT(in_snapshot_, ElementsAre("2001:db8::/64", "2001:db8:0:1::/64"));
  lm_.send(
      together({record("2001:db8:0:2::/64").SerializeAsString(), record("2001:db8:0:3::/64").SerializeAsString()}));
  run_until([&] { return records_.size() == 2; });
  EXPECT_THAT(records_, ElementsAre("2001:db8:0:2::/64", "2001:db8:0:3::/64"));
}

TEST_F(LmClientTest, AcknowledgementsOfOneTurnGoTogether) {
  greet(1, true);
  client_->ack(ack("2001:db8::/64"));
  client_->ack(ack("2001:db8:0:1::/64"));
  run_until([&] { return !acks(1).empty(); });
  client_->ack(ack("2001:db8:0:2::/64"));
  run_until([&] { return acks(1).size() == 2; });
  EXPECT_THAT(acks(1),
              ElementsAre(ElementsAre("2001:db8::/64", "2001:db8:0:1::/64"), ElementsAre("2001:db8:0:2::/64")));
}

TEST_F(LmClientTest, AnOlderLmGetsThemOneByOne) {
  greet(1, false);
  client_->ack(ack("2001:db8::/64"));
  client_->ack(ack("2001:db8:0:1::/64"));
  run_until([&] { return acks(1).size() == 2; });
  EXPECT_THAT(acks(1), ElementsAre(ElementsAre("2001:db8::/64"), ElementsAre("2001:db8:0:1::/64")));
}

TEST_F(LmClientTest, NoMessageHasMoreAcknowledgementsThanTheLmTakes) {
  greet(1, true);
  for (int i = 0; i < 300; ++i) client_->ack(ack("2001:db8::/64"));
  run_until([&] { return acks(1).size() == 2; });
  EXPECT_EQ(acks(1).front().size(), 256U);
  EXPECT_EQ(acks(1).back().size(), 44U);
}

TEST_F(LmClientTest, WhatIsReportedOfActivityStaysBehindTheAcknowledgements) {
  greet(1, true);
  client_->ack(ack("2001:db8::/64"));
  v1::Activity activity;
  activity.add_uses()->set_prefix("2001:db8::/64");
  client_->report_activity(activity);
  run_until([&] { return lm_.received(1).size() == 3; });
  EXPECT_TRUE(lm_.received(1)[1].has_ack());
  EXPECT_TRUE(lm_.received(1)[2].has_activity());
}

TEST_F(LmClientTest, ARecordThatIsNoneBeginsTheSessionAnew) {
  greet(1, true);
  lm_.send(together(
      {record("2001:db8::/64").SerializeAsString(), "\xff\xff", record("2001:db8:0:1::/64").SerializeAsString()}));
  lm_.send(together({record("2001:db8:0:2::/64").SerializeAsString()}));
  greet(2, true, {record("2001:db8::/64").SerializeAsString()});
  EXPECT_THAT(records_, ElementsAre("2001:db8::/64"));
}

TEST_F(LmClientTest, AcknowledgementsEndWithTheirSession) {
  greet(1, true);
  lm_.send(together({"\xff\xff"}));
  run_until([&] { return !connected_; });
  client_->ack(ack("2001:db8::/64"));
  greet(2, true);
  client_->ack(ack("2001:db8:0:1::/64"));
  run_until([&] { return !acks(2).empty(); });
  EXPECT_THAT(acks(2), ElementsAre(ElementsAre("2001:db8:0:1::/64")));
}

}  // namespace
}  // namespace kedge::speaker
