#include "speaker/kernel/links.h"

#include <linux/if_addr.h>
#include <linux/if_link.h>
#include <linux/neighbour.h>
#include <linux/rtnetlink.h>
#include <linux/veth.h>
#include <net/if.h>

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "speaker/kernel/sysctl.h"

namespace kedge::speaker {
namespace {

constexpr std::size_t kNameLimit = IFNAMSIZ - 1;

Message link_request(std::uint16_t type, std::uint16_t flags, std::uint32_t index) {
  Message message(type, flags);
  message.put_header<ifinfomsg>().ifi_index = static_cast<int>(index);
  return message;
}

absl::Status set_up(NetlinkSocket& socket, const KernelLink& link, bool up) {
  Message message(RTM_NEWLINK, 0);
  auto& header = message.put_header<ifinfomsg>();
  header.ifi_index = static_cast<int>(link.index);
  header.ifi_change = IFF_UP;
  header.ifi_flags = up ? IFF_UP : 0;
  return kernel_status(socket.request(message), absl::StrCat("set interface ", link.name, up ? " up" : " down"));
}

absl::Status set_link_layer_address(NetlinkSocket& socket, const KernelLink& link, const LinkLayerAddress& address) {
  if (link.address == address) return absl::OkStatus();
  const auto attempt = [&] {
    auto message = link_request(RTM_NEWLINK, 0, link.index);
    message.put_link_layer_address(IFLA_ADDRESS, address);
    return socket.request(message);
  };
  auto acknowledgement = attempt();
  if (!acknowledgement.ok() && link.up) {
    // Some drivers change their address only while they are down.
    if (auto status = set_up(socket, link, false); !status.ok()) return status;
    acknowledgement = attempt();
    if (auto status = set_up(socket, link, true); !status.ok()) return status;
  }
  return kernel_status(acknowledgement,
                       absl::StrCat("set the link-layer address of ", link.name, " to ", address.to_string()));
}

absl::Status set_mtu(NetlinkSocket& socket, const KernelLink& link, std::uint32_t mtu) {
  if (link.mtu == mtu) return absl::OkStatus();
  auto message = link_request(RTM_NEWLINK, 0, link.index);
  message.put_u32(IFLA_MTU, mtu);
  return kernel_status(socket.request(message), absl::StrCat("set the MTU of ", link.name, " to ", mtu));
}

absl::Status create_pair(NetlinkSocket& socket, std::uint32_t mtu) {
  auto message = link_request(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, 0);
  message.put_text(IFLA_IFNAME, kPairInner);
  message.put_u32(IFLA_MTU, mtu);
  message.put_link_layer_address(IFLA_ADDRESS, kPairInnerLinkLayerAddress);
  auto* information = message.begin_nest(IFLA_LINKINFO);
  message.put_text(IFLA_INFO_KIND, "veth");
  auto* data = message.begin_nest(IFLA_INFO_DATA);
  auto* peer = message.begin_nest(VETH_INFO_PEER);
  message.reserve(sizeof(ifinfomsg));
  message.put_text(IFLA_IFNAME, kPairOuter);
  message.put_u32(IFLA_MTU, mtu);
  message.put_link_layer_address(IFLA_ADDRESS, kPairOuterLinkLayerAddress);
  message.end_nest(peer);
  message.end_nest(data);
  message.end_nest(information);
  return kernel_status(socket.request(message), absl::StrCat("create the veth pair ", kPairInner, "-", kPairOuter));
}

absl::Status prepare_pair_end(NetlinkSocket& socket, const KernelLink& link, const LinkLayerAddress& address,
                              std::uint32_t mtu) {
  const struct {
    const char* key;
    const char* value;
  } settings[] = {
      {"disable_ipv6", "0"}, {"addr_gen_mode", "1"}, {"accept_dad", "0"}, {"accept_ra", "0"}, {"forwarding", "1"},
  };
  for (const auto& setting : settings) {
    if (auto status = set_interface_sysctl(link.name, setting.key, setting.value); !status.ok()) return status;
  }
  if (auto status = set_link_layer_address(socket, link, address); !status.ok()) return status;
  if (auto status = set_mtu(socket, link, mtu); !status.ok()) return status;
  return link.up ? absl::OkStatus() : set_up(socket, link, true);
}

absl::StatusOr<std::vector<KernelAddress>> link_local_addresses(NetlinkSocket& socket, const KernelLink& link) {
  Message message(RTM_GETADDR, NLM_F_DUMP);
  auto& header = message.put_header<ifaddrmsg>();
  header.ifa_family = AF_INET6;
  header.ifa_index = link.index;
  std::vector<KernelAddress> found;
  const auto acknowledgement = socket.dump(message, [&](Bytes answer) {
    const auto address = decode_address(answer);
    if (address && address->interface == link.index && address->address.is_link_local()) found.push_back(*address);
  });
  if (!acknowledgement.ok()) return kernel_status(acknowledgement, absl::StrCat("list the addresses of ", link.name));
  return found;
}

absl::Status change_address(NetlinkSocket& socket, const KernelLink& link, const KernelAddress& address, bool add) {
  Message message(add ? RTM_NEWADDR : RTM_DELADDR, add ? NLM_F_CREATE | NLM_F_REPLACE : 0);
  auto& header = message.put_header<ifaddrmsg>();
  header.ifa_family = AF_INET6;
  header.ifa_prefixlen = static_cast<std::uint8_t>(address.length);
  header.ifa_index = link.index;
  message.put_address(IFA_LOCAL, address.address);
  message.put_address(IFA_ADDRESS, address.address);
  if (add) message.put_u32(IFA_FLAGS, IFA_F_NODAD | IFA_F_PERMANENT);
  const auto acknowledgement = socket.request(message);
  if (!add && acknowledgement.error == EADDRNOTAVAIL) return absl::OkStatus();
  return kernel_status(acknowledgement, absl::StrCat(add ? "add address " : "delete address ",
                                                     address.address.to_string(), add ? " to " : " of ", link.name));
}

std::optional<ndmsg> put_neighbour(Message& message, const KernelNeighbour& neighbour) {
  auto& header = message.put_header<ndmsg>();
  header.ndm_family = AF_INET6;
  header.ndm_ifindex = static_cast<int>(neighbour.interface);
  header.ndm_state = NUD_PERMANENT;
  message.put_address(NDA_DST, neighbour.address);
  return header;
}

}  // namespace

std::optional<KernelLink> decode_link(Bytes message) {
  const auto header = read_structure<nlmsghdr>(message);
  const auto payload = message_payload(message);
  if (!header || !payload || (header->nlmsg_type != RTM_NEWLINK && header->nlmsg_type != RTM_DELLINK)) {
    return std::nullopt;
  }
  const auto i = read_structure<ifinfomsg>(*payload);
  // Bridges report their ports with a family of their own; those are no notices about the interface itself.
  if (!i || i->ifi_family != AF_UNSPEC || i->ifi_index <= 0) return std::nullopt;
  KernelLink link;
  link.index = static_cast<std::uint32_t>(i->ifi_index);
  link.up = (i->ifi_flags & IFF_UP) != 0;
  link.running = link.up && (i->ifi_flags & IFF_RUNNING) != 0;
  const bool whole =
      for_each_attribute(payload->subspan(NLMSG_ALIGN(sizeof(ifinfomsg))), [&](std::uint16_t type, Bytes value) {
        if (type == IFLA_IFNAME) link.name = read_text(value);
        if (type == IFLA_MTU) link.mtu = read_u32(value).value_or(0);
        if (type == IFLA_LINK) link.peer = read_u32(value).value_or(0);
        if (type == IFLA_ADDRESS) link.address = read_link_layer_address(value).value_or(LinkLayerAddress());
        if (type == IFLA_LINKINFO) {
          for_each_attribute(value, [&](std::uint16_t inner, Bytes text) {
            if (inner == IFLA_INFO_KIND) link.kind = read_text(text);
          });
        }
      });
  if (!whole || link.name.empty()) return std::nullopt;
  return link;
}

std::optional<KernelAddress> decode_address(Bytes message) {
  const auto header = read_structure<nlmsghdr>(message);
  const auto payload = message_payload(message);
  if (!header || !payload || (header->nlmsg_type != RTM_NEWADDR && header->nlmsg_type != RTM_DELADDR)) {
    return std::nullopt;
  }
  const auto a = read_structure<ifaddrmsg>(*payload);
  if (!a || a->ifa_family != AF_INET6 || a->ifa_prefixlen > 128) return std::nullopt;
  KernelAddress result;
  result.interface = a->ifa_index;
  result.length = a->ifa_prefixlen;
  std::optional<Ipv6Address> local;
  std::optional<Ipv6Address> peer;
  const bool whole =
      for_each_attribute(payload->subspan(NLMSG_ALIGN(sizeof(ifaddrmsg))), [&](std::uint16_t type, Bytes value) {
        if (type == IFA_LOCAL) local = read_address(value);
        if (type == IFA_ADDRESS) peer = read_address(value);
      });
  if (!whole || (!local && !peer)) return std::nullopt;
  result.address = local ? *local : *peer;
  return result;
}

std::optional<KernelNeighbour> decode_neighbour(Bytes message) {
  const auto header = read_structure<nlmsghdr>(message);
  const auto payload = message_payload(message);
  if (!header || !payload || (header->nlmsg_type != RTM_NEWNEIGH && header->nlmsg_type != RTM_DELNEIGH)) {
    return std::nullopt;
  }
  const auto n = read_structure<ndmsg>(*payload);
  if (!n || n->ndm_family != AF_INET6 || n->ndm_ifindex <= 0) return std::nullopt;
  KernelNeighbour neighbour;
  neighbour.interface = static_cast<std::uint32_t>(n->ndm_ifindex);
  std::optional<Ipv6Address> address;
  const bool whole =
      for_each_attribute(payload->subspan(NLMSG_ALIGN(sizeof(ndmsg))), [&](std::uint16_t type, Bytes value) {
        if (type == NDA_DST) address = read_address(value);
        if (type == NDA_LLADDR) {
          neighbour.link_layer_address = read_link_layer_address(value).value_or(LinkLayerAddress());
        }
        if (type == NDA_PROTOCOL) neighbour.protocol = read_structure<std::uint8_t>(value).value_or(0);
      });
  if (!whole || !address) return std::nullopt;
  neighbour.address = *address;
  return neighbour;
}

Message encode_neighbour(const KernelNeighbour& neighbour) {
  Message message(RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE);
  put_neighbour(message, neighbour);
  message.put_link_layer_address(NDA_LLADDR, neighbour.link_layer_address);
  message.put_u8(NDA_PROTOCOL, neighbour.protocol);
  return message;
}

Message encode_neighbour_delete(const KernelNeighbour& neighbour) {
  Message message(RTM_DELNEIGH, 0);
  put_neighbour(message, neighbour);
  return message;
}

absl::StatusOr<KernelLink> get_link(NetlinkSocket& socket, const std::string& name) {
  if (name.empty() || name.size() > kNameLimit || name.find('/') != std::string::npos) {
    return absl::InvalidArgumentError(absl::StrCat("\"", name, "\" is no interface name: 1 to 15 bytes without \"/\""));
  }
  Message message(RTM_GETLINK, 0);
  message.put_header<ifinfomsg>();
  message.put_text(IFLA_IFNAME, name);
  std::optional<KernelLink> link;
  const auto acknowledgement = socket.get(message, [&](Bytes answer) { link = decode_link(answer); });
  if (acknowledgement.error == ENODEV) return absl::NotFoundError(absl::StrCat("there is no interface ", name));
  if (!acknowledgement.ok()) return kernel_status(acknowledgement, absl::StrCat("read interface ", name));
  if (!link) return absl::InternalError(absl::StrCat("cannot read interface ", name, ": malformed answer"));
  return *link;
}

absl::StatusOr<KernelLink> ensure_pair(NetlinkSocket& socket, std::uint32_t access_mtu, std::uint8_t protocol) {
  const std::uint32_t mtu = access_mtu - kTunnelOverhead;
  auto inner = get_link(socket, kPairInner);
  auto outer = get_link(socket, kPairOuter);
  if (absl::IsNotFound(inner.status()) && absl::IsNotFound(outer.status())) {
    if (auto status = create_pair(socket, mtu); !status.ok()) return status;
    inner = get_link(socket, kPairInner);
    outer = get_link(socket, kPairOuter);
  }
  if (!inner.ok() || !outer.ok() || inner->kind != "veth" || inner->peer != outer->index) {
    return absl::FailedPreconditionError(absl::StrCat("interfaces ", kPairInner, " and ", kPairOuter,
                                                      " are not one veth pair; remove or rename what has these names"));
  }
  if (auto status = prepare_pair_end(socket, *outer, kPairOuterLinkLayerAddress, mtu); !status.ok()) return status;
  if (auto status = prepare_pair_end(socket, *inner, kPairInnerLinkLayerAddress, mtu); !status.ok()) return status;
  auto neighbour = encode_neighbour({inner->index, kPairGateway, kPairOuterLinkLayerAddress, protocol});
  if (auto status = kernel_status(socket.request(neighbour), absl::StrCat("preset the neighbour on ", kPairInner));
      !status.ok()) {
    return status;
  }
  return get_link(socket, kPairInner);
}

absl::Status prepare_access_interface(NetlinkSocket& socket, const KernelLink& link, const Ipv6Address& link_local,
                                      const LinkLayerAddress& link_layer_address) {
  const struct {
    const char* key;
    const char* value;
  } settings[] = {
      {"disable_ipv6", "0"}, {"addr_gen_mode", "1"},    {"accept_dad", "0"}, {"dad_transmits", "0"},
      {"accept_ra", "0"},    {"accept_redirects", "0"}, {"forwarding", "1"},
  };
  for (const auto& setting : settings) {
    if (auto status = set_interface_sysctl(link.name, setting.key, setting.value); !status.ok()) return status;
  }
  if (auto status = set_link_layer_address(socket, link, link_layer_address); !status.ok()) return status;
  if (!link.up) {
    if (auto status = set_up(socket, link, true); !status.ok()) return status;
  }
  const auto addresses = link_local_addresses(socket, link);
  if (!addresses.ok()) return addresses.status();
  const KernelAddress wanted{link.index, link_local, 64};
  if (std::find(addresses->begin(), addresses->end(), wanted) == addresses->end()) {
    if (auto status = change_address(socket, link, wanted, true); !status.ok()) return status;
  }
  for (const auto& address : *addresses) {
    if (address == wanted) continue;
    if (auto status = change_address(socket, link, address, false); !status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::Status remove_pair(NetlinkSocket& socket) {
  const auto link = get_link(socket, kPairInner);
  if (absl::IsNotFound(link.status())) return absl::OkStatus();
  if (!link.ok()) return link.status();
  if (link->kind != "veth") return absl::OkStatus();
  auto message = link_request(RTM_DELLINK, 0, link->index);
  return kernel_status(socket.request(message), absl::StrCat("delete the pair ", kPairInner, "-", kPairOuter));
}

absl::Status remove_neighbours(NetlinkSocket& socket, std::uint8_t protocol) {
  Message message(RTM_GETNEIGH, NLM_F_DUMP);
  message.put_header<ndmsg>().ndm_family = AF_INET6;
  std::vector<Message> deletes;
  const auto acknowledgement = socket.dump(message, [&](Bytes answer) {
    const auto neighbour = decode_neighbour(answer);
    if (neighbour && neighbour->protocol == protocol) deletes.push_back(encode_neighbour_delete(*neighbour));
  });
  if (!acknowledgement.ok()) return kernel_status(acknowledgement, "list the neighbours");
  absl::Status result;
  for (const auto& a : socket.batch(absl::MakeSpan(deletes))) {
    if (a.error != ENOENT) result.Update(kernel_status(a, "delete a neighbour"));
  }
  return result;
}

}  // namespace kedge::speaker
