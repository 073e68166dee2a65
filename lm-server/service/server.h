// kedge-lm's gRPC server: both services on one port.
#pragma once

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
  // Listens. Unavailable: the address cannot be listened on. `engine` outlives the server.
  static absl::StatusOr<std::unique_ptr<Server>> start(boost::asio::io_context& io, Engine& engine,
                                                       const std::string& listen, const TransportSecurity& security,
                                                       std::size_t queue_limit = MobilityService::kDefaultQueueLimit);
  int port() const { return port_; }
  // Blocks until all calls have ended. The engine is stopped before, and `io` goes on running on another thread until
  // then.
  void shut_down();

 private:
  Server(boost::asio::io_context& io, Engine& engine, std::size_t queue_limit)
      : mobility_(io, engine, queue_limit), admin_(io, engine) {}

  MobilityService mobility_;
  AdminService admin_;
  int port_ = 0;
  std::unique_ptr<grpc::Server> server_;
};

}  // namespace kedge::lm
