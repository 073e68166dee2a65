#include "kedgectl/frr_config.h"

#include <algorithm>
#include <cctype>
#include <fstream>

#include "absl/strings/ascii.h"
#include "common/anchor_level.h"
#include "common/config.h"
#include "common/ipv6.h"
#include "fmt/format.h"
#include "kedgectl/network.h"
#include "kedgectl/report.h"

namespace kedge::kedgectl {
namespace {

constexpr std::uint32_t kDefaultLevels = 8;
// bgpd takes no more.
constexpr std::size_t kLongestPassword = 80;

// Permits of a prefix-list, numbered.
class PrefixList {
 public:
  explicit PrefixList(std::string name) : name_(std::move(name)) {}
  void permit(const std::string& what) {
    text_ += fmt::format("ipv6 prefix-list {} seq {} permit {}\n", name_, sequence_ += 5, what);
  }
  // What mobile nodes have, whoever anchors it: longer than the pool that it is from, so that nobody announces the
  // aggregate of another access router.
  void permit_mobile(const v1::LmConfig& config) {
    for (const auto& ar : config.access_routers()) {
      for (const auto& pool : ar.pools()) {
        const int length = Ipv6Prefix::parse(pool)->length();
        permit(length == 64 ? pool : fmt::format("{} ge {} le 64", pool, length + 1));
      }
    }
  }
  void permit_aggregates(const v1::AccessRouterConfig& ar) {
    for (const auto& pool : ar.pools()) permit(pool);
  }
  std::string text() const { return text_ + "!\n"; }

 private:
  std::string name_;
  int sequence_ = 0;
  std::string text_;
};

std::string announced_by(const v1::LmConfig& config, const v1::AccessRouterConfig& ar, const std::string& name) {
  PrefixList list(name);
  list.permit_aggregates(ar);
  list.permit_mobile(config);
  return list.text();
}

std::string levels(const v1::LmConfig& config, const FrrConfigCommand& command) {
  const auto count =
      config.mobility().preference_levels() == 0 ? kDefaultLevels : config.mobility().preference_levels();
  const bool kernel = command.injector == "kernel";
  std::string text;
  for (std::uint32_t level = 1; level <= count; ++level) {
    text += fmt::format(
        "route-map KEDGE permit {}\n match {}\n match ipv6 address prefix-list KEDGE-MOBILE\n"
        " set local-preference {}\n set weight 0\n",
        level * 10, kernel ? fmt::format("metric {}", kernel_metric(level)) : fmt::format("tag {}", level),
        command.local_preference_base + level);
    // By the tag the speaker knows its own. The metric would go out as MED.
    if (kernel) text += fmt::format(" set tag {}\n set metric 0\n", level);
    text += "exit\n!\n";
  }
  // Nothing else there is Kedge's.
  return text + fmt::format("route-map KEDGE deny {}\nexit\n!\n", count * 10 + 1000);
}

std::string session(const std::string& neighbour, const std::string& own, const FrrConfigCommand& command,
                    const std::string& password) {
  std::string text;
  const auto line = [&](const std::string& rest) { text += fmt::format(" neighbor {} {}\n", neighbour, rest); };
  line(fmt::format("remote-as {}", command.as_number));
  line("update-source " + own);
  if (!password.empty()) line("password " + password);
  if (command.hops > 0) line(fmt::format("ttl-security hops {}", command.hops));
  line("timers 1 3");
  line("timers connect 1");
  return text;
}

// bgpd of a router without IPv4 addresses has no identifier of its own.
std::string router_id(const v1::LmConfig& config, const FrrConfigCommand& command) {
  if (!command.router_id.empty()) return command.router_id;
  int number = 1;
  for (int i = 0; i < config.access_routers_size(); ++i) {
    if (config.access_routers(i).name() == command.ar) number = 11 + i;
  }
  return fmt::format("0.0.{}.{}", number / 256, number % 256);
}

std::string head(const v1::LmConfig& config, const FrrConfigCommand& command) {
  return fmt::format(
      "router bgp {}\n bgp router-id {}\n no bgp default ipv4-unicast\n no bgp network import-check\n coalesce-time 0\n"
      " bgp graceful-restart\n bgp graceful-restart preserve-fw-state\n bgp graceful-restart restart-time 5\n"
      " bgp graceful-restart stalepath-time 10\n bgp graceful-restart select-defer-time 5\n",
      command.as_number, router_id(config, command));
}

std::string for_access_router(const v1::LmConfig& config, const v1::AccessRouterConfig& ar,
                              const FrrConfigCommand& command, const std::string& password) {
  std::string text =
      "! Above router bgp: redistributed routes wait for their route-map after a restart of bgpd.\n"
      "bgp route-map delay-timer 1\n!\n";
  PrefixList mobile("KEDGE-MOBILE");
  mobile.permit_mobile(config);
  text += mobile.text() + announced_by(config, ar, "KEDGE-OUT") + levels(config, command);
  text += head(config, command);
  for (const auto& reflector : command.reflectors) text += session(reflector, ar.locator(), command, password);
  text += " address-family ipv6 unicast\n";
  for (const auto& pool : ar.pools()) text += fmt::format("  network {}\n", pool);
  text += fmt::format("  redistribute {} route-map KEDGE\n", command.injector == "kernel" ? "kernel" : "static");
  for (const auto& reflector : command.reflectors) {
    text += fmt::format(
        "  neighbor {0} activate\n  neighbor {0} next-hop-self\n  neighbor {0} prefix-list KEDGE-OUT out\n", reflector);
  }
  return text + " exit-address-family\nexit\n";
}

std::string for_reflector(const v1::LmConfig& config, const FrrConfigCommand& command, const std::string& password) {
  std::string text = "bgp route-map delay-timer 1\n!\n";
  for (const auto& ar : config.access_routers()) text += announced_by(config, ar, "KEDGE-FROM-" + ar.name());
  text += head(config, command);
  text += " neighbor access-routers peer-group\n";
  text += session("access-routers", command.reflectors.front(), command, password);
  for (const auto& ar : config.access_routers()) {
    text += fmt::format(" neighbor {} peer-group access-routers\n", ar.locator());
  }
  text += fmt::format(
      " address-family ipv6 unicast\n  neighbor access-routers activate\n"
      "  neighbor access-routers route-reflector-client\n  neighbor access-routers maximum-prefix {} warning-only\n",
      command.maximum_prefixes);
  for (const auto& ar : config.access_routers()) {
    text += fmt::format("  neighbor {} prefix-list KEDGE-FROM-{} in\n", ar.locator(), ar.name());
  }
  return text + " exit-address-family\nexit\n";
}

absl::StatusOr<std::string> read_password(const std::string& path) {
  if (path.empty()) return std::string();
  std::ifstream file(path);
  std::string line;
  if (!std::getline(file, line)) {
    return absl::NotFoundError(fmt::format("{}: has no first line with a secret that can be read", path));
  }
  const bool printable = std::all_of(line.begin(), line.end(), [](unsigned char c) { return std::isgraph(c) != 0; });
  if (!printable || line.empty() || line.size() > kLongestPassword) {
    return absl::InvalidArgumentError(
        fmt::format("{}: the secret must have 1 to {} printable characters without spaces", path, kLongestPassword));
  }
  return line;
}

}  // namespace

absl::StatusOr<std::string> make_frr_config(const v1::LmConfig& config, const FrrConfigCommand& command,
                                            const std::string& password) {
  if (command.injector != "northbound" && command.injector != "kernel") {
    return absl::InvalidArgumentError(fmt::format("--injector: {} is none; northbound or kernel", command.injector));
  }
  if (command.reflectors.empty()) return absl::InvalidArgumentError("--reflector: name at least one address");
  for (const auto& reflector : command.reflectors) {
    if (const auto address = Ipv6Address::parse(reflector); !address.ok()) {
      return absl::InvalidArgumentError(fmt::format("--reflector: {}", std::string(address.status().message())));
    }
  }
  if (auto s = check_network(config); !s.ok()) return s;
  if (command.ar.empty()) return for_reflector(config, command, password);
  const auto ar = find_access_router(config, command.ar);
  if (!ar.ok()) return ar.status();
  return for_access_router(config, **ar, command, password);
}

ExitCode run_frr_config(const Terminal& terminal, const FrrConfigCommand& command) {
  v1::LmConfig config;
  if (auto s = load_config(command.lm_config, &config); !s.ok()) return fail(terminal, s);
  const auto password = read_password(command.password_file);
  if (!password.ok()) return fail(terminal, password.status());
  const auto text = make_frr_config(config, command, *password);
  if (!text.ok()) return fail(terminal, text.status());
  return write_out(terminal, *text);
}

}  // namespace kedge::kedgectl
