// The Admin service in this process, on a port of its own, with answers that the test sets.
#pragma once

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <string>
#include <vector>

#include "grpcpp/server.h"
#include "kedge/v1/admin.grpc.pb.h"

namespace kedge::kedgectl {

class FakeAdmin final : public v1::Admin::Service {
 public:
  // Listens on `port`, or on a free one; not at all when `port` is taken.
  explicit FakeAdmin(int port = 0);
  // Ends all streams.
  ~FakeAdmin() override;

  std::string address() const;
  int port() const { return port_; }

  // Any thread, at any time: events are kept and go to all watchers.
  void add_event(std::uint64_t id, const std::string& prefix);
  // Returns once so many watches have begun; false after a bound.
  bool wait_for_watches(std::size_t count);
  std::vector<v1::WatchEventsRequest> watches() const;

  // Set before any call.
  v1::StatusResponse status_answer;
  v1::ListNodesResponse nodes_answer;
  std::vector<v1::Binding> bindings;
  std::size_t page_size = 2;
  bool repeats_page = false;
  std::int64_t started_at = 1;
  // Calls wait until they are cancelled.
  bool hangs = false;
  // Events up to this one have been dropped.
  std::uint64_t dropped = 0;

 private:
  grpc::Status Status(grpc::ServerContext*, const v1::StatusRequest*, v1::StatusResponse*) override;
  grpc::Status ListNodes(grpc::ServerContext*, const v1::ListNodesRequest*, v1::ListNodesResponse*) override;
  grpc::Status ListBindings(grpc::ServerContext*, const v1::ListBindingsRequest*, v1::ListBindingsResponse*) override;
  grpc::Status GetBinding(grpc::ServerContext*, const v1::GetBindingRequest*, v1::Binding*) override;
  grpc::Status WatchEvents(grpc::ServerContext*, const v1::WatchEventsRequest*,
                           grpc::ServerWriter<v1::Event>*) override;

  int port_ = 0;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  bool ending_ = false;
  std::vector<v1::Event> events_;
  std::vector<v1::WatchEventsRequest> watches_;
  std::unique_ptr<grpc::Server> server_;
};

}  // namespace kedge::kedgectl
