// Tells of a daemon's certificate by metrics and log, so that its end is seen coming.
//
// Threading: everything on the one thread that runs `io`.
// Monitoring: kedge_certificate_not_after_seconds (Unix time; absent without TLS).
#pragma once

#include "boost/asio/io_context.hpp"
#include "boost/asio/steady_timer.hpp"
#include "common/credentials.h"
#include "common/metrics.h"

namespace kedge {

class CertificateMonitor {
 public:
  // Looks at once, then every hour. Warns when less than a tenth of the validity is left.
  CertificateMonitor(boost::asio::io_context& io, TransportSecurity security, Metrics& metrics);

  // Looks now.
  void check();

 private:
  const TransportSecurity security_;
  Metrics& metrics_;
  boost::asio::steady_timer timer_;
};

}  // namespace kedge
