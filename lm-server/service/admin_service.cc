#include "lm-server/service/admin_service.h"

#include <algorithm>
#include <memory>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "boost/asio/post.hpp"
#include "common/status.h"
#include "common/time.h"
#include "lm-server/core/rules.h"
#include "lm-server/service/admission.h"
#include "lm-server/service/audit_reactor.h"
#include "lm-server/service/backup_reactor.h"
#include "lm-server/service/mobility_service.h"
#include "lm-server/service/version.h"
#include "lm-server/service/write_stream.h"

namespace kedge::lm {
namespace {

constexpr std::uint32_t kDefaultPage = 1'000;
constexpr std::uint32_t kLargestPage = 10'000;

v1::Binding with_idle_since(const Machine& machine, v1::Binding binding) {
  const auto since = machine.idle_since(*Ipv6Prefix::parse(binding.prefix()));
  if (since) *binding.mutable_idle_since() = to_proto(*since);
  return binding;
}

absl::Status list_bindings(const Machine& machine, const v1::ListBindingsRequest& request,
                           v1::ListBindingsResponse& response) {
  std::optional<Ipv6Prefix> after;
  if (!request.page_token().empty()) {
    auto token = Ipv6Prefix::parse(request.page_token());
    if (!token.ok()) return annotate(token.status(), "page_token");
    after = *token;
  }
  if (request.page_size() > kLargestPage) {
    return absl::InvalidArgumentError(absl::StrCat("page_size: at most ", kLargestPage));
  }
  const int page = static_cast<int>(request.page_size() == 0 ? kDefaultPage : request.page_size());
  machine.visit_bindings(after, [&](const v1::Binding& binding) {
    if (!request.mn_id().empty() && binding.mn_id() != request.mn_id()) return true;
    if (!request.ar().empty() && find_holder(binding, request.ar()) == nullptr) return true;
    if (response.bindings_size() == page) {
      response.set_next_page_token(response.bindings(page - 1).prefix());
      return false;
    }
    *response.add_bindings() = with_idle_since(machine, binding);
    return true;
  });
  *response.mutable_revision() = machine.revision();
  return absl::OkStatus();
}

// Writes one event at a time and looks for the next when it has gone, so that a slow watcher costs no memory.
class WatchReactor : public WriteStream<v1::Event> {
 public:
  static WatchReactor* begin(boost::asio::io_context& io, Engine& engine, StalledReaders& readers, const Caller& caller,
                             grpc::CallbackServerContext* context, const v1::WatchEventsRequest& request) {
    auto reactor = std::shared_ptr<WatchReactor>(new WatchReactor(io, engine, readers, caller, context, request));
    reactor->self_ = reactor;
    boost::asio::post(io, [reactor] { reactor->subscribe(); });
    return reactor.get();
  }

  void OnCancel() override { finish(absl::CancelledError("the watcher has gone")); }
  void OnDone() override {
    gone();
    boost::asio::post(io_, [self = std::move(self_)] { self->engine_.events().remove_listener(self->listener_); });
  }

 private:
  WatchReactor(boost::asio::io_context& io, Engine& engine, StalledReaders& readers, const Caller& caller,
               grpc::CallbackServerContext* context, v1::WatchEventsRequest request)
      : WriteStream(readers, "kedge.v1.Admin.WatchEvents", caller, context),
        io_(io),
        engine_(engine),
        request_(std::move(request)) {}

  void on_written(bool ok) override {
    boost::asio::post(io_, [self = self_, ok] {
      self->writing_ = false;
      if (ok) self->pump();
    });
  }

  void subscribe() {
    const EventLog& log = engine_.events();
    const std::uint64_t oldest = log.first_id() - 1;
    last_ = request_.from_start() ? oldest : request_.after_id() == 0 ? log.last_id() : request_.after_id();
    if (last_ > log.last_id()) {
      return finish(absl::OutOfRangeError(
          absl::StrCat("the last event is ", log.last_id(), "; the LM was restarted, watch from the start")));
    }
    StartSendInitialMetadata();
    listener_ = engine_.events().add_listener([weak = std::weak_ptr(self_)] {
      if (auto reactor = weak.lock()) reactor->pump();
    });
    pump();
  }

  bool matches(const v1::Event& event) const {
    const auto fits = [](const std::string& filter, const std::string& value) {
      return filter.empty() || filter == value;
    };
    return fits(request_.prefix(), event.prefix()) && fits(request_.mn_id(), event.mn_id()) &&
           fits(request_.ar(), event.ar());
  }

  void pump() {
    const EventLog& log = engine_.events();
    if (log.closed()) return finish(absl::UnavailableError("the LM is stopping"));
    if (writing_) return;
    if (last_ + 1 < log.first_id()) {
      return finish(absl::OutOfRangeError(
          absl::StrCat("events after ", last_, " have been dropped; the oldest kept is ", log.first_id())));
    }
    while (const v1::Event* event = log.next(last_)) {
      last_ = event->id();
      if (!matches(*event)) continue;
      out_ = *event;
      writing_ = true;
      write(&out_);
      return;
    }
  }

  boost::asio::io_context& io_;
  Engine& engine_;
  const v1::WatchEventsRequest request_;
  std::shared_ptr<WatchReactor> self_;  // released by OnDone
  // Used on the engine's thread only.
  std::uint64_t last_ = 0;
  std::uint64_t listener_ = 0;
  bool writing_ = false;
  v1::Event out_;
};

}  // namespace

grpc::ServerUnaryReactor* AdminService::ListBindings(grpc::CallbackServerContext* context,
                                                     const v1::ListBindingsRequest* request,
                                                     v1::ListBindingsResponse* response) {
  auto* reactor = context->DefaultReactor();
  const auto caller = admit(authorizer_, *context, "kedge.v1.Admin.ListBindings", reactor);
  if (!caller) return reactor;
  boost::asio::post(io_, [this, request, response, reactor] {
    reactor->Finish(to_grpc_status(list_bindings(engine_.machine(), *request, *response)));
  });
  return reactor;
}

grpc::ServerUnaryReactor* AdminService::GetBinding(grpc::CallbackServerContext* context,
                                                   const v1::GetBindingRequest* request, v1::Binding* response) {
  auto* reactor = context->DefaultReactor();
  const auto caller = admit(authorizer_, *context, "kedge.v1.Admin.GetBinding", reactor);
  if (!caller) return reactor;
  boost::asio::post(io_, [this, request, response, reactor] {
    absl::Status status;
    const auto prefix = parse_prefix_or_address(request->prefix());
    if (!prefix.ok()) {
      status = prefix.status();
    } else if (const auto* binding = engine_.machine().find(*prefix)) {
      *response = with_idle_since(engine_.machine(), *binding);
    } else {
      status = absl::NotFoundError(absl::StrCat("no binding covers ", request->prefix()));
    }
    reactor->Finish(to_grpc_status(status));
  });
  return reactor;
}

grpc::ServerUnaryReactor* AdminService::ListNodes(grpc::CallbackServerContext* context, const v1::ListNodesRequest*,
                                                  v1::ListNodesResponse* response) {
  auto* reactor = context->DefaultReactor();
  const auto caller = admit(authorizer_, *context, "kedge.v1.Admin.ListNodes", reactor);
  if (!caller) return reactor;
  boost::asio::post(io_, [this, response, reactor] {
    for (auto& node : engine_.machine().nodes()) *response->add_nodes() = std::move(node);
    reactor->Finish(grpc::Status::OK);
  });
  return reactor;
}

grpc::ServerWriteReactor<v1::Event>* AdminService::WatchEvents(grpc::CallbackServerContext* context,
                                                               const v1::WatchEventsRequest* request) {
  const auto caller = authorizer_.authorize(*context, "kedge.v1.Admin.WatchEvents");
  if (!caller.ok()) return new Refusal<grpc::ServerWriteReactor<v1::Event>>(caller.status());
  return WatchReactor::begin(io_, engine_, readers_, *caller, context, *request);
}

grpc::ServerUnaryReactor* AdminService::Status(grpc::CallbackServerContext* context, const v1::StatusRequest*,
                                               v1::StatusResponse* response) {
  auto* reactor = context->DefaultReactor();
  const auto caller = admit(authorizer_, *context, "kedge.v1.Admin.Status", reactor);
  if (!caller) return reactor;
  boost::asio::post(io_, [this, response, reactor] {
    const Machine& machine = engine_.machine();
    response->set_version(kVersion);
    *response->mutable_started_at() = to_proto(engine_.started_at());
    *response->mutable_revision() = machine.revision();
    response->set_bindings(machine.binding_count());
    response->set_bindings_attached(machine.attached_count());
    response->set_bindings_moving(machine.moving_count());
    response->set_nodes(machine.node_count());
    response->set_nodes_connected(machine.connected_count());
    response->set_last_event_id(engine_.events().last_id());
    response->set_store(engine_.store_health());
    reactor->Finish(grpc::Status::OK);
  });
  return reactor;
}

grpc::ServerUnaryReactor* AdminService::SetPolicy(grpc::CallbackServerContext* context,
                                                  const v1::SetPolicyRequest* request, v1::PolicyEntry* response) {
  auto* reactor = context->DefaultReactor();
  const auto caller = admit(authorizer_, *context, "kedge.v1.Admin.SetPolicy", reactor);
  if (!caller) return reactor;
  boost::asio::post(io_, [this, request, response, reactor,
                          who = as_request(*caller, "kedge.v1.Admin.SetPolicy", request->ShortDebugString())] {
    engine_.administer(
        [request, response](Machine& machine, SystemTime now) {
          auto output = machine.set_policy(*request, now);
          if (output.status.ok()) *response = *machine.find_policy(request->scope());
          return output;
        },
        who, [reactor](const absl::Status& status, const Output&) { reactor->Finish(to_grpc_status(status)); });
  });
  return reactor;
}

grpc::ServerUnaryReactor* AdminService::DeletePolicy(grpc::CallbackServerContext* context,
                                                     const v1::DeletePolicyRequest* request,
                                                     v1::DeletePolicyResponse*) {
  auto* reactor = context->DefaultReactor();
  const auto caller = admit(authorizer_, *context, "kedge.v1.Admin.DeletePolicy", reactor);
  if (!caller) return reactor;
  boost::asio::post(io_, [this, request, reactor,
                          who = as_request(*caller, "kedge.v1.Admin.DeletePolicy", request->ShortDebugString())] {
    engine_.administer(
        [request](Machine& machine, SystemTime now) { return machine.delete_policy(request->scope(), now); }, who,
        [reactor](const absl::Status& status, const Output&) { reactor->Finish(to_grpc_status(status)); });
  });
  return reactor;
}

grpc::ServerUnaryReactor* AdminService::ListPolicies(grpc::CallbackServerContext* context,
                                                     const v1::ListPoliciesRequest*,
                                                     v1::ListPoliciesResponse* response) {
  auto* reactor = context->DefaultReactor();
  const auto caller = admit(authorizer_, *context, "kedge.v1.Admin.ListPolicies", reactor);
  if (!caller) return reactor;
  boost::asio::post(io_, [this, response, reactor] {
    for (auto& entry : engine_.machine().policies()) *response->add_policies() = std::move(entry);
    reactor->Finish(grpc::Status::OK);
  });
  return reactor;
}

grpc::ServerUnaryReactor* AdminService::GetEffectivePolicy(grpc::CallbackServerContext* context,
                                                           const v1::GetEffectivePolicyRequest* request,
                                                           v1::EffectivePolicy* response) {
  auto* reactor = context->DefaultReactor();
  const auto caller = admit(authorizer_, *context, "kedge.v1.Admin.GetEffectivePolicy", reactor);
  if (!caller) return reactor;
  boost::asio::post(io_, [this, request, response, reactor] {
    auto policy = engine_.machine().effective_policy(*request);
    if (policy.ok()) *response = std::move(*policy);
    reactor->Finish(to_grpc_status(policy.status()));
  });
  return reactor;
}

grpc::ServerUnaryReactor* AdminService::DrainNode(grpc::CallbackServerContext* context,
                                                  const v1::DrainNodeRequest* request, v1::Node* response) {
  auto* reactor = context->DefaultReactor();
  const auto caller = admit(authorizer_, *context, "kedge.v1.Admin.DrainNode", reactor);
  if (!caller) return reactor;
  set_draining(reactor, request, response, true, as_request(*caller, "kedge.v1.Admin.DrainNode", request->ar()));
  return reactor;
}

grpc::ServerUnaryReactor* AdminService::UndrainNode(grpc::CallbackServerContext* context,
                                                    const v1::DrainNodeRequest* request, v1::Node* response) {
  auto* reactor = context->DefaultReactor();
  const auto caller = admit(authorizer_, *context, "kedge.v1.Admin.UndrainNode", reactor);
  if (!caller) return reactor;
  set_draining(reactor, request, response, false, as_request(*caller, "kedge.v1.Admin.UndrainNode", request->ar()));
  return reactor;
}

void AdminService::set_draining(grpc::ServerUnaryReactor* reactor, const v1::DrainNodeRequest* request,
                                v1::Node* response, bool draining, Request who) {
  boost::asio::post(io_, [this, request, response, reactor, draining, who = std::move(who)] {
    engine_.administer(
        [request, draining](Machine& machine, SystemTime now) {
          return machine.set_draining(request->ar(), draining, now);
        },
        who,
        [this, request, response, reactor](const absl::Status& status, const Output&) {
          if (auto node = engine_.machine().describe_node(request->ar())) *response = std::move(*node);
          reactor->Finish(to_grpc_status(status));
        });
  });
}

grpc::ServerUnaryReactor* AdminService::Detach(grpc::CallbackServerContext* context,
                                               const v1::DetachNodeRequest* request, v1::DetachNodeResponse* response) {
  auto* reactor = context->DefaultReactor();
  const auto caller = admit(authorizer_, *context, "kedge.v1.Admin.Detach", reactor);
  if (!caller) return reactor;
  boost::asio::post(io_, [this, request, response, reactor,
                          who = as_request(*caller, "kedge.v1.Admin.Detach", request->ShortDebugString())] {
    engine_.administer(
        [request](Machine& machine, SystemTime now) { return machine.detach_by_operator(request->mn_id(), now); }, who,
        [response, reactor](const absl::Status& status, const Output& output) {
          response->set_prefixes(output.prefixes);
          reactor->Finish(to_grpc_status(status));
        });
  });
  return reactor;
}

grpc::ServerWriteReactor<v1::BackupRecord>* AdminService::Backup(grpc::CallbackServerContext* context,
                                                                 const v1::BackupRequest*) {
  const auto caller = authorizer_.authorize(*context, "kedge.v1.Admin.Backup");
  if (!caller.ok()) return new Refusal<grpc::ServerWriteReactor<v1::BackupRecord>>(caller.status());
  return new BackupReactor(readers_, *caller, context, engine_.store().cursor());
}

grpc::ServerWriteReactor<v1::AuditRecord>* AdminService::Audit(grpc::CallbackServerContext* context,
                                                               const v1::AuditRequest* request) {
  const auto caller = authorizer_.authorize(*context, "kedge.v1.Admin.Audit");
  if (!caller.ok()) return new Refusal<grpc::ServerWriteReactor<v1::AuditRecord>>(caller.status());
  return new AuditReactor(readers_, *caller, context, engine_.store().journal(request->after_id()), *request);
}

}  // namespace kedge::lm
