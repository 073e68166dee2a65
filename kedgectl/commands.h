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

}  // namespace kedge::kedgectl
