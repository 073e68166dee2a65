#include "kedgectl/failure.h"

#include "fmt/format.h"
#include "kedgectl/table.h"

namespace kedge::kedgectl {
namespace {

// gRPC wraps the reason of a failed connection: "failed to connect to all addresses; last error: UNKNOWN: ipv6:...: X".
std::string last_reason(const std::string& message) {
  static constexpr std::string_view kMarker = "last error: ";
  const auto at = message.rfind(kMarker);
  return printable(at == std::string::npos ? message : message.substr(at + kMarker.size()));
}

}  // namespace

Failure explain(const grpc::Status& status, const std::string& server) {
  const std::string message = printable(status.error_message());
  switch (status.error_code()) {
    case grpc::StatusCode::NOT_FOUND:
      return {ExitCode::kNotFound, message};
    case grpc::StatusCode::UNAVAILABLE:
      return {ExitCode::kUnreachable,
              fmt::format("cannot reach the server at {}: {}\nIs kedge-lm running there, and with or without TLS as "
                          "asked for here? Another address is set by --server or KEDGECTL_SERVER.",
                          server, last_reason(status.error_message()))};
    case grpc::StatusCode::DEADLINE_EXCEEDED:
      return {ExitCode::kUnreachable,
              fmt::format("no answer from the server at {} in time\nAnother address is set by --server or "
                          "KEDGECTL_SERVER, a longer wait by --timeout.",
                          server)};
    case grpc::StatusCode::UNIMPLEMENTED:
      return {ExitCode::kFailed,
              fmt::format("the server at {} does not know this request: it is no kedge-lm, or an older one ({})",
                          server, message)};
    default:
      return {ExitCode::kFailed, fmt::format("the server at {} refused: {}", server,
                                             message.empty() ? fmt::format("code {}", status.error_code()) : message)};
  }
}

}  // namespace kedge::kedgectl
