// ICMPv6 messages between an access router and its MNs, as Ethernet frames: bytes to values and values to bytes.
// Pure functions without state; any thread.
//
// Standards: RFC 8200 (IPv6, hop-by-hop options), RFC 4443 (ICMPv6), RFC 4861 (neighbour discovery), RFC 2464 (IPv6
// over Ethernet), RFC 2710 and RFC 3810 (multicast listener discovery), RFC 2711 (router alert).
//
// Every parse error is InvalidArgument with a text of its own and without values from the packet, so that the texts can
// be counted: there are as many as there are checks.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "common/ipv6.h"
#include "common/link_layer_address.h"

namespace kedge::speaker {

// IANA, ICMPv6 type numbers.
enum class Icmpv6Type : std::uint8_t {
  kEchoRequest = 128,             // RFC 4443
  kEchoReply = 129,               // RFC 4443
  kListenerQuery = 130,           // RFC 2710, RFC 3810
  kListenerReport = 131,          // RFC 2710
  kListenerDone = 132,            // RFC 2710
  kRouterSolicitation = 133,      // RFC 4861
  kRouterAdvertisement = 134,     // RFC 4861
  kNeighbourSolicitation = 135,   // RFC 4861
  kNeighbourAdvertisement = 136,  // RFC 4861
  kListenerReportVersion2 = 143,  // RFC 3810
};

inline constexpr std::uint8_t kNeighbourDiscoveryHopLimit = 255;
inline constexpr std::uint16_t kEtherTypeIpv6 = 0x86dd;

// Who sends a frame to whom.
struct FrameAddresses {
  LinkLayerAddress link_source;
  LinkLayerAddress link_destination;
  Ipv6Address source;
  Ipv6Address destination;

  bool operator==(const FrameAddresses&) const = default;
};

// An ICMPv6 message taken out of a frame: lengths fit and the checksum is right. `message` points into the frame and
// starts with the ICMPv6 type; at least 4 bytes.
struct Icmpv6Packet {
  FrameAddresses addresses;
  std::uint8_t hop_limit = 0;
  // A hop-by-hop header with the router alert option came before it (RFC 2711).
  bool router_alert = false;
  std::span<const std::uint8_t> message;

  Icmpv6Type type() const { return static_cast<Icmpv6Type>(message[0]); }
  std::uint8_t code() const { return message[1]; }
};

struct RouterSolicitation {
  std::optional<LinkLayerAddress> source_link_layer_address = std::nullopt;

  bool operator==(const RouterSolicitation&) const = default;
};

// RFC 4861, 4.6.2. Lifetimes in seconds, 0xffffffff is infinity.
struct PrefixInformation {
  Ipv6Prefix prefix;
  bool on_link = false;
  bool autonomous = true;
  std::uint32_t valid_lifetime = 0;
  std::uint32_t preferred_lifetime = 0;

  bool operator==(const PrefixInformation&) const = default;
};

// RFC 4861, 4.2. Router lifetime in seconds; the timers in milliseconds, 0 is unspecified.
struct RouterAdvertisement {
  std::uint8_t current_hop_limit = 64;
  bool managed = false;
  bool other_configuration = false;
  std::uint16_t router_lifetime = 0;
  std::uint32_t reachable_time = 0;
  std::uint32_t retransmission_timer = 0;
  std::optional<LinkLayerAddress> source_link_layer_address = std::nullopt;
  std::optional<std::uint32_t> mtu = std::nullopt;
  std::vector<PrefixInformation> prefixes = {};

  bool operator==(const RouterAdvertisement&) const = default;
};

struct NeighbourSolicitation {
  Ipv6Address target;
  std::optional<LinkLayerAddress> source_link_layer_address = std::nullopt;

  bool operator==(const NeighbourSolicitation&) const = default;
};

struct NeighbourAdvertisement {
  Ipv6Address target;
  bool router = false;
  bool solicited = false;
  bool override_flag = false;
  std::optional<LinkLayerAddress> target_link_layer_address = std::nullopt;

  bool operator==(const NeighbourAdvertisement&) const = default;
};

// ff02::1 and ff02::2.
Ipv6Address all_nodes_address();
Ipv6Address all_routers_address();
// The Ethernet group of an IPv6 multicast address, RFC 2464, 7.
LinkLayerAddress multicast_link_layer_address(const Ipv6Address& group);
// ff02::1:ff00:0/104 with the last 24 bits of `address`, RFC 4291, 2.7.1.
Ipv6Address solicited_node_address(const Ipv6Address& address);
// The link-local address that a host makes from its EUI-48, RFC 4291, appendix A.
Ipv6Address eui64_link_local(const LinkLayerAddress& address);

// Takes the ICMPv6 message out of an Ethernet frame: directly behind the IPv6 header, or behind one hop-by-hop header.
absl::StatusOr<Icmpv6Packet> parse_icmpv6_frame(std::span<const std::uint8_t> frame);

// RFC 4861, 6.1.1. Past the RFC's checks, a source that is neither unspecified nor link-local is refused.
absl::StatusOr<RouterSolicitation> parse_router_solicitation(const Icmpv6Packet& packet);
// RFC 4861, 6.1.2.
absl::StatusOr<RouterAdvertisement> parse_router_advertisement(const Icmpv6Packet& packet);
// RFC 4861, 7.1.1.
absl::StatusOr<NeighbourSolicitation> parse_neighbour_solicitation(const Icmpv6Packet& packet);
// RFC 4861, 7.1.2.
absl::StatusOr<NeighbourAdvertisement> parse_neighbour_advertisement(const Icmpv6Packet& packet);
// OK for a report (version 1 or 2) or done message: hop limit 1, router alert, source unspecified or link-local
// (RFC 3810, 5.2.13 and 6.2; RFC 2710, 3).
absl::Status check_listener_report(const Icmpv6Packet& packet);

// Whole frames; hop limit 255.
std::vector<std::uint8_t> build_frame(const FrameAddresses& addresses, const RouterSolicitation& message);
std::vector<std::uint8_t> build_frame(const FrameAddresses& addresses, const RouterAdvertisement& message);
std::vector<std::uint8_t> build_frame(const FrameAddresses& addresses, const NeighbourSolicitation& message);
std::vector<std::uint8_t> build_frame(const FrameAddresses& addresses, const NeighbourAdvertisement& message);

// MLDv2 general query (RFC 3810, 5.1) with the smallest response time, 1 ms; hop limit 1, router alert.
std::vector<std::uint8_t> build_general_query(const FrameAddresses& addresses);
// MLDv2 report (RFC 3810, 5.2) that all these groups are listened to, whatever the source; hop limit 1, router alert.
std::vector<std::uint8_t> build_listener_report(const FrameAddresses& addresses,
                                                const std::vector<Ipv6Address>& groups);
// RFC 4443, 4.1; hop limit 255, no data.
std::vector<std::uint8_t> build_echo_request(const FrameAddresses& addresses, std::uint16_t identifier,
                                             std::uint16_t sequence);

}  // namespace kedge::speaker
