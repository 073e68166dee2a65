// The command that writes the server's store into a file.
#pragma once

#include "kedgectl/command_line.h"
#include "kedgectl/exit_code.h"
#include "kedgectl/report.h"

namespace kedge::kedgectl {

// kOk when the file is whole and on disk; until then it has another name, and it is gone after a failure. kFailed: it
// exists already and `command.force` is not set, it cannot be written, or what came is damaged. To standard output
// (`command.file` is "-") goes what comes; kOk tells that it was whole.
ExitCode run_backup(const Session& session, const BackupCommand& command);

}  // namespace kedge::kedgectl
