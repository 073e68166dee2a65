#include "tests/bench/swarm/command.h"

#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace kedge::bench {
namespace {

using Words = std::vector<std::string>;

template <typename Number>
bool read(const std::string& word, Number least, Number most, Number* out) {
  return absl::SimpleAtoi(word, out) && *out >= least && *out <= most;
}

absl::Status wrong(const char* usage) { return absl::InvalidArgumentError(absl::StrCat("it is written: ", usage)); }

absl::StatusOr<Command> parse_travel(const Words& words) {
  constexpr auto* kUsage =
      "arrive|move PORT COUNT within SECONDS [overlap MILLISECONDS | gap MILLISECONDS], at most 1000000 nodes, an hour";
  Travel travel;
  double seconds = 0;
  std::uint64_t count = 0;
  if (words.size() != 5 && words.size() != 7) return wrong(kUsage);
  travel.port = words[1];
  if (!read<std::uint64_t>(words[2], 1, 1'000'000, &count) || words[3] != "within") return wrong(kUsage);
  if (!absl::SimpleAtod(words[4], &seconds) || !(seconds >= 0 && seconds <= 3'600)) return wrong(kUsage);
  travel.count = count;
  travel.within = std::chrono::milliseconds(static_cast<std::int64_t>(seconds * 1'000));
  if (words.size() == 5) return travel;
  std::int64_t milliseconds = 0;
  if (!read<std::int64_t>(words[6], 0, 3'600'000, &milliseconds)) return wrong(kUsage);
  if (words[5] == "gap") {
    travel.gap = std::chrono::milliseconds(milliseconds);
  } else if (words[5] == "overlap") {
    travel.overlap = std::chrono::milliseconds(milliseconds);
  } else {
    return wrong(kUsage);
  }
  return travel;
}

}  // namespace

absl::StatusOr<Command> parse_command(std::string_view line) {
  const Words words = absl::StrSplit(std::string(line), ' ', absl::SkipWhitespace());
  if (words.empty()) return wrong("arrive, move, flows, stop-flows, report or quit");
  if (words[0] == "arrive" || words[0] == "move") return parse_travel(words);
  if (words[0] == "flows") {
    std::uint64_t count = 0;
    BeginFlows flows;
    if (words.size() != 4 || words[2] != "rate" || !read<std::uint64_t>(words[1], 1, 100'000, &count) ||
        !read<std::uint32_t>(words[3], 1, 10'000, &flows.rate)) {
      return wrong("flows COUNT rate PACKETS-PER-SECOND, 1 to 100000 flows of 1 to 10000");
    }
    flows.count = count;
    return flows;
  }
  if (words[0] == "stop-flows")
    return words.size() == 2 ? absl::StatusOr<Command>(EndFlows{words[1]}) : wrong("stop-flows FOLDER");
  if (words[0] == "report") return words.size() == 2 ? absl::StatusOr<Command>(Report{words[1]}) : wrong("report FILE");
  if (words[0] == "quit") return Quit{};
  return wrong("arrive, move, flows, stop-flows, report or quit");
}

}  // namespace kedge::bench
