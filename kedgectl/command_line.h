// The command line and the environment, as typed values.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "kedge/v1/admin.pb.h"
#include "kedgectl/doctor.h"
#include "kedgectl/exit_code.h"
#include "kedgectl/frr_config.h"
#include "kedgectl/ipsec_config.h"
#include "kedgectl/output.h"
#include "kedgectl/pki/commands.h"
#include "kedgectl/station.h"

namespace kedge::kedgectl {

struct GlobalOptions {
  std::string server;
  bool insecure_plaintext = false;
  // Folder with ca.pem, certificate.pem and key.pem.
  std::string tls = "/etc/kedge/pki";
  OutputFormat format = OutputFormat::kTable;
  // Of each call; of `backup`, between two pieces; `watch` waits for ever.
  std::chrono::milliseconds timeout{10'000};
  bool verbose = false;
};

struct StatusCommand {};
struct NodesCommand {};
struct BindingsCommand {
  std::string ar;
  std::string mn_id;
};
struct BindingCommand {
  // Canonical text of an address or prefix.
  std::string prefix;
};
struct WatchCommand {
  // Events with a greater id; 0 stands for all that are kept. None: from now on.
  std::optional<std::uint64_t> after;
  std::string prefix;
  std::string mn_id;
  std::string ar;
  // Ends after so many events; 0: never.
  std::uint64_t count = 0;
  // Connect again when the server goes away.
  bool follow = false;
};

struct PolicyListCommand {};
struct PolicyShowCommand {
  std::string mn_id;
  // Empty: where the MN is attached.
  std::string ar;
};
struct PolicySetCommand {
  v1::SetPolicyRequest request;
};
struct PolicyDeleteCommand {
  v1::PolicyScope scope;
};
struct DrainCommand {
  std::string ar;
  bool drain = true;
};
struct DetachCommand {
  std::string mn_id;
};
struct AuditCommand {
  v1::AuditRequest request;
};
struct BackupCommand {
  // "-" is standard output.
  std::string file;
  // Replaces a file that is there already.
  bool force = false;
};

using Command =
    std::variant<StatusCommand, NodesCommand, BindingsCommand, BindingCommand, WatchCommand, PolicyListCommand,
                 PolicyShowCommand, PolicySetCommand, PolicyDeleteCommand, DrainCommand, DetachCommand, BackupCommand,
                 AuditCommand, PkiCommand, FrrConfigCommand, IpsecConfigCommand, StationCommand, DoctorCommand>;

struct CommandLine {
  GlobalOptions global;
  Command command;
};

// What to print instead of running a command: help and version on standard output with kOk, mistakes on standard error
// with kUsage.
struct Message {
  ExitCode code;
  std::string text;
};

// `arguments` without the program's name. Reads KEDGECTL_SERVER, KEDGECTL_TLS, KEDGECTL_AUTHORITY,
// KEDGECTL_AUTHENTICATOR and KEDGECTL_INSECURE_PLAINTEXT.
std::variant<CommandLine, Message> parse_command_line(std::vector<std::string> arguments);

}  // namespace kedge::kedgectl
