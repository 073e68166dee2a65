#include "speaker/config.h"

#include <algorithm>
#include <cctype>
#include <charconv>
#include <chrono>
#include <set>
#include <string_view>
#include <system_error>

#include "common/config.h"
#include "common/credentials.h"
#include "common/status.h"
#include "common/time.h"
#include "fmt/format.h"
#include "speaker/authenticator/authenticator_socket.h"
#include "speaker/frr/northbound_address.h"

namespace kedge::speaker {
namespace {

using namespace std::chrono_literals;
using Duration = google::protobuf::Duration;

// Checks keys one by one and keeps the first error.
class Checker {
 public:
  explicit Checker(std::string name) : name_(std::move(name)) {}

  void require(bool condition, std::string_view key, std::string_view text) {
    if (!condition && status_.ok()) status_ = absl::InvalidArgumentError(fmt::format("{}: {}: {}", name_, key, text));
  }

  template <typename T>
  T parsed(const absl::StatusOr<T>& value, std::string_view key) {
    if (value.ok()) return *value;
    require(false, key, std::string(value.status().message()));
    return T{};
  }

  // An absent field is set to `fallback`.
  std::chrono::milliseconds duration(bool present, v1::AccessConfig* config, Duration* (v1::AccessConfig::*field)(),
                                     std::chrono::milliseconds fallback, std::chrono::milliseconds least,
                                     std::chrono::milliseconds most, std::string_view key) {
    if (!present) *(config->*field)() = to_proto(fallback);
    const auto value = std::chrono::duration_cast<std::chrono::milliseconds>(from_proto(*(config->*field)()));
    require(value >= least && value <= most, key,
            fmt::format("{} ms is out of range; {} to {} ms are possible", value.count(), least.count(), most.count()));
    return value;
  }

  const absl::Status& status() const { return status_; }

 private:
  std::string name_;
  absl::Status status_;
};

// "[2001:db8::1]:8818", "192.0.2.1:8818" or "lm.example:8818".
bool has_host_and_port(std::string_view address) {
  const auto colon = address.rfind(':');
  if (colon == std::string_view::npos) return false;
  auto host = address.substr(0, colon);
  const auto port = address.substr(colon + 1);
  std::uint16_t number = 0;
  const auto [end, error] = std::from_chars(port.data(), port.data() + port.size(), number);
  if (error != std::errc{} || end != port.data() + port.size() || number == 0) return false;
  const bool bracketed = host.starts_with('[') && host.ends_with(']');
  if (bracketed) host = host.substr(1, host.size() - 2);
  return !host.empty() && std::all_of(host.begin(), host.end(), [bracketed](unsigned char c) {
    if (bracketed) return std::isxdigit(c) != 0 || c == ':' || c == '.';
    return c != '[' && c != ']' && c != ':' && std::isspace(c) == 0;
  });
}

constexpr std::uint32_t kHighestRate = 1'000'000;
constexpr int kMostTunnelSources = 64;

std::uint32_t with_default(std::uint32_t value, std::uint32_t fallback) { return value == 0 ? fallback : value; }

void check_access(v1::AccessConfig* config, Checker& check, AccessPlaneConfig* out) {
  check.require(config->interfaces_size() > 0, "access.interfaces",
                "name at least one interface to which mobile nodes attach");
  std::set<std::string> seen;
  for (const auto& name : config->interfaces()) {
    check.require(!name.empty() && name.size() <= 15, "access.interfaces",
                  fmt::format("'{}' is no interface name; 1 to 15 characters are possible", name));
    check.require(seen.insert(name).second, "access.interfaces", fmt::format("'{}' is given twice", name));
    out->interfaces.push_back(name);
  }
  if (config->link_local().empty()) config->set_link_local("fe80::1");
  out->link_local = check.parsed(Ipv6Address::parse(config->link_local()), "access.link_local");
  check.require(out->link_local.is_link_local(), "access.link_local", "an address from fe80::/10 is expected");
  if (config->link_layer_address().empty()) config->set_link_layer_address("02:00:5e:00:88:18");
  out->link_layer_address =
      check.parsed(LinkLayerAddress::parse(config->link_layer_address()), "access.link_layer_address");
  check.require(!out->link_layer_address.is_multicast() && !out->link_layer_address.is_zero(),
                "access.link_layer_address", "a unicast address is expected");

  const auto seconds = [](std::chrono::milliseconds value) {
    return std::chrono::duration_cast<std::chrono::seconds>(value);
  };
  out->router_lifetime =
      seconds(check.duration(config->has_router_lifetime(), config, &v1::AccessConfig::mutable_router_lifetime, 30min,
                             0ms, 9000s, "access.router_lifetime"));
  out->preferred_lifetime =
      seconds(check.duration(config->has_preferred_lifetime(), config, &v1::AccessConfig::mutable_preferred_lifetime,
                             30min, 10s, 2h, "access.preferred_lifetime"));
  out->valid_lifetime =
      seconds(check.duration(config->has_valid_lifetime(), config, &v1::AccessConfig::mutable_valid_lifetime, 2h, 10s,
                             2h, "access.valid_lifetime"));
  // RFC 4862, 5.5.3 c).
  check.require(out->preferred_lifetime <= out->valid_lifetime, "access.preferred_lifetime",
                "is longer than access.valid_lifetime");
  out->probe_after = check.duration(config->has_probe_after(), config, &v1::AccessConfig::mutable_probe_after, 5s,
                                    100ms, 1h, "access.probe_after");
  out->probe_interval = check.duration(config->has_probe_interval(), config, &v1::AccessConfig::mutable_probe_interval,
                                       1s, 10ms, 1min, "access.probe_interval");
  out->overlap_guard = check.duration(config->has_overlap_guard(), config, &v1::AccessConfig::mutable_overlap_guard, 2s,
                                      0ms, 1min, "access.overlap_guard");
  if (!config->authenticator_socket().empty()) {
    const auto status = check_authenticator_socket(config->authenticator_socket());
    check.require(status.ok(), "access.authenticator_socket", std::string(status.message()));
  }
  if (!config->has_source_guard()) config->set_source_guard(true);
  config->set_node_arrivals(with_default(config->node_arrivals(), 5));
  config->set_known_arrivals(with_default(config->known_arrivals(), 1000));
  config->set_stranger_arrivals(with_default(config->stranger_arrivals(), 100));
  config->set_probe_rate(with_default(config->probe_rate(), 100));
  for (const auto& [key, rate] : {std::pair{"access.node_arrivals", config->node_arrivals()},
                                  std::pair{"access.known_arrivals", config->known_arrivals()},
                                  std::pair{"access.stranger_arrivals", config->stranger_arrivals()},
                                  std::pair{"access.probe_rate", config->probe_rate()}}) {
    check.require(rate <= kHighestRate, key, fmt::format("1 to {} a second are possible", kHighestRate));
  }
  out->probe_rate = config->probe_rate();
  out->arrivals = {config->node_arrivals(), config->known_arrivals(), config->stranger_arrivals()};
}

// Of routes of ours. FRR takes its own numbers for its own and removes such routes when it starts.
void check_protocol(std::uint32_t protocol, std::string_view key, Checker& check) {
  check.require(protocol <= 255 && protocol > 16 && (protocol < 186 || protocol > 198), key,
                "17 to 255 is possible, without FRR's 186 to 198");
}

void check_injector(v1::FrrConfig* config, Checker& check, Settings* out) {
  if (config->injector().empty()) config->set_injector("northbound");
  check.require(config->injector() == "northbound" || config->injector() == "kernel", "frr.injector",
                "one of northbound, kernel is expected");
  out->injector = config->injector() == "kernel" ? InjectorKind::kKernel : InjectorKind::kNorthbound;
  config->set_kernel_protocol(with_default(config->kernel_protocol(), 89));
  check_protocol(config->kernel_protocol(), "frr.kernel_protocol", check);
  out->kernel_injector.vty_directory = config->vty_directory();
  out->kernel_injector.protocol = static_cast<std::uint8_t>(config->kernel_protocol());
}

void check_frr(v1::FrrConfig* config, Checker& check, NorthboundGuardConfig* out) {
  if (config->northbound().empty()) config->set_northbound("127.0.0.1:50051");
  const auto northbound = parse_northbound(config->northbound());
  check.require(northbound.ok(), "frr.northbound", std::string(northbound.status().message()));
  if (config->vty_directory().empty()) config->set_vty_directory("/var/run/frr");
  config->set_local_preference_base(with_default(config->local_preference_base(), 100));
  check.require(config->local_preference_base() <= 4'000'000'000, "frr.local_preference_base",
                "at most 4000000000 is possible");
  if (!config->has_close_northbound()) config->set_close_northbound(true);
  out->port = northbound.ok() ? northbound->port() : 0;
  out->close = config->close_northbound();
  out->accept_open = config->insecure_open_northbound();
}

void check_kernel(v1::KernelConfig* config, Checker& check, ForwardingPlaneConfig* out) {
  config->set_mobile_table(with_default(config->mobile_table(), 8818));
  config->set_encapsulation_table(with_default(config->encapsulation_table(), 8819));
  config->set_uplink_table(with_default(config->uplink_table(), 8820));
  config->set_refusal_table(with_default(config->refusal_table(), 8821));
  config->set_rule_priority(with_default(config->rule_priority(), 880));
  config->set_route_protocol(with_default(config->route_protocol(), 88));
  config->set_access_mtu(with_default(config->access_mtu(), 1500));
  if (!config->has_redirection()) config->set_redirection(true);

  const std::set<std::uint32_t> tables = {config->mobile_table(), config->encapsulation_table(), config->uplink_table(),
                                          config->refusal_table()};
  check.require(tables.size() == 4, "kernel.mobile_table", "the four tables must differ");
  for (const auto table : tables) {
    check.require(table < 253 || table > 255, "kernel.mobile_table",
                  fmt::format("{} is one of the kernel's own tables (253 to 255)", table));
  }
  check.require(config->rule_priority() <= 32000, "kernel.rule_priority", "1 to 32000 is possible, ahead of 'main'");
  check_protocol(config->route_protocol(), "kernel.route_protocol", check);
  // RFC 8200, 5: 1280, and the tunnel takes 40.
  check.require(config->access_mtu() >= 1320 && config->access_mtu() <= 65535, "kernel.access_mtu",
                "1320 to 65535 is possible: the tunnel takes 40 of it and must carry 1280");
  out->mobile_table = config->mobile_table();
  out->encapsulation_table = config->encapsulation_table();
  out->uplink_table = config->uplink_table();
  out->refusal_table = config->refusal_table();
  out->rule_priority = config->rule_priority();
  out->route_protocol = static_cast<std::uint8_t>(config->route_protocol());
  out->access_mtu = config->access_mtu();
}

}  // namespace

absl::StatusOr<Settings> load_settings(const std::string& path) {
  v1::SpeakerConfig config;
  if (auto status = load_config(path, &config); !status.ok()) return status;
  return make_settings(std::move(config), path);
}

absl::StatusOr<Settings> make_settings(v1::SpeakerConfig config, const std::string& name) {
  Checker check(name);
  Settings settings;
  check.require(!config.name().empty() && config.name().size() <= 63, "name",
                "give this access router the name that it has in the LM's configuration");
  check.require(has_host_and_port(config.lm().address()), "lm.address",
                "give the LM's address and port, for example \"[2001:db8::1]:8818\"");
  kedge::apply_defaults(*config.mutable_lm()->mutable_tls());
  check_access(config.mutable_access(), check, &settings.access);
  check.require(config.access().tunnel_sources_size() <= kMostTunnelSources, "access.tunnel_sources",
                fmt::format("at most {} addresses are possible", kMostTunnelSources));
  for (const auto& address : config.access().tunnel_sources()) {
    settings.tunnel_sources.insert(check.parsed(Ipv6Address::parse(address), "access.tunnel_sources"));
  }
  check_frr(config.mutable_frr(), check, &settings.northbound);
  check_injector(config.mutable_frr(), check, &settings);
  check_kernel(config.mutable_kernel(), check, &settings.forwarding);
  check.require(config.frr().kernel_protocol() != config.kernel().route_protocol(), "frr.kernel_protocol",
                "must differ from kernel.route_protocol");
  if (config.log().level().empty()) config.mutable_log()->set_level("info");
  static constexpr std::string_view kLevels[] = {"trace", "debug", "info", "warning", "error"};
  check.require(std::find(std::begin(kLevels), std::end(kLevels), config.log().level()) != std::end(kLevels),
                "log.level", "one of trace, debug, info, warning, error is expected");
  if (!check.status().ok()) return check.status();

  settings.access.mtu = settings.forwarding.access_mtu;
  settings.forwarding.access_interfaces = settings.access.interfaces;
  settings.forwarding.access_link_local = settings.access.link_local;
  settings.forwarding.access_link_layer_address = settings.access.link_layer_address;
  settings.access_filter.interfaces = settings.access.interfaces;
  settings.best_path.vty_directory = config.frr().vty_directory();
  settings.config = std::move(config);
  return settings;
}

}  // namespace kedge::speaker
