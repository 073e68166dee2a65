#include "common/credentials.h"

#include "absl/strings/str_cat.h"
#include "common/log.h"
#include "grpcpp/create_channel.h"
#include "grpcpp/security/credentials.h"
#include "grpcpp/security/server_credentials.h"

namespace kedge {
namespace {

absl::Status require_plaintext(const std::string& address, const TransportSecurity& security) {
  if (security.insecure_plaintext) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat(address, ": no certificates are configured; to go without TLS set 'insecure_plaintext: true'"));
}

}  // namespace

absl::StatusOr<std::shared_ptr<grpc::Channel>> make_channel(const std::string& address,
                                                            const TransportSecurity& security) {
  if (auto status = require_plaintext(address, security); !status.ok()) return status;
  log_warning("insecure_plaintext", "peer", address, "effect", "anyone on the path can read and forge this traffic");
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  // A peer that vanished without a word is noticed after time + timeout.
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, 10'000);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 5'000);
  arguments.SetInt(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
  // A peer that has come back is found within a second.
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 50);
  arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, 1'000);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 250);
  return grpc::CreateCustomChannel(address, grpc::InsecureChannelCredentials(), arguments);
}

absl::Status add_listening_port(grpc::ServerBuilder& builder, const std::string& address,
                                const TransportSecurity& security, int* bound_port) {
  if (auto status = require_plaintext(address, security); !status.ok()) return status;
  log_warning("insecure_plaintext", "listen", address, "effect", "anyone who reaches this port can move any prefix");
  builder.AddListeningPort(address, grpc::InsecureServerCredentials(), bound_port);
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, 10'000);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 5'000);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, 5'000);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  return absl::OkStatus();
}

}  // namespace kedge
