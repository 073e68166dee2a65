#include "kedgectl/pki/commands.h"

#include <filesystem>
#include <fstream>
#include <sstream>

#include "fmt/format.h"
#include "kedge/v1/pki.pb.h"
#include "kedgectl/format.h"
#include "kedgectl/pki/authority.h"
#include "kedgectl/report.h"
#include "kedgectl/table.h"

namespace kedge::kedgectl {
namespace {

v1::CertificateInfo to_info(const Certificate& certificate) {
  v1::CertificateInfo info;
  info.set_identity(certificate.identity.uri());
  info.set_serial(certificate.serial);
  info.set_issuer(certificate.issuer);
  *info.mutable_not_before() = to_proto(certificate.not_before);
  *info.mutable_not_after() = to_proto(certificate.not_after);
  info.set_fingerprint(certificate.fingerprint);
  return info;
}

std::string validity_of(const v1::CertificateInfo& info, SystemTime now) {
  if (info.revoked()) return "revoked";
  const auto end = from_proto(info.not_after());
  if (end <= now) return "expired";
  return "for " + format_age(now, end);
}

std::string render(const v1::CertificateInfo& info, SystemTime now) {
  std::string text;
  const auto add = [&text](const char* name, const std::string& value) {
    if (!value.empty()) text += fmt::format("{:<13}{}\n", name, printable(value));
  };
  add("identity", info.identity());
  add("serial", info.serial());
  add("issuer", info.issuer());
  add("not before", to_text(from_proto(info.not_before())));
  add("not after", to_text(from_proto(info.not_after())));
  add("valid", validity_of(info, now));
  add("fingerprint", info.fingerprint());
  add("folder", info.folder());
  return text;
}

std::string render(const v1::CertificateList& list, SystemTime now) {
  Table table({{"IDENTITY"}, {"SERIAL"}, {"NOT AFTER"}, {"VALID"}});
  table.add({list.authority().issuer() + " (authority)", "", to_text(from_proto(list.authority().not_after())),
             validity_of(list.authority(), now)});
  for (const auto& info : list.certificates()) {
    table.add({info.identity(), info.serial(), to_text(from_proto(info.not_after())), validity_of(info, now)});
  }
  return table.to_string();
}

class Runner {
 public:
  explicit Runner(const Terminal& terminal) : terminal_(terminal), now_(now_system()) {}

  ExitCode operator()(const PkiInitCommand& command) const {
    const auto authority = Authority::init(command.authority, {command.name, command.validity, command.force});
    if (!authority.ok()) return fail(terminal_, authority.status());
    return show_authority(*authority);
  }

  ExitCode operator()(const PkiIssueCommand& command) const {
    const auto authority = Authority::open(command.authority);
    if (!authority.ok()) return fail(terminal_, authority.status());
    const std::string folder =
        command.folder.empty()
            ? fmt::format("{}/{}-{}", command.authority, role_name(command.identity.role), command.identity.name)
            : command.folder;
    return issue(*authority, command.identity, {folder, command.validity, command.force});
  }

  ExitCode operator()(const PkiRenewCommand& command) const {
    const auto authority = Authority::open(command.authority);
    if (!authority.ok()) return fail(terminal_, authority.status());
    const auto old = read(command.folder + "/certificate.pem");
    if (!old.ok()) return fail(terminal_, old.status());
    return issue(*authority, old->identity, {command.folder, command.validity, true});
  }

  ExitCode operator()(const PkiRevokeCommand& command) const {
    const auto authority = Authority::open(command.authority);
    if (!authority.ok()) return fail(terminal_, authority.status());
    const auto revoked = authority->revoke(command.identity, now_);
    if (!revoked.ok()) return fail(terminal_, revoked.status());
    v1::CertificateList list;
    for (const auto& certificate : *revoked) {
      *list.add_certificates() = to_info(certificate);
      list.mutable_certificates(list.certificates_size() - 1)->set_revoked(true);
    }
    return print(terminal_, list, JsonStyle::kIndented, [&] {
      return fmt::format(
          "revoked: {}, certificates: {}\ncopy {} to where the LM's tls.crl_directory is, and send kedge-lm "
          "SIGHUP: sessions that are open end then\n",
          command.identity.uri(), revoked->size(), authority->crl_directory());
    });
  }

  ExitCode operator()(const PkiShowCommand& command) const {
    if (!command.path.empty()) {
      const bool folder = std::filesystem::is_directory(command.path);
      const auto certificate = read(folder ? command.path + "/certificate.pem" : command.path);
      if (!certificate.ok()) return fail(terminal_, certificate.status());
      const auto info = to_info(*certificate);
      return print(terminal_, info, JsonStyle::kIndented, [&] { return render(info, now_); });
    }
    const auto authority = Authority::open(command.authority);
    if (!authority.ok()) return fail(terminal_, authority.status());
    return show_authority(*authority);
  }

 private:
  static absl::StatusOr<Certificate> read(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    if (!file) return absl::NotFoundError(fmt::format("{}: there is no certificate that can be read", path));
    std::ostringstream text;
    text << file.rdbuf();
    auto certificate = parse_certificate(text.str());
    if (!certificate.ok()) {
      return absl::InvalidArgumentError(fmt::format("{}: {}", path, std::string(certificate.status().message())));
    }
    return certificate;
  }

  ExitCode issue(const Authority& authority, const Identity& identity, const IssueOptions& options) const {
    const auto certificate = authority.issue(identity, options);
    if (!certificate.ok()) return fail(terminal_, certificate.status());
    auto info = to_info(*certificate);
    info.set_folder(options.folder);
    return print(terminal_, info, JsonStyle::kIndented, [&] { return render(info, now_); });
  }

  ExitCode show_authority(const Authority& authority) const {
    const auto own = describe_authority(authority);
    if (!own.ok()) return fail(terminal_, own.status());
    const auto issued = authority.issued();
    if (!issued.ok()) return fail(terminal_, issued.status());
    v1::CertificateList list;
    auto& info = *list.mutable_authority();
    info.set_issuer(own->name);
    *info.mutable_not_before() = to_proto(own->not_before);
    *info.mutable_not_after() = to_proto(own->not_after);
    info.set_fingerprint(own->fingerprint);
    info.set_folder(authority.folder());
    for (const auto& one : *issued) {
      auto& added = *list.add_certificates();
      added = to_info(one.certificate);
      added.set_revoked(one.revoked);
    }
    return print(terminal_, list, JsonStyle::kIndented, [&] { return render(list, now_); });
  }

  const Terminal& terminal_;
  const SystemTime now_;
};

}  // namespace

ExitCode run_pki(const Terminal& terminal, const PkiCommand& command) { return std::visit(Runner(terminal), command); }

}  // namespace kedge::kedgectl
