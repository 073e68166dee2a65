#include "speaker/kernel/routes.h"

#include <linux/lwtunnel.h>
#include <linux/rtnetlink.h>
#include <linux/seg6_iptunnel.h>
#include <linux/seg6_local.h>

namespace kedge::speaker {
namespace {

constexpr std::size_t kOneSegmentHeader = sizeof(ipv6_sr_hdr) + sizeof(in6_addr);

rtmsg& put_route_header(Message& message, const KernelRoute& route) {
  auto& r = message.put_header<rtmsg>();
  r.rtm_family = AF_INET6;
  r.rtm_dst_len = static_cast<std::uint8_t>(route.destination.length());
  r.rtm_src_len = static_cast<std::uint8_t>(route.source ? route.source->length() : 0);
  r.rtm_table = static_cast<std::uint8_t>(route.table < 256 ? route.table : RT_TABLE_COMPAT);
  r.rtm_protocol = route.protocol;
  r.rtm_scope = RT_SCOPE_UNIVERSE;
  return r;
}

void put_key(Message& message, const KernelRoute& route) {
  message.put_address(RTA_DST, route.destination.address());
  if (route.source) message.put_address(RTA_SRC, route.source->address());
  message.put_u32(RTA_TABLE, route.table);
  message.put_u32(RTA_PRIORITY, route.metric);
}

void put_encapsulation(Message& message, const Ipv6Address& segment) {
  std::array<std::uint8_t, sizeof(seg6_iptunnel_encap) + kOneSegmentHeader> bytes{};
  const int mode = SEG6_IPTUN_MODE_ENCAP_RED;
  std::memcpy(bytes.data(), &mode, sizeof mode);
  ipv6_sr_hdr header{};
  // RFC 8754, 2: "Hdr Ext Len", in units of 8 octets, not including the first 8.
  header.hdrlen = kOneSegmentHeader / 8 - 1;
  header.type = 4;
  std::memcpy(bytes.data() + sizeof(seg6_iptunnel_encap), &header, sizeof header);
  std::memcpy(bytes.data() + sizeof(seg6_iptunnel_encap) + sizeof header, segment.bytes().data(), 16);

  auto* nest = message.begin_nest(RTA_ENCAP);
  message.put(SEG6_IPTUNNEL_SRH, bytes);
  message.end_nest(nest);
  message.put_u16(RTA_ENCAP_TYPE, LWTUNNEL_ENCAP_SEG6);
}

void put_local_action(Message& message, const KernelRoute& route) {
  auto* nest = message.begin_nest(RTA_ENCAP);
  if (route.kind == KernelRoute::Kind::kDecapsulate) {
    message.put_u32(SEG6_LOCAL_ACTION, SEG6_LOCAL_ACTION_END_DT6);
    message.put_u32(SEG6_LOCAL_TABLE, route.inner_table);
  } else {
    message.put_u32(SEG6_LOCAL_ACTION, SEG6_LOCAL_ACTION_END_DX6);
    message.put_address(SEG6_LOCAL_NH6, Ipv6Address());
  }
  message.end_nest(nest);
  message.put_u16(RTA_ENCAP_TYPE, LWTUNNEL_ENCAP_SEG6_LOCAL);
}

bool decode_encapsulation(Bytes encapsulation, KernelRoute& route) {
  bool ours = false;
  const bool whole = for_each_attribute(encapsulation, [&](std::uint16_t type, Bytes value) {
    if (type != SEG6_IPTUNNEL_SRH || value.size() != sizeof(seg6_iptunnel_encap) + kOneSegmentHeader) return;
    if (read_structure<int>(value) != SEG6_IPTUN_MODE_ENCAP_RED) return;
    route.segment = *read_address(value.last(16));
    ours = true;
  });
  return whole && ours;
}

bool decode_local_action(Bytes encapsulation, KernelRoute& route) {
  std::uint32_t action = 0;
  Ipv6Address next_hop;
  const bool whole = for_each_attribute(encapsulation, [&](std::uint16_t type, Bytes value) {
    if (type == SEG6_LOCAL_ACTION) action = read_u32(value).value_or(0);
    if (type == SEG6_LOCAL_TABLE) route.inner_table = read_u32(value).value_or(0);
    if (type == SEG6_LOCAL_NH6) next_hop = read_address(value).value_or(Ipv6Address());
  });
  if (!whole) return false;
  if (action == SEG6_LOCAL_ACTION_END_DT6 && route.inner_table != 0) {
    route.kind = KernelRoute::Kind::kDecapsulate;
    return true;
  }
  if (action == SEG6_LOCAL_ACTION_END_DX6 && next_hop.is_unspecified()) {
    route.kind = KernelRoute::Kind::kUplink;
    return true;
  }
  return false;
}

}  // namespace

Message encode_replace(const KernelRoute& route) {
  using Kind = KernelRoute::Kind;
  Message message(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE);
  auto& r = put_route_header(message, route);
  r.rtm_type = RTN_UNICAST;
  if (route.kind == Kind::kUnreachable) r.rtm_type = RTN_UNREACHABLE;
  if (route.kind == Kind::kBlackhole) r.rtm_type = RTN_BLACKHOLE;
  if (route.kind == Kind::kProhibit) r.rtm_type = RTN_PROHIBIT;
  put_key(message, route);
  if (route.interface != 0) message.put_u32(RTA_OIF, route.interface);
  switch (route.kind) {
    case Kind::kVia:
      message.put_address(RTA_GATEWAY, route.gateway);
      break;
    case Kind::kEncapsulate:
      put_encapsulation(message, route.segment);
      break;
    case Kind::kDecapsulate:
    case Kind::kUplink:
      put_local_action(message, route);
      break;
    case Kind::kUnreachable:
    case Kind::kBlackhole:
    case Kind::kProhibit:
    case Kind::kOther:
      break;
  }
  return message;
}

Message encode_delete(const KernelRoute& route) {
  Message message(RTM_DELROUTE, 0);
  put_route_header(message, route);
  put_key(message, route);
  return message;
}

Message encode_dump(std::uint32_t table, std::uint8_t protocol) {
  Message message(RTM_GETROUTE, NLM_F_DUMP);
  auto& r = message.put_header<rtmsg>();
  r.rtm_family = AF_INET6;
  r.rtm_protocol = protocol;
  message.put_u32(RTA_TABLE, table);
  return message;
}

std::optional<KernelRoute> decode_route(Bytes message) {
  using Kind = KernelRoute::Kind;
  const auto header = read_structure<nlmsghdr>(message);
  const auto payload = message_payload(message);
  if (!header || !payload) return std::nullopt;
  if (header->nlmsg_type != RTM_NEWROUTE && header->nlmsg_type != RTM_DELROUTE) return std::nullopt;
  const auto r = read_structure<rtmsg>(*payload);
  if (!r || r->rtm_family != AF_INET6 || (r->rtm_flags & RTM_F_CLONED) != 0) return std::nullopt;
  if (r->rtm_dst_len > 128 || r->rtm_src_len > 128) return std::nullopt;

  KernelRoute route;
  route.table = r->rtm_table;
  route.protocol = r->rtm_protocol;
  Ipv6Address destination;
  Ipv6Address source;
  Bytes encapsulation;
  std::uint16_t encapsulation_type = LWTUNNEL_ENCAP_NONE;
  bool has_gateway = false;
  bool good = true;
  const auto take = [&good](auto& into, auto value) {
    if (value) {
      into = *value;
    } else {
      good = false;
    }
  };
  const bool whole = for_each_attribute(payload->subspan(NLMSG_ALIGN(sizeof(rtmsg))), [&](std::uint16_t type, Bytes v) {
    switch (type) {
      case RTA_DST:
        return take(destination, read_address(v));
      case RTA_SRC:
        return take(source, read_address(v));
      case RTA_TABLE:
        return take(route.table, read_u32(v));
      case RTA_PRIORITY:
        return take(route.metric, read_u32(v));
      case RTA_OIF:
        return take(route.interface, read_u32(v));
      case RTA_GATEWAY:
        has_gateway = true;
        return take(route.gateway, read_address(v));
      case RTA_ENCAP_TYPE:
        return take(encapsulation_type, read_structure<std::uint16_t>(v));
      case RTA_ENCAP:
        encapsulation = v;
        return;
      default:
        return;
    }
  });
  if (!whole || !good) return std::nullopt;

  route.destination = Ipv6Prefix(destination, r->rtm_dst_len);
  if (r->rtm_src_len > 0) route.source = Ipv6Prefix(source, r->rtm_src_len);
  if (r->rtm_type == RTN_UNREACHABLE || r->rtm_type == RTN_BLACKHOLE || r->rtm_type == RTN_PROHIBIT) {
    // The kernel shows these on `lo`.
    route.interface = 0;
    route.kind = r->rtm_type == RTN_UNREACHABLE ? Kind::kUnreachable
                 : r->rtm_type == RTN_BLACKHOLE ? Kind::kBlackhole
                                                : Kind::kProhibit;
  } else if (r->rtm_type != RTN_UNICAST) {
    route.kind = Kind::kOther;
  } else if (encapsulation_type == LWTUNNEL_ENCAP_SEG6) {
    if (decode_encapsulation(encapsulation, route)) route.kind = Kind::kEncapsulate;
  } else if (encapsulation_type == LWTUNNEL_ENCAP_SEG6_LOCAL) {
    decode_local_action(encapsulation, route);
  } else if (encapsulation_type == LWTUNNEL_ENCAP_NONE && has_gateway) {
    route.kind = Kind::kVia;
  }
  return route;
}

}  // namespace kedge::speaker
