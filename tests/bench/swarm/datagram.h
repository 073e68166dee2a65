// What a mobile node sends and hears beside discovery, as Ethernet frames: UDP datagrams and answers to echo requests.
// Pure functions, any thread.
//
// Standards: RFC 8200 (IPv6), RFC 768 (UDP), RFC 4443 (ICMPv6), RFC 2464 (IPv6 over Ethernet).
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "speaker/access/icmpv6_codec.h"

namespace kedge::bench {

// Ethernet, IPv6 and UDP header.
inline constexpr std::size_t kDatagramHeaders = 14 + 40 + 8;

struct Datagram {
  speaker::FrameAddresses addresses;
  std::uint16_t source_port = 0;
  std::uint16_t destination_port = 0;
  // Points into the frame.
  std::span<const std::uint8_t> payload;
};

// UDP directly behind the IPv6 header, with lengths that fit. The checksum is not looked at: a kernel that hands frames
// to another over a veth pair leaves it to hardware that is not there.
std::optional<Datagram> parse_datagram(std::span<const std::uint8_t> frame);

// Hop limit 64. At most 65,527 octets of payload.
std::vector<std::uint8_t> build_datagram(const Datagram& datagram);

// The answer to an echo request, from its destination to its source by the way it came, with its data (RFC 4443, 4.2).
std::vector<std::uint8_t> build_echo_reply(const speaker::Icmpv6Packet& request);

}  // namespace kedge::bench
