// The command that prints events until it is told to stop.
#pragma once

#include "kedgectl/command_line.h"
#include "kedgectl/exit_code.h"
#include "kedgectl/report.h"

namespace kedge::kedgectl {

// kOk after `command.count` events, kInterrupted when the session is told to stop, kUnreachable when the
// server goes away: standard error then says after which id to go on. With `command.follow` it connects again instead
// and goes on there; after a restart of the server, whose ids begin again, with all that the server keeps.
ExitCode run_watch(const Session& session, const WatchCommand& command);

}  // namespace kedge::kedgectl
