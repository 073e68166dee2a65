// Reading X.509 certificates: who a peer is, and until when.
//
// Standards: RFC 5280 (certificates), RFC 3986 (the URI that names an identity).
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/time.h"

namespace kedge {

// What a peer may be. RFC 8818, 2: speaker is LMc, FM-CP and CPA of an access router; proxy is LMp.
enum class Role { kLm, kSpeaker, kOperator, kViewer, kMobileNode, kProxy };

// "lm", "speaker", "operator", "viewer", "mn", "proxy".
std::string_view role_name(Role role);
std::optional<Role> parse_role(std::string_view name);

// A certificate's subject, carried as the URI "kedge://<role>/<name>" among its subject alternative names.
struct Identity {
  Role role = Role::kViewer;
  // 1 to 63 characters: letters, digits, '-', '_', '.'; of a speaker the AR's name, of an MN its MN-ID with ':'
  // allowed.
  std::string name;

  std::string uri() const;
  bool operator==(const Identity&) const = default;
};

// InvalidArgument: the text says what is wrong with the URI.
absl::StatusOr<Identity> parse_identity(std::string_view uri);

struct Certificate {
  Identity identity;
  // Hexadecimal, lower case, as its issuer has numbered it.
  std::string serial;
  std::string issuer;
  // Within 1970 and 2262; an end that is later, as that of a certificate without one, is in 2262.
  SystemTime not_before;
  SystemTime not_after;
  // SHA-256 of the certificate, hexadecimal.
  std::string fingerprint;
};

// The first certificate of a PEM text. InvalidArgument: it is none, or has not exactly one kedge:// URI.
absl::StatusOr<Certificate> parse_certificate(std::string_view pem);

// The files of one end of a TLS connection, PEM.
struct TlsFiles {
  // Certificates of the authorities that sign peers.
  std::string ca;
  // Own certificate, followed by those between it and the authority, if there are any.
  std::string certificate;
  // Private key of the certificate; readable by its owner only.
  std::string key;
  // Certificate revocation lists under hashed names; empty: none are looked at.
  std::string crl_directory;
};

// Own certificate, after everything has been read and found to fit together. Errors name the file and say what to do:
// NotFound or PermissionDenied (it cannot be read), InvalidArgument (it is no such thing, the key is not the
// certificate's, others may read the key, the authority did not sign it).
absl::StatusOr<Certificate> check_tls_files(const TlsFiles& files);

// Serial numbers (as in Certificate) that the lists in the folder revoke. NotFound: no folder; InvalidArgument: the
// text names the file.
absl::StatusOr<std::vector<std::string>> read_revoked_serials(const std::string& crl_directory);

}  // namespace kedge
