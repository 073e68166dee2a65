#include "kedgectl/format.h"

#include <algorithm>
#include <array>

#include "absl/strings/ascii.h"
#include "fmt/format.h"

namespace kedge::kedgectl {

std::string format_time(SystemTime time, TimePrecision precision) {
  const auto day = std::chrono::floor<std::chrono::days>(time);
  const std::chrono::year_month_day date(day);
  const std::chrono::hh_mm_ss clock(std::chrono::floor<std::chrono::milliseconds>(time - day));
  const std::string fraction =
      precision == TimePrecision::kMilliseconds ? fmt::format(".{:03}", clock.subseconds().count()) : "";
  return fmt::format("{:04}-{:02}-{:02}T{:02}:{:02}:{:02}{}Z", static_cast<int>(date.year()),
                     static_cast<unsigned>(date.month()), static_cast<unsigned>(date.day()), clock.hours().count(),
                     clock.minutes().count(), clock.seconds().count(), fraction);
}

std::string format_age(SystemTime since, SystemTime now) {
  using std::chrono::duration_cast, std::chrono::seconds;
  // Whole seconds first: the difference of two extreme times does not fit in nanoseconds.
  const std::int64_t age = std::max<std::int64_t>(
      0, (duration_cast<seconds>(now.time_since_epoch()) - duration_cast<seconds>(since.time_since_epoch())).count());
  struct Unit {
    std::int64_t length;
    char letter;
  };
  static constexpr std::array<Unit, 4> kUnits = {{{86'400, 'd'}, {3'600, 'h'}, {60, 'm'}, {1, 's'}}};
  for (std::size_t i = 0; i + 1 < kUnits.size(); ++i) {
    if (age < kUnits[i].length) continue;
    const auto& next = kUnits[i + 1];
    return fmt::format("{}{}{}{}", age / kUnits[i].length, kUnits[i].letter, age % kUnits[i].length / next.length,
                       next.letter);
  }
  return fmt::format("{}s", age);
}

std::string format_generation(const v1::Generation& generation) {
  if (generation.revision() == 0) return "";
  return fmt::format("{}.{}", generation.epoch(), generation.revision());
}

std::string short_enum_name(const google::protobuf::EnumDescriptor& type, int value) {
  const auto* found = type.FindValueByNumber(value);
  if (found == nullptr) return std::to_string(value);
  if (value == 0) return "";
  static constexpr std::string_view kZero = "UNSPECIFIED";
  const std::string& zero = type.FindValueByNumber(0)->name();
  return absl::AsciiStrToLower(found->name().substr(zero.size() - kZero.size()));
}

}  // namespace kedge::kedgectl
