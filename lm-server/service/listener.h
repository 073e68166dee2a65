// Accepts connections for gRPC, no more at a time than are allowed. gRPC's own listener (1.51) has no such bound, and
// ends for good when the process runs out of file descriptors: whoever reached the port could end the service.
//
// Threading: all calls on the thread that runs `io`.
// Monitoring: kedge_lm_connections, kedge_lm_connections_refused_total{limit}.
#pragma once

#include <cstddef>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "boost/asio/io_context.hpp"
#include "common/metrics.h"
#include "grpcpp/server_builder.h"
#include "lm-server/core/limits.h"

namespace kedge::lm {

class Listener {
 public:
  using Acceptor = grpc::experimental::ExternalConnectionAcceptor;

  virtual ~Listener() = default;

  // Listens on "[address]:port"; port 0 asks for a free one. Fewer connections than `limits` says, and a warning, where
  // the process may not have as many file descriptors. InvalidArgument: no such address. Unavailable: it cannot be
  // listened on.
  static absl::StatusOr<std::unique_ptr<Listener>> open(boost::asio::io_context& io, const std::string& listen,
                                                        const ServerLimits& limits, Metrics& metrics);
  virtual int port() const = 0;
  // From now on connections are handed to a server that runs.
  virtual void start(std::unique_ptr<Acceptor> acceptor) = 0;
};

}  // namespace kedge::lm
