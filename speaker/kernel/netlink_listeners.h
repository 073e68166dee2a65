// Who listens to the kernel's notices in this network namespace, how many wait for them, and whether some were lost:
// what /proc/net/netlink tells everybody of the sockets of all processes.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

namespace kedge::speaker {

// zebra's socket for notices.
struct ZebraListener {
  // Another one, another zebra.
  std::uint64_t inode = 0;
  // What zebra has yet to read, in bytes of socket buffer.
  std::uint64_t queued = 0;
  // Notices that the kernel could not put there since the socket was made. zebra is not told of them by FRR's own code.
  std::uint64_t drops = 0;

  bool operator==(const ZebraListener&) const = default;
};

// Of the text of /proc/net/netlink: the socket with the groups that zebra joins, multicast routes among them, which
// other listeners to routes do not. Of several (two instances of FRR): all together, with the longest queue. nullopt:
// there is none. Pure.
std::optional<ZebraListener> find_zebra(std::string_view table);

// The same of the kernel now; takes microseconds, needs no privileges.
std::optional<ZebraListener> find_zebra();

}  // namespace kedge::speaker
