#include "kedgectl/pki/authority.h"

#include <fcntl.h>
#include <openssl/rand.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "common/openssl.h"
#include "fmt/format.h"

namespace kedge::kedgectl {
namespace {

namespace fs = std::filesystem;

constexpr const char* kCertificate = "ca.pem";
constexpr const char* kKey = "ca-key.pem";
constexpr const char* kIssued = "issued";
constexpr const char* kRevoked = "crl";
constexpr mode_t kPrivate = 0600;
constexpr mode_t kPublic = 0644;
// Clocks of routers differ.
constexpr std::chrono::minutes kBackdated{5};
// RFC 5280, 5.1.2.5: a list names the time of the next one. Ours is replaced when something is revoked.
constexpr std::chrono::hours kListValidity{24 * 3650};

absl::Status failed(const std::string& what) {
  return absl::InternalError(absl::StrCat(what, ": ", openssl::last_error()));
}

std::string join(const std::string& folder, const std::string& file) { return absl::StrCat(folder, "/", file); }

absl::Status file_error(const std::string& path, int error) {
  const auto text = absl::StrCat(path, ": ", std::strerror(error));
  return error == ENOENT ? absl::NotFoundError(text) : absl::PermissionDeniedError(text);
}

absl::Status write_file(const std::string& path, std::string_view text, mode_t mode) {
  const std::string temporary = absl::StrCat(path, ".new");
  unlink(temporary.c_str());
  const int fd = ::open(temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
  if (fd < 0) return file_error(temporary, errno);
  fchmod(fd, mode);
  const bool written = write(fd, text.data(), text.size()) == static_cast<ssize_t>(text.size()) && fsync(fd) == 0;
  const int error = errno;
  close(fd);
  if (!written || rename(temporary.c_str(), path.c_str()) != 0) {
    unlink(temporary.c_str());
    return file_error(path, written ? errno : error);
  }
  return absl::OkStatus();
}

absl::StatusOr<std::string> read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return file_error(path, errno);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

absl::Status make_folder(const std::string& path, mode_t mode) {
  std::error_code error;
  fs::create_directories(path, error);
  if (error) return absl::PermissionDeniedError(absl::StrCat(path, ": cannot be made: ", error.message()));
  if (chmod(path.c_str(), mode) != 0) return file_error(path, errno);
  return absl::OkStatus();
}

template <typename Write>
std::string pem_of(Write write) {
  const openssl::Bio out(BIO_new(BIO_s_mem()));
  write(out.get());
  return openssl::contents(out.get());
}

std::string pem_of(X509* certificate) {
  return pem_of([&](BIO* out) { PEM_write_bio_X509(out, certificate); });
}

std::string pem_of(EVP_PKEY* key) {
  return pem_of([&](BIO* out) { PEM_write_bio_PKCS8PrivateKey(out, key, nullptr, nullptr, 0, nullptr, nullptr); });
}

openssl::Key make_key() { return openssl::Key(EVP_EC_gen("P-256")); }

// RFC 5280, 4.1.2.2: positive, at most 20 octets; here 16 random ones.
void set_serial(X509* certificate) {
  std::array<unsigned char, 16> bytes;
  RAND_bytes(bytes.data(), bytes.size());
  bytes[0] = static_cast<unsigned char>((bytes[0] & 0x7fU) | 0x40U);
  const openssl::BigNumber number(BN_bin2bn(bytes.data(), bytes.size(), nullptr));
  const openssl::Integer serial(BN_to_ASN1_INTEGER(number.get(), nullptr));
  X509_set_serialNumber(certificate, serial.get());
}

void set_validity(X509* certificate, std::chrono::hours validity) {
  X509_gmtime_adj(X509_getm_notBefore(certificate), -std::chrono::seconds(kBackdated).count());
  X509_gmtime_adj(X509_getm_notAfter(certificate), std::chrono::seconds(validity).count());
}

void set_name(X509* certificate, const std::string& name) {
  X509_NAME* subject = X509_get_subject_name(certificate);
  X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_UTF8, reinterpret_cast<const unsigned char*>(name.data()),
                             static_cast<int>(name.size()), -1, 0);
}

absl::Status add_extension(X509* certificate, X509* issuer, int nid, const std::string& value) {
  X509V3_CTX context;
  X509V3_set_ctx(&context, issuer, certificate, nullptr, nullptr, 0);
  X509_EXTENSION* extension = X509V3_EXT_conf_nid(nullptr, &context, nid, value.c_str());
  if (extension == nullptr) return failed(absl::StrCat("extension ", value));
  X509_add_ext(certificate, extension, -1);
  X509_EXTENSION_free(extension);
  return absl::OkStatus();
}

absl::Status add_extensions(X509* certificate, X509* issuer,
                            const std::vector<std::pair<int, std::string>>& extensions) {
  for (const auto& [nid, value] : extensions) {
    if (auto s = add_extension(certificate, issuer, nid, value); !s.ok()) return s;
  }
  return absl::OkStatus();
}

struct KeyPair {
  openssl::Cert certificate;
  openssl::Key key;
};

absl::StatusOr<KeyPair> load(const std::string& folder) {
  const auto certificate = read_file(join(folder, kCertificate));
  if (absl::IsNotFound(certificate.status())) {
    return absl::NotFoundError(
        absl::StrCat(folder, ": there is no certificate authority; make one with kedgectl pki init"));
  }
  if (!certificate.ok()) return certificate.status();
  const auto key = read_file(join(folder, kKey));
  if (!key.ok()) return key.status();
  KeyPair pair;
  pair.certificate.reset(PEM_read_bio_X509(openssl::memory(*certificate).get(), nullptr, nullptr, nullptr));
  pair.key.reset(PEM_read_bio_PrivateKey(openssl::memory(*key).get(), nullptr, nullptr, nullptr));
  if (pair.certificate == nullptr || pair.key == nullptr ||
      X509_check_private_key(pair.certificate.get(), pair.key.get()) != 1) {
    ERR_clear_error();
    return absl::InvalidArgumentError(
        absl::StrCat(folder, ": ", kCertificate, " and ", kKey, " are no certificate and its key"));
  }
  return pair;
}

}  // namespace

absl::StatusOr<Authority> Authority::init(const std::string& folder, const AuthorityOptions& options) {
  if (fs::exists(join(folder, kKey)) && !options.force) {
    return absl::AlreadyExistsError(absl::StrCat(
        folder,
        ": there is a certificate authority already; with another one, no certificate of this one is worth "
        "anything (--force)"));
  }
  const auto key = make_key();
  const openssl::Cert certificate(X509_new());
  if (key == nullptr || certificate == nullptr) return failed("no key could be made");
  X509_set_version(certificate.get(), X509_VERSION_3);
  set_serial(certificate.get());
  set_validity(certificate.get(), options.validity);
  set_name(certificate.get(), options.name);
  X509_set_issuer_name(certificate.get(), X509_get_subject_name(certificate.get()));
  X509_set_pubkey(certificate.get(), key.get());
  // RFC 5280, 4.2.1.9 and 4.2.1.3: signs end entities and revocation lists, no other authorities.
  if (auto s = add_extensions(certificate.get(), certificate.get(),
                              {{NID_basic_constraints, "critical,CA:TRUE,pathlen:0"},
                               {NID_key_usage, "critical,keyCertSign,cRLSign"},
                               {NID_subject_key_identifier, "hash"}});
      !s.ok()) {
    return s;
  }
  if (X509_sign(certificate.get(), key.get(), EVP_sha256()) == 0) return failed("the certificate could not be signed");

  if (auto s = make_folder(folder, 0700); !s.ok()) return s;
  if (options.force) {
    std::error_code error;
    fs::remove_all(join(folder, kIssued), error);
    fs::remove_all(join(folder, kRevoked), error);
  }
  if (auto s = make_folder(join(folder, kIssued), 0700); !s.ok()) return s;
  if (auto s = make_folder(join(folder, kRevoked), 0755); !s.ok()) return s;
  if (auto s = write_file(join(folder, kKey), pem_of(key.get()), kPrivate); !s.ok()) return s;
  if (auto s = write_file(join(folder, kCertificate), pem_of(certificate.get()), kPublic); !s.ok()) return s;
  Authority authority(folder);
  if (auto s = authority.write_revocation_list({}, now_system()); !s.ok()) return s;
  return authority;
}

absl::StatusOr<Authority> Authority::open(const std::string& folder) {
  if (const auto pair = load(folder); !pair.ok()) return pair.status();
  return Authority(folder);
}

std::string Authority::crl_directory() const { return join(folder_, kRevoked); }

absl::StatusOr<Certificate> Authority::issue(const Identity& identity, const IssueOptions& options) const {
  if (const auto valid = parse_identity(identity.uri()); !valid.ok()) return valid.status();
  const auto authority = load(folder_);
  if (!authority.ok()) return authority.status();
  if (fs::exists(join(options.folder, "certificate.pem")) && !options.force) {
    return absl::AlreadyExistsError(absl::StrCat(options.folder,
                                                 ": there is a certificate already; renew it with kedgectl pki renew, "
                                                 "or replace it with --force"));
  }
  const auto key = make_key();
  const openssl::Cert certificate(X509_new());
  if (key == nullptr || certificate == nullptr) return failed("no key could be made");
  X509_set_version(certificate.get(), X509_VERSION_3);
  set_serial(certificate.get());
  set_validity(certificate.get(), options.validity);
  set_name(certificate.get(), fmt::format("{} {}", role_name(identity.role), identity.name));
  X509_set_issuer_name(certificate.get(), X509_get_subject_name(authority->certificate.get()));
  X509_set_pubkey(certificate.get(), key.get());
  if (auto s = add_extensions(certificate.get(), authority->certificate.get(),
                              {{NID_basic_constraints, "critical,CA:FALSE"},
                               {NID_key_usage, "critical,digitalSignature"},
                               {NID_ext_key_usage, identity.role == Role::kLm ? "serverAuth,clientAuth" : "clientAuth"},
                               {NID_subject_key_identifier, "hash"},
                               {NID_authority_key_identifier, "keyid:always"},
                               {NID_subject_alt_name, absl::StrCat("URI:", identity.uri())}});
      !s.ok()) {
    return s;
  }
  if (X509_sign(certificate.get(), authority->key.get(), EVP_sha256()) == 0) {
    return failed("the certificate could not be signed");
  }
  const std::string pem = pem_of(certificate.get());
  auto described = parse_certificate(pem);
  if (!described.ok()) return described.status();

  const auto ca = read_file(join(folder_, kCertificate));
  if (!ca.ok()) return ca.status();
  if (auto s = make_folder(options.folder, 0700); !s.ok()) return s;
  // On record before it can be used.
  if (auto s = write_file(absl::StrCat(folder_, "/", kIssued, "/", described->serial, ".pem"), pem, kPublic); !s.ok()) {
    return s;
  }
  if (auto s = write_file(join(options.folder, "ca.pem"), *ca, kPublic); !s.ok()) return s;
  if (auto s = write_file(join(options.folder, "key.pem"), pem_of(key.get()), kPrivate); !s.ok()) return s;
  if (auto s = write_file(join(options.folder, "certificate.pem"), pem, kPublic); !s.ok()) return s;
  return described;
}

absl::StatusOr<std::vector<Issued>> Authority::issued() const {
  const auto revoked = read_revoked_serials(crl_directory());
  if (!revoked.ok()) return revoked.status();
  std::vector<Issued> result;
  std::error_code error;
  for (const auto& file : fs::directory_iterator(join(folder_, kIssued), error)) {
    if (file.path().extension() != ".pem") continue;
    const auto pem = read_file(file.path().string());
    if (!pem.ok()) return pem.status();
    auto certificate = parse_certificate(*pem);
    if (!certificate.ok()) {
      return absl::InvalidArgumentError(absl::StrCat(file.path().string(), ": ", certificate.status().message()));
    }
    const bool is_revoked = std::binary_search(revoked->begin(), revoked->end(), certificate->serial);
    result.push_back({*std::move(certificate), is_revoked});
  }
  if (error) return absl::NotFoundError(absl::StrCat(join(folder_, kIssued), ": ", error.message()));
  std::sort(result.begin(), result.end(), [](const Issued& a, const Issued& b) {
    return std::make_tuple(a.certificate.identity.uri(), a.certificate.not_after, a.certificate.serial) <
           std::make_tuple(b.certificate.identity.uri(), b.certificate.not_after, b.certificate.serial);
  });
  return result;
}

absl::StatusOr<std::vector<Certificate>> Authority::revoke(const Identity& identity, SystemTime now) const {
  const auto all = issued();
  if (!all.ok()) return all.status();
  std::vector<std::string> serials;
  std::vector<Certificate> revoked;
  for (const auto& one : *all) {
    const bool meant = one.certificate.identity == identity && !one.revoked && one.certificate.not_after > now;
    if (meant) revoked.push_back(one.certificate);
    if (meant || one.revoked) serials.push_back(one.certificate.serial);
  }
  if (revoked.empty()) {
    return absl::NotFoundError(absl::StrCat(folder_, ": no valid certificate of ", identity.uri(), " was issued"));
  }
  if (auto s = write_revocation_list(serials, now); !s.ok()) return s;
  return revoked;
}

absl::Status Authority::write_revocation_list(const std::vector<std::string>& serials, SystemTime now) const {
  const auto authority = load(folder_);
  if (!authority.ok()) return authority.status();
  const openssl::Crl crl(X509_CRL_new());
  if (crl == nullptr) return failed("no revocation list could be made");
  const auto path_of = [&](int n) {
    const auto hash = X509_NAME_hash_ex(X509_get_subject_name(authority->certificate.get()), nullptr, nullptr, nullptr);
    return fmt::format("{}/{:08x}.r{}", crl_directory(), hash, n);
  };
  // A verifier that is running looks for lists under higher numbers than those that it has read, and of two lists takes
  // the younger one, in whole seconds.
  int list_number = 0;
  while (fs::exists(path_of(list_number))) ++list_number;
  std::time_t issued_at =
      std::chrono::duration_cast<std::chrono::seconds>((now - kBackdated).time_since_epoch()).count();
  if (list_number > 0) {
    const auto last = read_file(path_of(list_number - 1));
    if (!last.ok()) return last.status();
    const openssl::Crl list(PEM_read_bio_X509_CRL(openssl::memory(*last).get(), nullptr, nullptr, nullptr));
    std::tm parts{};
    if (list != nullptr && ASN1_TIME_to_tm(X509_CRL_get0_lastUpdate(list.get()), &parts) == 1) {
      issued_at = std::max(issued_at, timegm(&parts) + 1);
    }
  }
  const std::unique_ptr<ASN1_TIME, openssl::Release<ASN1_TIME_free>> from(ASN1_TIME_set(nullptr, issued_at));
  const std::unique_ptr<ASN1_TIME, openssl::Release<ASN1_TIME_free>> until(
      ASN1_TIME_set(nullptr, issued_at + std::chrono::seconds(kListValidity).count()));
  X509_CRL_set_version(crl.get(), X509_CRL_VERSION_2);
  X509_CRL_set_issuer_name(crl.get(), X509_get_subject_name(authority->certificate.get()));
  X509_CRL_set1_lastUpdate(crl.get(), from.get());
  X509_CRL_set1_nextUpdate(crl.get(), until.get());
  for (const auto& serial : serials) {
    BIGNUM* parsed = nullptr;
    BN_hex2bn(&parsed, serial.c_str());
    const openssl::BigNumber number(parsed);
    const openssl::Integer integer(BN_to_ASN1_INTEGER(number.get(), nullptr));
    X509_REVOKED* entry = X509_REVOKED_new();
    X509_REVOKED_set_serialNumber(entry, integer.get());
    X509_REVOKED_set_revocationDate(entry, from.get());
    X509_CRL_add0_revoked(crl.get(), entry);
  }
  X509_CRL_sort(crl.get());
  if (X509_CRL_sign(crl.get(), authority->key.get(), EVP_sha256()) == 0) {
    return failed("the revocation list could not be signed");
  }
  const auto pem = pem_of([&](BIO* out) { PEM_write_bio_X509_CRL(out, crl.get()); });

  return write_file(path_of(list_number), pem, kPublic);
}

absl::StatusOr<AuthorityCertificate> describe_authority(const Authority& authority) {
  const auto pair = load(authority.folder());
  if (!pair.ok()) return pair.status();
  X509* certificate = pair->certificate.get();
  AuthorityCertificate result;
  std::array<char, 256> name{};
  X509_NAME_get_text_by_NID(X509_get_subject_name(certificate), NID_commonName, name.data(), name.size());
  result.name = name.data();
  result.not_before = openssl::time_of(X509_get0_notBefore(certificate));
  result.not_after = openssl::time_of(X509_get0_notAfter(certificate));
  std::array<unsigned char, EVP_MAX_MD_SIZE> digest;
  unsigned int size = 0;
  X509_digest(certificate, EVP_sha256(), digest.data(), &size);
  result.fingerprint = absl::BytesToHexString({reinterpret_cast<const char*>(digest.data()), size});
  return result;
}

}  // namespace kedge::kedgectl
