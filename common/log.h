// Logging: one line an event, key=value, on standard error. `log_info("redirect_programmed", "prefix", p, "to", ar)`
// prints `2026-01-02T03:04:05.678901Z info redirect_programmed prefix=2001:db8:1:1::/64 to=ar2`. Values with spaces or
// quotes are quoted. Thread-safe.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "fmt/format.h"

namespace kedge {

enum class LogLevel { kTrace, kDebug, kInfo, kWarning, kError };

// "trace", "debug", "info", "warning", "error". InvalidArgument lists them.
absl::Status set_log_level(std::string_view level);
void set_log_level(LogLevel level);
bool log_enabled(LogLevel level);

namespace log_internal {
using Fields = std::vector<std::pair<std::string_view, std::string>>;
void write(LogLevel level, std::string_view event, const Fields& fields);

template <typename T>
std::string to_text(const T& value) {
  if constexpr (requires { value.to_string(); }) {
    return value.to_string();
  } else if constexpr (requires { value.ToString(); }) {
    return value.ToString();
  } else {
    return fmt::format("{}", value);
  }
}
inline void collect(Fields&) {}
template <typename V, typename... Rest>
void collect(Fields& fields, std::string_view key, const V& value, const Rest&... rest) {
  fields.emplace_back(key, to_text(value));
  collect(fields, rest...);
}
}  // namespace log_internal

template <typename... KeysAndValues>
void log(LogLevel level, std::string_view event, const KeysAndValues&... keys_and_values) {
  static_assert(sizeof...(KeysAndValues) % 2 == 0, "keys and values come in pairs");
  if (!log_enabled(level)) return;
  log_internal::Fields fields;
  fields.reserve(sizeof...(KeysAndValues) / 2);
  log_internal::collect(fields, keys_and_values...);
  log_internal::write(level, event, fields);
}

template <typename... A>
void log_debug(std::string_view event, const A&... a) {
  log(LogLevel::kDebug, event, a...);
}
template <typename... A>
void log_info(std::string_view event, const A&... a) {
  log(LogLevel::kInfo, event, a...);
}
template <typename... A>
void log_warning(std::string_view event, const A&... a) {
  log(LogLevel::kWarning, event, a...);
}
template <typename... A>
void log_error(std::string_view event, const A&... a) {
  log(LogLevel::kError, event, a...);
}

}  // namespace kedge
