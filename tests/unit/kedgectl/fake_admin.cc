#include "tests/unit/kedgectl/fake_admin.h"

#include <chrono>

#include "grpcpp/security/server_credentials.h"
#include "grpcpp/server_builder.h"

namespace kedge::kedgectl {

using namespace std::chrono_literals;

FakeAdmin::FakeAdmin(int port) {
  grpc::ServerBuilder builder;
  builder.AddListeningPort("[::1]:" + std::to_string(port), grpc::InsecureServerCredentials(), &port_);
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  builder.RegisterService(this);
  server_ = builder.BuildAndStart();
}

FakeAdmin::~FakeAdmin() {
  {
    std::lock_guard lock(mutex_);
    ending_ = true;
    changed_.notify_all();
  }
  if (server_) server_->Shutdown(std::chrono::system_clock::now());
}

std::string FakeAdmin::address() const { return "[::1]:" + std::to_string(port_); }

void FakeAdmin::add_event(std::uint64_t id, const std::string& prefix) {
  std::lock_guard lock(mutex_);
  auto& event = events_.emplace_back();
  event.set_id(id);
  event.set_type(v1::EVENT_TYPE_SETTLED);
  event.set_prefix(prefix);
  event.mutable_at()->set_seconds(1767323045);
  changed_.notify_all();
}

bool FakeAdmin::wait_for_watches(std::size_t count) {
  std::unique_lock lock(mutex_);
  return changed_.wait_for(lock, 20s, [&] { return watches_.size() >= count; });
}

std::vector<v1::WatchEventsRequest> FakeAdmin::watches() const {
  std::lock_guard lock(mutex_);
  return watches_;
}

grpc::Status FakeAdmin::Status(grpc::ServerContext* context, const v1::StatusRequest*, v1::StatusResponse* answer) {
  std::unique_lock lock(mutex_);
  while (hangs && !context->IsCancelled() && !ending_) changed_.wait_for(lock, 5ms);
  *answer = status_answer;
  answer->mutable_started_at()->set_seconds(started_at);
  if (!events_.empty()) answer->set_last_event_id(events_.back().id());
  return grpc::Status::OK;
}

grpc::Status FakeAdmin::ListNodes(grpc::ServerContext*, const v1::ListNodesRequest*, v1::ListNodesResponse* answer) {
  *answer = nodes_answer;
  return grpc::Status::OK;
}

grpc::Status FakeAdmin::ListBindings(grpc::ServerContext*, const v1::ListBindingsRequest* request,
                                     v1::ListBindingsResponse* answer) {
  if (request->ar() == "bad ar") return {grpc::StatusCode::INVALID_ARGUMENT, "'bad ar' is no name"};
  std::size_t next = request->page_token().empty() ? 0 : std::stoul(request->page_token());
  while (next < bindings.size() && static_cast<std::size_t>(answer->bindings_size()) < page_size) {
    const auto& binding = bindings[next++];
    if (!request->ar().empty() && binding.attached_ar() != request->ar()) continue;
    if (!request->mn_id().empty() && binding.mn_id() != request->mn_id()) continue;
    *answer->add_bindings() = binding;
  }
  if (next < bindings.size()) answer->set_next_page_token(repeats_page ? "1" : std::to_string(next));
  answer->mutable_revision()->set_revision(5);
  return grpc::Status::OK;
}

grpc::Status FakeAdmin::GetBinding(grpc::ServerContext*, const v1::GetBindingRequest* request, v1::Binding* answer) {
  for (const auto& binding : bindings) {
    if (binding.prefix() != request->prefix()) continue;
    *answer = binding;
    return grpc::Status::OK;
  }
  return {grpc::StatusCode::NOT_FOUND, "no binding covers " + request->prefix()};
}

grpc::Status FakeAdmin::WatchEvents(grpc::ServerContext* context, const v1::WatchEventsRequest* request,
                                    grpc::ServerWriter<v1::Event>* writer) {
  std::unique_lock lock(mutex_);
  watches_.push_back(*request);
  changed_.notify_all();
  std::uint64_t last = request->after_id();
  if (last == 0 && !request->from_start() && !events_.empty()) last = events_.back().id();
  if (last != 0 && last < dropped) return {grpc::StatusCode::OUT_OF_RANGE, "events have been dropped"};
  while (!context->IsCancelled() && !ending_) {
    for (const auto& event : events_) {
      if (event.id() <= last) continue;
      last = event.id();
      if (request->prefix().empty() || request->prefix() == event.prefix()) writer->Write(event);
    }
    changed_.wait_for(lock, 5ms);
  }
  return grpc::Status::OK;
}

}  // namespace kedge::kedgectl
