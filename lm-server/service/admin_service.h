// kedge.v1.Admin on gRPC's callback API.
#pragma once

#include "boost/asio/io_context.hpp"
#include "kedge/v1/admin.grpc.pb.h"
#include "lm-server/service/authorization.h"
#include "lm-server/service/engine.h"
#include "lm-server/service/stalled_readers.h"

namespace kedge::lm {

class AdminService : public v1::Admin::CallbackService {
 public:
  AdminService(boost::asio::io_context& io, Engine& engine, Authorizer& authorizer, StalledReaders& readers)
      : io_(io), engine_(engine), authorizer_(authorizer), readers_(readers) {}

  grpc::ServerUnaryReactor* ListBindings(grpc::CallbackServerContext* context, const v1::ListBindingsRequest* request,
                                         v1::ListBindingsResponse* response) override;
  grpc::ServerUnaryReactor* GetBinding(grpc::CallbackServerContext* context, const v1::GetBindingRequest* request,
                                       v1::Binding* response) override;
  grpc::ServerUnaryReactor* ListNodes(grpc::CallbackServerContext* context, const v1::ListNodesRequest* request,
                                      v1::ListNodesResponse* response) override;
  grpc::ServerWriteReactor<v1::Event>* WatchEvents(grpc::CallbackServerContext* context,
                                                   const v1::WatchEventsRequest* request) override;
  grpc::ServerUnaryReactor* Status(grpc::CallbackServerContext* context, const v1::StatusRequest* request,
                                   v1::StatusResponse* response) override;
  grpc::ServerUnaryReactor* SetPolicy(grpc::CallbackServerContext* context, const v1::SetPolicyRequest* request,
                                      v1::PolicyEntry* response) override;
  grpc::ServerUnaryReactor* DeletePolicy(grpc::CallbackServerContext* context, const v1::DeletePolicyRequest* request,
                                         v1::DeletePolicyResponse* response) override;
  grpc::ServerUnaryReactor* ListPolicies(grpc::CallbackServerContext* context, const v1::ListPoliciesRequest* request,
                                         v1::ListPoliciesResponse* response) override;
  grpc::ServerUnaryReactor* GetEffectivePolicy(grpc::CallbackServerContext* context,
                                               const v1::GetEffectivePolicyRequest* request,
                                               v1::EffectivePolicy* response) override;
  grpc::ServerUnaryReactor* DrainNode(grpc::CallbackServerContext* context, const v1::DrainNodeRequest* request,
                                      v1::Node* response) override;
  grpc::ServerUnaryReactor* UndrainNode(grpc::CallbackServerContext* context, const v1::DrainNodeRequest* request,
                                        v1::Node* response) override;
  grpc::ServerUnaryReactor* Detach(grpc::CallbackServerContext* context, const v1::DetachNodeRequest* request,
                                   v1::DetachNodeResponse* response) override;
  grpc::ServerWriteReactor<v1::BackupRecord>* Backup(grpc::CallbackServerContext* context,
                                                     const v1::BackupRequest* request) override;
  grpc::ServerWriteReactor<v1::AuditRecord>* Audit(grpc::CallbackServerContext* context,
                                                   const v1::AuditRequest* request) override;

 private:
  void set_draining(grpc::ServerUnaryReactor* reactor, const v1::DrainNodeRequest* request, v1::Node* response,
                    bool draining, Request who);

  boost::asio::io_context& io_;
  Engine& engine_;
  Authorizer& authorizer_;
  StalledReaders& readers_;
};

}  // namespace kedge::lm
