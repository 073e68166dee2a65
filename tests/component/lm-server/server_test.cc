// The whole server but main(): real gRPC on a free port, real RocksDB, scripted speakers.
#include "lm-server/service/server.h"

#include <atomic>
#include <chrono>
#include <cstdio>
#include <fstream>
#include <functional>
#include <future>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "boost/asio/executor_work_guard.hpp"
#include "boost/asio/io_context.hpp"
#include "boost/asio/post.hpp"
#include "common/backup.h"
#include "common/credentials.h"
#include "gmock/gmock.h"
#include "google/protobuf/util/delimited_message_util.h"
#include "grpcpp/client_context.h"
#include "grpcpp/generic/generic_stub.h"
#include "gtest/gtest.h"
#include "kedge/v1/admin.grpc.pb.h"
#include "kedge/v1/mobility.grpc.pb.h"
#include "lm-server/store/restore.h"
#include "lm-server/store/rocksdb_store.h"
#include "tests/component/lm-server/temporary_folder.h"

namespace kedge::lm {
namespace {

using testing::HasSubstr;

constexpr auto kPatience = std::chrono::seconds(20);
// Of a session, over a whole test; long, since under a sanitizer a queue takes its time to fill.
constexpr auto kSessionPatience = std::chrono::seconds(200);
const std::string kMn = "02:00:00:00:00:11";
const std::string kPrefix = "2001:db8:1:1::/64";

Settings settings() {
  Settings result;
  for (const std::string n : {"1", "2", "3"}) {
    AccessRouter ar;
    ar.info.set_name("ar" + n);
    ar.info.set_locator("2001:db8:ffff:" + n + "::1");
    ar.info.set_deliver_sid("2001:db8:ffff:" + n + "::d");
    ar.info.add_pools("2001:db8:" + n + "::/48");
    ar.pools.push_back(*Ipv6Prefix::parse("2001:db8:" + n + "::/48"));
    result.access_routers.push_back(ar);
  }
  result.redirect_hold = std::chrono::milliseconds(1);
  return result;
}

// Real store whose disk can be made to fail.
class FragileStore : public Store {
 public:
  explicit FragileStore(RocksDbStore& store) : store_(store) {}
  absl::StatusOr<StoreSnapshot> read() override { return store_.read(); }
  std::unique_ptr<StoreCursor> cursor() override { return store_.cursor(); }
  void commit(Commit commit, Done done) override {
    if (!broken) return store_.commit(std::move(commit), std::move(done));
    done(absl::UnavailableError("the store cannot write: the disk of data_directory is full; make room"));
  }
  std::unique_ptr<JournalCursor> journal(std::uint64_t after) override { return store_.journal(after); }
  absl::StatusOr<std::uint64_t> watch(std::uint64_t revision, Watcher watcher) override {
    return store_.watch(revision, std::move(watcher));
  }
  void unwatch(std::uint64_t id) override { store_.unwatch(id); }
  absl::Status compact(std::uint64_t revision) override { return store_.compact(revision); }
  std::string health() const override { return store_.health(); }

  std::atomic<bool> broken = false;

 private:
  RocksDbStore& store_;
};

// One run of the server.
class RunningServer {
 public:
  explicit RunningServer(const std::string& directory, std::size_t queue_limit = MobilityService::kDefaultQueueLimit)
      : store(*RocksDbStore::open(directory)),
        fragile(*store),
        engine(io, settings(), fragile, metrics),
        work_(io.get_executor()) {
    EXPECT_TRUE(engine.start().ok());
    auto started = Server::start(io, engine, "[::1]:0", {true, {}}, {}, queue_limit);
    EXPECT_TRUE(started.ok()) << started.status();
    server = std::move(*started);
    thread_ = std::thread([this] { io.run(); });
    channel = *make_channel("[::1]:" + std::to_string(server->port()), {true, {}});
    mobility = v1::Mobility::NewStub(channel);
    admin = v1::Admin::NewStub(channel);
  }
  ~RunningServer() {
    boost::asio::post(io, [this] { engine.stop(); });
    server->shut_down();
    boost::asio::post(io, [this] { io.stop(); });
    thread_.join();
    store.reset();
  }

  grpc::Status attach(const std::string& ar, const std::string& mn, v1::AttachResponse* response = nullptr) {
    v1::AttachRequest request;
    request.set_ar(ar);
    request.set_mn_id(mn);
    request.mutable_attachment()->set_interface("access0");
    request.mutable_attachment()->set_link_layer_address(mn);
    request.mutable_attachment()->set_link_local("fe80::11");
    request.set_trigger(v1::TRIGGER_ROUTER_SOLICITATION);
    request.set_incarnation(1);
    request.set_sequence(++sequence_);
    grpc::ClientContext context;
    v1::AttachResponse ignored;
    return mobility->Attach(&context, request, response == nullptr ? &ignored : response);
  }
  v1::Binding get(const std::string& prefix) {
    grpc::ClientContext context;
    v1::GetBindingRequest request;
    request.set_prefix(prefix);
    v1::Binding binding;
    EXPECT_TRUE(admin->GetBinding(&context, request, &binding).ok());
    return binding;
  }

  boost::asio::io_context io{1};
  Metrics metrics;
  std::unique_ptr<RocksDbStore> store;
  FragileStore fragile;
  Engine engine;
  std::unique_ptr<Server> server;
  std::shared_ptr<grpc::Channel> channel;
  std::unique_ptr<v1::Mobility::Stub> mobility;
  std::unique_ptr<v1::Admin::Stub> admin;

 private:
  boost::asio::executor_work_guard<boost::asio::io_context::executor_type> work_;
  std::thread thread_;
  std::uint64_t sequence_ = 0;
};

// A speaker by hand. Each read has the bound of the whole call.
class ScriptedSpeaker {
 public:
  ScriptedSpeaker(RunningServer& run, const std::string& ar, bool read_snapshot = true) {
    context_.set_deadline(std::chrono::system_clock::now() + kSessionPatience);
    stream_ = run.mobility->Session(&context_);
    v1::SpeakerMessage message;
    message.mutable_hello()->set_ar(ar);
    message.mutable_hello()->set_incarnation(1);
    message.mutable_hello()->set_version("test");
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

TEST_F(ServerTest, ASpeakerThatDoesNotReadIsCutOffAndResyncs) {
  RunningServer run(directory_, 100);
  ScriptedSpeaker slow(run, "ar1", false);
  // gRPC's own buffers take some; the queue fills when they are full.
  v1::AttachRequest request;
  request.set_ar("ar1");
  request.set_mn_id(kMn);
  request.mutable_attachment()->set_link_layer_address(kMn);
  request.mutable_attachment()->set_link_local("fe80::11");
  request.set_trigger(v1::TRIGGER_ROUTER_SOLICITATION);
  request.set_incarnation(1);
  constexpr int kBatch = 20;
  bool cut_off = false;
  for (int i = 0; !cut_off && i < 3'000; ++i) {
    std::promise<void> answered;
    std::atomic<int> left = kBatch;
    for (int k = 0; k < kBatch; ++k) {
      // Another interface each time, or nothing would change.
      request.mutable_attachment()->set_interface("access" + std::to_string(k % 2));
      request.set_sequence(request.sequence() + 1);
      boost::asio::post(run.io, [&, request] {
        run.engine.attach(request, {}, [&](const auto&) {
          if (--left == 0) answered.set_value();
        });
      });
    }
    answered.get_future().wait();
    grpc::ClientContext context;
    v1::ListNodesResponse nodes;
    ASSERT_TRUE(run.admin->ListNodes(&context, {}, &nodes).ok());
    // The session comes up while the first attaches are under way.
    cut_off = nodes.nodes(0).has_since() && !nodes.nodes(0).connected();
  }
  EXPECT_TRUE(cut_off);
  EXPECT_EQ(slow.finish().error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  ScriptedSpeaker again(run, "ar1");
  EXPECT_EQ(again.snapshot.size(), 3U);
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
