#include "speaker/authenticator/authenticator_server.h"

#include <sys/stat.h>

#include <algorithm>
#include <chrono>
#include <utility>

#include "absl/strings/str_cat.h"
#include "boost/asio/post.hpp"
#include "common/status.h"
#include "common/time.h"
#include "grpcpp/server.h"
#include "grpcpp/server_builder.h"
#include "kedge/v1/authenticator.grpc.pb.h"
#include "speaker/authenticator/authenticator_socket.h"

namespace kedge::speaker {
namespace {

constexpr std::size_t kLongestIdentity = 253;
constexpr std::int64_t kLongestSeconds = 366LL * 24 * 3600;
constexpr int kMostMessageBytes = 4096;

template <typename Request>
absl::StatusOr<AuthenticatingAccessPlane::Station> read_station(const Request& request) {
  const auto address = LinkLayerAddress::parse(request.link_layer_address());
  if (!address.ok()) {
    return absl::InvalidArgumentError(absl::StrCat("link_layer_address: ", address.status().message()));
  }
  if (address->is_multicast() || address->is_zero()) {
    return absl::InvalidArgumentError("link_layer_address: a unicast address is expected");
  }
  return AuthenticatingAccessPlane::Station{request.interface(), *address};
}

class Service final : public v1::Authenticator::CallbackService {
 public:
  Service(boost::asio::any_io_executor executor, AuthenticatingAccessPlane& plane)
      : executor_(std::move(executor)), plane_(plane) {}

  grpc::ServerUnaryReactor* Authorize(grpc::CallbackServerContext* context, const v1::AuthorizeRequest* request,
                                      v1::AuthorizeResponse*) override {
    auto* reactor = context->DefaultReactor();
    const auto station = read_station(*request);
    if (!station.ok()) return finish(reactor, station.status());
    if (request->identity().size() > kLongestIdentity) {
      return finish(reactor, absl::InvalidArgumentError("identity: at most 253 bytes"));
    }
    std::optional<std::chrono::steady_clock::duration> valid_for;
    if (request->has_valid_for()) {
      const auto& time = request->valid_for();
      if (time.seconds() < 1 || time.seconds() > kLongestSeconds || time.nanos() < 0 || time.nanos() > 999'999'999) {
        return finish(reactor, absl::InvalidArgumentError("valid_for: must be 1 s to 366 days"));
      }
      valid_for = from_proto(time);
    }
    boost::asio::post(executor_, [this, reactor, station = *station, identity = request->identity(), valid_for] {
      finish(reactor, plane_.authorize(station, identity, valid_for));
    });
    return reactor;
  }

  grpc::ServerUnaryReactor* Revoke(grpc::CallbackServerContext* context, const v1::RevokeRequest* request,
                                   v1::RevokeResponse*) override {
    auto* reactor = context->DefaultReactor();
    const auto station = read_station(*request);
    if (!station.ok()) return finish(reactor, station.status());
    boost::asio::post(executor_, [this, reactor, station = *station] { finish(reactor, plane_.revoke(station)); });
    return reactor;
  }

  grpc::ServerUnaryReactor* ListStations(grpc::CallbackServerContext* context, const v1::ListStationsRequest*,
                                         v1::ListStationsResponse* response) override {
    auto* reactor = context->DefaultReactor();
    boost::asio::post(executor_, [this, reactor, response] {
      const auto now = std::chrono::steady_clock::now();
      for (const auto& vouched : plane_.vouched()) {
        auto* station = response->add_stations();
        station->set_interface(vouched.station.interface);
        station->set_link_layer_address(vouched.station.link_layer_address.to_string());
        station->set_identity(vouched.identity);
        if (vouched.until) {
          *station->mutable_valid_for() =
              to_proto(std::max(std::chrono::duration_cast<std::chrono::nanoseconds>(*vouched.until - now),
                                std::chrono::nanoseconds::zero()));
        }
      }
      reactor->Finish(grpc::Status::OK);
    });
    return reactor;
  }

 private:
  static grpc::ServerUnaryReactor* finish(grpc::ServerUnaryReactor* reactor, const absl::Status& status) {
    reactor->Finish(to_grpc_status(status));
    return reactor;
  }

  boost::asio::any_io_executor executor_;
  AuthenticatingAccessPlane& plane_;
};

class UnixServer final : public AuthenticatorServer {
 public:
  UnixServer(boost::asio::any_io_executor executor, AuthenticatingAccessPlane& plane)
      : service_(std::move(executor), plane) {}

  absl::Status start(const std::string& path) {
    grpc::ServerBuilder builder;
    builder.AddListeningPort(absl::StrCat("unix:", path), grpc::InsecureServerCredentials());
    builder.SetMaxReceiveMessageSize(kMostMessageBytes);
    builder.RegisterService(&service_);
    // The socket gets its mode as it is made: there is no moment in which others may open it.
    const mode_t before = ::umask(0117);
    server_ = builder.BuildAndStart();
    ::umask(before);
    struct stat made {};
    if (server_ != nullptr && ::stat(path.c_str(), &made) == 0 && S_ISSOCK(made.st_mode)) return absl::OkStatus();
    return absl::UnavailableError(
        absl::StrCat("access.authenticator_socket: cannot listen at ", path, "; is its folder there, and writable?"));
  }

 private:
  Service service_;
  std::unique_ptr<grpc::Server> server_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<AuthenticatorServer>> AuthenticatorServer::start(boost::asio::any_io_executor executor,
                                                                                AuthenticatingAccessPlane& plane,
                                                                                const std::string& path) {
  if (auto s = check_authenticator_socket(path); !s.ok()) return s;
  auto server = std::make_unique<UnixServer>(std::move(executor), plane);
  if (auto s = server->start(path); !s.ok()) return s;
  return std::unique_ptr<AuthenticatorServer>(std::move(server));
}

}  // namespace kedge::speaker
