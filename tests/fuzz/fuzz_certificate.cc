// A peer's certificate, which the handshake hands on in PEM: DER within, or any text.
#include <chrono>

#include "absl/strings/escaping.h"
#include "common/certificate.h"
#include "tests/fuzz/input.h"

namespace {

using kedge::fuzz::require;

void check(const std::string& pem) {
  const auto certificate = kedge::parse_certificate(pem);
  if (!certificate.ok()) {
    require(certificate.status().code() == absl::StatusCode::kInvalidArgument, "what is none is told so");
    return;
  }
  require(kedge::parse_identity(certificate->identity.uri()).ok(), "an identity comes back");
  require(certificate->not_before >= kedge::SystemTime(), "times are not before 1970");
  // Neither overflows.
  const auto validity = certificate->not_after - certificate->not_before;
  require((validity > validity.zero()) == (certificate->not_after > certificate->not_before), "a validity is a time");
  require(certificate->fingerprint.size() == 64, "a fingerprint has 256 bits");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string bytes(data, data + size);
  check(bytes);
  std::string lines = absl::Base64Escape(bytes);
  for (std::size_t at = 64; at < lines.size(); at += 65) lines.insert(at, 1, '\n');
  check("-----BEGIN CERTIFICATE-----\n" + lines + "\n-----END CERTIFICATE-----\n");
  return 0;
}
