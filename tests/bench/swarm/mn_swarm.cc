// mn_swarm: thousands of mobile nodes between two access routers (`run`), and the host that they talk to (`peer`).
// Commands on standard input (command.h), lines of JSON on standard output.
// Exit codes: 0 done, 1 failed (the reason on standard error), 2 wrong arguments.
#include <sys/signalfd.h>

#include <csignal>
#include <cstdio>
#include <string>
#include <vector>

#include "CLI/CLI.hpp"
#include "tests/bench/swarm/peer.h"
#include "tests/bench/swarm/swarm.h"

namespace kedge::bench {
namespace {

constexpr int kFailed = 1;
constexpr int kWrongArguments = 2;

template <typename Value>
Value parsed(const std::string& option, const std::string& text) {
  const auto value = Value::parse(text);
  if (!value.ok()) throw CLI::ValidationError(option, std::string(value.status().message()));
  return *value;
}

SwarmOptions::Port parse_port(const std::string& text) {
  const auto at = text.find('=');
  if (at == 0 || at == std::string::npos || at + 1 == text.size()) {
    throw CLI::ValidationError("--port", "\"" + text + "\" is not NAME=INTERFACE");
  }
  return {text.substr(0, at), text.substr(at + 1)};
}

int stop_descriptor() {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  sigprocmask(SIG_BLOCK, &signals, nullptr);
  return signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK);
}

int main(int argc, char** argv) {
  CLI::App app{"mn_swarm: many mobile nodes, without a kernel each"};
  app.require_subcommand(1);
  std::vector<std::string> ports;
  std::string first = "02:00:00:01:00:00";
  std::string peer_address;
  SwarmOptions swarm;
  PeerOptions peer;
  auto* run = app.add_subcommand("run", "Be the mobile nodes");
  run->add_option("--port", ports, "NAME=INTERFACE of the link to an access router; two of them")
      ->required()
      ->expected(2);
  run->add_option("--nodes", swarm.nodes, "How many")->required()->check(CLI::Range(1, 1'000'000));
  run->add_option("--first", first, "Link-layer address of the first one")->capture_default_str();
  run->add_option("--peer", peer_address, "The other end of their flows")->required();
  run->add_option("--udp-port", swarm.udp_port, "Of both ends")->check(CLI::Range(1, 65'535))->capture_default_str();
  auto* at_peer = app.add_subcommand("peer", "Be the host that they talk to");
  at_peer->add_option("--local", peer_address, "Own address")->required();
  at_peer->add_option("--udp-port", peer.udp_port, "Of both ends")->check(CLI::Range(1, 65'535))->capture_default_str();
  at_peer->add_option("--rate", peer.rate, "Datagrams a second to each node")
      ->check(CLI::Range(1, 10'000))
      ->capture_default_str();
  try {
    app.parse(argc, argv);
    for (const auto& port : ports) swarm.ports.push_back(parse_port(port));
    swarm.first = parsed<LinkLayerAddress>("--first", first);
    swarm.peer = peer.local = parsed<Ipv6Address>("address", peer_address);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : kWrongArguments;
  }
  const auto status = run->parsed() ? run_swarm(swarm, stop_descriptor()) : run_peer(peer, stop_descriptor());
  if (status.ok()) return 0;
  std::fprintf(stderr, "mn_swarm: %s\n", std::string(status.message()).c_str());
  return kFailed;
}

}  // namespace
}  // namespace kedge::bench

int main(int argc, char** argv) { return kedge::bench::main(argc, argv); }
