// The process's exit codes, as `kedgectl --help` documents them.
#pragma once

namespace kedge::kedgectl {

enum class ExitCode : int {
  kOk = 0,
  // The server refused the request or failed; doctor found a problem; or standard output cannot be written.
  kFailed = 1,
  kUsage = 2,
  // No server answers at the address, or it went away.
  kUnreachable = 3,
  kNotFound = 4,
  // Ended by Ctrl-C or SIGTERM.
  kInterrupted = 130,
};

}  // namespace kedge::kedgectl
