// kedge-lm's gRPC server: both services on one port.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "boost/asio/io_context.hpp"
#include "common/credentials.h"
#include "grpcpp/server.h"
#include "lm-server/service/admin_service.h"
#include "lm-server/service/engine.h"
#include "lm-server/service/mobility_service.h"

namespace kedge::lm {

class Server {
 public:
  // Listens. `on_denial` runs on threads of gRPC. Errors of check_tls_files; Unavailable: the address cannot be
  // listened on. `engine` outlives the server.
  static absl::StatusOr<std::unique_ptr<Server>> start(boost::asio::io_context& io, Engine& engine,
                                                       const std::string& listen, const TransportSecurity& security,
                                                       std::function<void(const Authorizer::Denial&)> on_denial = {},
                                                       std::size_t queue_limit = MobilityService::kDefaultQueueLimit);
  int port() const { return port_; }
  Authorizer& authorizer() { return authorizer_; }
  // Blocks until all calls have ended. The engine is stopped before, and `io` goes on running on another thread until
  // then.
  void shut_down();

 private:
  Server(boost::asio::io_context& io, Engine& engine, bool plaintext,
         std::function<void(const Authorizer::Denial&)> on_denial, std::size_t queue_limit)
      : authorizer_(plaintext, std::move(on_denial)),
        mobility_(io, engine, authorizer_, queue_limit),
        admin_(io, engine, authorizer_) {}

  Authorizer authorizer_;
  MobilityService mobility_;
  AdminService admin_;
  int port_ = 0;
  std::unique_ptr<grpc::Server> server_;
};

}  // namespace kedge::lm
