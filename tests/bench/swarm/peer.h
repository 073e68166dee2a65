// The other end of a swarm's flows, on a host with an ordinary UDP socket: answers each mobile node that greets it with
// a flow of its own.
//
// Threading: one thread, all of it.
#pragma once

#include <cstdint>

#include "absl/status/status.h"
#include "common/ipv6.h"

namespace kedge::bench {

struct PeerOptions {
  Ipv6Address local;
  std::uint16_t udp_port = 9000;
  // Datagrams a second to each.
  std::uint32_t rate = 50;
};

// Takes `stop-flows FOLDER` and `quit` on standard input, and says in lines of JSON what it has done, as the swarm
// does.
absl::Status run_peer(const PeerOptions& options, int stop_descriptor);

}  // namespace kedge::bench
