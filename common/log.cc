#include "common/log.h"

#include <memory>

#include "spdlog/pattern_formatter.h"
#include "spdlog/sinks/stdout_sinks.h"
#include "spdlog/spdlog.h"

namespace kedge {
namespace {

spdlog::level::level_enum to_spdlog(LogLevel level) {
  switch (level) {
    case LogLevel::kTrace:
      return spdlog::level::trace;
    case LogLevel::kDebug:
      return spdlog::level::debug;
    case LogLevel::kInfo:
      return spdlog::level::info;
    case LogLevel::kWarning:
      return spdlog::level::warn;
    case LogLevel::kError:
      return spdlog::level::err;
  }
  return spdlog::level::info;
}

spdlog::logger& logger() {
  static const std::shared_ptr<spdlog::logger> instance = [] {
    auto made = std::make_shared<spdlog::logger>("kedge", std::make_shared<spdlog::sinks::stderr_sink_mt>());
    made->set_formatter(
        std::make_unique<spdlog::pattern_formatter>("%Y-%m-%dT%H:%M:%S.%fZ %l %v", spdlog::pattern_time_type::utc));
    made->flush_on(spdlog::level::trace);
    return made;
  }();
  return *instance;
}

// Control characters of ASCII and, in UTF-8, of ISO 6429's C1 set: a terminal obeys both.
bool is_control(std::string_view value, std::size_t i) {
  const auto at = [value](std::size_t k) { return static_cast<unsigned char>(value[k]); };
  if (at(i) < 0x20 || at(i) == 0x7f) return true;
  return at(i) == 0xc2 && i + 1 < value.size() && at(i + 1) >= 0x80 && at(i + 1) < 0xa0;
}

// A value from the network cannot break out of its line or its quotes, nor steer the terminal that shows it.
void append_value(std::string& line, std::string_view value) {
  std::string safe;
  safe.reserve(value.size() + 2);
  bool plain = !value.empty();
  for (std::size_t i = 0; i < value.size(); ++i) {
    const char c = value[i];
    if (is_control(value, i)) {
      plain = false;
      safe += ' ';
      if (static_cast<unsigned char>(c) == 0xc2) ++i;
      continue;
    }
    if (c == ' ' || c == '=' || c == '"' || c == '\\') plain = false;
    if (c == '"' || c == '\\') safe += '\\';
    safe += c;
  }
  if (plain) {
    line += safe;
  } else {
    line.append(1, '"').append(safe).append(1, '"');
  }
}

}  // namespace

absl::Status set_log_level(std::string_view level) {
  static constexpr std::pair<std::string_view, LogLevel> kLevels[] = {{"trace", LogLevel::kTrace},
                                                                      {"debug", LogLevel::kDebug},
                                                                      {"info", LogLevel::kInfo},
                                                                      {"warning", LogLevel::kWarning},
                                                                      {"error", LogLevel::kError}};
  for (const auto& [name, value] : kLevels) {
    if (name == level) {
      set_log_level(value);
      return absl::OkStatus();
    }
  }
  return absl::InvalidArgumentError(fmt::format("log level '{}' is none of trace, debug, info, warning, error", level));
}

void set_log_level(LogLevel level) { logger().set_level(to_spdlog(level)); }

bool log_enabled(LogLevel level) { return logger().should_log(to_spdlog(level)); }

namespace log_internal {

void write(LogLevel level, std::string_view event, const Fields& fields) {
  std::string line(event);
  for (const auto& [key, value] : fields) {
    line += ' ';
    line += key;
    line += '=';
    append_value(line, value);
  }
  logger().log(to_spdlog(level), spdlog::string_view_t(line));
}

}  // namespace log_internal
}  // namespace kedge
