#include "speaker/frr/northbound_request.h"

#include <utility>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/json.h"

namespace kedge::speaker {
namespace {

constexpr char kStaticd[] =
    "/frr-routing:routing/control-plane-protocols/control-plane-protocol"
    "[type='frr-staticd:staticd'][name='staticd'][vrf='default']/frr-staticd:staticd";
// FRR's own command line prints an absent interface this way into the key; with any other value vtysh could not remove
// the route.
constexpr char kNoInterface[] = "(null)";
constexpr int kNewestKnownMajor = 10;
constexpr int kNewestKnownMinor = 7;

constexpr char kFamily[] = "frr-routing:ipv6-unicast";
// Around the list of routes in the configuration as JSON.
constexpr char kBeforeRoutes[] =
    R"({"frr-routing:routing":{"control-plane-protocols":{"control-plane-protocol":[{"type":"frr-staticd:staticd",)"
    R"("name":"staticd","vrf":"default","frr-staticd:staticd":{"route-list":[)";
constexpr char kAfterRoutes[] = "]}}]}}}";

// What is removed when only our path is to go.
std::string own_path(StaticSchema schema, const Ipv6Prefix& prefix) {
  const std::string table = absl::StrCat(route_list_path(schema, prefix), "/path-list[table-id='0']");
  if (schema != StaticSchema::kC) return table + "[distance='1']";
  return absl::StrCat(table, "[nh-type='blackhole'][vrf='default'][gateway=''][interface='", kNoInterface, "']");
}

std::string route_json(StaticSchema schema, const Ipv6Prefix& prefix, std::uint32_t tag) {
  // With "bh-type" as FRR's command line writes it for "blackhole"; without it the route is shown, and saved, as
  // "Null0".
  const std::string nexthop =
      absl::StrCat(R"("nh-type":"blackhole","vrf":"default","gateway":"","interface":")", kNoInterface, R"(")");
  const std::string path = schema == StaticSchema::kC
                               ? absl::StrCat(nexthop, R"(,"bh-type":"unspec","tag":)", tag)
                               : absl::StrCat(R"("distance":1,"tag":)", tag, R"(,"frr-nexthops":{"nexthop":[{)",
                                              nexthop, R"(,"bh-type":"unspec"}]})");
  return absl::StrCat(R"({"prefix":")", prefix.to_string(), R"(",)",
                      schema == StaticSchema::kA ? "" : R"("src-prefix":"::/0",)", R"("afi-safi":")", kFamily,
                      R"(","path-list":[{"table-id":0,)", path, "}]}");
}

// One nexthop of a static, whichever schema it came in.
struct Path {
  std::string type;
  std::string gateway;
  std::string interface;
  std::uint32_t table = 0;
  std::uint32_t distance = 1;
  std::uint32_t tag = 0;

  bool is_blackhole_like_ours() const { return type == "blackhole" && table == 0 && distance == 1; }

  std::string describe() const {
    std::string text = type == "blackhole" ? "blackhole" : "via";
    if (!gateway.empty()) absl::StrAppend(&text, " ", gateway);
    if (!interface.empty() && interface != kNoInterface) absl::StrAppend(&text, " ", interface);
    if (table != 0) absl::StrAppend(&text, " table ", table);
    if (distance != 1) absl::StrAppend(&text, " distance ", distance);
    if (tag != 0) absl::StrAppend(&text, " tag ", tag);
    return text;
  }
};

Path read_nexthop(const Json& nexthop, Path path) {
  path.type = nexthop.at("nh-type").text();
  path.gateway = nexthop.at("gateway").text();
  path.interface = nexthop.at("interface").text();
  return path;
}

std::vector<Path> read_paths(const Json& route) {
  std::vector<Path> paths;
  for (const Json& entry : route.at("path-list").items()) {
    Path path;
    path.table = entry.at("table-id").number_or(0);
    path.distance = entry.at("distance").number_or(1);
    path.tag = entry.at("tag").number_or(0);
    if (entry.has("nh-type")) {
      paths.push_back(read_nexthop(entry, path));
      continue;
    }
    const std::vector<Json> nexthops = entry.at("frr-nexthops").at("nexthop").items();
    for (const Json& nexthop : nexthops) paths.push_back(read_nexthop(nexthop, path));
    if (nexthops.empty()) {
      path.type = "nothing";
      paths.push_back(path);
    }
  }
  return paths;
}

HeldRoute judge(const Json& route) {
  HeldRoute held;
  std::vector<std::string> others;
  for (const Path& path : read_paths(route)) {
    if (path.is_blackhole_like_ours() && path.tag != 0 && held.blackhole_tag == 0) {
      held.blackhole_tag = path.tag;
      held.same_keys = path.gateway.empty() && path.interface == kNoInterface;
    } else {
      others.push_back(path.describe());
    }
  }
  if (route.has("src-list")) others.push_back("source-specific routes");
  held.foreign = absl::StrJoin(others, ", ");
  return held;
}

bool is_ours_to_look_at(const Json& route) {
  const std::string source = route.at("src-prefix").text();
  // RFC 7951, 6.8: an identity has its module's name before it, or not when that is the leaf's own module.
  const std::string family = route.at("afi-safi").text();
  return (source.empty() || source == "::/0") && (family == "ipv6-unicast" || absl::EndsWith(family, ":ipv6-unicast"));
}

}  // namespace

absl::StatusOr<SchemaChoice> choose_schema(const std::string& frr_version) {
  int major = 0;
  int minor = 0;
  const std::size_t dot = frr_version.find('.');
  const std::string rest = dot == std::string::npos ? std::string() : frr_version.substr(dot + 1);
  if (!absl::SimpleAtoi(frr_version.substr(0, dot), &major) ||
      !absl::SimpleAtoi(rest.substr(0, rest.find_first_not_of("0123456789")), &minor)) {
    return absl::FailedPreconditionError(
        absl::StrCat("FRR's northbound reports the version \"", frr_version,
                     "\", which is none; is this port really that of staticd's grpc module (docs/frr.md)?"));
  }
  const std::pair version(major, minor);
  if (version < std::pair(8, 4)) {
    return absl::FailedPreconditionError(absl::StrCat(
        "FRR ", frr_version, " is too old: its static routes have another schema; install FRR 8.4 or later"));
  }
  if (version < std::pair(10, 3)) return SchemaChoice{StaticSchema::kA, true};
  if (version < std::pair(10, 7)) return SchemaChoice{StaticSchema::kB, true};
  return SchemaChoice{StaticSchema::kC, version <= std::pair(kNewestKnownMajor, kNewestKnownMinor)};
}

std::string route_list_path(StaticSchema schema, const Ipv6Prefix& prefix) {
  const char* source = schema == StaticSchema::kA ? "" : "[src-prefix='::/0']";
  return absl::StrCat(kStaticd, "/route-list[prefix='", prefix.to_string(), "']", source, "[afi-safi='", kFamily, "']");
}

std::vector<frr::EditCandidateRequest> build_removals(StaticSchema schema, std::uint32_t candidate_id,
                                                      const RouteChanges& changes, std::size_t max_bytes) {
  std::vector<frr::EditCandidateRequest> edits;
  std::size_t size = 0;
  for (const auto& [prefix, change] : changes) {
    if (change.level != 0) continue;
    frr::EditCandidateRequest removal;
    removal.add_delete_()->set_path(change.keep_others ? own_path(schema, prefix) : route_list_path(schema, prefix));
    const std::size_t removal_size = removal.ByteSizeLong();
    if (edits.empty() || size + removal_size > max_bytes) {
      edits.emplace_back().set_candidate_id(candidate_id);
      size = edits.back().ByteSizeLong();
    }
    edits.back().MergeFrom(removal);
    size += removal_size;
  }
  return edits;
}

std::vector<frr::LoadToCandidateRequest> build_additions(StaticSchema schema, std::uint32_t candidate_id,
                                                         const RouteChanges& changes, std::size_t max_bytes) {
  std::vector<frr::LoadToCandidateRequest> loads;
  std::string json;
  const auto finish = [&] {
    if (json.empty()) return;
    frr::LoadToCandidateRequest& load = loads.emplace_back();
    load.set_candidate_id(candidate_id);
    load.set_type(frr::LoadToCandidateRequest::MERGE);
    load.mutable_config()->set_encoding(frr::JSON);
    load.mutable_config()->set_data(absl::StrCat(json, kAfterRoutes));
    json.clear();
  };
  for (const auto& [prefix, change] : changes) {
    if (change.level == 0) continue;
    const std::string route = route_json(schema, prefix, change.level);
    if (json.size() + route.size() + sizeof(kAfterRoutes) > max_bytes) finish();
    absl::StrAppend(&json, json.empty() ? kBeforeRoutes : ",", route);
  }
  finish();
  return loads;
}

frr::GetRequest build_get() {
  frr::GetRequest request;
  request.set_type(frr::GetRequest::CONFIG);
  request.set_encoding(frr::JSON);
  request.set_with_defaults(true);
  // From the top: FRR copies and validates what is asked for by itself, and a part without its parents is not valid.
  request.add_path("/frr-routing:routing");
  return request;
}

absl::StatusOr<std::map<Ipv6Prefix, HeldRoute>> parse_statics(std::string_view json) {
  absl::StatusOr<JsonDocument> document = JsonDocument::parse(json);
  if (!document.ok()) return document.status();
  // A staticd that has never been configured shows nothing at all.
  if (document->root().is_empty_object()) return std::map<Ipv6Prefix, HeldRoute>();
  const Json routing = document->root().at("frr-routing:routing");
  if (!routing.exists()) {
    return absl::InvalidArgumentError("FRR's configuration as JSON has no \"frr-routing:routing\" at its top");
  }
  std::map<Ipv6Prefix, HeldRoute> held;
  for (const Json& protocol : routing.at("control-plane-protocols").at("control-plane-protocol").items()) {
    if (protocol.at("vrf").text() != "default") continue;
    for (const Json& route : protocol.at("frr-staticd:staticd").at("route-list").items()) {
      if (!is_ours_to_look_at(route)) continue;
      const absl::StatusOr<Ipv6Prefix> prefix = Ipv6Prefix::parse(route.at("prefix").text());
      if (prefix.ok()) held.emplace(*prefix, judge(route));
    }
  }
  return held;
}

}  // namespace kedge::speaker
