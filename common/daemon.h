// What every daemon does with its service manager.
#pragma once

#include <string_view>

namespace kedge {

// Tells systemd "READY=1", "STOPPING=1" or "RELOADING=1" (sd_notify(3)): one datagram to $NOTIFY_SOCKET. No effect
// without one. Failures are logged.
void notify_service_manager(std::string_view state);

// Documented exit codes of all daemons.
enum ExitCode { kExitOk = 0, kExitRuntimeError = 1, kExitBadConfiguration = 2 };

}  // namespace kedge
