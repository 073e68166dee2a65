// Who gets what from the LM's port, over real TLS: every method of every service with every role.
//
// Standards: RFC 8818, 5.
#include "lm-server/service/authorization.h"

#include <chrono>
#include <future>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "boost/asio/executor_work_guard.hpp"
#include "boost/asio/io_context.hpp"
#include "boost/asio/post.hpp"
#include "common/credentials.h"
#include "gmock/gmock.h"
#include "grpcpp/generic/generic_stub.h"
#include "gtest/gtest.h"
#include "kedge/v1/admin.grpc.pb.h"
#include "kedge/v1/mobility.grpc.pb.h"
#include "kedgectl/pki/authority.h"
#include "lm-server/service/admission.h"
#include "lm-server/service/server.h"
#include "lm-server/store/rocksdb_store.h"
#include "tests/component/lm-server/temporary_folder.h"

namespace kedge::lm {
namespace {

using testing::AnyOf;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;
using testing::StartsWith;

constexpr auto kPatience = std::chrono::seconds(20);
const std::vector<Role> kRoles = {Role::kLm,     Role::kSpeaker,    Role::kOperator,
                                  Role::kViewer, Role::kMobileNode, Role::kProxy};

Settings settings() {
  Settings result;
  for (const std::string n : {"1", "2"}) {
    AccessRouter ar;
    ar.info.set_name("ar" + n);
    ar.info.set_locator("2001:db8:ffff:" + n + "::1");
    ar.info.set_deliver_sid("2001:db8:ffff:" + n + "::d");
    ar.info.add_pools("2001:db8:" + n + "::/48");
    ar.pools.push_back(*Ipv6Prefix::parse("2001:db8:" + n + "::/48"));
    result.access_routers.push_back(ar);
  }
  return result;
}

std::vector<const google::protobuf::MethodDescriptor*> all_methods() {
  std::vector<const google::protobuf::MethodDescriptor*> methods;
  for (const auto* file : {v1::AttachRequest::descriptor()->file(), v1::StatusRequest::descriptor()->file()}) {
    for (int s = 0; s < file->service_count(); ++s) {
      for (int m = 0; m < file->service(s)->method_count(); ++m) methods.push_back(file->service(s)->method(m));
    }
  }
  return methods;
}

class Secured : public testing::Test {
 protected:
  Secured() : work_(io_.get_executor()) {
    authority_ = std::make_unique<kedgectl::Authority>(*kedgectl::Authority::init(folder_.path() + "/authority", {}));
    store_ = *RocksDbStore::open(folder_.path() + "/store");
    engine_ = std::make_unique<Engine>(io_, settings(), *store_, metrics_);
    EXPECT_TRUE(engine_->start().ok());
    auto started = Server::start(io_, *engine_, "[::1]:0", security(*authority_, {Role::kLm, "lm1"}),
                                 [this](const Authorizer::Denial& denial) {
                                   boost::asio::post(io_, [this, denial] {
                                     engine_->record_denial(as_request(denial.caller, denial.method, {}), denial.text);
                                   });
                                   std::lock_guard lock(mutex_);
                                   denials_.push_back(denial);
                                 });
    EXPECT_TRUE(started.ok()) << started.status();
    server_ = *std::move(started);
    thread_ = std::thread([this] { io_.run(); });
  }
  ~Secured() override {
    boost::asio::post(io_, [this] { engine_->stop(); });
    server_->shut_down();
    boost::asio::post(io_, [this] { io_.stop(); });
    thread_.join();
    store_.reset();
  }

  // Own certificate of the identity, made when it is not there yet.
  TransportSecurity security(const kedgectl::Authority& authority, const Identity& identity, bool with_lists = true) {
    const std::string folder = authority.folder() + "/" + std::string(role_name(identity.role)) + "-" + identity.name;
    if (!std::filesystem::exists(folder)) {
      EXPECT_TRUE(authority.issue(identity, {.folder = folder}).ok());
    }
    return {false,
            {folder + "/ca.pem", folder + "/certificate.pem", folder + "/key.pem",
             with_lists ? authority.crl_directory() : std::string()}};
  }
  std::string address() const { return "[::1]:" + std::to_string(server_->port()); }
  std::shared_ptr<grpc::Channel> channel(const Identity& identity) {
    return *make_channel(address(), security(*authority_, identity));
  }

  std::vector<v1::AuditRecord> audit(const Identity& who, const v1::AuditRequest& request = {}) {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + kPatience);
    auto reader = v1::Admin::NewStub(channel(who))->Audit(&context, request);
    std::vector<v1::AuditRecord> records;
    for (v1::AuditRecord record; reader->Read(&record);) records.push_back(record);
    EXPECT_TRUE(reader->Finish().ok());
    return records;
  }
  grpc::Status drain(const Identity& who, const std::string& ar) {
    grpc::ClientContext context;
    v1::DrainNodeRequest request;
    request.set_ar(ar);
    v1::Node node;
    return v1::Admin::NewStub(channel(who))->DrainNode(&context, request, &node);
  }

  // Opens a call of any kind, sends one message and reads the status that it ends with; a call that is let in and goes
  // on is cancelled after the first answer.
  static grpc::Status call(const std::shared_ptr<grpc::Channel>& channel,
                           const google::protobuf::MethodDescriptor& method, const google::protobuf::Message& request) {
    grpc::GenericStub stub(channel);
    grpc::CompletionQueue queue;
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + kPatience);
    const std::string path = "/" + method.service()->full_name() + "/" + method.name();
    auto stream = stub.PrepareCall(&context, path, &queue);
    const auto wait = [&queue] {
      void* tag = nullptr;
      bool ok = false;
      queue.Next(&tag, &ok);
      return ok;
    };
    stream->StartCall(nullptr);
    wait();
    const grpc::Slice slice(request.SerializeAsString());
    stream->Write(grpc::ByteBuffer(&slice, 1), nullptr);
    wait();
    grpc::ByteBuffer answer;
    stream->Read(&answer, nullptr);
    if (wait() && (method.client_streaming() || method.server_streaming())) context.TryCancel();
    grpc::Status status;
    stream->Finish(&status, nullptr);
    wait();
    queue.Shutdown();
    return status;
  }

  TemporaryFolder folder_;
  std::unique_ptr<kedgectl::Authority> authority_;
  boost::asio::io_context io_{1};
  Metrics metrics_;
  std::unique_ptr<RocksDbStore> store_;
  std::unique_ptr<Engine> engine_;
  std::unique_ptr<Server> server_;
  std::mutex mutex_;
  std::vector<Authorizer::Denial> denials_;
  boost::asio::executor_work_guard<boost::asio::io_context::executor_type> work_;
  std::thread thread_;
};

TEST(MethodRules, EveryMethodIsInTheTableAndNothingElse) {
  std::set<std::string> offered;
  for (const auto* method : all_methods()) offered.insert(method->full_name());
  std::set<std::string> listed;
  for (const auto& rule : method_rules()) EXPECT_TRUE(listed.emplace(rule.method).second) << rule.method << " twice";
  EXPECT_EQ(offered, listed);
}

TEST(MethodRules, WhatChangesAnythingIsForOperatorsAndSpeakersOnly) {
  const std::set<std::string> reads = {"Audit",  "ListBindings", "GetBinding",   "ListNodes",          "WatchEvents",
                                       "Status", "Query",        "ListPolicies", "GetEffectivePolicy", "Describe"};
  for (const auto& rule : method_rules()) {
    const std::string name(rule.method.substr(rule.method.rfind('.') + 1));
    if (reads.contains(name)) continue;
    for (const auto& grant : rule.grants) {
      EXPECT_THAT(grant.role, AnyOf(Role::kOperator, Role::kSpeaker)) << rule.method;
      if (grant.role == Role::kSpeaker) {
        EXPECT_EQ(grant.limit, Limit::kOwnAccessRouter) << rule.method;
      }
    }
  }
}

TEST_F(Secured, EveryMethodAnswersEveryRoleAsTheTableSays) {
  // An event for those who may watch.
  ASSERT_TRUE(drain({Role::kOperator, "alice"}, "ar2").ok());
  std::printf("%-40s", "method");
  for (const auto role : kRoles) std::printf("%-10s", std::string(role_name(role)).c_str());
  std::printf("\n");
  for (const auto* method : all_methods()) {
    const auto rule = std::find_if(method_rules().begin(), method_rules().end(),
                                   [&](const auto& r) { return r.method == method->full_name(); });
    ASSERT_NE(rule, method_rules().end());
    std::printf("%-40s", method->full_name().c_str());
    for (const auto role : kRoles) {
      const auto grant =
          std::find_if(rule->grants.begin(), rule->grants.end(), [&](const auto& g) { return g.role == role; });
      const bool granted = grant != rule->grants.end();
      std::unique_ptr<google::protobuf::Message> request(
          google::protobuf::MessageFactory::generated_factory()->GetPrototype(method->input_type())->New());
      if (auto* hello = dynamic_cast<v1::SpeakerMessage*>(request.get())) hello->mutable_hello()->set_ar("ar1");
      if (auto* attach = dynamic_cast<v1::AttachRequest*>(request.get())) attach->set_ar("ar1");
      if (auto* detach = dynamic_cast<v1::DetachRequest*>(request.get())) detach->set_ar("ar1");
      if (auto* describe = dynamic_cast<v1::DescribeRequest*>(request.get())) describe->set_ar("ar1");
      if (auto* watch = dynamic_cast<v1::WatchEventsRequest*>(request.get())) watch->set_from_start(true);
      const auto status = call(channel({role, "ar1"}), *method, *request);
      std::printf("%-10s", granted ? (grant->limit == Limit::kNone ? "yes" : "own") : "no");
      if (granted) {
        EXPECT_THAT(status.error_message(), Not(StartsWith("role:"))) << method->full_name() << " " << role_name(role);
        EXPECT_NE(status.error_code(), grpc::StatusCode::UNAUTHENTICATED) << status.error_message();
        EXPECT_NE(status.error_code(), grpc::StatusCode::UNAVAILABLE) << status.error_message();
      } else {
        EXPECT_EQ(status.error_code(), grpc::StatusCode::PERMISSION_DENIED) << method->full_name();
        EXPECT_THAT(status.error_message(), StartsWith("role: role ")) << method->full_name();
      }
    }
    std::printf("\n");
  }
}

TEST_F(Secured, ASpeakerSpeaksForItsOwnAccessRouterOnly) {
  const auto speaker = channel({Role::kSpeaker, "ar1"});
  for (const auto* method : all_methods()) {
    if (method->service()->name() != "Mobility" || method->name() == "Query") continue;
    std::unique_ptr<google::protobuf::Message> request(
        google::protobuf::MessageFactory::generated_factory()->GetPrototype(method->input_type())->New());
    if (auto* hello = dynamic_cast<v1::SpeakerMessage*>(request.get())) hello->mutable_hello()->set_ar("ar2");
    if (auto* attach = dynamic_cast<v1::AttachRequest*>(request.get())) attach->set_ar("ar2");
    if (auto* many = dynamic_cast<v1::AttachManyRequest*>(request.get())) many->set_ar("ar2");
    if (auto* detach = dynamic_cast<v1::DetachRequest*>(request.get())) detach->set_ar("ar2");
    if (auto* describe = dynamic_cast<v1::DescribeRequest*>(request.get())) describe->set_ar("ar2");
    const auto status = call(speaker, *method, *request);
    EXPECT_EQ(status.error_code(), grpc::StatusCode::PERMISSION_DENIED) << method->full_name();
    EXPECT_THAT(status.error_message(), StartsWith("own_access_router:")) << method->full_name();
  }
  std::lock_guard lock(mutex_);
  ASSERT_EQ(denials_.size(), 5U);
  EXPECT_EQ(denials_.front().caller.name(), "kedge://speaker/ar1");
  EXPECT_FALSE(denials_.front().caller.serial.empty());
}

TEST_F(Secured, ASpeakerSeesOnlyBindingsThatItTakesPartIn) {
  v1::AttachRequest attach;
  attach.set_ar("ar1");
  attach.set_mn_id("02:00:00:00:00:11");
  attach.mutable_attachment()->set_interface("access0");
  attach.mutable_attachment()->set_link_layer_address("02:00:00:00:00:11");
  attach.mutable_attachment()->set_link_local("fe80::11");
  attach.set_trigger(v1::TRIGGER_ROUTER_SOLICITATION);
  attach.set_incarnation(1);
  attach.set_sequence(1);
  grpc::ClientContext attach_context;
  v1::AttachResponse attached;
  const auto status =
      v1::Mobility::NewStub(channel({Role::kSpeaker, "ar1"}))->Attach(&attach_context, attach, &attached);
  ASSERT_TRUE(status.ok()) << status.error_message();

  v1::QueryRequest query;
  query.set_mn_id("02:00:00:00:00:11");
  const auto ask = [&](const Identity& who) {
    grpc::ClientContext context;
    v1::QueryResponse response;
    return v1::Mobility::NewStub(channel(who))->Query(&context, query, &response);
  };
  EXPECT_TRUE(ask({Role::kSpeaker, "ar1"}).ok());
  EXPECT_TRUE(ask({Role::kViewer, "bob"}).ok());
  EXPECT_EQ(ask({Role::kSpeaker, "ar2"}).error_code(), grpc::StatusCode::NOT_FOUND);
}

TEST_F(Secured, EveryChangeAndEveryRefusalIsRecordedWithWhoAskedForIt) {
  const Identity alice{Role::kOperator, "alice"};
  ASSERT_TRUE(drain(alice, "ar1").ok());
  EXPECT_EQ(drain(alice, "ar9").error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_EQ(drain({Role::kViewer, "bob"}, "ar2").error_code(), grpc::StatusCode::PERMISSION_DENIED);
  // Already so: nothing has changed.
  ASSERT_TRUE(drain(alice, "ar1").ok());

  std::vector<v1::AuditRecord> records;
  const auto deadline = std::chrono::steady_clock::now() + kPatience;
  // A refusal is not waited for before it is answered.
  while (records.size() < 3 && std::chrono::steady_clock::now() < deadline) records = audit({Role::kViewer, "bob"});
  ASSERT_EQ(records.size(), 3U);
  EXPECT_EQ(records[0].who(), "kedge://operator/alice");
  EXPECT_EQ(records[0].serial().size(), 32U);
  EXPECT_EQ(records[0].action(), "kedge.v1.Admin.DrainNode");
  EXPECT_EQ(records[0].outcome(), "ok");
  ASSERT_EQ(records[0].changes_size(), 1);
  EXPECT_EQ(records[0].changes(0).subject(), "drain/ar1");
  EXPECT_EQ(records[0].changes(0).before(), "in service");
  EXPECT_EQ(records[0].changes(0).after(), "draining");
  EXPECT_GT(records[0].revision().revision(), 0U);
  EXPECT_THAT(records[1].outcome(), StartsWith("NOT_FOUND: "));
  EXPECT_EQ(records[2].who(), "kedge://viewer/bob");
  EXPECT_THAT(records[2].outcome(), StartsWith("PERMISSION_DENIED: role viewer may not"));

  v1::AuditRequest refused;
  refused.set_refused(true);
  refused.set_who("bob");
  EXPECT_EQ(audit(alice, refused).size(), 1U);
  v1::AuditRequest after;
  after.set_after_id(records[1].id());
  EXPECT_EQ(audit(alice, after).size(), 1U);
  v1::AuditRequest last;
  last.set_last(2);
  EXPECT_EQ(audit(alice, last).front().id(), records[1].id());
  v1::AuditRequest subject;
  subject.set_subject("ar1");
  EXPECT_EQ(audit(alice, subject).size(), 1U);
}

grpc::Status status_of(const absl::StatusOr<std::shared_ptr<grpc::Channel>>& channel) {
  EXPECT_TRUE(channel.ok()) << channel.status();
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + kPatience);
  v1::StatusResponse response;
  return v1::Admin::NewStub(*channel)->Status(&context, {}, &response);
}

TEST_F(Secured, TheHandshakeKeepsOutWhoHasNoCertificateOfTheAuthority) {
  EXPECT_TRUE(status_of(channel({Role::kOperator, "alice"})).ok());
  // No TLS at all.
  EXPECT_EQ(status_of(make_channel(address(), {true, {}})).error_code(), grpc::StatusCode::UNAVAILABLE);
  // Another authority's, with the right authority to check the server by.
  const auto other = *kedgectl::Authority::init(folder_.path() + "/other", {});
  const auto foreign = security(other, {Role::kOperator, "alice"});
  EXPECT_THAT(status_of(make_channel(address(), foreign)).error_code(),
              AnyOf(grpc::StatusCode::UNAVAILABLE, grpc::StatusCode::UNKNOWN));
  std::lock_guard lock(mutex_);
  EXPECT_THAT(denials_, IsEmpty());
}

TEST_F(Secured, AClientTalksToAnLmOnly) {
  // The stolen key of an access router cannot stand in for the LM.
  const auto on_io = [this](auto work) {
    std::packaged_task<void()> task(work);
    boost::asio::post(io_, [&task] { task(); });
    task.get_future().wait();
  };
  std::unique_ptr<Server> impostor;
  on_io([&] {
    auto started = Server::start(io_, *engine_, "[::1]:0", security(*authority_, {Role::kSpeaker, "ar2"}));
    ASSERT_TRUE(started.ok());
    impostor = *std::move(started);
  });
  ASSERT_NE(impostor, nullptr);
  const auto status = status_of(
      make_channel("[::1]:" + std::to_string(impostor->port()), security(*authority_, {Role::kOperator, "alice"})));
  EXPECT_FALSE(status.ok());
  impostor->shut_down();
  on_io([&] { impostor.reset(); });
}

TEST_F(Secured, DescribesToASpeakerWhatIsExpectedOfIt) {
  v1::DescribeRequest request;
  request.set_ar("ar1");
  const auto describe = [&](const Identity& who, v1::DescribeResponse* answer) {
    grpc::ClientContext context;
    return v1::Mobility::NewStub(channel(who))->Describe(&context, request, answer);
  };
  v1::DescribeResponse answer;
  ASSERT_TRUE(describe({Role::kSpeaker, "ar1"}, &answer).ok());
  EXPECT_EQ(answer.self().locator(), "2001:db8:ffff:1::1");
  EXPECT_EQ(answer.preference_levels(), 8U);
  EXPECT_FALSE(answer.connected());
  request.set_ar("ar9");
  EXPECT_EQ(describe({Role::kViewer, "bob"}, &answer).error_code(), grpc::StatusCode::NOT_FOUND);
}

TEST_F(Secured, ARevokedCertificateIsWorthNothingAlsoWhereItIsConnectedAlready) {
  const auto alice = channel({Role::kOperator, "alice"});
  ASSERT_TRUE(status_of(alice).ok());
  ASSERT_TRUE(authority_->revoke({Role::kOperator, "alice"}, now_system()).ok());
  // A new connection fails in the handshake.
  EXPECT_FALSE(status_of(make_channel(address(), security(*authority_, {Role::kOperator, "alice"}))).ok());
  // One that is there is refused once the LM has read the list again.
  server_->authorizer().set_revoked(*read_revoked_serials(authority_->crl_directory()));
  const auto status = status_of(alice);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::PERMISSION_DENIED);
  EXPECT_THAT(status.error_message(), HasSubstr("has been revoked"));
}

TEST_F(Secured, AnExpiredCertificateIsRefused) {
  const Identity bob{Role::kViewer, "bob"};
  const std::string folder = authority_->folder() + "/viewer-bob";
  // Valid from five minutes ago until now.
  ASSERT_TRUE(authority_->issue(bob, {.folder = folder, .validity = std::chrono::hours(0)}).ok());
  EXPECT_FALSE(status_of(make_channel(address(), security(*authority_, bob))).ok());
}

}  // namespace
}  // namespace kedge::lm
