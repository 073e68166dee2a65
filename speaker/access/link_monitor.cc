#include "speaker/access/link_monitor.h"

#include <libmnl/libmnl.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/log.h"

namespace kedge::speaker {
namespace {

LinkState to_link_state(const nlmsghdr* header) {
  const auto* info = static_cast<const ifinfomsg*>(mnl_nlmsg_get_payload(header));
  LinkState state;
  state.index = static_cast<std::uint32_t>(info->ifi_index);
  state.removed = header->nlmsg_type == RTM_DELLINK;
  state.up = !state.removed && (info->ifi_flags & IFF_UP) != 0 && (info->ifi_flags & IFF_RUNNING) != 0;
  for (const auto* attribute = static_cast<const nlattr*>(mnl_nlmsg_get_payload_offset(header, sizeof(*info)));
       mnl_attr_ok(attribute, static_cast<int>(static_cast<const char*>(mnl_nlmsg_get_payload_tail(header)) -
                                               reinterpret_cast<const char*>(attribute)));
       attribute = mnl_attr_next(attribute)) {
    if (mnl_attr_get_type(attribute) == IFLA_IFNAME) state.name = mnl_attr_get_str(attribute);
    if (mnl_attr_get_type(attribute) == IFLA_CARRIER_UP_COUNT) state.carrier_ups = mnl_attr_get_u32(attribute);
  }
  return state;
}

}  // namespace

absl::StatusOr<std::unique_ptr<LinkMonitor>> LinkMonitor::open(const boost::asio::any_io_executor& executor,
                                                               OnLink on_link) {
  const int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
  if (fd < 0) return absl::ErrnoToStatus(errno, "cannot open a netlink socket for the access interfaces");
  sockaddr_nl address{};
  address.nl_family = AF_NETLINK;
  address.nl_groups = RTMGRP_LINK;
  if (bind(fd, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) {
    const absl::Status status = absl::ErrnoToStatus(errno, "cannot listen for link changes of the access interfaces");
    close(fd);
    return status;
  }
  std::unique_ptr<LinkMonitor> monitor(new LinkMonitor(executor, fd, std::move(on_link)));
  if (absl::Status status = monitor->request_all(); !status.ok()) return status;
  while (!monitor->read_all(true)) {
  }
  monitor->wait();
  return monitor;
}

LinkMonitor::LinkMonitor(const boost::asio::any_io_executor& executor, int fd, OnLink on_link)
    : socket_(executor, fd), on_link_(std::move(on_link)), alive_(std::make_shared<bool>(true)) {}

absl::Status LinkMonitor::request_all() {
  struct {
    nlmsghdr header;
    ifinfomsg info;
  } request{};
  request.header.nlmsg_len = sizeof(request);
  request.header.nlmsg_type = RTM_GETLINK;
  request.header.nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
  request.info.ifi_family = AF_UNSPEC;
  if (send(socket_.native_handle(), &request, sizeof(request), 0) < 0) {
    return absl::ErrnoToStatus(errno, "cannot ask the kernel for the state of the access interfaces");
  }
  return absl::OkStatus();
}

void LinkMonitor::wait() {
  socket_.async_wait(boost::asio::posix::stream_descriptor::wait_read,
                     [this, alive = std::weak_ptr<bool>(alive_)](const boost::system::error_code& error) {
                       if (error || alive.expired()) return;
                       read_all(false);
                       if (!alive.expired()) wait();
                     });
}

bool LinkMonitor::read_all(bool block) {
  alignas(nlmsghdr) std::array<char, 65536> buffer;
  const std::weak_ptr<bool> alive = alive_;
  while (true) {
    const ssize_t size = recv(socket_.native_handle(), buffer.data(), buffer.size(), block ? 0 : MSG_DONTWAIT);
    if (size < 0 && errno == EINTR) continue;
    if (size < 0 && errno == ENOBUFS) {
      log_warning("link_notices_lost", "action", "reading all interfaces again");
      if (absl::Status status = request_all(); !status.ok()) log_warning("link_read_failed", "error", status);
      continue;
    }
    if (size < 0) return errno != EAGAIN;
    int left = static_cast<int>(size);
    for (const auto* header = reinterpret_cast<const nlmsghdr*>(buffer.data()); mnl_nlmsg_ok(header, left);
         header = mnl_nlmsg_next(header, &left)) {
      if (header->nlmsg_type == NLMSG_DONE || header->nlmsg_type == NLMSG_ERROR) {
        if (block) return true;
        continue;
      }
      if (header->nlmsg_type != RTM_NEWLINK && header->nlmsg_type != RTM_DELLINK) continue;
      // Notices of AF_BRIDGE tell of a port's bridge; RTM_DELLINK among them means "left the bridge".
      if (static_cast<const ifinfomsg*>(mnl_nlmsg_get_payload(header))->ifi_family != AF_UNSPEC) continue;
      on_link_(to_link_state(header));
      if (alive.expired()) return true;
    }
  }
}

}  // namespace kedge::speaker
