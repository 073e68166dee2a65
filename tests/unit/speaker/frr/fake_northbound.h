// FRR's northbound server as far as the injector uses it, with schema A: candidates are copies of the running
// configuration, commits can be held back or made to fail.
#pragma once

#include <condition_variable>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "frr/frr-northbound.grpc.pb.h"
#include "grpcpp/server.h"
#include "grpcpp/server_builder.h"
#include "speaker/frr/northbound_request.h"

namespace kedge::speaker {

class FakeNorthbound : public frr::Northbound::Service {
 public:
  // Prefix to tag; every route is a blackhole unless it is in `operators`.
  using Routes = std::map<std::string, int>;

  ~FakeNorthbound() override { stop(); }

  // Port 0: a free one.
  void start(int port = 0) {
    grpc::ServerBuilder builder;
    builder.AddListeningPort("127.0.0.1:" + std::to_string(port), grpc::InsecureServerCredentials(), &port_);
    builder.RegisterService(this);
    server_ = builder.BuildAndStart();
  }

  // As when the daemon is killed: its candidates and its configuration go with it.
  void stop() {
    hold(false);
    if (server_ != nullptr) server_->Shutdown(std::chrono::system_clock::now());
    server_.reset();
    std::lock_guard lock(mutex_);
    running_.clear();
    candidates_.clear();
  }

  int port() const { return port_; }

  void hold(bool held) {
    std::lock_guard lock(mutex_);
    held_ = held;
    changed_.notify_all();
  }

  template <typename Function>
  auto with_lock(Function function) {
    std::lock_guard lock(mutex_);
    return function();
  }
  Routes running() {
    return with_lock([this] { return running_; });
  }
  // What each commit changed, in order.
  std::vector<Routes> commits() {
    return with_lock([this] { return commits_; });
  }
  std::size_t candidates() {
    return with_lock([this] { return candidates_.size(); });
  }
  bool commit_under_way() {
    return with_lock([this] { return in_commit_; });
  }

  // Set before start() or with_lock().
  std::string version = "8.4.4";
  std::string module = "frr-staticd";
  Routes running_;
  std::set<std::string> operators;
  std::function<grpc::Status(const Routes& changes)> on_commit;
  // While a candidate is made, or edited; without the lock.
  std::function<void()> on_create;
  std::function<void()> on_edit;
  // What is to become of a candidate that is made, or of routes that are loaded.
  std::function<grpc::Status()> on_candidate;
  std::function<grpc::Status(const Routes& loaded)> on_load;

 private:
  static std::string prefix_of(const std::string& path) {
    const std::size_t begin = path.find("route-list[prefix='") + 19;
    return path.substr(begin, path.find('\'', begin) - begin);
  }

  grpc::Status GetCapabilities(grpc::ServerContext*, const frr::GetCapabilitiesRequest*,
                               frr::GetCapabilitiesResponse* response) override {
    std::lock_guard lock(mutex_);
    response->set_frr_version(version);
    response->add_supported_modules()->set_name(module);
    return grpc::Status::OK;
  }

  grpc::Status Get(grpc::ServerContext*, const frr::GetRequest*,
                   grpc::ServerWriter<frr::GetResponse>* writer) override {
    std::lock_guard lock(mutex_);
    if (running_.empty()) return {grpc::StatusCode::INVALID_ARGUMENT, "Data path not found"};
    std::string routes;
    for (const auto& [prefix, tag] : running_) {
      routes += std::string(routes.empty() ? "" : ",") + R"({"prefix":")" + prefix +
                R"(","afi-safi":"frr-routing:ipv6-unicast","path-list":[{"table-id":0,"distance":1,"tag":)" +
                std::to_string(tag) + R"(,"frr-nexthops":{"nexthop":[{"nh-type":")" +
                (operators.contains(prefix) ? R"(ifindex","interface":"eth0)" : R"(blackhole","interface":"(null))") +
                R"(","vrf":"default","gateway":""}]}}]})";
    }
    frr::GetResponse response;
    response.mutable_data()->set_data(
        R"({"frr-routing:routing":{"control-plane-protocols":{"control-plane-protocol":[{"type":"frr-staticd:staticd",)"
        R"("name":"staticd","vrf":"default","frr-staticd:staticd":{"route-list":[)" +
        routes + "]}}]}}}");
    writer->Write(response);
    return grpc::Status::OK;
  }

  grpc::Status CreateCandidate(grpc::ServerContext*, const frr::CreateCandidateRequest*,
                               frr::CreateCandidateResponse* response) override {
    if (on_create) on_create();
    std::lock_guard lock(mutex_);
    if (on_candidate) {
      const grpc::Status status = on_candidate();
      if (!status.ok()) return status;
    }
    response->set_candidate_id(++last_id_);
    candidates_[last_id_] = running_;
    return grpc::Status::OK;
  }

  grpc::Status DeleteCandidate(grpc::ServerContext*, const frr::DeleteCandidateRequest* request,
                               frr::DeleteCandidateResponse*) override {
    std::lock_guard lock(mutex_);
    candidates_.erase(request->candidate_id());
    return grpc::Status::OK;
  }

  grpc::Status EditCandidate(grpc::ServerContext*, const frr::EditCandidateRequest* request,
                             frr::EditCandidateResponse*) override {
    if (on_edit) on_edit();
    std::lock_guard lock(mutex_);
    if (request->update_size() != 0) return {grpc::StatusCode::UNIMPLEMENTED, "additions are loaded"};
    Routes edited = candidates_[request->candidate_id()];
    for (const auto& removal : request->delete_()) {
      if (edited.erase(prefix_of(removal.path())) == 0) {
        return {grpc::StatusCode::INVALID_ARGUMENT, "Failed to remove \"" + removal.path() + "\""};
      }
    }
    candidates_[request->candidate_id()] = edited;
    return grpc::Status::OK;
  }

  grpc::Status LoadToCandidate(grpc::ServerContext*, const frr::LoadToCandidateRequest* request,
                               frr::LoadToCandidateResponse*) override {
    std::lock_guard lock(mutex_);
    const auto loaded = parse_statics(request->config().data());
    if (request->type() != frr::LoadToCandidateRequest::MERGE || !loaded.ok()) {
      return {grpc::StatusCode::INTERNAL, "Failed to parse the configuration"};
    }
    Routes routes;
    for (const auto& [prefix, route] : *loaded) routes[prefix.to_string()] = static_cast<int>(route.blackhole_tag);
    if (on_load) {
      const grpc::Status status = on_load(routes);
      if (!status.ok()) return status;
    }
    for (const auto& [prefix, tag] : routes) candidates_[request->candidate_id()][prefix] = tag;
    return grpc::Status::OK;
  }

  grpc::Status Commit(grpc::ServerContext*, const frr::CommitRequest* request, frr::CommitResponse*) override {
    std::unique_lock lock(mutex_);
    in_commit_ = true;
    changed_.wait(lock, [this] { return !held_; });
    in_commit_ = false;
    if (request->phase() != frr::CommitRequest::ALL) return {grpc::StatusCode::INTERNAL, "phase"};
    const Routes& candidate = candidates_[request->candidate_id()];
    Routes changes;
    for (const auto& [prefix, tag] : candidate) {
      const auto before = running_.find(prefix);
      if (before == running_.end() || before->second != tag) changes[prefix] = tag;
    }
    for (const auto& [prefix, tag] : running_) {
      if (!candidate.contains(prefix)) changes[prefix] = 0;
    }
    if (changes.empty()) return {grpc::StatusCode::ABORTED, "No changes to apply"};
    if (on_commit) {
      const grpc::Status status = on_commit(changes);
      if (!status.ok()) return status;
    }
    running_ = candidate;
    commits_.push_back(changes);
    return grpc::Status::OK;
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  bool held_ = false;
  bool in_commit_ = false;
  std::uint32_t last_id_ = 0;
  std::map<std::uint32_t, Routes> candidates_;
  std::vector<Routes> commits_;
  int port_ = 0;
  std::unique_ptr<grpc::Server> server_;
};

}  // namespace kedge::speaker
