// The one place that makes gRPC credentials, channels and server ports: mutual TLS 1.2 or later, unless plaintext is
// asked for by name.
//
// Standards: RFC 8446, RFC 5246 (TLS), RFC 8818, 5 ("integrity and data-origin authentication").
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "common/certificate.h"
#include "grpcpp/channel.h"
#include "grpcpp/security/server_credentials.h"
#include "kedge/v1/config.pb.h"

namespace kedge {

// Bytes that one stream's sender may be ahead of its reader, the same from the beginning to the end: gRPC 1.51's own
// estimate changes it on the way, and tells the sender of it, or of room that it has made, only when it has something
// else to write.
inline constexpr int kStreamWindow = 256 << 10;

struct TransportSecurity {
  // No TLS. Logs a warning each time.
  bool insecure_plaintext = false;
  // Read again within seconds when they change; connections that are there stay.
  TlsFiles tls = {};
};

// Names the files that are not named as config.proto documents it.
void apply_defaults(v1::TlsConfig& config);
TransportSecurity make_transport_security(bool insecure_plaintext, const v1::TlsConfig& config);

// Own certificate; nothing without TLS. Errors are those of check_tls_files. Warns when it has expired or is not valid
// yet.
absl::StatusOr<std::optional<Certificate>> check_transport_security(const TransportSecurity& security);

// To an LM: its certificate must have the role lm; the name in it is not compared. Keepalive on; no proxy from the
// environment. Errors are those of check_tls_files.
absl::StatusOr<std::shared_ptr<grpc::Channel>> make_channel(const std::string& address,
                                                            const TransportSecurity& security);

// What a server's connections are protected by. With TLS no client without a certificate of the authority gets past the
// handshake. `listen` is for the warning that plaintext gets. Errors are those of check_tls_files.
absl::StatusOr<std::shared_ptr<grpc::ServerCredentials>> make_server_credentials(const std::string& listen,
                                                                                 const TransportSecurity& security);

}  // namespace kedge
