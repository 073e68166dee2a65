// The program but for its process: reads the command line, connects, runs the command.
#pragma once

#include <ostream>
#include <stop_token>
#include <string>
#include <vector>

#include "kedgectl/exit_code.h"

namespace kedge::kedgectl {

// `arguments` without the program's name. A request of `stop`, from any thread, ends what is under way with
// kInterrupted.
ExitCode run(std::vector<std::string> arguments, std::ostream& out, std::ostream& err, std::stop_token stop);

}  // namespace kedge::kedgectl
