// Thousands of mobile nodes between two access routers, in one process: told by commands on standard input what to do,
// tells on standard output in lines of JSON what has happened, with CLOCK_MONOTONIC nanoseconds.
//
// Threading: one thread, all of it.
// Performance: a frame costs about a microsecond beside the system call; a core carries some 200,000 a second.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "common/ipv6.h"
#include "common/link_layer_address.h"
#include "tests/bench/swarm/mobile_node.h"

namespace kedge::bench {

struct SwarmOptions {
  struct Port {
    // Of the access router that it leads to.
    std::string name;
    std::string interface;
  };
  // As many as MobileNode::kPorts.
  std::vector<Port> ports;
  std::size_t nodes = 0;
  // Of the first node; the others count up in the last three octets.
  LinkLayerAddress first;
  Ipv6Address peer;
  std::uint16_t udp_port = 9000;
  // RFC 4861, 10: RTR_SOLICITATION_INTERVAL.
  std::chrono::milliseconds solicitation_interval{4000};
};

// Until it is told to quit, its input ends, or a signal comes in `stop_descriptor` (signalfd). Not OK when an interface
// cannot be had.
absl::Status run_swarm(const SwarmOptions& options, int stop_descriptor);

}  // namespace kedge::bench
