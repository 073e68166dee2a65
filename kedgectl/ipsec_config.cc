#include "kedgectl/ipsec_config.h"

#include <utility>

#include "common/config.h"
#include "common/endpoint.h"
#include "common/ipv6.h"
#include "fmt/format.h"
#include "kedgectl/network.h"
#include "kedgectl/report.h"

namespace kedge::kedgectl {
namespace {

constexpr int kDefaultPort = 8818;
// RFC 8247 and RFC 8221: both are MUST or SHOULD, as authenticated encryption.
constexpr const char* kIkeProposals = "aes256gcm16-prfsha384-ecp384, aes128gcm16-prfsha256-ecp256";
constexpr const char* kEspProposals = "aes256gcm16-ecp384, aes128gcm16-ecp256";

struct Listen {
  // Empty: every address.
  std::string address;
  int port = kDefaultPort;
};

absl::StatusOr<Listen> listen_of(const v1::LmConfig& config) {
  if (config.listen().empty()) return Listen{"::1"};
  const auto endpoint = parse_endpoint(config.listen());
  if (!endpoint.ok() || !endpoint->address().is_v6() || endpoint->port() == 0) {
    return absl::InvalidArgumentError(fmt::format("listen: \"{}\" is not \"[address]:port\"", config.listen()));
  }
  const auto address = endpoint->address();
  return Listen{address.is_unspecified() ? std::string() : address.to_string(), endpoint->port()};
}

std::string subject(const std::string& role, const std::string& name) { return fmt::format("CN={} {}", role, name); }

class Connections {
 public:
  Connections(std::string own, const std::string& pki) : own_(std::move(own)), pki_(pki) {}

  // `addresses`: lines with local_addrs and remote_addrs.
  void add(const std::string& name, const std::string& addresses, const std::string& peer, const std::string& child) {
    text_ += fmt::format(
        "  kedge-{0} {{\n    version = 2\n{1}    proposals = {2}\n    mobike = no\n    dpd_delay = 2s\n"
        "    keyingtries = 0\n"
        "    local {{\n      auth = pubkey\n      certs = {3}/certificate.pem\n      id = \"{4}\"\n    }}\n"
        "    remote {{\n      auth = pubkey\n      cacerts = {3}/ca.pem\n      id = \"{5}\"\n    }}\n"
        "    children {{\n{6}    }}\n  }}\n",
        name, addresses, kIkeProposals, pki_, own_, peer, child);
  }
  std::string text() const { return "connections {\n" + text_ + "}\n"; }

 private:
  std::string own_;
  const std::string& pki_;
  std::string text_;
};

// Both ends of a tunnel begin: one that does so before the other has its configuration is refused and does not try
// again. What is sent before there are keys asks for them and does not leave in the clear.
std::string child(const std::string& name, const std::string& mode, const std::string& local,
                  const std::string& remote) {
  return fmt::format(
      "      {} {{\n        mode = {}\n        local_ts = {}\n        remote_ts = {}\n        esp_proposals = {}\n"
      "        start_action = trap|start\n        close_action = trap\n        dpd_action = restart\n      }}\n",
      name, mode, local, remote, kEspProposals);
}

std::string addresses(const std::string& local, const std::string& remote) {
  return fmt::format("    local_addrs = {}\n    remote_addrs = {}\n", local, remote);
}

// What the tunnels have as outer addresses: from a locator to a SID, IPv6 in IPv6 (protocol 41). A SID is no address of
// the router's own, so transport mode cannot carry them.
std::string tunnel_ends(const v1::AccessRouterConfig& ar) {
  std::string ends = ar.locator() + "/128[41]";
  for (const auto& sid : {ar.deliver_sid(), ar.uplink_sid()}) {
    if (!sid.empty()) ends += fmt::format(", {}/128[41]", sid);
  }
  return ends;
}

std::string for_access_router(const v1::LmConfig& config, const v1::AccessRouterConfig& ar, const Listen& lm,
                              const IpsecConfigCommand& command) {
  Connections connections(subject("speaker", ar.name()), command.pki);
  // The LM's connection is made from whichever address routing chooses.
  connections.add("lm", fmt::format("    remote_addrs = {}\n", lm.address), subject("lm", command.lm_name),
                  child("signalling", "transport", "dynamic[tcp]", fmt::format("dynamic[tcp/{}]", lm.port)));
  for (const auto& other : config.access_routers()) {
    if (!command.tunnels || other.name() == ar.name()) continue;
    connections.add(other.name(), addresses(ar.locator(), other.locator()), subject("speaker", other.name()),
                    child("tunnels", "tunnel", tunnel_ends(ar), tunnel_ends(other)));
  }
  return connections.text();
}

std::string for_lm(const v1::LmConfig& config, const Listen& lm, const IpsecConfigCommand& command) {
  Connections connections(subject("lm", command.lm_name), command.pki);
  for (const auto& ar : config.access_routers()) {
    std::string child_text = fmt::format(
        "      signalling {{\n        mode = transport\n        local_ts = dynamic[tcp/{}]\n"
        "        remote_ts = dynamic[tcp]\n        esp_proposals = {}\n      }}\n",
        lm.port, kEspProposals);
    connections.add(ar.name(), addresses(lm.address, "%any"), subject("speaker", ar.name()), child_text);
  }
  return connections.text();
}

}  // namespace

absl::StatusOr<std::string> make_ipsec_config(const v1::LmConfig& config, const IpsecConfigCommand& command) {
  if (auto s = check_network(config); !s.ok()) return s;
  auto lm = listen_of(config);
  if (!lm.ok()) return lm.status();
  if (!command.lm_address.empty()) {
    const auto address = Ipv6Address::parse(command.lm_address);
    if (!address.ok()) {
      return absl::InvalidArgumentError(fmt::format("--lm-address: {}", std::string(address.status().message())));
    }
    lm->address = address->to_string();
  }
  if (lm->address.empty() || lm->address == "::1") {
    return absl::InvalidArgumentError(
        "the LM listens on every address or on loopback only: name the one that access routers use with --lm-address");
  }
  if (command.ar.empty()) return for_lm(config, *lm, command);
  const auto ar = find_access_router(config, command.ar);
  if (!ar.ok()) return ar.status();
  return for_access_router(config, **ar, *lm, command);
}

ExitCode run_ipsec_config(const Terminal& terminal, const IpsecConfigCommand& command) {
  v1::LmConfig config;
  if (auto s = load_config(command.lm_config, &config); !s.ok()) return fail(terminal, s);
  const auto text = make_ipsec_config(config, command);
  if (!text.ok()) return fail(terminal, text.status());
  return write_out(terminal, *text);
}

}  // namespace kedge::kedgectl
