// Times of arrival by the clock that all ends of a flow share.
#pragma once

#include <sys/socket.h>

#include <cstdint>
#include <string>

namespace kedge::bench {

inline constexpr std::int64_t kMillisecond = 1'000'000;
inline constexpr std::int64_t kSecond = 1'000'000'000;

// CLOCK_MONOTONIC.
std::int64_t now_ns();

// Translates the kernel's time stamps (SO_TIMESTAMPNS), which are of CLOCK_REALTIME; made anew for each batch.
class StampClock {
 public:
  StampClock();
  // The time of reading, when the message has no stamp.
  std::int64_t received_at(msghdr& message) const;

 private:
  std::int64_t now_;
  std::int64_t ahead_;
};

}  // namespace kedge::bench
