// The one place that makes gRPC credentials, channels and server ports.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "grpcpp/channel.h"
#include "grpcpp/server_builder.h"

namespace kedge {

struct TransportSecurity {
  // No TLS. Logs a warning each time.
  bool insecure_plaintext = false;
};

// Keepalive on; no proxy from the environment. FailedPrecondition when the security asked for cannot be had: the text
// says which key to set.
absl::StatusOr<std::shared_ptr<grpc::Channel>> make_channel(const std::string& address,
                                                            const TransportSecurity& security);

// Adds a listening port; `*bound_port` is set when the server starts (port 0 asks for a free one).
absl::Status add_listening_port(grpc::ServerBuilder& builder, const std::string& address,
                                const TransportSecurity& security, int* bound_port);

}  // namespace kedge
