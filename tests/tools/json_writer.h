// Writes indented JSON front to back, in the order of the calls.
// Not thread-safe. The caller balances open and close.
#pragma once

#include <concepts>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace kedge::tools {

class JsonWriter {
 public:
  void open_object(std::string_view key = {}) { open(key, '{'); }
  void close_object() { close('}'); }
  void open_array(std::string_view key = {}) { open(key, '['); }
  void close_array() { close(']'); }

  void add(std::string_view key, std::string_view text) {
    begin_value(key);
    append_string(text);
  }
  void add(std::string_view key, const char* text) { add(key, std::string_view(text)); }
  void add(std::string_view key, bool value) {
    begin_value(key);
    out_ += value ? "true" : "false";
  }
  template <std::integral Integer>
  requires(!std::same_as<Integer, bool>) void add(std::string_view key, Integer value) {
    begin_value(key);
    absl::StrAppend(&out_, value);
  }
  template <typename Value>
  void add(std::string_view key, const std::optional<Value>& value) {
    if (value) return add(key, *value);
    begin_value(key);
    out_ += "null";
  }
  // Nanoseconds, written as milliseconds with all digits.
  void add_ms(std::string_view key, std::int64_t value_ns) {
    begin_value(key);
    absl::StrAppendFormat(&out_, "%s%d.%06d", value_ns < 0 ? "-" : "",
                          (value_ns < 0 ? -value_ns : value_ns) / 1'000'000,
                          (value_ns < 0 ? -value_ns : value_ns) % 1'000'000);
  }

  // The document, with the final newline.
  std::string finish() && { return std::move(out_) + "\n"; }

 private:
  void begin_value(std::string_view key) {
    if (!first_) out_ += ',';
    if (depth_ > 0) out_.append(1, '\n').append(2 * depth_, ' ');
    first_ = false;
    if (!key.empty()) {
      append_string(key);
      out_ += ": ";
    }
  }
  void open(std::string_view key, char bracket) {
    begin_value(key);
    out_ += bracket;
    ++depth_;
    first_ = true;
  }
  void close(char bracket) {
    --depth_;
    if (!first_) out_.append(1, '\n').append(2 * depth_, ' ');
    out_ += bracket;
    first_ = false;
  }
  void append_string(std::string_view text) {
    out_ += '"';
    for (const char c : text) {
      if (c == '"' || c == '\\') {
        out_ += '\\';
        out_ += c;
      } else if (static_cast<unsigned char>(c) < 0x20) {
        absl::StrAppendFormat(&out_, "\\u%04x", static_cast<unsigned>(c));
      } else {
        out_ += c;
      }
    }
    out_ += '"';
  }

  std::string out_;
  std::size_t depth_ = 0;
  bool first_ = true;
};

}  // namespace kedge::tools
