#include "speaker/doctor/route_map.h"

#include <sstream>

namespace kedge::speaker {
namespace {

// One entry, as far as it has been read.
struct Entry {
  bool permits = false;
  std::uint32_t tag = 0;
  std::uint32_t local_preference = 0;
  bool weight_zero = false;
};

}  // namespace

absl::StatusOr<std::set<std::uint32_t>> parse_levels(const std::string& answer, std::uint32_t base) {
  std::set<std::uint32_t> levels;
  bool any = false;
  Entry entry;
  const auto take = [&] {
    if (entry.permits && entry.tag > 0 && entry.local_preference == base + entry.tag && entry.weight_zero) {
      levels.insert(entry.tag);
    }
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
    if (word == "tag") words >> entry.tag;
    if (word == "local-preference") words >> entry.local_preference;
    if (std::uint32_t weight = 1; word == "weight") entry.weight_zero = words >> weight && weight == 0;
  }
  take();
  if (!any) return absl::NotFoundError("bgpd has no route-map KEDGE");
  return levels;
}

}  // namespace kedge::speaker
