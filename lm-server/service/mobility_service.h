// kedge.v1.Mobility on gRPC's callback API. Every call is handed to the engine on its own thread.
#pragma once

#include <cstddef>

#include "boost/asio/io_context.hpp"
#include "kedge/v1/mobility.grpc.pb.h"
#include "lm-server/service/authorization.h"
#include "lm-server/service/engine.h"
#include "lm-server/service/stalled_readers.h"

namespace kedge::lm {

class MobilityService : public v1::Mobility::CallbackService {
 public:
  // `queue_limit`: ServerLimits::session_queue.
  MobilityService(boost::asio::io_context& io, Engine& engine, Authorizer& authorizer, StalledReaders& readers,
                  std::size_t queue_limit)
      : io_(io), engine_(engine), authorizer_(authorizer), readers_(readers), queue_limit_(queue_limit) {}

  grpc::ServerUnaryReactor* Attach(grpc::CallbackServerContext* context, const v1::AttachRequest* request,
                                   v1::AttachResponse* response) override;
  grpc::ServerUnaryReactor* AttachMany(grpc::CallbackServerContext* context, const v1::AttachManyRequest* request,
                                       v1::AttachManyResponse* response) override;
  grpc::ServerUnaryReactor* Detach(grpc::CallbackServerContext* context, const v1::DetachRequest* request,
                                   v1::DetachResponse* response) override;
  grpc::ServerUnaryReactor* Query(grpc::CallbackServerContext* context, const v1::QueryRequest* request,
                                  v1::QueryResponse* response) override;
  grpc::ServerUnaryReactor* Describe(grpc::CallbackServerContext* context, const v1::DescribeRequest* request,
                                     v1::DescribeResponse* response) override;
  grpc::ServerBidiReactor<v1::SpeakerMessage, v1::LmMessage>* Session(grpc::CallbackServerContext* context) override;

 private:
  boost::asio::io_context& io_;
  Engine& engine_;
  Authorizer& authorizer_;
  StalledReaders& readers_;
  const std::size_t queue_limit_;
};

// An address or a prefix of an operator or speaker. InvalidArgument.
absl::StatusOr<Ipv6Prefix> parse_prefix_or_address(const std::string& text);

}  // namespace kedge::lm
