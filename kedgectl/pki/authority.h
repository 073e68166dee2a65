// A certificate authority in a folder, for a lab or a small network: ca.pem, ca-key.pem, the certificates that it has
// issued (issued/<serial>.pem) and its revocation list (crl/).
//
// Standards: RFC 5280 (certificates and revocation lists), RFC 5480 (P-256 keys).
#pragma once

#include <chrono>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/certificate.h"

namespace kedge::kedgectl {

struct AuthorityOptions {
  std::string name = "Kedge";
  std::chrono::hours validity{24 * 3650};
  // Makes a new one in the place of one that is there; what that one has signed is worthless then.
  bool force = false;
};

struct IssueOptions {
  // Where certificate.pem, key.pem and ca.pem go.
  std::string folder;
  std::chrono::hours validity{24 * 365};
  // Replaces a certificate of another identity, or of the same one that is still there.
  bool force = false;
};

struct Issued {
  Certificate certificate;
  bool revoked = false;
};

// Every file is written under another name, with its mode from the beginning, and renamed: a reader sees the old or the
// new one. Private keys have mode 0600, their folders 0700.
class Authority {
 public:
  // AlreadyExists: there is one in the folder; the text names it.
  static absl::StatusOr<Authority> init(const std::string& folder, const AuthorityOptions& options);
  // NotFound: there is none. InvalidArgument: a file is not what it should be.
  static absl::StatusOr<Authority> open(const std::string& folder);

  // A new key and a certificate for it. AlreadyExists: the folder has a certificate, and `force` is not set.
  absl::StatusOr<Certificate> issue(const Identity& identity, const IssueOptions& options) const;
  // Ends the validity of all certificates of the identity that are still valid, by the revocation list. NotFound: none.
  absl::StatusOr<std::vector<Certificate>> revoke(const Identity& identity, SystemTime now) const;
  // By serial number.
  absl::StatusOr<std::vector<Issued>> issued() const;

  const std::string& folder() const { return folder_; }
  // What TlsFiles::crl_directory wants.
  std::string crl_directory() const;

 private:
  explicit Authority(std::string folder) : folder_(std::move(folder)) {}
  absl::Status write_revocation_list(const std::vector<std::string>& serials, SystemTime now) const;

  std::string folder_;
};

// Of an authority's certificate: it has no identity. InvalidArgument.
struct AuthorityCertificate {
  std::string name;
  SystemTime not_before;
  SystemTime not_after;
  std::string fingerprint;
};
absl::StatusOr<AuthorityCertificate> describe_authority(const Authority& authority);

}  // namespace kedge::kedgectl
