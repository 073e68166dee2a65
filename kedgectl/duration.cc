#include "kedgectl/duration.h"

#include <charconv>
#include <chrono>

#include "common/time.h"
#include "fmt/format.h"

namespace kedge::kedgectl {

using std::chrono::milliseconds;

std::optional<google::protobuf::Duration> read_duration(const std::string& text) {
  const auto unit_at = text.find_first_not_of("0123456789");
  if (unit_at == std::string::npos) return std::nullopt;
  std::uint32_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + unit_at, number);
  if (error != std::errc{} || end != text.data() + unit_at) return std::nullopt;
  const std::string unit = text.substr(unit_at);
  const std::int64_t scale = unit == "ms"  ? 1
                             : unit == "s" ? 1'000
                             : unit == "m" ? 60'000
                             : unit == "h" ? 3'600'000
                                           : 0;
  if (scale == 0) return std::nullopt;
  return to_proto(milliseconds(number * scale));
}

std::string duration_text(const google::protobuf::Duration& duration) {
  const std::int64_t ms = std::chrono::duration_cast<milliseconds>(from_proto(duration)).count();
  if (ms % 1'000 != 0) return fmt::format("{}ms", ms);
  if (ms == 0 || ms % 60'000 != 0) return fmt::format("{}s", ms / 1'000);
  if (ms % 3'600'000 != 0) return fmt::format("{}m", ms / 60'000);
  return fmt::format("{}h", ms / 3'600'000);
}

}  // namespace kedge::kedgectl
