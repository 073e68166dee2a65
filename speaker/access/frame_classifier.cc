#include "speaker/access/frame_classifier.h"

#include <linux/if_ether.h>

#include <algorithm>

#include "speaker/access/icmpv6_codec.h"

namespace kedge::speaker {

absl::StatusOr<std::optional<ArrivalTracker::Frame>> classify_frame(std::span<const std::uint8_t> frame,
                                                                    const LinkLayerAddress& own) {
  if (frame.size() < ETH_HLEN) return std::nullopt;
  ArrivalTracker::Frame out;
  out.trigger = v1::TRIGGER_DATA_FRAME;
  out.to_group = (frame[0] & 0x01U) != 0;
  LinkLayerAddress::Bytes source;
  std::copy_n(frame.begin() + 6, source.size(), source.begin());
  out.station.link_layer_address = LinkLayerAddress(source);
  if (out.station.link_layer_address == own || out.station.link_layer_address.is_multicast() ||
      out.station.link_layer_address.is_zero()) {
    return std::nullopt;
  }
  constexpr std::size_t kIpv6SourceAt = ETH_HLEN + 8;
  constexpr std::size_t kNextHeaderAt = ETH_HLEN + 6;
  constexpr std::size_t kPayloadAt = ETH_HLEN + 40;
  const bool ipv6 = frame.size() >= kPayloadAt && ((frame[12] << 8) | frame[13]) == kEtherTypeIpv6;
  if (!ipv6) return out;
  Ipv6Address::Bytes bytes;
  std::copy_n(frame.begin() + kIpv6SourceAt, bytes.size(), bytes.begin());
  const Ipv6Address address(bytes);
  if (address.is_link_local()) out.link_local = address;

  std::size_t type_at = 0;
  if (frame[kNextHeaderAt] == 58) type_at = kPayloadAt;
  if (frame[kNextHeaderAt] == 0 && frame.size() > kPayloadAt && frame[kPayloadAt] == 58) type_at = kPayloadAt + 8;
  if (type_at == 0 || frame.size() <= type_at) return out;
  const auto type = static_cast<Icmpv6Type>(frame[type_at]);
  switch (type) {
    case Icmpv6Type::kRouterSolicitation:
    case Icmpv6Type::kNeighbourSolicitation:
    case Icmpv6Type::kNeighbourAdvertisement:
    case Icmpv6Type::kListenerReport:
    case Icmpv6Type::kListenerDone:
    case Icmpv6Type::kListenerReportVersion2:
      break;
    default:
      return out;
  }
  absl::StatusOr<Icmpv6Packet> packet = parse_icmpv6_frame(frame);
  if (!packet.ok()) return packet.status();
  out.trigger = v1::TRIGGER_NEIGHBOUR_DISCOVERY;
  if (type == Icmpv6Type::kRouterSolicitation) {
    if (auto solicitation = parse_router_solicitation(*packet); !solicitation.ok()) return solicitation.status();
    out.trigger = v1::TRIGGER_ROUTER_SOLICITATION;
  } else if (type == Icmpv6Type::kNeighbourSolicitation) {
    absl::StatusOr<NeighbourSolicitation> solicitation = parse_neighbour_solicitation(*packet);
    if (!solicitation.ok()) return solicitation.status();
    // Duplicate address detection (RFC 4862, 5.4.2) shows the address that the MN is about to have.
    if (address.is_unspecified() && solicitation->target.is_link_local()) out.link_local = solicitation->target;
  } else if (type == Icmpv6Type::kNeighbourAdvertisement) {
    if (auto advertised = parse_neighbour_advertisement(*packet); !advertised.ok()) return advertised.status();
  } else if (absl::Status status = check_listener_report(*packet); !status.ok()) {
    return status;
  }
  return out;
}

}  // namespace kedge::speaker
