// Interfaces, their addresses and neighbours: messages (pure functions), and what the speaker makes of them: the pair
// kx0-kx1 and the access interfaces.
//
// Standards: RFC 4861 (neighbours), RFC 4862 (duplicate address detection, which is off on access interfaces because
// all ARs share one link-local address there), RFC 2473, 7 (the pair's MTU makes packets fit the tunnel).
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "speaker/kernel/netlink_socket.h"

namespace kedge::speaker {

// Packets routed into kInner come out of kOuter, so that they pass the kernel's forwarding once before they are
// encapsulated: the hop limit falls, and Packet Too Big goes to the packet's sender.
inline constexpr char kPairInner[] = "kx0";
inline constexpr char kPairOuter[] = "kx1";
// The gateway of every redirect, preset as a neighbour on kx0 with kx1's link-layer address. "kx" is 6b78.
inline constexpr Ipv6Address kPairGateway{
    Ipv6Address::Bytes{0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x6b, 0x78}};
inline constexpr LinkLayerAddress kPairInnerLinkLayerAddress{LinkLayerAddress::Bytes{0x02, 0x6b, 0x78, 0, 0, 0}};
inline constexpr LinkLayerAddress kPairOuterLinkLayerAddress{LinkLayerAddress::Bytes{0x02, 0x6b, 0x78, 0, 0, 1}};
// IPv6 header that the tunnel adds.
inline constexpr std::uint32_t kTunnelOverhead = 40;

struct KernelLink {
  std::uint32_t index = 0;
  std::string name;
  bool up = false;
  // Operational: the kernel sends what it is given. In a notice, this comes after the queue has been opened; until then
  // packets vanish without a word.
  bool running = false;
  std::uint32_t mtu = 0;
  LinkLayerAddress address;
  // "veth", "bridge"; empty for hardware.
  std::string kind;
  // The other end of a veth pair in the same namespace, otherwise 0 or a number of another namespace.
  std::uint32_t peer = 0;

  bool operator==(const KernelLink&) const = default;
};

struct KernelAddress {
  std::uint32_t interface = 0;
  Ipv6Address address;
  int length = 0;

  bool operator==(const KernelAddress&) const = default;
};

struct KernelNeighbour {
  std::uint32_t interface = 0;
  Ipv6Address address;
  LinkLayerAddress link_layer_address;
  std::uint8_t protocol = 0;

  bool operator==(const KernelNeighbour&) const = default;
};

// Each takes one whole message of the kind's NEW or DEL type; nullopt for anything else and when malformed.
std::optional<KernelLink> decode_link(Bytes message);
std::optional<KernelAddress> decode_address(Bytes message);
std::optional<KernelNeighbour> decode_neighbour(Bytes message);

// Permanent: neither probed nor counted against gc_thresh3. Takes the place of what is known.
Message encode_neighbour(const KernelNeighbour& neighbour);
Message encode_neighbour_delete(const KernelNeighbour& neighbour);

// NotFound (names the interface) when there is none.
absl::StatusOr<KernelLink> get_link(NetlinkSocket& socket, const std::string& name);

// Makes kx0-kx1 or adopts and corrects what is there, up, with the permanent neighbour; returns kx0.
// FailedPrecondition when an interface of that name is something else.
absl::StatusOr<KernelLink> ensure_pair(NetlinkSocket& socket, std::uint32_t access_mtu, std::uint8_t protocol);

// Gives the access interface the MAC and link-local address that all ARs share, as its only link-local one, without
// DAD, and sets it up. Harmless when all is as it shall be.
absl::Status prepare_access_interface(NetlinkSocket& socket, const KernelLink& link, const Ipv6Address& link_local,
                                      const LinkLayerAddress& link_layer_address);

// Deletes the pair; fine when there is none.
absl::Status remove_pair(NetlinkSocket& socket);
// Deletes every neighbour with this protocol.
absl::Status remove_neighbours(NetlinkSocket& socket, std::uint8_t protocol);

}  // namespace kedge::speaker
