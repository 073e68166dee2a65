#include "kedgectl/interrupt.h"

#include <signal.h>
#include <unistd.h>

#include "kedgectl/exit_code.h"

namespace kedge::kedgectl {
namespace {

sigset_t our_signals() {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGINT);
  sigaddset(&set, SIGTERM);
  return set;
}

}  // namespace

Interrupt::Interrupt() {
  const sigset_t set = our_signals();
  pthread_sigmask(SIG_BLOCK, &set, nullptr);
  thread_ = std::thread([this] { wait_for_signals(); });
}

Interrupt::~Interrupt() {
  ending_ = true;
  pthread_kill(thread_.native_handle(), SIGTERM);
  thread_.join();
}

void Interrupt::wait_for_signals() {
  const sigset_t set = our_signals();
  int signal = 0;
  while (sigwait(&set, &signal) == 0 && !ending_) {
    if (!source_.request_stop()) _exit(static_cast<int>(ExitCode::kInterrupted));
  }
}

}  // namespace kedge::kedgectl
