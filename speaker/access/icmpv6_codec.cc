#include "speaker/access/icmpv6_codec.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace kedge::speaker {
namespace {

constexpr std::size_t kEthernetHeaderLength = 14;
constexpr std::size_t kIpv6HeaderLength = 40;
constexpr std::uint8_t kNextHeaderHopByHop = 0;
constexpr std::uint8_t kNextHeaderIcmpv6 = 58;

// RFC 4861, 4.6: option types.
constexpr std::uint8_t kOptionSourceLinkLayerAddress = 1;
constexpr std::uint8_t kOptionTargetLinkLayerAddress = 2;
constexpr std::uint8_t kOptionPrefixInformation = 3;
constexpr std::uint8_t kOptionMtu = 5;

// RFC 2711: hop-by-hop option "router alert" with value 0 (MLD), then PadN to 8 bytes.
constexpr std::uint8_t kHopByHopOptionPad1 = 0;
constexpr std::uint8_t kHopByHopOptionRouterAlert = 5;

absl::Status malformed(absl::string_view text) { return absl::InvalidArgumentError(text); }

class Reader {
 public:
  explicit Reader(std::span<const std::uint8_t> bytes) : bytes_(bytes) {}

  std::uint8_t u8(std::size_t at) const { return bytes_[at]; }
  std::uint16_t u16(std::size_t at) const { return static_cast<std::uint16_t>((bytes_[at] << 8) | bytes_[at + 1]); }
  std::uint32_t u32(std::size_t at) const { return (static_cast<std::uint32_t>(u16(at)) << 16) | u16(at + 2); }
  LinkLayerAddress link_layer_address(std::size_t at) const {
    LinkLayerAddress::Bytes out;
    std::copy_n(bytes_.begin() + static_cast<std::ptrdiff_t>(at), out.size(), out.begin());
    return LinkLayerAddress(out);
  }
  Ipv6Address address(std::size_t at) const {
    Ipv6Address::Bytes out;
    std::copy_n(bytes_.begin() + static_cast<std::ptrdiff_t>(at), out.size(), out.begin());
    return Ipv6Address(out);
  }

 private:
  std::span<const std::uint8_t> bytes_;
};

class Writer {
 public:
  void u8(std::uint8_t value) { bytes_.push_back(value); }
  void u16(std::uint16_t value) {
    u8(static_cast<std::uint8_t>(value >> 8));
    u8(static_cast<std::uint8_t>(value & 0xff));
  }
  void u32(std::uint32_t value) {
    u16(static_cast<std::uint16_t>(value >> 16));
    u16(static_cast<std::uint16_t>(value & 0xffff));
  }
  template <typename Address>
  void address(const Address& value) {
    bytes_.insert(bytes_.end(), value.bytes().begin(), value.bytes().end());
  }
  void bytes(std::span<const std::uint8_t> value) { bytes_.insert(bytes_.end(), value.begin(), value.end()); }
  void link_layer_option(std::uint8_t type, const std::optional<LinkLayerAddress>& value) {
    if (!value) return;
    u8(type);
    u8(1);
    address(*value);
  }
  void icmpv6_header(Icmpv6Type type) {
    u8(static_cast<std::uint8_t>(type));
    u8(0);
    u16(0);
  }
  std::vector<std::uint8_t>& out() { return bytes_; }

 private:
  std::vector<std::uint8_t> bytes_;
};

// RFC 4443, 2.3 and RFC 8200, 8.1: the ones' complement sum over pseudo header and message. 0 when a message whose
// checksum field is filled in is right.
std::uint16_t icmpv6_checksum(const Ipv6Address& source, const Ipv6Address& destination,
                              std::span<const std::uint8_t> message) {
  std::uint64_t sum = message.size() + kNextHeaderIcmpv6;
  const auto add = [&sum](std::span<const std::uint8_t> bytes) {
    for (std::size_t i = 0; i < bytes.size(); i += 2) {
      sum += static_cast<std::uint64_t>(bytes[i]) << 8;
      if (i + 1 < bytes.size()) sum += bytes[i + 1];
    }
  };
  add(source.bytes());
  add(destination.bytes());
  add(message);
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >> 16);
  return static_cast<std::uint16_t>(~sum & 0xffff);
}

std::vector<std::uint8_t> finish_frame(const FrameAddresses& addresses, std::uint8_t hop_limit, bool router_alert,
                                       std::vector<std::uint8_t> message) {
  const std::uint16_t checksum = icmpv6_checksum(addresses.source, addresses.destination, message);
  message[2] = static_cast<std::uint8_t>(checksum >> 8);
  message[3] = static_cast<std::uint8_t>(checksum & 0xff);

  Writer frame;
  frame.address(addresses.link_destination);
  frame.address(addresses.link_source);
  frame.u16(kEtherTypeIpv6);
  frame.u32(0x60000000);
  frame.u16(static_cast<std::uint16_t>(message.size() + (router_alert ? 8 : 0)));
  frame.u8(router_alert ? kNextHeaderHopByHop : kNextHeaderIcmpv6);
  frame.u8(hop_limit);
  frame.address(addresses.source);
  frame.address(addresses.destination);
  if (router_alert)
    frame.bytes(std::array<std::uint8_t, 8>{kNextHeaderIcmpv6, 0, kHopByHopOptionRouterAlert, 2, 0, 0, 1, 0});
  frame.bytes(message);
  return std::move(frame.out());
}

// Looks for the router alert among the options of a hop-by-hop header (RFC 8200, 4.2 and 4.3).
absl::StatusOr<bool> has_router_alert(std::span<const std::uint8_t> options) {
  bool found = false;
  for (std::size_t at = 0; at < options.size();) {
    if (options[at] == kHopByHopOptionPad1) {
      ++at;
      continue;
    }
    if (at + 2 > options.size() || at + 2 + options[at + 1] > options.size()) {
      return malformed("hop-by-hop header: an option runs past its end (RFC 8200, 4.2)");
    }
    if (options[at] == kHopByHopOptionRouterAlert && options[at + 1] == 2) found = true;
    at += 2 + static_cast<std::size_t>(options[at + 1]);
  }
  return found;
}

// The texts of the checks that all neighbour discovery messages share, for one kind of message.
struct Texts {
  absl::string_view type;
  absl::string_view hop_limit;
  absl::string_view code;
  absl::string_view length;
  absl::string_view option_zero;
  absl::string_view option_long;
};

absl::Status check_neighbour_discovery(const Icmpv6Packet& packet, Icmpv6Type type, std::size_t minimum,
                                       const Texts& texts) {
  if (packet.type() != type) return malformed(texts.type);
  if (packet.hop_limit != kNeighbourDiscoveryHopLimit) return malformed(texts.hop_limit);
  if (packet.code() != 0) return malformed(texts.code);
  if (packet.message.size() < minimum) return malformed(texts.length);
  return absl::OkStatus();
}

// Calls `visit(type, option)` for each option with a length that is above 0 and fits.
template <typename Visit>
absl::Status visit_options(std::span<const std::uint8_t> options, const Texts& texts, Visit visit) {
  while (!options.empty()) {
    if (options.size() < 2) return malformed(texts.option_long);
    const std::size_t length = static_cast<std::size_t>(options[1]) * 8;
    if (length == 0) return malformed(texts.option_zero);
    if (length > options.size()) return malformed(texts.option_long);
    if (absl::Status status = visit(options[0], options.first(length)); !status.ok()) return status;
    options = options.subspan(length);
  }
  return absl::OkStatus();
}

// RFC 2464, 6: the option of an Ethernet address has length 1.
absl::StatusOr<LinkLayerAddress> link_layer_option(std::span<const std::uint8_t> option) {
  if (option.size() != 8) return malformed("link-layer address option: length is not 1 (RFC 2464, 6)");
  const LinkLayerAddress address = Reader(option).link_layer_address(2);
  if (address.is_multicast()) return malformed("link-layer address option: a group address");
  if (address.is_zero()) return malformed("link-layer address option: the zero address");
  return address;
}

absl::Status keep(absl::StatusOr<LinkLayerAddress> address, std::optional<LinkLayerAddress>& out) {
  if (!address.ok()) return address.status();
  out = *address;
  return absl::OkStatus();
}

absl::StatusOr<PrefixInformation> prefix_option(std::span<const std::uint8_t> option) {
  if (option.size() != 32) return malformed("prefix information option: length is not 4 (RFC 4861, 4.6.2)");
  const Reader reader(option);
  if (reader.u8(2) > 128) return malformed("prefix information option: prefix length over 128 (RFC 4861, 4.6.2)");
  return PrefixInformation{.prefix = Ipv6Prefix(reader.address(16), reader.u8(2)),
                           .on_link = (reader.u8(3) & 0x80U) != 0,
                           .autonomous = (reader.u8(3) & 0x40U) != 0,
                           .valid_lifetime = reader.u32(4),
                           .preferred_lifetime = reader.u32(8)};
}

bool is_solicited_node(const Ipv6Address& address) {
  return Ipv6Prefix(solicited_node_address(Ipv6Address()), 104).contains(address);
}

}  // namespace

Ipv6Address all_nodes_address() {
  return Ipv6Address(Ipv6Address::Bytes{0xff, 0x02, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1});
}
Ipv6Address all_routers_address() {
  return Ipv6Address(Ipv6Address::Bytes{0xff, 0x02, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2});
}

LinkLayerAddress multicast_link_layer_address(const Ipv6Address& group) {
  const auto& b = group.bytes();
  return LinkLayerAddress({0x33, 0x33, b[12], b[13], b[14], b[15]});
}

Ipv6Address solicited_node_address(const Ipv6Address& address) {
  const auto& b = address.bytes();
  return Ipv6Address(Ipv6Address::Bytes{0xff, 0x02, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x01, 0xff, b[13], b[14], b[15]});
}

Ipv6Address eui64_link_local(const LinkLayerAddress& address) {
  const auto& b = address.bytes();
  return Ipv6Address(Ipv6Address::Bytes{0xfe, 0x80, 0, 0, 0, 0, 0, 0, static_cast<std::uint8_t>(b[0] ^ 0x02U), b[1],
                                        b[2], 0xff, 0xfe, b[3], b[4], b[5]});
}

absl::StatusOr<Icmpv6Packet> parse_icmpv6_frame(std::span<const std::uint8_t> frame) {
  if (frame.size() < kEthernetHeaderLength + kIpv6HeaderLength) return malformed("frame: too short for an IPv6 header");
  const Reader reader(frame);
  if (reader.u16(12) != kEtherTypeIpv6) return malformed("frame: not IPv6");
  if (reader.u8(14) >> 4 != 6) return malformed("IPv6 header: version is not 6 (RFC 8200, 3)");
  const std::size_t payload_length = reader.u16(18);
  std::span<const std::uint8_t> payload = frame.subspan(kEthernetHeaderLength + kIpv6HeaderLength);
  if (payload_length > payload.size()) return malformed("IPv6 header: payload length exceeds the frame (RFC 8200, 3)");
  // Behind it there is only padding to Ethernet's minimum.
  payload = payload.first(payload_length);

  Icmpv6Packet packet;
  packet.addresses = {.link_source = reader.link_layer_address(6),
                      .link_destination = reader.link_layer_address(0),
                      .source = reader.address(22),
                      .destination = reader.address(38)};
  packet.hop_limit = reader.u8(21);
  std::uint8_t next_header = reader.u8(20);
  if (next_header == kNextHeaderHopByHop) {
    if (payload.size() < 8) return malformed("hop-by-hop header: truncated (RFC 8200, 4.3)");
    const std::size_t length = 8 + static_cast<std::size_t>(payload[1]) * 8;
    if (length > payload.size()) return malformed("hop-by-hop header: length exceeds the payload (RFC 8200, 4.3)");
    absl::StatusOr<bool> router_alert = has_router_alert(payload.subspan(2, length - 2));
    if (!router_alert.ok()) return router_alert.status();
    packet.router_alert = *router_alert;
    next_header = payload[0];
    payload = payload.subspan(length);
  }
  if (next_header != kNextHeaderIcmpv6) return malformed("IPv6 header: next header is not ICMPv6");
  if (payload.size() < 4) return malformed("ICMPv6: shorter than its header (RFC 4443, 2.1)");
  if (icmpv6_checksum(packet.addresses.source, packet.addresses.destination, payload) != 0) {
    return malformed("ICMPv6: wrong checksum (RFC 4443, 2.3)");
  }
  packet.message = payload;
  return packet;
}

absl::StatusOr<RouterSolicitation> parse_router_solicitation(const Icmpv6Packet& packet) {
  static constexpr Texts kTexts = {
      .type = "not a router solicitation",
      .hop_limit = "router solicitation: hop limit is not 255 (RFC 4861, 6.1.1)",
      .code = "router solicitation: code is not 0 (RFC 4861, 6.1.1)",
      .length = "router solicitation: shorter than 8 bytes (RFC 4861, 6.1.1)",
      .option_zero = "router solicitation: an option of length 0 (RFC 4861, 6.1.1)",
      .option_long = "router solicitation: an option runs past the end (RFC 4861, 6.1.1)",
  };
  if (absl::Status status = check_neighbour_discovery(packet, Icmpv6Type::kRouterSolicitation, 8, kTexts);
      !status.ok()) {
    return status;
  }
  const bool unspecified = packet.addresses.source.is_unspecified();
  if (!unspecified && !packet.addresses.source.is_link_local()) {
    return malformed("router solicitation: source is neither link-local nor unspecified");
  }
  RouterSolicitation out;
  absl::Status status =
      visit_options(packet.message.subspan(8), kTexts, [&](std::uint8_t type, std::span<const std::uint8_t> option) {
        // RFC 4861, 4.1: "Future versions of this protocol may define new option types. Receivers MUST silently ignore
        // any options they do not recognize and continue processing the message."
        if (type != kOptionSourceLinkLayerAddress) return absl::OkStatus();
        // RFC 4861, 6.1.1: "If the IP source address is the unspecified address, there is no source link-layer address
        // option in the message."
        if (unspecified) {
          return malformed(
              "router solicitation: a source link-layer address option from the unspecified address (RFC 4861, 6.1.1)");
        }
        return keep(link_layer_option(option), out.source_link_layer_address);
      });
  if (!status.ok()) return status;
  return out;
}

absl::StatusOr<RouterAdvertisement> parse_router_advertisement(const Icmpv6Packet& packet) {
  static constexpr Texts kTexts = {
      .type = "not a router advertisement",
      .hop_limit = "router advertisement: hop limit is not 255 (RFC 4861, 6.1.2)",
      .code = "router advertisement: code is not 0 (RFC 4861, 6.1.2)",
      .length = "router advertisement: shorter than 16 bytes (RFC 4861, 6.1.2)",
      .option_zero = "router advertisement: an option of length 0 (RFC 4861, 6.1.2)",
      .option_long = "router advertisement: an option runs past the end (RFC 4861, 6.1.2)",
  };
  if (absl::Status status = check_neighbour_discovery(packet, Icmpv6Type::kRouterAdvertisement, 16, kTexts);
      !status.ok()) {
    return status;
  }
  if (!packet.addresses.source.is_link_local()) {
    return malformed("router advertisement: source is not link-local (RFC 4861, 6.1.2)");
  }
  const Reader reader(packet.message);
  RouterAdvertisement out{.current_hop_limit = reader.u8(4),
                          .managed = (reader.u8(5) & 0x80U) != 0,
                          .other_configuration = (reader.u8(5) & 0x40U) != 0,
                          .router_lifetime = reader.u16(6),
                          .reachable_time = reader.u32(8),
                          .retransmission_timer = reader.u32(12),
                          .source_link_layer_address = std::nullopt,
                          .mtu = std::nullopt,
                          .prefixes = {}};
  absl::Status status =
      visit_options(packet.message.subspan(16), kTexts, [&](std::uint8_t type, std::span<const std::uint8_t> option) {
        if (type == kOptionSourceLinkLayerAddress) {
          return keep(link_layer_option(option), out.source_link_layer_address);
        }
        if (type == kOptionMtu) {
          if (option.size() != 8) return malformed("MTU option: length is not 1 (RFC 4861, 4.6.4)");
          out.mtu = Reader(option).u32(4);
        }
        if (type == kOptionPrefixInformation) {
          absl::StatusOr<PrefixInformation> prefix = prefix_option(option);
          if (!prefix.ok()) return prefix.status();
          out.prefixes.push_back(*prefix);
        }
        return absl::OkStatus();
      });
  if (!status.ok()) return status;
  return out;
}

absl::StatusOr<NeighbourSolicitation> parse_neighbour_solicitation(const Icmpv6Packet& packet) {
  static constexpr Texts kTexts = {
      .type = "not a neighbour solicitation",
      .hop_limit = "neighbour solicitation: hop limit is not 255 (RFC 4861, 7.1.1)",
      .code = "neighbour solicitation: code is not 0 (RFC 4861, 7.1.1)",
      .length = "neighbour solicitation: shorter than 24 bytes (RFC 4861, 7.1.1)",
      .option_zero = "neighbour solicitation: an option of length 0 (RFC 4861, 7.1.1)",
      .option_long = "neighbour solicitation: an option runs past the end (RFC 4861, 7.1.1)",
  };
  if (absl::Status status = check_neighbour_discovery(packet, Icmpv6Type::kNeighbourSolicitation, 24, kTexts);
      !status.ok()) {
    return status;
  }
  NeighbourSolicitation out{.target = Reader(packet.message).address(8), .source_link_layer_address = std::nullopt};
  if (out.target.is_multicast()) return malformed("neighbour solicitation: target is multicast (RFC 4861, 7.1.1)");
  const bool unspecified = packet.addresses.source.is_unspecified();
  // RFC 4861, 7.1.1: "If the IP source address is the unspecified address, the IP destination address is a
  // solicited-node multicast address."
  if (unspecified && !is_solicited_node(packet.addresses.destination)) {
    return malformed(
        "neighbour solicitation: from the unspecified address, but not to a solicited-node address (RFC 4861, 7.1.1)");
  }
  absl::Status status =
      visit_options(packet.message.subspan(24), kTexts, [&](std::uint8_t type, std::span<const std::uint8_t> option) {
        if (type != kOptionSourceLinkLayerAddress) return absl::OkStatus();
        if (unspecified) {
          return malformed(
              "neighbour solicitation: a source link-layer address option from the unspecified address (RFC 4861, "
              "7.1.1)");
        }
        return keep(link_layer_option(option), out.source_link_layer_address);
      });
  if (!status.ok()) return status;
  return out;
}

absl::StatusOr<NeighbourAdvertisement> parse_neighbour_advertisement(const Icmpv6Packet& packet) {
  static constexpr Texts kTexts = {
      .type = "not a neighbour advertisement",
      .hop_limit = "neighbour advertisement: hop limit is not 255 (RFC 4861, 7.1.2)",
      .code = "neighbour advertisement: code is not 0 (RFC 4861, 7.1.2)",
      .length = "neighbour advertisement: shorter than 24 bytes (RFC 4861, 7.1.2)",
      .option_zero = "neighbour advertisement: an option of length 0 (RFC 4861, 7.1.2)",
      .option_long = "neighbour advertisement: an option runs past the end (RFC 4861, 7.1.2)",
  };
  if (absl::Status status = check_neighbour_discovery(packet, Icmpv6Type::kNeighbourAdvertisement, 24, kTexts);
      !status.ok()) {
    return status;
  }
  const Reader reader(packet.message);
  NeighbourAdvertisement out{.target = reader.address(8),
                             .router = (reader.u8(4) & 0x80U) != 0,
                             .solicited = (reader.u8(4) & 0x40U) != 0,
                             .override_flag = (reader.u8(4) & 0x20U) != 0,
                             .target_link_layer_address = std::nullopt};
  if (out.target.is_multicast()) return malformed("neighbour advertisement: target is multicast (RFC 4861, 7.1.2)");
  // RFC 4861, 7.1.2: "If the IP Destination Address is a multicast address the Solicited flag is zero."
  if (out.solicited && packet.addresses.destination.is_multicast()) {
    return malformed("neighbour advertisement: solicited, but to a multicast address (RFC 4861, 7.1.2)");
  }
  absl::Status status =
      visit_options(packet.message.subspan(24), kTexts, [&](std::uint8_t type, std::span<const std::uint8_t> option) {
        if (type != kOptionTargetLinkLayerAddress) return absl::OkStatus();
        return keep(link_layer_option(option), out.target_link_layer_address);
      });
  if (!status.ok()) return status;
  return out;
}

absl::Status check_listener_report(const Icmpv6Packet& packet) {
  const Icmpv6Type type = packet.type();
  if (type != Icmpv6Type::kListenerReport && type != Icmpv6Type::kListenerDone &&
      type != Icmpv6Type::kListenerReportVersion2) {
    return malformed("not a multicast listener report");
  }
  if (packet.hop_limit != 1) return malformed("multicast listener report: hop limit is not 1 (RFC 3810, 5)");
  if (!packet.router_alert) return malformed("multicast listener report: no router alert (RFC 3810, 5)");
  // RFC 3810, 5.2.13: "An MLDv2 Report MUST be sent with a valid IPv6 link-local source address, or the unspecified
  // address (::), if the sending interface has not acquired a valid link-local address yet."
  if (!packet.addresses.source.is_unspecified() && !packet.addresses.source.is_link_local()) {
    return malformed("multicast listener report: source is neither link-local nor unspecified (RFC 3810, 5.2.13)");
  }
  const std::size_t minimum = type == Icmpv6Type::kListenerReportVersion2 ? 8 : 24;
  if (packet.message.size() < minimum) return malformed("multicast listener report: too short (RFC 3810, 5.2)");
  return absl::OkStatus();
}

std::vector<std::uint8_t> build_frame(const FrameAddresses& addresses, const RouterSolicitation& message) {
  Writer out;
  out.icmpv6_header(Icmpv6Type::kRouterSolicitation);
  out.u32(0);
  out.link_layer_option(kOptionSourceLinkLayerAddress, message.source_link_layer_address);
  return finish_frame(addresses, kNeighbourDiscoveryHopLimit, false, std::move(out.out()));
}

std::vector<std::uint8_t> build_frame(const FrameAddresses& addresses, const RouterAdvertisement& message) {
  Writer out;
  out.icmpv6_header(Icmpv6Type::kRouterAdvertisement);
  out.u8(message.current_hop_limit);
  out.u8(static_cast<std::uint8_t>((message.managed ? 0x80 : 0) | (message.other_configuration ? 0x40 : 0)));
  out.u16(message.router_lifetime);
  out.u32(message.reachable_time);
  out.u32(message.retransmission_timer);
  out.link_layer_option(kOptionSourceLinkLayerAddress, message.source_link_layer_address);
  if (message.mtu) {
    out.u8(kOptionMtu);
    out.u8(1);
    out.u16(0);
    out.u32(*message.mtu);
  }
  for (const PrefixInformation& information : message.prefixes) {
    out.u8(kOptionPrefixInformation);
    out.u8(4);
    out.u8(static_cast<std::uint8_t>(information.prefix.length()));
    out.u8(static_cast<std::uint8_t>((information.on_link ? 0x80 : 0) | (information.autonomous ? 0x40 : 0)));
    out.u32(information.valid_lifetime);
    out.u32(information.preferred_lifetime);
    out.u32(0);
    out.address(information.prefix.address());
  }
  return finish_frame(addresses, kNeighbourDiscoveryHopLimit, false, std::move(out.out()));
}

std::vector<std::uint8_t> build_frame(const FrameAddresses& addresses, const NeighbourSolicitation& message) {
  Writer out;
  out.icmpv6_header(Icmpv6Type::kNeighbourSolicitation);
  out.u32(0);
  out.address(message.target);
  out.link_layer_option(kOptionSourceLinkLayerAddress, message.source_link_layer_address);
  return finish_frame(addresses, kNeighbourDiscoveryHopLimit, false, std::move(out.out()));
}

std::vector<std::uint8_t> build_frame(const FrameAddresses& addresses, const NeighbourAdvertisement& message) {
  Writer out;
  out.icmpv6_header(Icmpv6Type::kNeighbourAdvertisement);
  out.u8(static_cast<std::uint8_t>((message.router ? 0x80 : 0) | (message.solicited ? 0x40 : 0) |
                                   (message.override_flag ? 0x20 : 0)));
  out.u8(0);
  out.u16(0);
  out.address(message.target);
  out.link_layer_option(kOptionTargetLinkLayerAddress, message.target_link_layer_address);
  return finish_frame(addresses, kNeighbourDiscoveryHopLimit, false, std::move(out.out()));
}

std::vector<std::uint8_t> build_general_query(const FrameAddresses& addresses) {
  Writer out;
  out.icmpv6_header(Icmpv6Type::kListenerQuery);
  // RFC 3810, 5.1.3: the maximum response code, in milliseconds. 0 would ask for an answer in no time, which some hosts
  // take for MLDv1.
  out.u16(1);
  out.u16(0);
  out.address(Ipv6Address());
  // RFC 3810, 5.1.7 to 5.1.10: S flag 0, robustness variable 2, query interval code 125 s, no sources.
  out.u8(2);
  out.u8(125);
  out.u16(0);
  return finish_frame(addresses, 1, true, std::move(out.out()));
}

std::vector<std::uint8_t> build_listener_report(const FrameAddresses& addresses,
                                                const std::vector<Ipv6Address>& groups) {
  // RFC 3810, 5.2.12: MODE_IS_EXCLUDE.
  constexpr std::uint8_t kModeIsExclude = 2;
  Writer out;
  out.icmpv6_header(Icmpv6Type::kListenerReportVersion2);
  out.u16(0);
  out.u16(static_cast<std::uint16_t>(groups.size()));
  for (const auto& group : groups) {
    out.u8(kModeIsExclude);
    out.u8(0);
    out.u16(0);
    out.address(group);
  }
  return finish_frame(addresses, 1, true, std::move(out.out()));
}

std::vector<std::uint8_t> build_echo_request(const FrameAddresses& addresses, std::uint16_t identifier,
                                             std::uint16_t sequence) {
  Writer out;
  out.icmpv6_header(Icmpv6Type::kEchoRequest);
  out.u16(identifier);
  out.u16(sequence);
  return finish_frame(addresses, kNeighbourDiscoveryHopLimit, false, std::move(out.out()));
}

}  // namespace kedge::speaker
