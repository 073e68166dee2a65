// IPv6 routes as the kernel's messages carry them, and the encoding of the kinds that the speaker uses. Pure functions.
//
// Standards: RFC 2473 (generic packet tunneling), RFC 8754 (segment routing header), RFC 8986 (End.DT6, End.DX6,
// H.Encaps.Red).
#pragma once

#include <optional>

#include "common/ipv6.h"
#include "speaker/kernel/netlink_socket.h"

namespace kedge::speaker {

struct KernelRoute {
  enum class Kind {
    kVia,          // gateway and interface
    kEncapsulate,  // RFC 8986, 5.2: H.Encaps.Red with one segment; on the wire plain IPv6 in IPv6 (RFC 2473)
    kDecapsulate,  // RFC 8986, 4.6: End.DT6, lookup in inner_table
    kUplink,       // RFC 8986, 4.4: End.DX6 with next hop ::, which the kernel takes as a full lookup by rules
    kUnreachable,
    kBlackhole,
    kProhibit,  // answered as prohibited
    kOther,     // nothing that the speaker makes
  };
  Kind kind = Kind::kOther;
  std::uint32_t table = 0;
  std::uint8_t protocol = 0;
  std::uint32_t metric = 1024;
  Ipv6Prefix destination;
  // Source-specific route.
  std::optional<Ipv6Prefix> source;
  // Index; 0 for kUnreachable, kBlackhole and kProhibit.
  std::uint32_t interface = 0;
  Ipv6Address gateway;
  Ipv6Address segment;
  std::uint32_t inner_table = 0;

  bool operator==(const KernelRoute&) const = default;
};

// Adds, or takes the place of the route for the same destination, source, table and metric whatever its kind: the
// kernel exchanges them in one step.
Message encode_replace(const KernelRoute& route);
// Only table, protocol, metric, destination and source are looked at.
Message encode_delete(const KernelRoute& route);
// All IPv6 routes of the table and protocol (0: any).
Message encode_dump(std::uint32_t table, std::uint8_t protocol);

// RTM_NEWROUTE or RTM_DELROUTE. nullopt for anything else, other families, cached clones and malformed messages.
std::optional<KernelRoute> decode_route(Bytes message);

}  // namespace kedge::speaker
