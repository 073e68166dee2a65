// The whole server but main(), in this process: real gRPC on a free port, real RocksDB.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "boost/asio/executor_work_guard.hpp"
#include "boost/asio/io_context.hpp"
#include "boost/asio/post.hpp"
#include "common/credentials.h"
#include "grpcpp/client_context.h"
#include "grpcpp/create_channel.h"
#include "grpcpp/security/credentials.h"
#include "gtest/gtest.h"
#include "kedge/v1/admin.grpc.pb.h"
#include "kedge/v1/mobility.grpc.pb.h"
#include "lm-server/service/server.h"
#include "lm-server/store/rocksdb_store.h"

namespace kedge::lm {

// Three ARs, ar1 to ar3, with the pools 2001:db8:N::/48.
inline Settings settings() {
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

// Tells whether any are left.
class CountedCursor : public StoreCursor {
 public:
  CountedCursor(std::unique_ptr<StoreCursor> cursor, std::atomic<int>& count)
      : cursor_(std::move(cursor)), count_(count) {
    ++count_;
  }
  ~CountedCursor() override { --count_; }
  std::uint64_t epoch() const override { return cursor_->epoch(); }
  std::uint64_t revision() const override { return cursor_->revision(); }
  void seek(const std::string& key) override { cursor_->seek(key); }
  absl::StatusOr<bool> next(std::string* key, std::string* value) override { return cursor_->next(key, value); }

 private:
  std::unique_ptr<StoreCursor> cursor_;
  std::atomic<int>& count_;
};

// Real store whose disk can be made to fail.
class FragileStore : public Store {
 public:
  explicit FragileStore(RocksDbStore& store) : store_(store) {}
  absl::StatusOr<StoreSnapshot> read() override { return store_.read(); }
  std::unique_ptr<StoreCursor> cursor() override { return std::make_unique<CountedCursor>(store_.cursor(), cursors); }
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
  std::atomic<int> cursors = 0;

 private:
  RocksDbStore& store_;
};

// One run of the server.
class RunningServer {
 public:
  explicit RunningServer(const std::string& directory, const ServerLimits& limits = {},
                         const std::string& listen = "[::1]:0", const Settings& configured = settings())
      : store(*RocksDbStore::open(directory)),
        fragile(*store),
        engine(io, configured, fragile, metrics),
        work_(io.get_executor()) {
    EXPECT_TRUE(engine.start().ok());
    auto started = Server::start(io, engine, listen, {true, {}}, {}, limits);
    EXPECT_TRUE(started.ok()) << started.status();
    server = std::move(*started);
    thread_ = std::thread([this] { io.run(); });
    channel = connect();
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

  // A connection of its own.
  std::shared_ptr<grpc::Channel> connect(const std::string& address = "[::1]") const {
    return *make_channel(address + ":" + std::to_string(server->port()), {true, {}});
  }
  // The same of a client with these settings.
  std::unique_ptr<v1::Admin::Stub> connect_as(const std::map<std::string, int>& settings) const {
    grpc::ChannelArguments arguments;
    for (const auto& [name, value] : settings) arguments.SetInt(name, value);
    return v1::Admin::NewStub(grpc::CreateCustomChannel("[::1]:" + std::to_string(server->port()),
                                                        grpc::InsecureChannelCredentials(), arguments));
  }
  v1::AttachRequest attach_request(const std::string& ar, const std::string& mn) {
    v1::AttachRequest request;
    request.set_ar(ar);
    request.set_mn_id(mn);
    request.mutable_attachment()->set_interface("access0");
    request.mutable_attachment()->set_link_layer_address(mn);
    request.mutable_attachment()->set_link_local("fe80::11");
    request.set_trigger(v1::TRIGGER_ROUTER_SOLICITATION);
    request.set_incarnation(1);
    request.set_sequence(++sequence_);
    return request;
  }
  grpc::Status attach(const std::string& ar, const std::string& mn, v1::AttachResponse* response = nullptr) {
    grpc::ClientContext context;
    v1::AttachResponse ignored;
    return mobility->Attach(&context, attach_request(ar, mn), response == nullptr ? &ignored : response);
  }
  grpc::Status attach_many(const std::vector<v1::AttachRequest>& requests, v1::AttachManyResponse& response) {
    grpc::ClientContext context;
    v1::AttachManyRequest request;
    request.set_ar("ar1");
    for (const auto& one : requests) *request.add_requests() = one;
    return mobility->AttachMany(&context, request, &response);
  }
  grpc::Status get_status(const std::string& prefix, v1::Binding* binding = nullptr) {
    grpc::ClientContext context;
    v1::GetBindingRequest request;
    request.set_prefix(prefix);
    v1::Binding ignored;
    return admin->GetBinding(&context, request, binding == nullptr ? &ignored : binding);
  }
  v1::Binding get(const std::string& prefix) {
    v1::Binding binding;
    EXPECT_TRUE(get_status(prefix, &binding).ok());
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

}  // namespace kedge::lm
