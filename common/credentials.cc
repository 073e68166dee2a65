#include "common/credentials.h"

#include <algorithm>

#include "common/grpc_log.h"
#include "common/log.h"
#include "common/time.h"
#include "grpcpp/create_channel.h"
#include "grpcpp/security/credentials.h"
#include "grpcpp/security/server_credentials.h"
#include "grpcpp/security/tls_certificate_provider.h"
#include "grpcpp/security/tls_certificate_verifier.h"
#include "grpcpp/security/tls_credentials_options.h"

namespace kedge {
namespace {

namespace tls = grpc::experimental;

// How soon a changed certificate is used.
constexpr unsigned int kReloadSeconds = 10;

// Any other node of the network has a certificate of the same authority too.
class LmVerifier : public tls::ExternalCertificateVerifier {
 public:
  bool Verify(tls::TlsCustomVerificationCheckRequest* request, std::function<void(grpc::Status)>,
              grpc::Status* sync_status) override {
    const auto uris = request->uri_names();
    const bool is_lm = std::any_of(uris.begin(), uris.end(), [](const grpc::string_ref& uri) {
      const auto identity = parse_identity({uri.data(), uri.size()});
      return identity.ok() && identity->role == Role::kLm;
    });
    *sync_status = is_lm ? grpc::Status::OK
                         : grpc::Status(grpc::StatusCode::UNAUTHENTICATED,
                                        "the server's certificate is not that of an LM: kedge://lm/<name>");
    return true;
  }
  void Cancel(tls::TlsCustomVerificationCheckRequest*) override {}
};

std::shared_ptr<tls::CertificateProviderInterface> watch(const TlsFiles& files) {
  return std::make_shared<tls::FileWatcherCertificateProvider>(files.key, files.certificate, files.ca, kReloadSeconds);
}

void apply(const TlsFiles& files, tls::TlsCredentialsOptions& options) {
  options.watch_root_certs();
  options.watch_identity_key_cert_pairs();
  if (!files.crl_directory.empty()) options.set_crl_directory(files.crl_directory);
}

std::shared_ptr<grpc::ChannelCredentials> channel_credentials(const TransportSecurity& security) {
  if (security.insecure_plaintext) return grpc::InsecureChannelCredentials();
  tls::TlsChannelCredentialsOptions options;
  options.set_certificate_provider(watch(security.tls));
  apply(security.tls, options);
  options.set_verify_server_certs(true);
  options.set_certificate_verifier(tls::ExternalCertificateVerifier::Create<LmVerifier>());
  options.set_check_call_host(false);
  return tls::TlsCredentials(options);
}

std::shared_ptr<grpc::ServerCredentials> server_credentials(const TransportSecurity& security) {
  if (security.insecure_plaintext) return grpc::InsecureServerCredentials();
  tls::TlsServerCredentialsOptions options(watch(security.tls));
  apply(security.tls, options);
  options.set_cert_request_type(GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY);
  // Which role may do what is decided for each call.
  options.set_certificate_verifier(std::make_shared<tls::NoOpCertificateVerifier>());
  return tls::TlsServerCredentials(options);
}

}  // namespace

void apply_defaults(v1::TlsConfig& config) {
  if (config.ca().empty()) config.set_ca("/etc/kedge/pki/ca.pem");
  if (config.certificate().empty()) config.set_certificate("/etc/kedge/pki/certificate.pem");
  if (config.key().empty()) config.set_key("/etc/kedge/pki/key.pem");
}

TransportSecurity make_transport_security(bool insecure_plaintext, const v1::TlsConfig& config) {
  v1::TlsConfig files = config;
  apply_defaults(files);
  return {insecure_plaintext, {files.ca(), files.certificate(), files.key(), files.crl_directory()}};
}

absl::StatusOr<std::optional<Certificate>> check_transport_security(const TransportSecurity& security) {
  adopt_grpc_log();
  if (security.insecure_plaintext) return std::optional<Certificate>();
  auto certificate = check_tls_files(security.tls);
  if (!certificate.ok()) return certificate.status();
  const auto now = now_system();
  if (certificate->not_after <= now || certificate->not_before > now) {
    log_warning("certificate_not_valid", "file", security.tls.certificate, "not_before",
                to_text(certificate->not_before), "not_after", to_text(certificate->not_after), "effect",
                "peers refuse it", "do", "kedgectl pki renew");
  }
  return std::optional(*std::move(certificate));
}

absl::StatusOr<std::shared_ptr<grpc::Channel>> make_channel(const std::string& address,
                                                            const TransportSecurity& security) {
  if (const auto own = check_transport_security(security); !own.ok()) return own.status();
  if (security.insecure_plaintext) {
    log_warning("insecure_plaintext", "peer", address, "effect", "anyone on the path can read and forge this traffic");
  }
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  arguments.SetInt(GRPC_ARG_HTTP2_BDP_PROBE, 0);
  arguments.SetInt(GRPC_ARG_HTTP2_STREAM_LOOKAHEAD_BYTES, kStreamWindow);
  // A peer that vanished without a word is noticed after time + timeout.
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, 10'000);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 5'000);
  arguments.SetInt(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
  // A peer that has come back is found within a second.
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 50);
  arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, 1'000);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 250);
  return grpc::CreateCustomChannel(address, channel_credentials(security), arguments);
}

absl::StatusOr<std::shared_ptr<grpc::ServerCredentials>> make_server_credentials(const std::string& listen,
                                                                                 const TransportSecurity& security) {
  if (const auto own = check_transport_security(security); !own.ok()) return own.status();
  if (security.insecure_plaintext) {
    log_warning("insecure_plaintext", "listen", listen, "effect", "anyone who reaches this port can move any prefix");
  }
  return server_credentials(security);
}

}  // namespace kedge
