// The commands that ask once and print the answer. Each prints data to the session's `out` and troubles to its `err`.
#pragma once

#include "kedgectl/command_line.h"
#include "kedgectl/exit_code.h"
#include "kedgectl/report.h"

namespace kedge::kedgectl {

ExitCode run_status(const Session& session);
ExitCode run_nodes(const Session& session);
// Asks for all pages; as JSON they are one answer with the revision of the last.
ExitCode run_bindings(const Session& session, const BindingsCommand& command);
ExitCode run_binding(const Session& session, const BindingCommand& command);

ExitCode run_policy_list(const Session& session);
ExitCode run_policy_show(const Session& session, const PolicyShowCommand& command);
// Prints the policy as it is now.
ExitCode run_policy_set(const Session& session, const PolicySetCommand& command);
ExitCode run_policy_delete(const Session& session, const PolicyDeleteCommand& command);
// Prints the node as it is now.
ExitCode run_drain(const Session& session, const DrainCommand& command);
ExitCode run_audit(const Session& session, const AuditCommand& command);
ExitCode run_detach(const Session& session, const DetachCommand& command);

}  // namespace kedge::kedgectl
