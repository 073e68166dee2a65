#include "speaker/kernel/anchor_routes.h"

#include <arpa/inet.h>
#include <linux/rtnetlink.h>

#include <cerrno>
#include <cstddef>
#include <utility>

#include "absl/strings/str_cat.h"
#include "speaker/kernel/netlink_monitor.h"
#include "speaker/kernel/netlink_socket.h"

namespace kedge::speaker {
namespace {

// FRR, zebra/rt_netlink.h: RTPROT_BGP to RTPROT_SRTE, and RTPROT_ZEBRA, which the kernel has.
constexpr std::uint8_t kFirstOfFrr = 186;
constexpr std::uint8_t kLastOfFrr = 198;
// What the operator has configured, as the kernel's own routes are.
constexpr std::uint8_t kStaticOfFrr = 196;
constexpr std::uint8_t kBabel = 42;

bool is_learnt(std::uint8_t protocol) {
  return protocol == RTPROT_ZEBRA || protocol == kBabel ||
         (protocol >= kFirstOfFrr && protocol <= kLastOfFrr && protocol != kStaticOfFrr);
}

// A router may have a million routes of BGP, which come and go: they take no room in our buffer. Nor do our own
// changes.
std::vector<sock_filter> notices_of_others(std::uint32_t own_port) {
  constexpr auto kPort = offsetof(nlmsghdr, nlmsg_pid);
  constexpr auto kTable = NLMSG_HDRLEN + offsetof(rtmsg, rtm_table);
  constexpr auto kProtocol = NLMSG_HDRLEN + offsetof(rtmsg, rtm_protocol);
  return {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, kPort),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, htonl(own_port), 8, 0),
      BPF_STMT(BPF_LD | BPF_B | BPF_ABS, kTable),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, RT_TABLE_MAIN, 0, 6),
      BPF_STMT(BPF_LD | BPF_B | BPF_ABS, kProtocol),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, RTPROT_ZEBRA, 4, 0),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, kStaticOfFrr, 2, 0),
      BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, kFirstOfFrr, 0, 1),
      BPF_JUMP(BPF_JMP | BPF_JGT | BPF_K, kLastOfFrr, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, 0xFFFFFFFF),
      BPF_STMT(BPF_RET | BPF_K, 0),
  };
}

Message encode(const AnchorRouteChange& change, std::uint8_t protocol) {
  KernelRoute route;
  route.kind = KernelRoute::Kind::kBlackhole;
  route.table = RT_TABLE_MAIN;
  route.protocol = protocol;
  route.metric = change.metric;
  route.destination = change.prefix;
  return change.add ? encode_replace(route) : encode_delete(route);
}

absl::Status judge(const AnchorRouteChange& change, const Acknowledgement& acknowledgement) {
  if (acknowledgement.ok() || (!change.add && acknowledgement.error == ESRCH)) return absl::OkStatus();
  return kernel_status(acknowledgement, absl::StrCat(change.add ? "add" : "remove", " blackhole route ",
                                                     change.prefix.to_string(), " of table main"));
}

class NetlinkAnchorRoutes final : public AnchorRoutes {
 public:
  NetlinkAnchorRoutes(NetlinkSocket socket, std::unique_ptr<NetlinkMonitor> monitor, std::uint8_t protocol)
      : socket_(std::move(socket)), monitor_(std::move(monitor)), protocol_(protocol) {
    monitor_->on_message = [this](Bytes message) {
      const auto route = decode_route(message);
      if (!route || route->table != RT_TABLE_MAIN || is_learnt(route->protocol) || !on_change) return;
      on_change(*route, read_structure<nlmsghdr>(message)->nlmsg_type == RTM_NEWROUTE);
    };
    monitor_->on_overrun = [this] {
      if (on_overrun) on_overrun();
    };
  }

  absl::Status read(const std::function<void(const KernelRoute&)>& visit) override {
    auto dump = encode_dump(RT_TABLE_MAIN, 0);
    const auto answer = socket_.dump(dump, [&](Bytes message) {
      const auto route = decode_route(message);
      if (route && route->table == RT_TABLE_MAIN && !is_learnt(route->protocol)) visit(*route);
    });
    return answer.error == ENOENT ? absl::OkStatus() : kernel_status(answer, "read the table main");
  }

  std::vector<absl::Status> write(absl::Span<const AnchorRouteChange> changes) override {
    std::vector<Message> messages;
    messages.reserve(changes.size());
    for (const auto& change : changes) messages.push_back(encode(change, protocol_));
    const auto acknowledgements = socket_.batch(absl::MakeSpan(messages));
    std::vector<absl::Status> results;
    results.reserve(changes.size());
    for (std::size_t i = 0; i < changes.size(); ++i) results.push_back(judge(changes[i], acknowledgements[i]));
    return results;
  }

  std::optional<ZebraListener> zebra() const override { return find_zebra(); }

 private:
  NetlinkSocket socket_;
  std::unique_ptr<NetlinkMonitor> monitor_;
  const std::uint8_t protocol_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<AnchorRoutes>> make_anchor_routes(boost::asio::any_io_executor executor,
                                                                 std::uint8_t protocol) {
  auto socket = NetlinkSocket::open(NETLINK_ROUTE);
  if (!socket.ok()) return socket.status();
  auto monitor = NetlinkMonitor::open(std::move(executor), {RTNLGRP_IPV6_ROUTE}, notices_of_others(socket->port_id()));
  if (!monitor.ok()) return monitor.status();
  return std::make_unique<NetlinkAnchorRoutes>(*std::move(socket), *std::move(monitor), protocol);
}

absl::Status remove_anchor_routes(std::uint8_t protocol) {
  auto socket = NetlinkSocket::open(NETLINK_ROUTE);
  if (!socket.ok()) return socket.status();
  std::vector<Message> deletes;
  auto dump = encode_dump(RT_TABLE_MAIN, protocol);
  const auto answer = socket->dump(dump, [&](Bytes message) {
    const auto route = decode_route(message);
    if (route && route->table == RT_TABLE_MAIN && route->protocol == protocol) {
      deletes.push_back(encode_delete(*route));
    }
  });
  absl::Status result;
  if (answer.error != ENOENT) result.Update(kernel_status(answer, "read the table main"));
  for (const auto& one : socket->batch(absl::MakeSpan(deletes))) {
    if (one.error != ESRCH) result.Update(kernel_status(one, "remove a route of the table main"));
  }
  return result;
}

}  // namespace kedge::speaker
