#include "tests/component/kernel/topology.h"

#include <arpa/inet.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <netinet/ip6.h>
#include <netinet/udp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstring>

#include "gtest/gtest.h"

namespace kedge::speaker::testing {

Ipv6Address address(const std::string& text) { return Ipv6Address::parse(text).value(); }
Ipv6Prefix prefix(const std::string& text) { return Ipv6Prefix::parse(text).value(); }

AccessRouter::AccessRouter(int number) : space("ar" + std::to_string(number)), number_(number) {
  config.access_interfaces = {"acc"};
  config.access_link_local = address("fe80::a");
  config.access_link_layer_address = LinkLayerAddress::parse("02:00:00:00:aa:aa").value();
}

AccessRouter::~AccessRouter() { stop(); }

absl::Status AccessRouter::start() {
  return space.run([this]() -> absl::Status {
    auto made = make_kernel_forwarding_plane(space.context().get_executor(), config);
    if (!made.ok()) return made.status();
    plane = *std::move(made);
    plane->on_programmed = [this](const Ipv6Prefix& p) { programmed.push_back(p); };
    plane->on_health = [this](const absl::Status& s) { health.push_back(s); };
    return plane->set_identity(locator(), deliver_sid(), uplink_sid());
  });
}

void AccessRouter::stop() {
  space.run([this] { plane.reset(); });
}

absl::Status AccessRouter::set(const Ipv6Prefix& p, const std::optional<Route>& route) {
  return space.run([&] { return plane->set(p, route); });
}

absl::Status AccessRouter::replace_all(const std::map<Ipv6Prefix, Route>& routes) {
  return space.run([&] { return plane->replace_all(routes); });
}

bool AccessRouter::holds(const std::string& table, const std::string& text) {
  return space.shell("ip -6 route show table " + table + " || true").find(text) != std::string::npos;
}

Topology::Topology() {
  for (auto* ar : {&ar1, &ar2}) {
    const std::string n = ar == &ar1 ? "1" : "2";
    connect(ar->space, "upl", core, "c" + n);
    ar->space.shell("ip addr add 2001:db8:c:" + n + "::2/64 dev upl nodad");
    ar->space.shell("ip addr add " + ar->locator().to_string() + "/128 dev lo");
    ar->space.shell("ip -6 route add default via 2001:db8:c:" + n + "::1");
    // The home aggregate, as an operator has it: what the speaker's tables miss for a moment is lost, not sent around.
    ar->space.shell("ip -6 route add blackhole 2001:db8:d::/48");
    core.shell("ip addr add 2001:db8:c:" + n + "::1/64 dev c" + n + " nodad");
    core.shell("ip -6 route add 2001:db8:a" + n + "::/48 via 2001:db8:c:" + n + "::2");
  }
  connect(cn, "eth", core, "c3");
  cn.shell("ip addr add 2001:db8:c:3::2/64 dev eth nodad");
  core.shell("ip addr add 2001:db8:c:3::1/64 dev c3 nodad");
  cn.shell("ip -6 route add default via 2001:db8:c:3::1");
  core.shell("echo 1 > /proc/sys/net/ipv6/conf/all/forwarding");
  core.shell("ip -6 route add 2001:db8:d::/48 via 2001:db8:c:1::2");
  attach(mn1, ar1);
  attach(mn2, ar2);
  EXPECT_TRUE(ar1.start().ok());
  EXPECT_TRUE(ar2.start().ok());
}

void Topology::attach(Namespace& node, AccessRouter& router) {
  connect(node, "eth", router.space, "acc");
  node.shell("ip link set eth address 02:00:00:00:00:11");
  node.shell("ip addr add fe80::11/64 dev eth nodad");
  node.shell("ip addr add 2001:db8:d:1::11/128 dev eth nodad");
  node.shell("ip -6 route add default via fe80::a dev eth");
}

Route Topology::deliver() const {
  Route route;
  route.kind = Route::Kind::kDeliver;
  route.interface = "acc";
  route.link_local = address("fe80::11");
  route.link_layer_address = LinkLayerAddress::parse("02:00:00:00:00:11").value();
  return route;
}

Route Topology::redirect(const AccessRouter& to) const {
  Route route;
  route.kind = Route::Kind::kRedirect;
  route.segment = to.deliver_sid();
  return route;
}

std::string Topology::ping(const std::string& options) {
  return cn.shell("ping -n -c 3 -i 0.05 -W 3 " + options + " " + mobile_address + " || true");
}

Capture::Capture(Namespace& space, const std::string& interface)
    : fd_(space.run([&] {
        const int fd = ::socket(AF_PACKET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, htons(ETH_P_ALL));
        const int size = 8 << 20;
        ::setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof size);
        sockaddr_ll a{};
        a.sll_family = AF_PACKET;
        a.sll_protocol = htons(ETH_P_ALL);
        a.sll_ifindex = static_cast<int>(::if_nametoindex(interface.c_str()));
        EXPECT_EQ(::bind(fd, reinterpret_cast<sockaddr*>(&a), sizeof a), 0) << interface;
        return fd;
      })) {}

Capture::~Capture() { ::close(fd_); }

std::vector<std::string> Capture::take() {
  std::vector<std::string> result;
  char packet[2048];
  ssize_t size = 0;
  while ((size = ::recv(fd_, packet, sizeof packet, 0)) > 0) {
    const auto header = [&](std::size_t at) -> std::optional<ip6_hdr> {
      ip6_hdr ip{};
      if (static_cast<std::size_t>(size) < at + sizeof ip) return std::nullopt;
      std::memcpy(&ip, packet + at, sizeof ip);
      return ip.ip6_vfc >> 4 == 6 ? std::optional(ip) : std::nullopt;
    };
    const auto text = [](const ip6_hdr& ip) {
      return Ipv6Address(ip.ip6_src).to_string() + " > " + Ipv6Address(ip.ip6_dst).to_string();
    };
    const auto outer = header(0);
    if (!outer || Ipv6Address(outer->ip6_src).is_link_local()) continue;
    const auto inner = outer->ip6_nxt == IPPROTO_IPV6 ? header(sizeof(ip6_hdr)) : std::nullopt;
    result.push_back(text(*outer) + (inner ? " (" + text(*inner) + ")" : ""));
  }
  return result;
}

int udp_sender(Namespace& space, const std::string& to, std::uint16_t port) {
  return space.run([&] {
    const int fd = ::socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    sockaddr_in6 a{};
    a.sin6_family = AF_INET6;
    a.sin6_port = htons(port);
    a.sin6_addr = address(to).to_in6_addr();
    EXPECT_EQ(::connect(fd, reinterpret_cast<sockaddr*>(&a), sizeof a), 0);
    return fd;
  });
}

int udp_receiver(Namespace& space, std::uint16_t port) {
  return space.run([&] {
    const int fd = ::socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    const int size = 8 << 20;
    const int on = 1;
    ::setsockopt(fd, IPPROTO_IPV6, IPV6_RECVHOPLIMIT, &on, sizeof on);
    ::setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof size);
    sockaddr_in6 a{};
    a.sin6_family = AF_INET6;
    a.sin6_port = htons(port);
    EXPECT_EQ(::bind(fd, reinterpret_cast<sockaddr*>(&a), sizeof a), 0);
    return fd;
  });
}

int receive_hop_limit(int receiver) {
  char payload[64];
  alignas(cmsghdr) char control[128];
  iovec part{payload, sizeof payload};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  pollfd waiting{receiver, POLLIN, 0};
  if (::poll(&waiting, 1, 10'000) != 1 || ::recvmsg(receiver, &message, 0) < 0) return -1;
  for (auto* c = CMSG_FIRSTHDR(&message); c != nullptr; c = CMSG_NXTHDR(&message, c)) {
    if (c->cmsg_level != IPPROTO_IPV6 || c->cmsg_type != IPV6_HOPLIMIT) continue;
    int limit = 0;
    std::memcpy(&limit, CMSG_DATA(c), sizeof limit);
    return limit;
  }
  return -1;
}

void send_ip_in_ip(Namespace& space, const std::string& outer, const std::string& inner_source,
                   const std::string& inner_destination, int count, std::uint16_t port) {
  struct {
    ip6_hdr ip{};
    udphdr udp{};
    char payload[8] = {};
  } inner;
  inner.ip.ip6_flow = htonl(6U << 28);
  inner.ip.ip6_plen = htons(sizeof inner.udp + sizeof inner.payload);
  inner.ip.ip6_nxt = IPPROTO_UDP;
  inner.ip.ip6_hlim = 64;
  inner.ip.ip6_src = address(inner_source).to_in6_addr();
  inner.ip.ip6_dst = address(inner_destination).to_in6_addr();
  inner.udp.uh_sport = htons(port);
  inner.udp.uh_dport = htons(port);
  inner.udp.uh_ulen = inner.ip.ip6_plen;
  // RFC 8200, 8.1: the pseudo-header's sum.
  std::uint32_t sum = IPPROTO_UDP + sizeof inner.udp + sizeof inner.payload;
  const auto add = [&sum](const void* data, std::size_t size) {
    const auto* bytes = static_cast<const std::uint8_t*>(data);
    for (std::size_t i = 0; i < size; i += 2) sum += static_cast<std::uint32_t>(bytes[i] << 8 | bytes[i + 1]);
  };
  add(&inner.ip.ip6_src, 32);
  add(&inner.udp, sizeof inner.udp + sizeof inner.payload);
  while (sum > 0xFFFF) sum = (sum & 0xFFFF) + (sum >> 16);
  inner.udp.uh_sum = htons(static_cast<std::uint16_t>(~sum));

  space.run([&] {
    const int fd = ::socket(AF_INET6, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_IPV6);
    sockaddr_in6 a{};
    a.sin6_family = AF_INET6;
    a.sin6_addr = address(outer).to_in6_addr();
    for (int i = 0; i < count; ++i) {
      EXPECT_EQ(::sendto(fd, &inner, sizeof inner, 0, reinterpret_cast<sockaddr*>(&a), sizeof a),
                static_cast<ssize_t>(sizeof inner));
    }
    ::close(fd);
  });
}

}  // namespace kedge::speaker::testing
