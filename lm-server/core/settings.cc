#include "lm-server/core/settings.h"

#include <algorithm>
#include <map>
#include <tuple>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "common/credentials.h"
#include "common/endpoint.h"
#include "common/time.h"

namespace kedge::lm {
namespace {

using std::chrono::hours;
using std::chrono::minutes;
using std::chrono::nanoseconds;
using std::chrono::seconds;

constexpr int kShortestPool = 48;
constexpr int kLongestPool = 64;
constexpr std::size_t kLongestName = 63;
constexpr std::uint32_t kMostPrefixes = 15;
constexpr std::uint32_t kFewestLevels = 3;
constexpr std::uint32_t kMostLevels = 100;
constexpr std::uint32_t kFewestFlapMoves = 2;
constexpr std::uint32_t kMostFlapMoves = 1000;
constexpr std::uint32_t kMostNewNodes = 1'000'000;

// Collects the path of the key for error texts.
class Checker {
 public:
  explicit Checker(std::string_view file) : file_(file) {}

  template <typename... Text>
  absl::Status error(const std::string& key, const Text&... text) const {
    return absl::InvalidArgumentError(absl::StrCat(file_, ": ", key, ": ", text...));
  }

  absl::StatusOr<Ipv6Address> address(const std::string& key, const std::string& text) const {
    if (text.empty()) return error(key, "is missing; set it to an IPv6 address");
    auto parsed = Ipv6Address::parse(text);
    if (!parsed.ok()) return error(key, parsed.status().message());
    if (parsed->is_unspecified() || parsed->is_multicast() || parsed->is_link_local()) {
      return error(key, text, " cannot be routed to; set it to a global unicast address");
    }
    return parsed;
  }

  absl::Status duration(const std::string& key, const google::protobuf::Duration& value, nanoseconds most) const {
    const bool in_range =
        value.seconds() >= 0 && value.seconds() <= 24 * 3600 && value.nanos() >= 0 && kedge::from_proto(value) <= most;
    if (in_range) return absl::OkStatus();
    return error(key, "must be 0s to ", std::chrono::duration_cast<minutes>(most).count(), "m");
  }

 private:
  std::string file_;
};

bool is_name(const std::string& text) {
  return !text.empty() && text.size() <= kLongestName && std::all_of(text.begin(), text.end(), [](unsigned char c) {
    return absl::ascii_isalnum(c) || c == '-' || c == '_' || c == '.';
  });
}

absl::StatusOr<v1::Mode> parse_mode(const Checker& check, const std::string& text) {
  if (text == "nomadic") return v1::MODE_NOMADIC;
  if (text == "redirect") return v1::MODE_REDIRECT;
  if (text == "relocate") return v1::MODE_RELOCATE;
  return check.error("mobility.mode", "\"", text, "\" is unknown; use nomadic, redirect or relocate");
}

absl::StatusOr<v1::PrefixType> parse_prefix_type(const Checker& check, const std::string& text, v1::Mode mode) {
  const bool nomadic = mode == v1::MODE_NOMADIC;
  if (text == "session_lasting" && !nomadic) return v1::PREFIX_TYPE_SESSION_LASTING;
  if (text == "non_persistent" && nomadic) return v1::PREFIX_TYPE_NON_PERSISTENT;
  if (text == "graceful_replacement" && mode == v1::MODE_REDIRECT) return v1::PREFIX_TYPE_GRACEFUL_REPLACEMENT;
  if (text == "session_lasting" || text == "non_persistent" || text == "graceful_replacement") {
    return check.error("mobility.prefix_type", "\"", text,
                       "\" contradicts mobility.mode; session_lasting goes with redirect and relocate, non_persistent "
                       "with nomadic, graceful_replacement with redirect");
  }
  return check.error("mobility.prefix_type", "\"", text,
                     "\" is unknown; use session_lasting, non_persistent or graceful_replacement");
}

absl::StatusOr<AccessRouter> parse_access_router(const Checker& check, const std::string& key,
                                                 const v1::AccessRouterConfig& config) {
  AccessRouter ar;
  if (!is_name(config.name())) {
    return check.error(absl::StrCat(key, ".name"), "\"", config.name(),
                       "\" is no name; use 1 to 63 letters, digits, '-', '_' and '.'");
  }
  ar.info.set_name(config.name());
  auto locator = check.address(absl::StrCat(key, ".locator"), config.locator());
  if (!locator.ok()) return locator.status();
  auto deliver_sid = check.address(absl::StrCat(key, ".deliver_sid"), config.deliver_sid());
  if (!deliver_sid.ok()) return deliver_sid.status();
  ar.info.set_locator(locator->to_string());
  ar.info.set_deliver_sid(deliver_sid->to_string());
  if (!config.uplink_sid().empty()) {
    auto uplink_sid = check.address(absl::StrCat(key, ".uplink_sid"), config.uplink_sid());
    if (!uplink_sid.ok()) return uplink_sid.status();
    ar.info.set_uplink_sid(uplink_sid->to_string());
  }
  for (int i = 0; i < config.pools_size(); ++i) {
    const std::string pool_key = absl::StrCat(key, ".pools[", i, "]");
    auto pool = Ipv6Prefix::parse(config.pools(i));
    if (!pool.ok()) return check.error(pool_key, pool.status().message());
    if (pool->length() < kShortestPool || pool->length() > kLongestPool) {
      return check.error(pool_key, config.pools(i),
                         " is not /48 to /64; give a longer prefix, or split it into several");
    }
    ar.pools.push_back(*pool);
    ar.info.add_pools(pool->to_string());
  }
  if (ar.pools.empty()) {
    return check.error(absl::StrCat(key, ".pools"), "access router \"", config.name(),
                       "\" has no pool; give at least one /48 to /64");
  }
  return ar;
}

// Two access routers, or two uses of one address.
absl::Status check_unique(const Checker& check, const std::vector<AccessRouter>& ars) {
  std::map<std::string, std::string> names;
  std::map<std::string, std::string> addresses;
  struct Seen {
    Ipv6Prefix pool;
    std::string ar;
    std::string key;
  };
  std::vector<Seen> pools;
  for (std::size_t i = 0; i < ars.size(); ++i) {
    const auto& info = ars[i].info;
    const std::string key = absl::StrCat("access_routers[", i, "]");
    if (const auto [it, fresh] = names.emplace(info.name(), key); !fresh) {
      return check.error(absl::StrCat(key, ".name"), "\"", info.name(), "\" is the name of ", it->second,
                         " already; give each access router a name of its own");
    }
    for (const auto& [field, address] : {std::pair<std::string, std::string>{".locator", info.locator()},
                                         {".deliver_sid", info.deliver_sid()},
                                         {".uplink_sid", info.uplink_sid()}}) {
      if (address.empty()) continue;
      if (const auto [it, fresh] = addresses.emplace(address, key + field); !fresh) {
        return check.error(key + field, address, " is ", it->second, " already; locators and SIDs must all differ");
      }
    }
    for (std::size_t j = 0; j < ars[i].pools.size(); ++j) {
      const Seen mine{ars[i].pools[j], info.name(), absl::StrCat(key, ".pools[", j, "]")};
      for (const auto& other : pools) {
        if (!mine.pool.overlaps(other.pool)) continue;
        return check.error(mine.key, "pool ", mine.pool.to_string(), " of access router \"", mine.ar,
                           "\" overlaps pool ", other.pool.to_string(), " of access router \"", other.ar, "\" (",
                           other.key, "); give each access router pools of its own");
      }
      pools.push_back(mine);
    }
  }
  return absl::OkStatus();
}

void apply_defaults(v1::LimitsConfig& limits) {
  const ServerLimits defaults;
  const auto fill = [](std::uint32_t value, auto otherwise) {
    return value == 0 ? static_cast<std::uint32_t>(otherwise) : value;
  };
  limits.set_connections(fill(limits.connections(), defaults.connections));
  limits.set_connections_per_address(fill(limits.connections_per_address(), defaults.connections_per_address));
  limits.set_streams_per_connection(fill(limits.streams_per_connection(), defaults.streams_per_connection));
  limits.set_message_bytes(fill(limits.message_bytes(), defaults.message_bytes));
  if (!limits.has_handshake_timeout())
    *limits.mutable_handshake_timeout() = kedge::to_proto(defaults.handshake_timeout);
  if (!limits.has_stalled_reader()) *limits.mutable_stalled_reader() = kedge::to_proto(defaults.stalled_reader);
}

absl::StatusOr<ServerLimits> parse_limits(const Checker& check, const v1::LimitsConfig& config) {
  ServerLimits limits;
  for (const auto& [key, value, least, most] :
       {std::tuple{"connections", config.connections(), 1U, 100'000U},
        {"connections_per_address", config.connections_per_address(), 1U, 100'000U},
        {"streams_per_connection", config.streams_per_connection(), 1U, 100'000U},
        {"message_bytes", config.message_bytes(), 65'536U, 67'108'864U}}) {
    if (value < least || value > most) {
      return check.error(absl::StrCat("limits.", key), value, " is not ", least, " to ", most);
    }
  }
  limits.connections = config.connections();
  limits.connections_per_address = config.connections_per_address();
  limits.streams_per_connection = static_cast<int>(config.streams_per_connection());
  limits.message_bytes = static_cast<int>(config.message_bytes());
  for (const auto& [key, value, most, to] :
       {std::tuple{"handshake_timeout", &config.handshake_timeout(), minutes(2), &limits.handshake_timeout},
        {"stalled_reader", &config.stalled_reader(), minutes(60), &limits.stalled_reader}}) {
    const auto time = kedge::from_proto(*value);
    if (time < seconds(1) || time > most) {
      return check.error(absl::StrCat("limits.", key), "must be 1s to ", most.count(), "m");
    }
    *to = std::chrono::duration_cast<std::chrono::milliseconds>(time);
  }
  return limits;
}

}  // namespace

void apply_defaults(v1::LmConfig& config) {
  if (config.listen().empty()) config.set_listen("[::1]:8818");
  auto& mobility = *config.mutable_mobility();
  if (mobility.mode().empty()) mobility.set_mode("relocate");
  if (!mobility.has_detach_grace()) *mobility.mutable_detach_grace() = kedge::to_proto(seconds(10));
  if (!mobility.has_redirect_hold()) *mobility.mutable_redirect_hold() = kedge::to_proto(seconds(1));
  if (mobility.max_prefixes_per_mn() == 0) mobility.set_max_prefixes_per_mn(8);
  if (mobility.preference_levels() == 0) mobility.set_preference_levels(8);
  if (mobility.prefix_type().empty()) {
    mobility.set_prefix_type(mobility.mode() == "nomadic" ? "non_persistent" : "session_lasting");
  }
  if (!mobility.has_serve_unknown()) mobility.set_serve_unknown(true);
  if (!mobility.has_require_authentication()) mobility.set_require_authentication(false);
  if (!mobility.has_relocate_after()) *mobility.mutable_relocate_after() = kedge::to_proto(seconds(0));
  if (!mobility.has_direct_uplink()) mobility.set_direct_uplink(false);
  if (!mobility.has_replacement_time()) *mobility.mutable_replacement_time() = kedge::to_proto(minutes(2));
  if (mobility.flap_moves() == 0) mobility.set_flap_moves(5);
  if (!mobility.has_flap_window()) *mobility.mutable_flap_window() = kedge::to_proto(minutes(3));
  if (!mobility.has_prefix_quarantine()) *mobility.mutable_prefix_quarantine() = kedge::to_proto(hours(2));
  if (!mobility.has_idle_after()) *mobility.mutable_idle_after() = kedge::to_proto(minutes(124));
  if (mobility.new_nodes() == 0) mobility.set_new_nodes(1000);
  if (!mobility.has_new_nodes_window()) *mobility.mutable_new_nodes_window() = kedge::to_proto(minutes(10));
  if (config.log().level().empty()) config.mutable_log()->set_level("info");
  kedge::apply_defaults(*config.mutable_tls());
  config.mutable_metrics();
  apply_defaults(*config.mutable_limits());
}

absl::StatusOr<Settings> make_settings(const v1::LmConfig& config, std::string_view file) {
  const Checker check(file);
  if (config.data_directory().empty()) {
    return check.error("data_directory", "is missing; set it to the folder that shall keep the bindings");
  }

  if (const auto endpoint = parse_endpoint(config.listen()); !endpoint.ok()) {
    return check.error("listen", endpoint.status().message());
  }

  Settings settings;
  const auto& mobility = config.mobility();
  auto mode = parse_mode(check, mobility.mode());
  if (!mode.ok()) return mode.status();
  settings.mode = *mode;
  if (auto s = check.duration("mobility.detach_grace", mobility.detach_grace(), minutes(10)); !s.ok()) return s;
  if (auto s = check.duration("mobility.redirect_hold", mobility.redirect_hold(), minutes(10)); !s.ok()) return s;
  settings.detach_grace = kedge::from_proto(mobility.detach_grace());
  settings.redirect_hold = kedge::from_proto(mobility.redirect_hold());
  if (mobility.max_prefixes_per_mn() < 1 || mobility.max_prefixes_per_mn() > kMostPrefixes) {
    return check.error("mobility.max_prefixes_per_mn", mobility.max_prefixes_per_mn(),
                       " is not 1 to 15 (a Linux host stops at 16 addresses)");
  }
  settings.max_prefixes_per_mn = mobility.max_prefixes_per_mn();
  if (mobility.preference_levels() < kFewestLevels || mobility.preference_levels() > kMostLevels) {
    return check.error("mobility.preference_levels", mobility.preference_levels(), " is not 3 to 100");
  }
  settings.preference_levels = mobility.preference_levels();

  auto prefix_type = parse_prefix_type(check, mobility.prefix_type(), settings.mode);
  if (!prefix_type.ok()) return prefix_type.status();
  settings.prefix_type = *prefix_type;
  settings.serve_unknown = mobility.serve_unknown();
  settings.require_authentication = mobility.require_authentication();
  settings.direct_uplink = mobility.direct_uplink();
  for (const auto& [key, value, to] :
       {std::tuple{"mobility.relocate_after", &mobility.relocate_after(), &settings.relocate_after},
        {"mobility.replacement_time", &mobility.replacement_time(), &settings.replacement_time},
        {"mobility.flap_window", &mobility.flap_window(), &settings.flap_window},
        {"mobility.prefix_quarantine", &mobility.prefix_quarantine(), &settings.prefix_quarantine},
        {"mobility.idle_after", &mobility.idle_after(), &settings.idle_after},
        {"mobility.new_nodes_window", &mobility.new_nodes_window(), &settings.new_nodes_window}}) {
    if (auto s = check.duration(key, *value, hours(24)); !s.ok()) return s;
    *to = kedge::from_proto(*value);
  }
  if (mobility.flap_moves() < kFewestFlapMoves || mobility.flap_moves() > kMostFlapMoves) {
    return check.error("mobility.flap_moves", mobility.flap_moves(), " is not 2 to 1000");
  }
  settings.flap_moves = mobility.flap_moves();
  if (mobility.new_nodes() > kMostNewNodes) {
    return check.error("mobility.new_nodes", mobility.new_nodes(), " is not 1 to ", kMostNewNodes);
  }
  settings.new_nodes = mobility.new_nodes();

  if (config.access_routers().empty()) {
    return check.error("access_routers", "is empty; describe at least one access router");
  }
  for (int i = 0; i < config.access_routers_size(); ++i) {
    auto ar = parse_access_router(check, absl::StrCat("access_routers[", i, "]"), config.access_routers(i));
    if (!ar.ok()) return ar.status();
    settings.access_routers.push_back(std::move(*ar));
  }
  if (auto s = check_unique(check, settings.access_routers); !s.ok()) return s;
  auto limits = parse_limits(check, config.limits());
  if (!limits.ok()) return limits.status();
  settings.limits = *limits;
  return settings;
}

}  // namespace kedge::lm
