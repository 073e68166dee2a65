#include "tests/bench/swarm/mobile_node.h"

#include <algorithm>

namespace kedge::bench {

using speaker::FrameAddresses;
using speaker::Icmpv6Packet;
using speaker::Icmpv6Type;

MobileNode::MobileNode(const LinkLayerAddress& address)
    : link_layer_address_(address), link_local_(speaker::eui64_link_local(address)) {}

std::optional<Ipv6Address> MobileNode::first_address() const {
  if (prefixes_.empty()) return std::nullopt;
  return address_of(prefixes_.front().prefix);
}

// RFC 4862, 5.5.3, d: the prefix and the interface identifier of the link-local address.
Ipv6Address MobileNode::address_of(const Ipv6Prefix& prefix) const {
  auto bytes = prefix.address().bytes();
  std::copy_n(link_local_.bytes().begin() + 8, 8, bytes.begin() + 8);
  return Ipv6Address(bytes);
}

bool MobileNode::owns(const Ipv6Address& address) const {
  return address == link_local_ || std::any_of(prefixes_.begin(), prefixes_.end(), [&](const Prefix& p) {
           return p.prefix.contains(address) && address == address_of(p.prefix);
         });
}

void MobileNode::link(std::size_t port, bool up) { linked_[port] = up; }

std::optional<std::size_t> MobileNode::uplink() const { return uplink_ && linked_[*uplink_] ? uplink_ : std::nullopt; }

std::vector<std::uint8_t> MobileNode::solicitation() const {
  const auto routers = speaker::all_routers_address();
  return build_frame(FrameAddresses{.link_source = link_layer_address_,
                                    .link_destination = speaker::multicast_link_layer_address(routers),
                                    .source = link_local_,
                                    .destination = routers},
                     speaker::RouterSolicitation{.source_link_layer_address = link_layer_address_});
}

bool MobileNode::take(std::size_t port, const speaker::RouterAdvertisement& message, const LinkLayerAddress& sender) {
  bool advertised = false;
  for (const auto& information : message.prefixes) {
    // RFC 4862, 5.5.3, a: "If the Autonomous flag is not set, silently ignore the Prefix Information option."
    if (!information.autonomous || information.prefix.length() != 64) continue;
    const auto known = std::find_if(prefixes_.begin(), prefixes_.end(),
                                    [&](const Prefix& p) { return p.prefix == information.prefix; });
    if (information.valid_lifetime == 0) {
      if (known != prefixes_.end()) prefixes_.erase(known);
      continue;
    }
    advertised = true;
    const bool deprecated = information.preferred_lifetime == 0;
    if (known == prefixes_.end()) {
      prefixes_.push_back({information.prefix, deprecated});
    } else {
      known->deprecated = deprecated;
    }
  }
  if (advertised && (port == heading_ || !uplink_)) {
    uplink_ = port;
    router_ = message.source_link_layer_address.value_or(sender);
  }
  return advertised;
}

MobileNode::Reaction MobileNode::hear(std::size_t port, std::span<const std::uint8_t> frame) {
  Reaction reaction;
  if (!linked_[port]) return reaction;
  if (auto datagram = parse_datagram(frame); datagram && owns(datagram->addresses.destination)) {
    reaction.datagram = datagram;
    return reaction;
  }
  const auto packet = speaker::parse_icmpv6_frame(frame);
  if (!packet.ok()) return reaction;
  if (packet->type() == Icmpv6Type::kRouterAdvertisement) {
    const auto message = speaker::parse_router_advertisement(*packet);
    if (message.ok()) reaction.advertised = take(port, *message, packet->addresses.link_source);
  } else if (packet->type() == Icmpv6Type::kNeighbourSolicitation) {
    const auto message = speaker::parse_neighbour_solicitation(*packet);
    if (!message.ok() || !owns(message->target) || packet->addresses.source.is_unspecified()) return reaction;
    reaction.reply = build_frame(FrameAddresses{.link_source = link_layer_address_,
                                                .link_destination = packet->addresses.link_source,
                                                .source = message->target,
                                                .destination = packet->addresses.source},
                                 speaker::NeighbourAdvertisement{.target = message->target,
                                                                 .solicited = true,
                                                                 .override_flag = true,
                                                                 .target_link_layer_address = link_layer_address_});
  } else if (packet->type() == Icmpv6Type::kEchoRequest && owns(packet->addresses.destination)) {
    reaction.reply = build_echo_reply(*packet);
  }
  return reaction;
}

std::optional<std::vector<std::uint8_t>> MobileNode::datagram(const Ipv6Address& peer, std::uint16_t udp_port,
                                                              std::span<const std::uint8_t> payload) const {
  const auto source = first_address();
  if (!source || !uplink()) return std::nullopt;
  return build_datagram({.addresses = {.link_source = link_layer_address_,
                                       .link_destination = router_,
                                       .source = *source,
                                       .destination = peer},
                         .source_port = udp_port,
                         .destination_port = udp_port,
                         .payload = payload});
}

}  // namespace kedge::bench
