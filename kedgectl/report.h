// Where a command's answer and its troubles go.
#pragma once

#include <functional>
#include <ostream>
#include <stop_token>
#include <string>

#include "absl/status/status.h"
#include "google/protobuf/message.h"
#include "grpcpp/support/status.h"
#include "kedge/v1/admin.grpc.pb.h"
#include "kedgectl/command_line.h"
#include "kedgectl/exit_code.h"

namespace kedge::kedgectl {

struct Terminal {
  const GlobalOptions& options;
  std::ostream& out;
  std::ostream& err;
};

// What each command that asks the server works with. Used by one thread.
struct Session : Terminal {
  Session(v1::Admin::StubInterface& stub, const Terminal& terminal, std::stop_token token)
      : Terminal(terminal), admin(stub), stop(std::move(token)) {}

  v1::Admin::StubInterface& admin;
  // Requested by Ctrl-C; ends what is under way.
  std::stop_token stop;
};

// Writes and flushes. kFailed, with a message, when standard output does not take it.
ExitCode write_out(const Terminal& terminal, const std::string& text);

// Writes `message` as JSON in `style`, or as what `table` makes of it, whichever is asked for.
ExitCode print(const Terminal& terminal, const google::protobuf::Message& message, JsonStyle style,
               const std::function<std::string()>& table);

// Each line goes to standard error with the program's name before the first.
void tell(std::ostream& err, const std::string& text);

// Says why a command failed that asks no server. `status` is not OK.
ExitCode fail(const Terminal& terminal, const absl::Status& status);

// Says why a call failed. `status` is not OK.
ExitCode fail(const Session& session, const grpc::Status& status);

}  // namespace kedge::kedgectl
