// FRR's configuration for Kedge, from the LM's list of access routers: what may be announced, in which order of
// preference, to whom. No server is asked.
//
// Standards: RFC 4456 (route reflection), RFC 5082 (GTSM), RFC 2385 (TCP MD5), RFC 8818, 5.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "kedge/v1/config.pb.h"
#include "kedgectl/exit_code.h"

namespace kedge::kedgectl {

struct Terminal;

struct FrrConfigCommand {
  // The LM's configuration file.
  std::string lm_config = "/etc/kedge/lm.yaml";
  // An access router's name; empty: for the route reflector.
  std::string ar;
  std::uint32_t as_number = 65000;
  // Empty: 0.0.0.1 for a reflector, 0.0.0.11 and so on for the access routers as the configuration lists them.
  std::string router_id;
  // Of an access router: whom it announces to. Of a reflector: its own address towards the access routers.
  std::vector<std::string> reflectors;
  // How the speaker brings prefixes into FRR: northbound or kernel, as in its frr.injector.
  std::string injector = "northbound";
  // Local preference of level k is base + k.
  std::uint32_t local_preference_base = 100;
  // RFC 5082: routers between the ends of a session, this one included; 0: no such check.
  std::uint32_t hops = 1;
  // RFC 2385: a file with the secret of all sessions; empty: none.
  std::string password_file;
  // Routes of one access router from which on the log warns. Sessions are never reset for it: a storm of moves is not
  // an attack.
  std::uint32_t maximum_prefixes = 100'000;
};

// `config` has its defaults. NotFound: no such access router; InvalidArgument.
absl::StatusOr<std::string> make_frr_config(const v1::LmConfig& config, const FrrConfigCommand& command,
                                            const std::string& password);

ExitCode run_frr_config(const Terminal& terminal, const FrrConfigCommand& command);

}  // namespace kedge::kedgectl
