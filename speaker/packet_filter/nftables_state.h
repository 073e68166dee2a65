// Counters and rules of nftables, asked of the kernel itself: libnftables reads every element of every set before it
// answers, 0.2 s with 10,000 of them.
//
// Threading: one thread at a time for each socket.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "speaker/kernel/netlink_socket.h"

namespace kedge::speaker {

// Packets that a named counter of a table of family inet has seen. NotFound: no such counter. `socket` is of
// NETLINK_NETFILTER.
absl::StatusOr<std::uint64_t> read_packet_counter(NetlinkSocket& socket, const std::string& table,
                                                  const std::string& name);

// How many rules the table has; 0 when there is no such table.
absl::StatusOr<std::size_t> count_rules(NetlinkSocket& socket, const std::string& table);

}  // namespace kedge::speaker
