// strongSwan's configuration (swanctl.conf) for Kedge, from the LM's list of access routers: ESP with IKEv2 for what
// the speakers and the LM say to each other, and for the tunnels between access routers. No server is asked.
//
// Standards: RFC 8818, 5 (ESP in transport mode with IKEv2 for signalling), RFC 4303 (ESP), RFC 7296 (IKEv2), RFC 4301
// (which packets), RFC 8247 and RFC 8221 (algorithms).
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "kedge/v1/config.pb.h"
#include "kedgectl/exit_code.h"

namespace kedge::kedgectl {

struct Terminal;

struct IpsecConfigCommand {
  // The LM's configuration file.
  std::string lm_config = "/etc/kedge/lm.yaml";
  // An access router's name; empty: for the LM.
  std::string ar;
  // NAME of the LM's identity kedge://lm/NAME.
  std::string lm_name = "lm";
  // Empty: the address on which the LM listens.
  std::string lm_address;
  // Folder of the node's certificate.
  std::string pki = "/etc/kedge/pki";
  // Protect the tunnels between access routers, too.
  bool tunnels = true;
};

// `config` has its defaults. Peers are known by the subject that kedgectl pki gives: "CN=<role> <name>".
// NotFound: no such access router; InvalidArgument.
absl::StatusOr<std::string> make_ipsec_config(const v1::LmConfig& config, const IpsecConfigCommand& command);

ExitCode run_ipsec_config(const Terminal& terminal, const IpsecConfigCommand& command);

}  // namespace kedge::kedgectl
