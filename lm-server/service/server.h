// kedge-lm's gRPC server: both services on one port.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "boost/asio/io_context.hpp"
#include "common/credentials.h"
#include "grpcpp/server.h"
#include "lm-server/core/limits.h"
#include "lm-server/service/admin_service.h"
#include "lm-server/service/engine.h"
#include "lm-server/service/listener.h"
#include "lm-server/service/mobility_service.h"
#include "lm-server/service/stalled_readers.h"

namespace kedge::lm {

class Server {
 public:
  // Listens. `on_denial` runs on threads of gRPC. Errors of check_tls_files and Listener::open. `engine` outlives the
  // server. Called before `io` runs, or on its thread.
  static absl::StatusOr<std::unique_ptr<Server>> start(boost::asio::io_context& io, Engine& engine,
                                                       const std::string& listen, const TransportSecurity& security,
                                                       std::function<void(const Authorizer::Denial&)> on_denial = {},
                                                       const ServerLimits& limits = {});
  int port() const { return listener_->port(); }
  Authorizer& authorizer() { return authorizer_; }
  // Blocks until all calls have ended. The engine is stopped before, and `io` goes on running on another thread until
  // then.
  void shut_down();

 private:
  Server(boost::asio::io_context& io, Engine& engine, bool plaintext,
         std::function<void(const Authorizer::Denial&)> on_denial, const ServerLimits& limits)
      : authorizer_(plaintext, std::move(on_denial)),
        readers_(io, limits.stalled_reader, engine.metrics()),
        mobility_(io, engine, authorizer_, readers_, limits.session_queue),
        admin_(io, engine, authorizer_, readers_) {}

  Authorizer authorizer_;
  StalledReaders readers_;
  MobilityService mobility_;
  AdminService admin_;
  std::unique_ptr<Listener> listener_;
  std::unique_ptr<grpc::Server> server_;
};

}  // namespace kedge::lm
