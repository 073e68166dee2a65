#include "speaker/frr/best_path.h"

#include "absl/strings/str_cat.h"
#include "common/json.h"

namespace kedge::speaker {
namespace {

constexpr std::uint32_t kDefaultLocalPreference = 100;
constexpr char kFamily[] = "ipv6Unicast";

Ipv6Address global_next_hop(const Json& path) {
  for (const Json& hop : path.at("nexthops").items()) {
    const auto address = Ipv6Address::parse(hop.at("ip").text());
    if (address.ok() && !address->is_link_local()) return *address;
  }
  return Ipv6Address();
}

bool follows(const Json& neighbour, std::chrono::milliseconds running, std::chrono::milliseconds stale_time) {
  if (neighbour.at("bgpState").text() != "Established") {
    const bool had_session = neighbour.at("connectionsEstablished").number_or(0) > 0;
    const auto gone =
        had_session ? std::chrono::milliseconds(neighbour.at("lastResetTimerMsecs").number_or(0)) : running;
    return gone >= stale_time;
  }
  // One that does not know graceful restart has dropped all routes with the last session.
  const bool preserves = neighbour.at("neighborCapabilities").at("gracefulRestart").text() == "advertisedAndReceived";
  return !preserves || neighbour.at("gracefulRestartInfo").at("endOfRibSend").at(kFamily).is_true();
}

}  // namespace

std::string paths_command(const Ipv6Prefix& prefix) {
  return absl::StrCat("show bgp ipv6 unicast ", prefix.to_string(), " json");
}

absl::StatusOr<Paths> parse_paths(const Ipv6Prefix& prefix, std::string_view json) {
  const absl::StatusOr<JsonDocument> document = JsonDocument::parse(json);
  if (!document.ok()) return document.status();
  const Json root = document->root();
  Paths paths;
  const auto shown = Ipv6Prefix::parse(root.at("prefix").text());
  if (!shown.ok() || *shown != prefix) return paths;
  for (const Json& path : root.at("paths").items()) {
    if (path.at("sourced").is_true()) paths.own_tags.push_back(path.at("tag").number_or(0));
    if (!path.at("bestpath").at("overall").is_true()) continue;
    paths.best = BestPath{global_next_hop(path), path.at("locPrf").number_or(kDefaultLocalPreference)};
  }
  return paths;
}

std::string sessions_command() { return "show bgp neighbors json"; }

absl::StatusOr<bool> neighbours_follow(std::string_view json, std::chrono::milliseconds running,
                                       std::chrono::milliseconds stale_time) {
  const absl::StatusOr<JsonDocument> document = JsonDocument::parse(json);
  if (!document.ok()) return document.status();
  bool any = false;
  for (const Json& neighbour : document->root().members()) {
    if (!neighbour.at("addressFamilyInfo").has(kFamily)) continue;
    if (!follows(neighbour, running, stale_time)) return false;
    any = true;
  }
  // One that has just started may not have its configuration yet.
  return any || running >= stale_time;
}

}  // namespace kedge::speaker
