#include "tests/model/surroundings.h"

#include <sys/timerfd.h>
#include <time.h>

#include <cerrno>

#include "absl/status/status.h"
#include "common/log.h"

namespace kedge {
namespace {
const std::chrono::steady_clock::time_point* steady_time = nullptr;
std::vector<std::string>* log_lines = nullptr;
}  // namespace

namespace model {
void set_steady_clock(const std::chrono::steady_clock::time_point* time) { steady_time = time; }
void set_log(std::vector<std::string>* lines) { log_lines = lines; }
}  // namespace model

// Instead of common/log.cc, which the linker then leaves out.
absl::Status set_log_level(std::string_view) { return absl::OkStatus(); }
void set_log_level(LogLevel) {}
bool log_enabled(LogLevel) { return log_lines != nullptr; }
void log_internal::write(LogLevel, std::string_view event, const Fields& fields) {
  if (log_lines == nullptr) return;
  std::string line = "      log " + std::string(event);
  for (const auto& [key, value] : fields) line += fmt::format(" {}={}", key, value);
  log_lines->push_back(std::move(line));
}

}  // namespace kedge

// Without it, Asio compares its timers with steady_clock at each poll.
int timerfd_create(clockid_t, int) noexcept {
  errno = ENOSYS;
  return -1;
}

// Instead of the C++ library's: the executable's own definition comes first.
std::chrono::steady_clock::time_point std::chrono::steady_clock::now() noexcept {
  if (kedge::steady_time != nullptr) return *kedge::steady_time;
  timespec time{};
  ::clock_gettime(CLOCK_MONOTONIC, &time);
  return time_point(std::chrono::seconds(time.tv_sec) + std::chrono::nanoseconds(time.tv_nsec));
}
