// Prometheus exposition over HTTP: GET /metrics. For operators' scrapers; plain HTTP, so it belongs on loopback or on a
// management network.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "boost/asio/io_context.hpp"
#include "common/metrics.h"

namespace kedge {

class MetricsServer {
 public:
  virtual ~MetricsServer() = default;
  virtual int port() const = 0;

  // Serves on the thread that runs `io` until destroyed. `listen` is "[address]:port"; port 0 asks for a free one.
  // InvalidArgument: not of that form; Unavailable: it cannot be listened on. `metrics` outlives the server.
  static absl::StatusOr<std::unique_ptr<MetricsServer>> start(boost::asio::io_context& io, const std::string& listen,
                                                              const Metrics& metrics);
};

}  // namespace kedge
