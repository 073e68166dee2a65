// What a failed call means to the person at the terminal: an exit code, and a text that says what to do.
#pragma once

#include <string>

#include "grpcpp/support/status.h"
#include "kedgectl/exit_code.h"

namespace kedge::kedgectl {

struct Failure {
  ExitCode code;
  // One or more lines, without a newline at the end.
  std::string text;
};

// `status` is not OK. `server` is the address that was asked.
Failure explain(const grpc::Status& status, const std::string& server);

}  // namespace kedge::kedgectl
