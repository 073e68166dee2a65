#include "tests/bench/swarm/clock.h"

#include <cstring>
#include <ctime>

namespace kedge::bench {
namespace {

std::int64_t to_ns(const timespec& time) { return time.tv_sec * kSecond + time.tv_nsec; }

std::int64_t clock_ns(clockid_t clock) {
  timespec time{};
  clock_gettime(clock, &time);
  return to_ns(time);
}

}  // namespace

std::int64_t now_ns() { return clock_ns(CLOCK_MONOTONIC); }

StampClock::StampClock() : now_(now_ns()), ahead_(clock_ns(CLOCK_REALTIME) - now_) {}

std::int64_t StampClock::received_at(msghdr& message) const {
  for (cmsghdr* c = CMSG_FIRSTHDR(&message); c != nullptr; c = CMSG_NXTHDR(&message, c)) {
    if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_TIMESTAMPNS) continue;
    timespec time;
    std::memcpy(&time, CMSG_DATA(c), sizeof(time));
    return to_ns(time) - ahead_;
  }
  return now_;
}

}  // namespace kedge::bench
