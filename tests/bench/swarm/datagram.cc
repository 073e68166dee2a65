#include "tests/bench/swarm/datagram.h"

#include <algorithm>
#include <cstdlib>

namespace kedge::bench {
namespace {

constexpr std::size_t kEthernet = 14;
constexpr std::size_t kIpv6 = 40;
constexpr std::size_t kUdp = 8;
constexpr std::uint8_t kUdpHeader = 17;
constexpr std::uint8_t kIcmpv6Header = 58;
constexpr std::uint8_t kHopLimit = 64;

std::uint16_t get16(std::span<const std::uint8_t> bytes, std::size_t at) {
  return static_cast<std::uint16_t>(bytes[at] << 8 | bytes[at + 1]);
}

void put16(std::span<std::uint8_t> bytes, std::size_t at, std::size_t value) {
  bytes[at] = static_cast<std::uint8_t>(value >> 8);
  bytes[at + 1] = static_cast<std::uint8_t>(value);
}

template <typename Address>
Address address_at(std::span<const std::uint8_t> bytes, std::size_t at) {
  typename Address::Bytes out;
  std::copy_n(bytes.begin() + static_cast<std::ptrdiff_t>(at), out.size(), out.begin());
  return Address(out);
}

// Ethernet and IPv6 header in front of `payload` octets.
std::vector<std::uint8_t> begin_frame(const speaker::FrameAddresses& addresses, std::uint8_t next_header,
                                      std::size_t payload) {
  if (payload > 65'535) std::abort();
  std::vector<std::uint8_t> frame;
  frame.reserve(kEthernet + kIpv6 + payload);
  const auto append = [&frame](const auto& bytes) { frame.insert(frame.end(), bytes.begin(), bytes.end()); };
  append(addresses.link_destination.bytes());
  append(addresses.link_source.bytes());
  append(std::array<std::uint8_t, 10>{speaker::kEtherTypeIpv6 >> 8, speaker::kEtherTypeIpv6 & 0xff, 0x60, 0, 0, 0,
                                      static_cast<std::uint8_t>(payload >> 8), static_cast<std::uint8_t>(payload),
                                      next_header, kHopLimit});
  append(addresses.source.bytes());
  append(addresses.destination.bytes());
  frame.resize(frame.size() + payload);
  return frame;
}

// Of the pseudo-header and what follows the IPv6 header (RFC 8200, 8.1), whose own checksum is still zero.
std::uint16_t checksum(std::span<const std::uint8_t> frame) {
  const auto payload = frame.subspan(kEthernet + kIpv6);
  std::uint64_t sum = payload.size() + frame[kEthernet + 6];
  const auto add = [&sum](std::span<const std::uint8_t> bytes) {
    for (std::size_t i = 0; i + 1 < bytes.size(); i += 2) sum += get16(bytes, i);
    if (bytes.size() % 2 == 1) sum += static_cast<std::uint64_t>(bytes.back()) << 8;
  };
  add(frame.subspan(kEthernet + 8, 32));
  add(payload);
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >> 16);
  return static_cast<std::uint16_t>(~sum);
}

}  // namespace

std::optional<Datagram> parse_datagram(std::span<const std::uint8_t> frame) {
  if (frame.size() < kDatagramHeaders || get16(frame, 12) != speaker::kEtherTypeIpv6) return std::nullopt;
  if (frame[kEthernet] >> 4 != 6 || frame[kEthernet + 6] != kUdpHeader) return std::nullopt;
  const std::size_t length = get16(frame, kEthernet + 4);
  const auto udp = frame.subspan(kEthernet + kIpv6);
  // Frames may be padded.
  if (length < kUdp || length > udp.size() || get16(udp, 4) != length) return std::nullopt;
  return Datagram{.addresses = {.link_source = address_at<LinkLayerAddress>(frame, 6),
                                .link_destination = address_at<LinkLayerAddress>(frame, 0),
                                .source = address_at<Ipv6Address>(frame, kEthernet + 8),
                                .destination = address_at<Ipv6Address>(frame, kEthernet + 24)},
                  .source_port = get16(udp, 0),
                  .destination_port = get16(udp, 2),
                  .payload = udp.subspan(kUdp, length - kUdp)};
}

std::vector<std::uint8_t> build_datagram(const Datagram& datagram) {
  auto frame = begin_frame(datagram.addresses, kUdpHeader, kUdp + datagram.payload.size());
  const auto udp = std::span(frame).subspan(kEthernet + kIpv6);
  put16(udp, 0, datagram.source_port);
  put16(udp, 2, datagram.destination_port);
  put16(udp, 4, udp.size());
  std::copy(datagram.payload.begin(), datagram.payload.end(), udp.begin() + kUdp);
  // RFC 768: "If the computed checksum is zero, it is transmitted as all ones".
  const std::uint16_t sum = checksum(frame);
  put16(udp, 6, sum == 0 ? 0xffff : sum);
  return frame;
}

std::vector<std::uint8_t> build_echo_reply(const speaker::Icmpv6Packet& request) {
  const auto& asked = request.addresses;
  auto frame = begin_frame({.link_source = asked.link_destination,
                            .link_destination = asked.link_source,
                            .source = asked.destination,
                            .destination = asked.source},
                           kIcmpv6Header, request.message.size());
  const auto message = std::span(frame).subspan(kEthernet + kIpv6);
  std::copy(request.message.begin(), request.message.end(), message.begin());
  message[0] = static_cast<std::uint8_t>(speaker::Icmpv6Type::kEchoReply);
  put16(message, 2, 0);
  put16(message, 2, checksum(frame));
  return frame;
}

}  // namespace kedge::bench
