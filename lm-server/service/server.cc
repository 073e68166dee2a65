#include "lm-server/service/server.h"

#include <chrono>
#include <utility>

#include "grpc/grpc.h"
#include "grpcpp/server_builder.h"

namespace kedge::lm {
namespace {

constexpr auto kLongestFarewell = std::chrono::seconds(2);

void apply(const ServerLimits& limits, grpc::ServerBuilder& builder) {
  builder.SetMaxReceiveMessageSize(limits.message_bytes);
  builder.AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS, limits.streams_per_connection);
  builder.AddChannelArgument(GRPC_ARG_SERVER_HANDSHAKE_TIMEOUT_MS, static_cast<int>(limits.handshake_timeout.count()));
  builder.AddChannelArgument(GRPC_ARG_HTTP2_BDP_PROBE, 0);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_STREAM_LOOKAHEAD_BYTES, kStreamWindow);
  // A client that has vanished is noticed after time + timeout; one that pings more often than it may is sent away.
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, 10'000);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 5'000);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, 5'000);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
}

}  // namespace

absl::StatusOr<std::unique_ptr<Server>> Server::start(boost::asio::io_context& io, Engine& engine,
                                                      const std::string& listen, const TransportSecurity& security,
                                                      std::function<void(const Authorizer::Denial&)> on_denial,
                                                      const ServerLimits& limits) {
  auto credentials = make_server_credentials(listen, security);
  if (!credentials.ok()) return credentials.status();
  auto server =
      std::unique_ptr<Server>(new Server(io, engine, security.insecure_plaintext, std::move(on_denial), limits));
  auto listener = Listener::open(io, listen, limits, engine.metrics());
  if (!listener.ok()) return listener.status();
  server->listener_ = *std::move(listener);
  grpc::ServerBuilder builder;
  apply(limits, builder);
  auto acceptor = builder.experimental().AddExternalConnectionAcceptor(
      grpc::ServerBuilder::experimental_type::ExternalConnectionType::FROM_FD, *std::move(credentials));
  builder.RegisterService(&server->mobility_);
  builder.RegisterService(&server->admin_);
  server->server_ = builder.BuildAndStart();
  if (server->server_ == nullptr) return absl::InternalError("gRPC's server does not start; its log says why");
  server->listener_->start(std::move(acceptor));
  return server;
}

void Server::shut_down() { server_->Shutdown(std::chrono::system_clock::now() + kLongestFarewell); }

}  // namespace kedge::lm
