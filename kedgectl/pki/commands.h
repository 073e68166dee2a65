// `kedgectl pki`: works on files only, no server is asked.
#pragma once

#include <chrono>
#include <string>
#include <variant>

#include "common/certificate.h"
#include "kedgectl/exit_code.h"

namespace kedge::kedgectl {

struct Terminal;

struct PkiInitCommand {
  std::string authority;
  std::string name;
  std::chrono::hours validity;
  bool force = false;
};
struct PkiIssueCommand {
  std::string authority;
  Identity identity;
  // Empty: <authority>/<role>-<name>.
  std::string folder;
  std::chrono::hours validity;
  bool force = false;
};
struct PkiRenewCommand {
  std::string authority;
  // With the certificate that is renewed.
  std::string folder;
  std::chrono::hours validity;
};
struct PkiRevokeCommand {
  std::string authority;
  Identity identity;
};
struct PkiShowCommand {
  // A folder with a certificate, a certificate file, or empty: all that the authority has issued.
  std::string path;
  std::string authority;
};

using PkiCommand = std::variant<PkiInitCommand, PkiIssueCommand, PkiRenewCommand, PkiRevokeCommand, PkiShowCommand>;

ExitCode run_pki(const Terminal& terminal, const PkiCommand& command);

}  // namespace kedge::kedgectl
