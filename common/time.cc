#include "common/time.h"

#include <algorithm>
#include <cstdint>

#include "fmt/chrono.h"

namespace kedge {
namespace {

constexpr std::int64_t kNanosPerSecond = 1'000'000'000;

// Protobuf wants 0 <= nanos for timestamps and nanos of the sign of seconds for durations.
template <typename Message>
Message split(std::int64_t nanos, bool floor) {
  std::int64_t seconds = nanos / kNanosPerSecond;
  std::int64_t rest = nanos % kNanosPerSecond;
  if (floor && rest < 0) {
    rest += kNanosPerSecond;
    --seconds;
  }
  Message message;
  message.set_seconds(seconds);
  message.set_nanos(static_cast<std::int32_t>(rest));
  return message;
}

// A message from the network may hold any number, also more than a second of nanoseconds; what does not fit is clamped.
std::int64_t join(std::int64_t seconds, std::int32_t nanos) {
  constexpr std::int64_t kMost = INT64_MAX / kNanosPerSecond - 1;
  if (seconds > kMost) seconds = kMost;
  if (seconds < -kMost) seconds = -kMost;
  nanos = std::clamp<std::int32_t>(nanos, 1 - kNanosPerSecond, kNanosPerSecond - 1);
  return seconds * kNanosPerSecond + nanos;
}

}  // namespace

SystemTime now_system() {
  return std::chrono::time_point_cast<std::chrono::nanoseconds>(std::chrono::system_clock::now());
}

std::string to_text(SystemTime time) {
  return fmt::format("{:%Y-%m-%dT%H:%M:%SZ}", std::chrono::floor<std::chrono::seconds>(time));
}

google::protobuf::Timestamp to_proto(SystemTime time) {
  return split<google::protobuf::Timestamp>(time.time_since_epoch().count(), true);
}
SystemTime from_proto(const google::protobuf::Timestamp& timestamp) {
  return SystemTime(std::chrono::nanoseconds(join(timestamp.seconds(), timestamp.nanos())));
}
google::protobuf::Duration to_proto(std::chrono::nanoseconds duration) {
  return split<google::protobuf::Duration>(duration.count(), false);
}
std::chrono::nanoseconds from_proto(const google::protobuf::Duration& duration) {
  return std::chrono::nanoseconds(join(duration.seconds(), duration.nanos()));
}

}  // namespace kedge
