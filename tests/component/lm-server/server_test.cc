// The whole server but main(), with scripted speakers.
#include "lm-server/service/server.h"

#include <array>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <fstream>
#include <functional>
#include <future>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "boost/asio/io_context.hpp"
#include "boost/asio/ip/tcp.hpp"
#include "boost/asio/post.hpp"
#include "common/backup.h"
#include "fmt/format.h"
#include "gmock/gmock.h"
#include "google/protobuf/util/delimited_message_util.h"
#include "grpcpp/client_context.h"
#include "grpcpp/generic/generic_stub.h"
#include "gtest/gtest.h"
#include "kedge/v1/admin.grpc.pb.h"
#include "kedge/v1/mobility.grpc.pb.h"
#include "lm-server/store/restore.h"
#include "tests/component/lm-server/running_server.h"
#include "tests/component/lm-server/temporary_folder.h"

namespace kedge::lm {
namespace {

using testing::HasSubstr;

constexpr auto kPatience = std::chrono::seconds(20);
// Of a session, over a whole test; long, since under a sanitizer a queue takes its time to fill.
constexpr auto kSessionPatience = std::chrono::seconds(200);
const std::string kMn = "02:00:00:00:00:11";
const std::string kPrefix = "2001:db8:1:1::/64";

// A speaker by hand. Each read has the bound of the whole call.
class ScriptedSpeaker {
 public:
  ScriptedSpeaker(RunningServer& run, const std::string& ar, bool read_snapshot = true, bool takes_records = false) {
    context_.set_deadline(std::chrono::system_clock::now() + kSessionPatience);
    stream_ = run.mobility->Session(&context_);
    v1::SpeakerMessage message;
    message.mutable_hello()->set_ar(ar);
    message.mutable_hello()->set_incarnation(1);
    message.mutable_hello()->set_version("test");
    message.mutable_hello()->set_takes_records(takes_records);
    stream_->Write(message);
    if (read_snapshot) snapshot = this->read_snapshot();
  }
  ~ScriptedSpeaker() { context_.TryCancel(); }

  std::vector<v1::LmMessage> read_snapshot() {
    std::vector<v1::LmMessage> messages;
    v1::LmMessage message;
    while (stream_->Read(&message)) {
      messages.push_back(message);
      if (message.has_snapshot_end()) break;
    }
    return messages;
  }
  // Reads on until a record of the prefix fits.
  v1::Binding await(const std::string& prefix, const std::function<bool(const v1::Binding&)>& fits) {
    v1::LmMessage message;
    while (stream_->Read(&message)) {
      const auto& binding = message.record().binding();
      if (binding.prefix() == prefix && fits(binding)) return binding;
    }
    ADD_FAILURE() << "the session ended";
    return {};
  }
  void ack(const v1::Binding& record, v1::Stage stage, std::uint32_t preference = 0, const std::string& to = {}) {
    v1::SpeakerMessage message;
    auto& ack = *message.mutable_ack();
    ack.set_prefix(record.prefix());
    *ack.mutable_generation() = record.generation();
    ack.set_stage(stage);
    ack.set_preference(preference);
    ack.set_redirects_to(to);
    stream_->Write(message);
  }
  void write(const v1::SpeakerMessage& message) { stream_->Write(message); }
  grpc::Status finish() {
    v1::LmMessage message;
    while (stream_->Read(&message)) {
    }
    return stream_->Finish();
  }

  std::vector<v1::LmMessage> snapshot;

 private:
  grpc::ClientContext context_;
  std::unique_ptr<grpc::ClientReaderWriter<v1::SpeakerMessage, v1::LmMessage>> stream_;
};

bool delivers(const v1::Binding& binding, const std::string& ar) {
  for (const auto& holder : binding.holders()) {
    if (holder.ar() == ar) {
      return holder.delivers() && holder.generation().revision() == binding.generation().revision();
    }
  }
  return false;
}

class ServerTest : public testing::Test {
 protected:
  TemporaryFolder folder_;
  std::string directory_ = folder_.path() + "/data";
};

TEST_F(ServerTest, AMoveRunsThroughToSettled) {
  RunningServer run(directory_);
  ScriptedSpeaker ar1(run, "ar1");
  ScriptedSpeaker ar2(run, "ar2");
  EXPECT_EQ(ar1.snapshot.size(), 2U);
  ASSERT_TRUE(run.attach("ar1", kMn).ok());
  ar1.ack(ar1.await(kPrefix, [](const auto& b) { return b.attached_ar() == "ar1"; }), v1::STAGE_DELIVERING);
  ar1.await(kPrefix, [](const auto& b) { return b.state() == v1::BINDING_STATE_SETTLED; });

  v1::AttachResponse response;
  ASSERT_TRUE(run.attach("ar2", kMn, &response).ok());
  const auto arrived = ar2.await(kPrefix, [](const auto& b) { return b.attached_ar() == "ar2"; });
  EXPECT_EQ(arrived.generation().revision(), response.generation().revision());
  EXPECT_EQ(arrived.preference(), 1U);
  ar2.ack(arrived, v1::STAGE_DELIVERING);
  const auto redirect = ar1.await(kPrefix, [](const auto& b) { return delivers(b, "ar2"); });
  ar1.ack(redirect, v1::STAGE_REDIRECTING, 0, "ar2");
  ar2.ack(arrived, v1::STAGE_ADVERTISED, 1);
  ar1.ack(redirect, v1::STAGE_SUPERSEDED, 1);
  ar1.ack(redirect, v1::STAGE_WITHDRAWN);
  const auto settled = ar2.await(kPrefix, [](const auto& b) { return b.state() == v1::BINDING_STATE_SETTLED; });
  EXPECT_EQ(settled.holders_size(), 2);
}

TEST_F(ServerTest, WhatWasAcknowledgedSurvivesARestart) {
  std::string before;
  {
    RunningServer run(directory_);
    ScriptedSpeaker ar1(run, "ar1");
    ASSERT_TRUE(run.attach("ar1", kMn).ok());
    ar1.ack(ar1.await(kPrefix, [](const auto&) { return true; }), v1::STAGE_DELIVERING);
    ar1.await(kPrefix, [](const auto& b) { return b.state() == v1::BINDING_STATE_SETTLED; });
    ASSERT_TRUE(run.attach("ar2", kMn).ok());
    before = run.get(kPrefix).SerializeAsString();
  }
  RunningServer run(directory_);
  EXPECT_EQ(run.get(kPrefix).SerializeAsString(), before);
  ScriptedSpeaker ar2(run, "ar2");
  ASSERT_EQ(ar2.snapshot.size(), 4U);
  EXPECT_EQ(ar2.snapshot[1].record().binding().SerializeAsString(), before);
}

TEST_F(ServerTest, PoliciesAndDrainsAreKeptAndRefuseByName) {
  v1::SetPolicyRequest set;
  set.mutable_scope()->set_mn_id(kMn);
  set.mutable_policy()->add_allowed_ars("ar1");
  {
    RunningServer run(directory_);
    grpc::ClientContext first;
    v1::PolicyEntry entry;
    ASSERT_TRUE(run.admin->SetPolicy(&first, set, &entry).ok());
    EXPECT_GT(entry.revision().revision(), 0U);
    grpc::ClientContext second;
    v1::DrainNodeRequest drain;
    drain.set_ar("ar3");
    v1::Node node;
    ASSERT_TRUE(run.admin->DrainNode(&second, drain, &node).ok());
    EXPECT_TRUE(node.draining());
  }
  RunningServer run(directory_);
  EXPECT_EQ(run.attach("ar2", kMn).error_code(), grpc::StatusCode::PERMISSION_DENIED);
  EXPECT_THAT(run.attach("ar3", "02:00:00:00:00:12").error_message(), HasSubstr("draining"));
  ASSERT_TRUE(run.attach("ar1", kMn).ok());
  grpc::ClientContext first;
  v1::GetEffectivePolicyRequest get;
  get.set_mn_id(kMn);
  v1::EffectivePolicy effective;
  ASSERT_TRUE(run.admin->GetEffectivePolicy(&first, get, &effective).ok());
  EXPECT_EQ(effective.ar(), "ar1");
  EXPECT_EQ(effective.sources().at("allowed_ars"), "mn");
  grpc::ClientContext second;
  v1::DetachNodeRequest detach;
  detach.set_mn_id(kMn);
  v1::DetachNodeResponse detached;
  ASSERT_TRUE(run.admin->Detach(&second, detach, &detached).ok());
  EXPECT_EQ(detached.prefixes(), 1U);
  grpc::ClientContext third;
  v1::DeletePolicyRequest remove;
  *remove.mutable_scope() = set.scope();
  v1::DeletePolicyResponse removed;
  EXPECT_TRUE(run.admin->DeletePolicy(&third, remove, &removed).ok());
  grpc::ClientContext fourth;
  EXPECT_EQ(run.admin->DeletePolicy(&fourth, remove, &removed).error_code(), grpc::StatusCode::NOT_FOUND);
}

TEST_F(ServerTest, ManyAttachesAtOnceAreAllKept) {
  constexpr int kNodes = 300;
  {
    RunningServer run(directory_);
    std::vector<std::thread> threads;
    std::atomic<int> failures = 0;
    for (int t = 0; t < 3; ++t) {
      threads.emplace_back([&, t] {
        for (int i = t; i < kNodes; i += 3) {
          char mn[18];
          std::snprintf(mn, sizeof(mn), "02:00:00:00:%02x:%02x", i / 256, i % 256);
          v1::AttachRequest request;
          request.set_ar("ar" + std::to_string(t + 1));
          request.set_mn_id(mn);
          request.mutable_attachment()->set_interface("access0");
          request.mutable_attachment()->set_link_layer_address(mn);
          request.mutable_attachment()->set_link_local("fe80::11");
          request.set_trigger(v1::TRIGGER_ROUTER_SOLICITATION);
          grpc::ClientContext context;
          v1::AttachResponse response;
          if (!run.mobility->Attach(&context, request, &response).ok()) ++failures;
        }
      });
    }
    for (auto& thread : threads) thread.join();
    EXPECT_EQ(failures, 0);
  }
  RunningServer run(directory_);
  v1::ListBindingsRequest request;
  request.set_page_size(70);
  std::string last;
  int seen = 0;
  do {
    grpc::ClientContext context;
    v1::ListBindingsResponse page;
    ASSERT_TRUE(run.admin->ListBindings(&context, request, &page).ok());
    seen += page.bindings_size();
    request.set_page_token(page.next_page_token());
  } while (!request.page_token().empty());
  EXPECT_EQ(seen, kNodes);
}

TEST_F(ServerTest, AttachesThatComeTogetherAreAnsweredEachForItself) {
  RunningServer run(directory_);
  ScriptedSpeaker ar1(run, "ar1");
  v1::AttachManyResponse response;
  ASSERT_TRUE(run.attach_many({run.attach_request("ar1", kMn), run.attach_request("ar1", "no address"),
                               run.attach_request("ar1", "02:00:00:00:00:12")},
                              response)
                  .ok());
  ASSERT_EQ(response.results_size(), 3);
  EXPECT_EQ(response.results(0).code(), grpc::StatusCode::OK);
  EXPECT_EQ(response.results(1).code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(response.results(1).message(), HasSubstr("mn_id"));
  EXPECT_EQ(response.results(2).code(), grpc::StatusCode::OK);
  EXPECT_EQ(run.get(kPrefix).generation().SerializeAsString(),
            response.results(0).response().generation().SerializeAsString());
  ar1.await(kPrefix, [](const auto& b) { return b.attached_ar() == "ar1"; });
  ar1.await("2001:db8:1:2::/64", [](const auto& b) { return b.mn_id() == "02:00:00:00:00:12"; });
}

TEST_F(ServerTest, AttachesThatCannotGoTogetherAreRefusedWhole) {
  RunningServer run(directory_);
  v1::AttachManyResponse response;
  EXPECT_EQ(run.attach_many({}, response).error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(run.attach_many(std::vector(257, run.attach_request("ar1", kMn)), response).error_message(),
              HasSubstr("1 to 256"));
  const auto other = run.attach_many({run.attach_request("ar1", kMn), run.attach_request("ar2", kMn)}, response);
  EXPECT_EQ(other.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(other.error_message(), HasSubstr("requests[1].ar"));
  EXPECT_EQ(run.get_status(kPrefix).error_code(), grpc::StatusCode::NOT_FOUND);
}

TEST_F(ServerTest, AttachesTogetherAreAllRefusedWhenTheDiskFails) {
  RunningServer run(directory_);
  run.fragile.broken = true;
  v1::AttachManyResponse response;
  ASSERT_TRUE(
      run.attach_many({run.attach_request("ar1", kMn), run.attach_request("ar1", "02:00:00:00:00:12")}, response).ok());
  ASSERT_EQ(response.results_size(), 2);
  for (const auto& result : response.results()) EXPECT_EQ(result.code(), grpc::StatusCode::UNAVAILABLE);
  run.fragile.broken = false;
  EXPECT_EQ(run.get_status(kPrefix).error_code(), grpc::StatusCode::NOT_FOUND);
}

TEST_F(ServerTest, AttachesTogetherAreAllRefusedByAnLmThatIsStopping) {
  RunningServer run(directory_);
  boost::asio::post(run.io, [&] { run.engine.stop(); });
  v1::AttachManyResponse response;
  ASSERT_TRUE(run.attach_many(std::vector(256, run.attach_request("ar1", kMn)), response).ok());
  ASSERT_EQ(response.results_size(), 256);
  for (const auto& result : response.results()) EXPECT_EQ(result.code(), grpc::StatusCode::UNAVAILABLE);
}

TEST_F(ServerTest, ASpeakerThatTakesThemGetsItsRecordsTogether) {
  RunningServer run(directory_);
  constexpr int kNodes = 1000;
  for (int i = 0; i < kNodes; i += 250) {
    std::vector<v1::AttachRequest> requests;
    for (int j = i; j < i + 250; ++j) {
      requests.push_back(run.attach_request("ar1", fmt::format("02:00:00:00:{:02x}:{:02x}", j >> 8, j & 0xff)));
    }
    v1::AttachManyResponse response;
    ASSERT_TRUE(run.attach_many(requests, response).ok());
  }
  const auto singly = ScriptedSpeaker(run, "ar1").snapshot;
  const auto together = ScriptedSpeaker(run, "ar1", true, true).snapshot;
  EXPECT_EQ(singly.size(), kNodes + 2U);
  // The first may go before the others are there.
  EXPECT_LT(together.size(), 200U);
  EXPECT_TRUE(together.front().welcome().takes_acks());
  std::vector<std::string> expected;
  for (const auto& message : singly) {
    EXPECT_FALSE(message.has_records());
    if (message.has_record()) expected.push_back(message.record().SerializeAsString());
  }
  std::vector<std::string> found;
  for (const auto& message : together) {
    if (message.has_record()) found.push_back(message.record().SerializeAsString());
    for (const auto& record : message.records().records()) found.push_back(record);
  }
  EXPECT_EQ(found, expected);
}

TEST_F(ServerTest, AcknowledgementsMayComeTogether) {
  RunningServer run(directory_);
  ScriptedSpeaker ar1(run, "ar1");
  ASSERT_TRUE(run.attach("ar1", kMn).ok());
  const auto record = ar1.await(kPrefix, [](const auto&) { return true; });
  v1::SpeakerMessage message;
  for (const auto stage : {v1::STAGE_RA_SENT, v1::STAGE_DELIVERING}) {
    auto& ack = *message.mutable_acks()->add_acks();
    ack.set_prefix(kPrefix);
    *ack.mutable_generation() = record.generation();
    ack.set_stage(stage);
  }
  ar1.write(message);
  ar1.await(kPrefix, [](const auto& b) { return b.state() == v1::BINDING_STATE_SETTLED; });

  v1::SpeakerMessage too_many;
  for (int i = 0; i < 257; ++i) *too_many.mutable_acks()->add_acks() = message.acks().acks(0);
  ar1.write(too_many);
  EXPECT_THAT(ar1.finish().error_message(), HasSubstr("at most 256"));
}

TEST_F(ServerTest, ErrorsReachTheCaller) {
  RunningServer run(directory_);
  auto status = run.attach("ar9", kMn);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_THAT(status.error_message(), HasSubstr("ar1, ar2, ar3"));
  EXPECT_EQ(run.attach("ar1", "nobody").error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(ScriptedSpeaker(run, "ar9").finish().error_code(), grpc::StatusCode::NOT_FOUND);

  grpc::ClientContext first;
  v1::GetBindingRequest get;
  get.set_prefix("rubbish");
  v1::Binding binding;
  EXPECT_EQ(run.admin->GetBinding(&first, get, &binding).error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  grpc::ClientContext second;
  get.set_prefix("2001:db8:1:1::7");
  EXPECT_EQ(run.admin->GetBinding(&second, get, &binding).error_code(), grpc::StatusCode::NOT_FOUND);
  ASSERT_TRUE(run.attach("ar1", kMn).ok());
  grpc::ClientContext third;
  EXPECT_TRUE(run.admin->GetBinding(&third, get, &binding).ok());
  EXPECT_EQ(binding.mn_id(), kMn);

  grpc::ClientContext fourth;
  v1::ListBindingsRequest list;
  list.set_page_size(10'001);
  v1::ListBindingsResponse page;
  EXPECT_EQ(run.admin->ListBindings(&fourth, list, &page).error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  grpc::ClientContext fifth;
  v1::QueryRequest query;
  query.set_mn_id(kMn);
  v1::QueryResponse answer;
  EXPECT_TRUE(run.mobility->Query(&fifth, query, &answer).ok());
  EXPECT_EQ(answer.bindings_size(), 1);
}

TEST_F(ServerTest, ASessionHasToBeginWithHello) {
  RunningServer run(directory_);
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + kPatience);
  auto stream = run.mobility->Session(&context);
  v1::SpeakerMessage message;
  message.mutable_ack()->set_prefix(kPrefix);
  stream->Write(message);
  v1::LmMessage in;
  EXPECT_FALSE(stream->Read(&in));
  EXPECT_EQ(stream->Finish().error_code(), grpc::StatusCode::INVALID_ARGUMENT);
}

TEST_F(ServerTest, ASecondSessionEndsTheFirst) {
  RunningServer run(directory_);
  ScriptedSpeaker first(run, "ar1");
  ScriptedSpeaker second(run, "ar1");
  EXPECT_EQ(first.finish().error_code(), grpc::StatusCode::ABORTED);
  ASSERT_TRUE(run.attach("ar1", kMn).ok());
  EXPECT_EQ(second.await(kPrefix, [](const auto&) { return true; }).attached_ar(), "ar1");
}

// Attaches that all change something, without a client: those of one MN, or of a new one each.
class Churn {
 public:
  explicit Churn(RunningServer& run) : run_(run) {
    request_.set_ar("ar1");
    request_.mutable_attachment()->set_link_local("fe80::11");
    request_.set_trigger(v1::TRIGGER_ROUTER_SOLICITATION);
    request_.set_incarnation(1);
  }
  // Returns once they are committed.
  void attach(int count, bool new_nodes = false) {
    std::promise<void> answered;
    std::atomic<int> left = count;
    for (int k = 0; k < count; ++k) {
      const int number = static_cast<int>(request_.sequence());
      request_.set_mn_id(new_nodes ? fmt::format("02:00:00:01:{:02x}:{:02x}", number / 256, number % 256) : kMn);
      request_.mutable_attachment()->set_link_layer_address(request_.mn_id());
      // Another interface each time, or nothing would change.
      request_.mutable_attachment()->set_interface("access" + std::to_string(k % 2));
      request_.set_sequence(request_.sequence() + 1);
      boost::asio::post(run_.io, [&, request = request_] {
        run_.engine.attach(request, {}, [&](const auto&) {
          if (--left == 0) answered.set_value();
        });
      });
    }
    answered.get_future().wait();
  }

 private:
  RunningServer& run_;
  v1::AttachRequest request_;
};

bool eventually(const std::function<bool()>& condition) {
  const auto end = std::chrono::steady_clock::now() + kSessionPatience;
  while (!condition()) {
    if (std::chrono::steady_clock::now() > end) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  return true;
}

// Takes no more than the least that HTTP/2 begins with while nobody reads (RFC 9113, 6.9.2).
const std::map<std::string, int> kNarrow = {{GRPC_ARG_HTTP2_BDP_PROBE, 0},
                                            {GRPC_ARG_HTTP2_STREAM_LOOKAHEAD_BYTES, 65'535}};

bool shows(const RunningServer& run, const std::string& line) {
  return run.metrics.expose().find("\n" + line + "\n") != std::string::npos;
}

TEST_F(ServerTest, ASpeakerThatDoesNotReadIsCutOffAndResyncs) {
  RunningServer run(directory_, {.session_queue = 100});
  ScriptedSpeaker slow(run, "ar1", false);
  // gRPC's own buffers take some; the queue fills when they are full.
  Churn churn(run);
  bool cut_off = false;
  for (int i = 0; !cut_off && i < 3'000; ++i) {
    churn.attach(20);
    grpc::ClientContext context;
    v1::ListNodesResponse nodes;
    ASSERT_TRUE(run.admin->ListNodes(&context, {}, &nodes).ok());
    // The session comes up while the first attaches are under way.
    cut_off = nodes.nodes(0).has_since() && !nodes.nodes(0).connected();
  }
  EXPECT_TRUE(cut_off);
  EXPECT_TRUE(shows(run, R"(kedge_lm_slow_readers_total{method="kedge.v1.Mobility.Session"} 1)"));
  EXPECT_EQ(slow.finish().error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  ScriptedSpeaker again(run, "ar1");
  EXPECT_EQ(again.snapshot.size(), 3U);
}

TEST_F(ServerTest, AWatcherThatDoesNotReadIsCutOffAndOthersMissNothing) {
  RunningServer run(directory_, {.stalled_reader = std::chrono::seconds(2)});
  const auto other = v1::Admin::NewStub(run.connect());
  v1::WatchEventsRequest request;
  request.set_from_start(true);
  grpc::ClientContext slow_context;
  slow_context.set_deadline(std::chrono::system_clock::now() + kSessionPatience);
  const auto narrow = run.connect_as(kNarrow);
  auto slow = narrow->WatchEvents(&slow_context, request);
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + kSessionPatience);
  auto healthy = other->WatchEvents(&context, request);
  std::atomic<std::uint64_t> seen = 0;
  std::thread reader([&] {
    for (v1::Event event; healthy->Read(&event);) {
      EXPECT_EQ(event.id(), seen + 1);
      seen = event.id();
    }
  });
  Churn churn(run);
  EXPECT_TRUE(eventually([&] {
    churn.attach(20);
    return shows(run, R"(kedge_lm_slow_readers_total{method="kedge.v1.Admin.WatchEvents"} 1)");
  }));
  // What had been sent before, and why no more comes.
  v1::Event event;
  while (slow->Read(&event)) {
  }
  const auto status = slow->Finish();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_THAT(status.error_message(), HasSubstr("has not taken the next message"));
  grpc::ClientContext status_context;
  v1::StatusResponse answer;
  ASSERT_TRUE(other->Status(&status_context, {}, &answer).ok());
  EXPECT_TRUE(eventually([&] { return seen >= answer.last_event_id(); }));
  context.TryCancel();
  reader.join();
}

TEST_F(ServerTest, NothingStaysOfABackupThatNobodyReads) {
  RunningServer run(directory_, {.stalled_reader = std::chrono::seconds(1)});
  Churn(run).attach(3'000, true);
  grpc::ClientContext context;
  const auto narrow = run.connect_as(kNarrow);
  auto reader = narrow->Backup(&context, {});
  EXPECT_TRUE(
      eventually([&] { return shows(run, R"(kedge_lm_slow_readers_total{method="kedge.v1.Admin.Backup"} 1)"); }));
  EXPECT_TRUE(eventually([&] { return run.fragile.cursors == 0; }));
  v1::BackupRecord record;
  while (reader->Read(&record)) {
  }
  EXPECT_FALSE(reader->Finish().ok());
}

TEST_F(ServerTest, AMessageThatIsTooLargeIsRefusedAndItsConnectionStays) {
  RunningServer run(directory_, {.message_bytes = 65'536});
  ScriptedSpeaker ar1(run, "ar1");
  EXPECT_EQ(run.attach("ar1", std::string(100'000, 'x')).error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  ASSERT_TRUE(run.attach("ar1", kMn).ok());
  EXPECT_EQ(ar1.await(kPrefix, [](const auto&) { return true; }).attached_ar(), "ar1");
}

TEST_F(ServerTest, CallsBeyondTheLimitOfAConnectionWaitAndOtherConnectionsDoNot) {
  RunningServer run(directory_, {.streams_per_connection = 2});
  auto ar1 = std::make_unique<ScriptedSpeaker>(run, "ar1");
  ScriptedSpeaker ar2(run, "ar2");
  auto third = std::async(std::launch::async, [&] {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + kSessionPatience);
    v1::StatusResponse answer;
    return run.admin->Status(&context, {}, &answer);
  });
  grpc::ClientContext context;
  v1::StatusResponse answer;
  EXPECT_TRUE(v1::Admin::NewStub(run.connect())->Status(&context, {}, &answer).ok());
  EXPECT_EQ(third.wait_for(std::chrono::milliseconds(300)), std::future_status::timeout);
  ar1.reset();
  EXPECT_TRUE(third.get().ok());
}

using boost::asio::ip::tcp;

// A connection on which nothing is ever said.
class SilentClient {
 public:
  SilentClient(const RunningServer& run, const std::string& address) : socket_(io_) {
    socket_.connect(
        tcp::endpoint(boost::asio::ip::make_address(address), static_cast<std::uint16_t>(run.server->port())));
  }
  // Waits until the server closes it.
  bool is_closed() {
    // What gRPC says at the beginning.
    std::array<char, 256> bytes;
    boost::system::error_code error;
    while (!error) socket_.read_some(boost::asio::buffer(bytes), error);
    return error == boost::asio::error::eof || error == boost::asio::error::connection_reset;
  }

 private:
  boost::asio::io_context io_;
  tcp::socket socket_;
};

TEST_F(ServerTest, ConnectionsOfOneAddressAreLimitedAndOthersAreServed) {
  RunningServer run(directory_, {.connections_per_address = 2}, "[::]:0");
  {
    SilentClient first(run, "::1");
    SilentClient second(run, "::1");
    SilentClient third(run, "::1");
    EXPECT_TRUE(third.is_closed());
    EXPECT_TRUE(shows(run, R"(kedge_lm_connections_refused_total{limit="connections_per_address"} 1)"));
    EXPECT_TRUE(shows(run, "kedge_lm_connections 2"));
    grpc::ClientContext context;
    v1::StatusResponse answer;
    EXPECT_TRUE(v1::Admin::NewStub(run.connect("127.0.0.1"))->Status(&context, {}, &answer).ok());
  }
  // What has ended counts no more.
  EXPECT_TRUE(eventually([&] { return shows(run, "kedge_lm_connections 0"); }));
  EXPECT_TRUE(run.attach("ar1", kMn).ok());
}

TEST_F(ServerTest, ConnectionsAreLimitedInAll) {
  RunningServer run(directory_, {.connections = 2}, "[::]:0");
  SilentClient first(run, "::1");
  SilentClient second(run, "127.0.0.1");
  EXPECT_TRUE(SilentClient(run, "127.0.0.2").is_closed());
  EXPECT_TRUE(shows(run, R"(kedge_lm_connections_refused_total{limit="connections"} 1)"));
}

TEST_F(ServerTest, AConnectionThatDoesNotFinishItsHandshakeIsClosed) {
  RunningServer run(directory_, {.handshake_timeout = std::chrono::seconds(1)});
  EXPECT_TRUE(SilentClient(run, "::1").is_closed());
  EXPECT_TRUE(eventually([&] { return shows(run, "kedge_lm_connections 0"); }));
}

TEST_F(ServerTest, AClientThatPingsTooOftenIsSentAway) {
  RunningServer run(directory_);
  const auto hasty = run.connect_as({{GRPC_ARG_KEEPALIVE_TIME_MS, 50},
                                     {GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 20'000},
                                     {GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0}});
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + kPatience);
  auto reader = hasty->WatchEvents(&context, {});
  v1::Event event;
  EXPECT_FALSE(reader->Read(&event));
  EXPECT_THAT(reader->Finish().error_code(),
              testing::AnyOf(grpc::StatusCode::UNAVAILABLE, grpc::StatusCode::RESOURCE_EXHAUSTED));
  EXPECT_TRUE(run.attach("ar1", kMn).ok());
}

TEST_F(ServerTest, AFailingDiskRefusesAndRecovers) {
  RunningServer run(directory_);
  ASSERT_TRUE(run.attach("ar1", kMn).ok());
  const auto before = run.get(kPrefix).SerializeAsString();
  ScriptedSpeaker ar2(run, "ar2");
  run.fragile.broken = true;
  const auto status = run.attach("ar2", kMn);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_THAT(status.error_message(), HasSubstr("make room"));
  EXPECT_EQ(ar2.finish().error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(run.get(kPrefix).SerializeAsString(), before) << "what could not be written did not happen";
  run.fragile.broken = false;
  ScriptedSpeaker again(run, "ar2");
  EXPECT_EQ(again.snapshot.size(), 2U) << "nothing of the failed move was told";
  EXPECT_TRUE(run.attach("ar2", kMn).ok());
  EXPECT_EQ(run.get(kPrefix).attached_ar(), "ar2");
}

TEST_F(ServerTest, EventsAreWatchedFromTheStartAndAsTheyHappen) {
  RunningServer run(directory_);
  ASSERT_TRUE(run.attach("ar1", kMn).ok());
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + kPatience);
  v1::WatchEventsRequest request;
  request.set_from_start(true);
  request.set_mn_id(kMn);
  auto reader = run.admin->WatchEvents(&context, request);
  std::vector<v1::EventType> types;
  v1::Event event;
  while (types.size() < 3 && reader->Read(&event)) types.push_back(event.type());
  EXPECT_THAT(types, testing::ElementsAre(v1::EVENT_TYPE_PREFIX_ASSIGNED, v1::EVENT_TYPE_ARRIVAL_SEEN,
                                          v1::EVENT_TYPE_ATTACH_COMMITTED));
  ASSERT_TRUE(run.attach("ar2", kMn).ok());
  ASSERT_TRUE(reader->Read(&event));
  EXPECT_EQ(event.ar(), "ar2");
  context.TryCancel();

  grpc::ClientContext ahead;
  request.set_from_start(false);
  request.set_after_id(1'000'000);
  auto none = run.admin->WatchEvents(&ahead, request);
  EXPECT_FALSE(none->Read(&event));
  EXPECT_EQ(none->Finish().error_code(), grpc::StatusCode::OUT_OF_RANGE);
}

TEST_F(ServerTest, ABackupShowsOneRevisionWhileTheServerGoesOnAndCanBeRestored) {
  constexpr int kNodes = 50;
  const auto mn = [](int i) { return "02:00:00:00:01:" + std::to_string(10 + i); };
  const std::string file = folder_.path() + "/backup";
  {
    RunningServer run(directory_);
    for (int i = 0; i < kNodes; ++i) ASSERT_TRUE(run.attach("ar1", mn(i)).ok());
    grpc::ClientContext context;
    auto reader = run.admin->Backup(&context, {});
    std::ofstream out(file, std::ios::binary);
    BackupVerifier verifier;
    v1::BackupRecord record;
    while (reader->Read(&record)) {
      ASSERT_TRUE(verifier.take(record).ok());
      google::protobuf::util::SerializeDelimitedToOstream(record, &out);
      if (record.has_header()) {
        ASSERT_TRUE(run.attach("ar2", kMn).ok()) << "nobody waits for a backup";
      }
    }
    EXPECT_TRUE(reader->Finish().ok());
    EXPECT_TRUE(verifier.complete());
    EXPECT_EQ(verifier.entries(), static_cast<std::uint64_t>(kNodes)) << "what came after it began is not in it";
    EXPECT_EQ(verifier.header().revision().epoch(), 1U);
  }
  const std::string other = folder_.path() + "/other";
  const auto restored = restore_store(file, other, false, now_system());
  ASSERT_TRUE(restored.ok()) << restored.status();
  RunningServer run(other);
  ScriptedSpeaker ar1(run, "ar1");
  EXPECT_EQ(ar1.snapshot.size(), kNodes + 2U);
  EXPECT_EQ(ar1.snapshot[0].welcome().revision().epoch(), restored->epoch);
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + kPatience);
  v1::WatchEventsRequest request;
  request.set_from_start(true);
  v1::Event event;
  ASSERT_TRUE(run.admin->WatchEvents(&context, request)->Read(&event));
  EXPECT_EQ(event.type(), v1::EVENT_TYPE_STORE_RESTORED);
  context.TryCancel();
  EXPECT_TRUE(run.attach("ar1", mn(0)).ok());
}

TEST_F(ServerTest, AnAttachThatItsSpeakerHasGivenUpDoesNotHappen) {
  RunningServer run(directory_);
  {
    // Connected before: connections are accepted by the executor that is blocked now.
    grpc::ClientContext context;
    v1::StatusResponse status;
    ASSERT_TRUE(run.admin->Status(&context, {}, &status).ok());
  }
  std::promise<void> blocked;
  std::promise<void> goes_on;
  boost::asio::post(run.io, [&] {
    blocked.set_value();
    goes_on.get_future().wait();
  });
  blocked.get_future().wait();
  v1::AttachRequest request;
  request.set_ar("ar1");
  request.set_mn_id(kMn);
  request.mutable_attachment()->set_interface("access0");
  request.mutable_attachment()->set_link_layer_address(kMn);
  request.mutable_attachment()->set_link_local("fe80::11");
  request.set_trigger(v1::TRIGGER_ROUTER_SOLICITATION);
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::milliseconds(50));
  v1::AttachResponse response;
  EXPECT_EQ(run.mobility->Attach(&context, request, &response).error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
  // What is answered without the engine comes behind the news that the call was given up.
  grpc::GenericStub generic(run.channel);
  grpc::ClientContext unknown_context;
  const grpc::Slice empty;
  grpc::ByteBuffer nothing(&empty, 1);
  grpc::ByteBuffer answer;
  std::promise<grpc::Status> unknown;
  generic.UnaryCall(&unknown_context, "/kedge.v1.Mobility/Unknown", {}, &nothing, &answer,
                    [&](grpc::Status s) { unknown.set_value(std::move(s)); });
  EXPECT_EQ(unknown.get_future().get().error_code(), grpc::StatusCode::UNIMPLEMENTED);
  goes_on.set_value();
  grpc::ClientContext status_context;
  v1::StatusResponse status;
  ASSERT_TRUE(run.admin->Status(&status_context, {}, &status).ok());
  EXPECT_EQ(status.bindings(), 0U);
}

TEST_F(ServerTest, StatusAndNodesShowWhatOperatorsNeed) {
  RunningServer run(directory_);
  ScriptedSpeaker ar1(run, "ar1");
  ASSERT_TRUE(run.attach("ar1", kMn).ok());
  grpc::ClientContext first;
  v1::StatusResponse status;
  ASSERT_TRUE(run.admin->Status(&first, {}, &status).ok());
  EXPECT_EQ(status.bindings(), 1U);
  EXPECT_EQ(status.bindings_moving(), 1U);
  EXPECT_EQ(status.nodes(), 3U);
  EXPECT_EQ(status.nodes_connected(), 1U);
  EXPECT_EQ(status.store(), "ok");
  grpc::ClientContext second;
  v1::ListNodesResponse nodes;
  ASSERT_TRUE(run.admin->ListNodes(&second, {}, &nodes).ok());
  EXPECT_TRUE(nodes.nodes(0).connected());
  EXPECT_EQ(nodes.nodes(0).version(), "test");
  EXPECT_EQ(nodes.nodes(0).attached(), 1U);
  EXPECT_EQ(nodes.nodes(0).pool_used(), 1U);
  EXPECT_EQ(nodes.nodes(0).pool_size(), 65'536U);
}

TEST(EventLogTest, DropsTheOldest) {
  EventLog log(3);
  for (int i = 0; i < 5; ++i) log.append({});
  EXPECT_EQ(log.first_id(), 3U);
  EXPECT_EQ(log.last_id(), 5U);
  EXPECT_EQ(log.next(2)->id(), 3U);
  EXPECT_EQ(log.next(5), nullptr);
}

}  // namespace
}  // namespace kedge::lm
