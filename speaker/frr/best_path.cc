#include "speaker/frr/best_path.h"

#include "absl/strings/str_cat.h"
#include "speaker/frr/json.h"

namespace kedge::speaker {
namespace {

constexpr std::uint32_t kDefaultLocalPreference = 100;

Ipv6Address global_next_hop(const Json& path) {
  for (const Json& hop : path.at("nexthops").items()) {
    const auto address = Ipv6Address::parse(hop.at("ip").text());
    if (address.ok() && !address->is_link_local()) return *address;
  }
  return Ipv6Address();
}

}  // namespace

std::string best_path_command(const Ipv6Prefix& prefix) {
  return absl::StrCat("show bgp ipv6 unicast ", prefix.to_string(), " json");
}

absl::StatusOr<std::optional<BestPath>> parse_best_path(const Ipv6Prefix& prefix, std::string_view json) {
  const absl::StatusOr<JsonDocument> document = JsonDocument::parse(json);
  if (!document.ok()) return document.status();
  const Json root = document->root();
  const auto shown = Ipv6Prefix::parse(root.at("prefix").text());
  if (!shown.ok() || *shown != prefix) return std::nullopt;
  for (const Json& path : root.at("paths").items()) {
    if (!path.at("bestpath").at("overall").is_true()) continue;
    return BestPath{global_next_hop(path), path.at("locPrf").number_or(kDefaultLocalPreference)};
  }
  return std::nullopt;
}

}  // namespace kedge::speaker
