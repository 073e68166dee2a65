#include "lm-server/service/server.h"

#include <chrono>

#include "absl/strings/str_cat.h"
#include "grpcpp/server_builder.h"

namespace kedge::lm {
namespace {
constexpr auto kLongestFarewell = std::chrono::seconds(2);
}

absl::StatusOr<std::unique_ptr<Server>> Server::start(boost::asio::io_context& io, Engine& engine,
                                                      const std::string& listen, const TransportSecurity& security,
                                                      std::function<void(const Authorizer::Denial&)> on_denial,
                                                      std::size_t queue_limit) {
  auto server =
      std::unique_ptr<Server>(new Server(io, engine, security.insecure_plaintext, std::move(on_denial), queue_limit));
  grpc::ServerBuilder builder;
  if (auto s = add_listening_port(builder, listen, security, &server->port_); !s.ok()) return s;
  builder.RegisterService(&server->mobility_);
  builder.RegisterService(&server->admin_);
  server->server_ = builder.BuildAndStart();
  if (server->server_ == nullptr || server->port_ == 0) {
    return absl::UnavailableError(absl::StrCat("cannot listen on ", listen,
                                               "; is another kedge-lm running, or is the address not of this host?"));
  }
  return server;
}

void Server::shut_down() { server_->Shutdown(std::chrono::system_clock::now() + kLongestFarewell); }

}  // namespace kedge::lm
