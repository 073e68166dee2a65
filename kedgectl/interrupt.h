// Turns Ctrl-C and SIGTERM into a stop request, so that a stream can be ended cleanly.
#pragma once

#include <atomic>
#include <stop_token>
#include <thread>

namespace kedge::kedgectl {

// Made before any other thread, since all of them have to inherit the blocked signals. While it lives, the first of
// these signals requests `token()` to stop; the second ends the process.
class Interrupt {
 public:
  Interrupt();
  ~Interrupt();
  Interrupt(const Interrupt&) = delete;
  Interrupt& operator=(const Interrupt&) = delete;

  std::stop_token token() const { return source_.get_token(); }

 private:
  void wait_for_signals();

  std::stop_source source_;
  std::atomic<bool> ending_ = false;
  std::thread thread_;
};

}  // namespace kedge::kedgectl
