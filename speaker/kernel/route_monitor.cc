#include "speaker/kernel/route_monitor.h"

#include <linux/rtnetlink.h>

#include "speaker/kernel/netlink_monitor.h"
#include "speaker/kernel/routes.h"

namespace kedge::speaker {
namespace {

class NetlinkRouteNotices final : public RouteNotices {
 public:
  explicit NetlinkRouteNotices(std::unique_ptr<NetlinkMonitor> monitor) : monitor_(std::move(monitor)) {
    monitor_->on_message = [this](Bytes message) {
      const auto route = decode_route(message);
      if (route && route->table == RT_TABLE_MAIN && on_route) on_route(route->destination);
    };
    monitor_->on_overrun = [this] {
      if (on_overrun) on_overrun();
    };
  }

 private:
  std::unique_ptr<NetlinkMonitor> monitor_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<RouteNotices>> make_route_notices(boost::asio::any_io_executor executor) {
  constexpr auto kTableOffset = NLMSG_HDRLEN + offsetof(rtmsg, rtm_table);
  auto monitor = NetlinkMonitor::open(std::move(executor), {RTNLGRP_IPV6_ROUTE},
                                      {
                                          BPF_STMT(BPF_LD | BPF_B | BPF_ABS, kTableOffset),
                                          BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, RT_TABLE_MAIN, 0, 1),
                                          BPF_STMT(BPF_RET | BPF_K, 0xFFFFFFFF),
                                          BPF_STMT(BPF_RET | BPF_K, 0),
                                      });
  if (!monitor.ok()) return monitor.status();
  return std::make_unique<NetlinkRouteNotices>(*std::move(monitor));
}

}  // namespace kedge::speaker
