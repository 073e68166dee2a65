// What an authenticator tells the speaker of its own machine: which stations of the access links are who they say.
#pragma once

#include <optional>
#include <string>

#include "google/protobuf/duration.pb.h"
#include "kedgectl/exit_code.h"

namespace kedge::kedgectl {

struct Terminal;

struct StationCommand {
  enum class Action { kAuthorize, kRevoke, kList };
  Action action = Action::kList;
  // The speaker's access.authenticator_socket.
  std::string socket = "/run/kedge-speaker/authenticator.sock";
  std::string interface;
  std::string link_layer_address;
  std::string identity;
  std::optional<google::protobuf::Duration> valid_for;
};

ExitCode run_station(const Terminal& terminal, const StationCommand& command);

}  // namespace kedge::kedgectl
