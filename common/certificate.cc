#include "common/certificate.h"

#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "common/openssl.h"
#include "fmt/format.h"

namespace kedge {
namespace {

constexpr std::array<std::pair<Role, std::string_view>, 6> kRoles = {{{Role::kLm, "lm"},
                                                                      {Role::kSpeaker, "speaker"},
                                                                      {Role::kOperator, "operator"},
                                                                      {Role::kViewer, "viewer"},
                                                                      {Role::kMobileNode, "mn"},
                                                                      {Role::kProxy, "proxy"}}};
constexpr std::string_view kScheme = "kedge://";
constexpr std::size_t kLongestName = 63;

std::string lower(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(), [](unsigned char c) { return std::tolower(c); });
  return text;
}

std::string hex_of(const ASN1_INTEGER* number) {
  const openssl::BigNumber value(ASN1_INTEGER_to_BN(number, nullptr));
  const std::unique_ptr<char, openssl::Release<openssl::free_text>> text(BN_bn2hex(value.get()));
  return lower(text.get());
}

std::string name_text(const X509_NAME* name) {
  const openssl::Bio out(BIO_new(BIO_s_mem()));
  X509_NAME_print_ex(out.get(), name, 0, XN_FLAG_RFC2253 & ~ASN1_STRFLGS_ESC_MSB);
  return openssl::contents(out.get());
}

absl::StatusOr<Identity> identity_of(X509* certificate) {
  const openssl::Names names(
      static_cast<GENERAL_NAMES*>(X509_get_ext_d2i(certificate, NID_subject_alt_name, nullptr, nullptr)));
  std::vector<std::string> uris;
  for (int i = 0; names != nullptr && i < sk_GENERAL_NAME_num(names.get()); ++i) {
    const GENERAL_NAME* name = sk_GENERAL_NAME_value(names.get(), i);
    if (name->type != GEN_URI) continue;
    const auto* text = name->d.uniformResourceIdentifier;
    uris.emplace_back(reinterpret_cast<const char*>(ASN1_STRING_get0_data(text)),
                      static_cast<std::size_t>(ASN1_STRING_length(text)));
  }
  uris.erase(std::remove_if(uris.begin(), uris.end(), [](const auto& uri) { return !uri.starts_with(kScheme); }),
             uris.end());
  if (uris.size() != 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("the certificate has ", uris.size(),
                     " identities kedge://<role>/<name> among its subject alternative names; it needs one"));
  }
  return parse_identity(uris.front());
}

absl::StatusOr<Certificate> describe(X509* certificate) {
  auto identity = identity_of(certificate);
  if (!identity.ok()) return identity.status();
  Certificate result;
  result.identity = *std::move(identity);
  result.serial = hex_of(X509_get0_serialNumber(certificate));
  result.issuer = name_text(X509_get_issuer_name(certificate));
  result.not_before = openssl::time_of(X509_get0_notBefore(certificate));
  result.not_after = openssl::time_of(X509_get0_notAfter(certificate));
  std::array<unsigned char, EVP_MAX_MD_SIZE> digest;
  unsigned int size = 0;
  X509_digest(certificate, EVP_sha256(), digest.data(), &size);
  result.fingerprint = absl::BytesToHexString({reinterpret_cast<const char*>(digest.data()), size});
  return result;
}

absl::StatusOr<std::string> read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) {
    const int error = errno;
    const auto text = absl::StrCat(path, ": cannot be read: ", std::strerror(error));
    return error == ENOENT ? absl::NotFoundError(absl::StrCat(text, "; make it with kedgectl pki issue"))
                           : absl::PermissionDeniedError(text);
  }
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

// The first in the file.
absl::StatusOr<openssl::Cert> read_certificate(const std::string& path) {
  const auto pem = read_file(path);
  if (!pem.ok()) return pem.status();
  openssl::Cert certificate(PEM_read_bio_X509(openssl::memory(*pem).get(), nullptr, nullptr, nullptr));
  if (certificate == nullptr) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": is no certificate in PEM: ", openssl::last_error()));
  }
  return certificate;
}

absl::Status check_key(const TlsFiles& files, X509* certificate) {
  struct stat file {};
  if (stat(files.key.c_str(), &file) == 0 && (file.st_mode & (S_IRWXG | S_IRWXO) & ~S_IRGRP) != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat(files.key, ": others may read or write this private key; chmod 0600 it"));
  }
  const auto pem = read_file(files.key);
  if (!pem.ok()) return pem.status();
  const openssl::Key key(PEM_read_bio_PrivateKey(openssl::memory(*pem).get(), nullptr, nullptr, nullptr));
  if (key == nullptr) {
    return absl::InvalidArgumentError(
        absl::StrCat(files.key, ": is no private key in PEM without a passphrase: ", openssl::last_error()));
  }
  if (X509_check_private_key(certificate, key.get()) != 1) {
    ERR_clear_error();
    return absl::InvalidArgumentError(
        absl::StrCat(files.key, ": is not the key of ", files.certificate, "; they are made together"));
  }
  return absl::OkStatus();
}

// An expired certificate is told of by its time; a renewed one may come any moment.
absl::Status check_signed_by_authority(const TlsFiles& files, X509* certificate) {
  const auto pem = read_file(files.ca);
  if (!pem.ok()) return pem.status();
  const openssl::Store store(X509_STORE_new());
  const auto bio = openssl::memory(*pem);
  int authorities = 0;
  for (openssl::Cert ca(PEM_read_bio_X509(bio.get(), nullptr, nullptr, nullptr)); ca != nullptr;
       ca.reset(PEM_read_bio_X509(bio.get(), nullptr, nullptr, nullptr))) {
    X509_STORE_add_cert(store.get(), ca.get());
    ++authorities;
  }
  ERR_clear_error();
  if (authorities == 0) return absl::InvalidArgumentError(absl::StrCat(files.ca, ": has no certificate in PEM"));
  const openssl::StoreContext context(X509_STORE_CTX_new());
  X509_STORE_CTX_init(context.get(), store.get(), certificate, nullptr);
  X509_STORE_CTX_set_flags(context.get(), X509_V_FLAG_NO_CHECK_TIME | X509_V_FLAG_PARTIAL_CHAIN);
  if (X509_verify_cert(context.get()) == 1) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(files.certificate, ": no authority in ", files.ca, " has signed it (",
                                                 X509_verify_cert_error_string(X509_STORE_CTX_get_error(context.get())),
                                                 ")"));
}

}  // namespace

std::string_view role_name(Role role) {
  return std::find_if(kRoles.begin(), kRoles.end(), [role](const auto& entry) { return entry.first == role; })->second;
}

std::optional<Role> parse_role(std::string_view name) {
  const auto found = std::find_if(kRoles.begin(), kRoles.end(), [name](const auto& e) { return e.second == name; });
  return found == kRoles.end() ? std::nullopt : std::optional(found->first);
}

std::string Identity::uri() const { return fmt::format("{}{}/{}", kScheme, role_name(role), name); }

absl::StatusOr<Identity> parse_identity(std::string_view uri) {
  const auto wrong = [uri](std::string_view text) {
    return absl::InvalidArgumentError(fmt::format("\"{}\": {}", absl::CHexEscape(std::string(uri)), text));
  };
  if (!uri.starts_with(kScheme)) return wrong("an identity is written kedge://<role>/<name>");
  const auto rest = uri.substr(kScheme.size());
  const auto slash = rest.find('/');
  if (slash == std::string_view::npos) return wrong("an identity is written kedge://<role>/<name>");
  const auto role = parse_role(rest.substr(0, slash));
  if (!role) return wrong("the role is lm, speaker, operator, viewer, mn or proxy");
  const auto name = rest.substr(slash + 1);
  const bool valid = !name.empty() && name.size() <= kLongestName && std::all_of(name.begin(), name.end(), [&](char c) {
    const bool colon = c == ':' && *role == Role::kMobileNode;
    return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '-' || c == '_' || c == '.' || colon;
  });
  if (!valid) return wrong("the name has 1 to 63 letters, digits, '-', '_' and '.'");
  return Identity{*role, std::string(name)};
}

absl::StatusOr<Certificate> parse_certificate(std::string_view pem) {
  const openssl::Cert certificate(PEM_read_bio_X509(openssl::memory(pem).get(), nullptr, nullptr, nullptr));
  if (certificate == nullptr) {
    return absl::InvalidArgumentError(absl::StrCat("is no certificate in PEM: ", openssl::last_error()));
  }
  return describe(certificate.get());
}

absl::StatusOr<Certificate> check_tls_files(const TlsFiles& files) {
  const auto certificate = read_certificate(files.certificate);
  if (!certificate.ok()) return certificate.status();
  auto result = describe(certificate->get());
  if (!result.ok()) {
    return absl::InvalidArgumentError(absl::StrCat(files.certificate, ": ", result.status().message()));
  }
  if (auto s = check_key(files, certificate->get()); !s.ok()) return s;
  if (auto s = check_signed_by_authority(files, certificate->get()); !s.ok()) return s;
  if (!files.crl_directory.empty()) {
    if (const auto revoked = read_revoked_serials(files.crl_directory); !revoked.ok()) return revoked.status();
  }
  return result;
}

absl::StatusOr<std::vector<std::string>> read_revoked_serials(const std::string& crl_directory) {
  std::error_code error;
  std::vector<std::string> serials;
  std::filesystem::directory_iterator files(crl_directory, error);
  if (error) {
    return absl::NotFoundError(absl::StrCat(crl_directory, ": the folder of revocation lists cannot be read: ",
                                            error.message(), "; make it, or clear crl_directory"));
  }
  for (const auto& file : files) {
    if (!file.is_regular_file(error)) continue;
    const auto pem = read_file(file.path().string());
    if (!pem.ok()) return pem.status();
    const openssl::Crl crl(PEM_read_bio_X509_CRL(openssl::memory(*pem).get(), nullptr, nullptr, nullptr));
    if (crl == nullptr) {
      return absl::InvalidArgumentError(
          absl::StrCat(file.path().string(), ": is no revocation list in PEM: ", openssl::last_error()));
    }
    auto* entries = X509_CRL_get_REVOKED(crl.get());
    for (int i = 0; i < sk_X509_REVOKED_num(entries); ++i) {
      serials.push_back(hex_of(X509_REVOKED_get0_serialNumber(sk_X509_REVOKED_value(entries, i))));
    }
  }
  std::sort(serials.begin(), serials.end());
  serials.erase(std::unique(serials.begin(), serials.end()), serials.end());
  return serials;
}

}  // namespace kedge
