#include "speaker/doctor/route_map.h"

#include <sstream>

#include "common/anchor_level.h"

namespace kedge::speaker {
namespace {

// One entry, as far as it has been read.
struct Entry {
  bool permits = false;
  bool setting = false;
  std::uint32_t matched_tag = 0;
  std::uint32_t matched_metric = 0;
  std::uint32_t tag = 0;
  std::uint32_t local_preference = 0;
  bool weight_zero = false;

  // 0: none.
  std::uint32_t level(LevelMatch match) const {
    if (match == LevelMatch::kTag) return matched_tag;
    return tag > 0 && matched_metric == kernel_metric(tag) ? tag : 0;
  }
};

}  // namespace

absl::StatusOr<std::set<std::uint32_t>> parse_levels(const std::string& answer, std::uint32_t base, LevelMatch match) {
  std::set<std::uint32_t> levels;
  bool any = false;
  Entry entry;
  const auto take = [&] {
    const auto level = entry.level(match);
    if (entry.permits && level > 0 && entry.local_preference == base + level && entry.weight_zero) levels.insert(level);
    entry = {};
  };
  std::istringstream lines(answer);
  for (std::string line; std::getline(lines, line);) {
    std::istringstream words(line);
    std::string word;
    words >> word;
    // " permit, sequence 10 Invoked 0" begins an entry.
    if (word == "permit," || word == "deny,") {
      take();
      any = true;
      entry.permits = word == "permit,";
    }
    if (word == "Match" || word == "Set") entry.setting = word == "Set";
    if (word == "tag") words >> (entry.setting ? entry.tag : entry.matched_tag);
    if (word == "metric" && !entry.setting) words >> entry.matched_metric;
    if (word == "local-preference") words >> entry.local_preference;
    if (std::uint32_t weight = 1; word == "weight") entry.weight_zero = words >> weight && weight == 0;
  }
  take();
  if (!any) return absl::NotFoundError("bgpd has no route-map KEDGE");
  return levels;
}

}  // namespace kedge::speaker
