#include "speaker/frr/zebra_answers.h"

#include <sstream>

#include "common/json.h"

namespace kedge::speaker {

std::string parse_version(std::string_view answer) {
  // "FRRouting 8.4.4 (ar1) on Linux(6.1.0)."
  std::istringstream words{std::string(answer)};
  std::string name;
  std::string version;
  words >> name >> version;
  return name == "FRRouting" ? version : std::string();
}

absl::StatusOr<std::size_t> parse_kernel_route_count(std::string_view json) {
  const absl::StatusOr<JsonDocument> document = JsonDocument::parse(json);
  if (!document.ok()) return document.status();
  for (const Json& kind : document->root().at("routes").items()) {
    if (kind.at("type").text() == "kernel") return kind.at("rib").number_or(0);
  }
  return 0;
}

}  // namespace kedge::speaker
