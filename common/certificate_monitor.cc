#include "common/certificate_monitor.h"

#include <chrono>
#include <string>

#include "common/log.h"

namespace kedge {
namespace {
constexpr std::chrono::hours kInterval{1};
}

CertificateMonitor::CertificateMonitor(boost::asio::io_context& io, TransportSecurity security, Metrics& metrics)
    : security_(std::move(security)), metrics_(metrics), timer_(io) {
  check();
}

void CertificateMonitor::check() {
  if (security_.insecure_plaintext) return;
  const auto certificate = check_tls_files(security_.tls);
  if (!certificate.ok()) {
    log_error("certificate_unreadable", "reason", std::string(certificate.status().message()), "effect",
              "the one that was read before stays in use");
  } else {
    metrics_.gauge("kedge_certificate_not_after_seconds", "End of the own certificate's validity, Unix time")
        .Set(std::chrono::duration<double>(certificate->not_after.time_since_epoch()).count());
    const auto left = certificate->not_after - now_system();
    if (left < (certificate->not_after - certificate->not_before) / 10) {
      log_warning("certificate_ends", "file", security_.tls.certificate, "not_after", to_text(certificate->not_after),
                  "do", "kedgectl pki renew");
    }
  }
  timer_.expires_after(kInterval);
  timer_.async_wait([this](const boost::system::error_code& error) {
    if (!error) check();
  });
}

}  // namespace kedge
