#include "speaker/access/link_monitor.h"

#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/log.h"

namespace kedge::speaker {

std::optional<LinkState> decode_link_state(Bytes message) {
  const auto header = read_structure<nlmsghdr>(message);
  const auto payload = message_payload(message);
  if (!header || !payload || (header->nlmsg_type != RTM_NEWLINK && header->nlmsg_type != RTM_DELLINK)) {
    return std::nullopt;
  }
  const auto info = read_structure<ifinfomsg>(*payload);
  // Notices of AF_BRIDGE tell of a port's bridge; RTM_DELLINK among them means "left the bridge".
  if (!info || info->ifi_family != AF_UNSPEC) return std::nullopt;
  LinkState state;
  state.index = static_cast<std::uint32_t>(info->ifi_index);
  state.removed = header->nlmsg_type == RTM_DELLINK;
  state.up = !state.removed && (info->ifi_flags & IFF_UP) != 0 && (info->ifi_flags & IFF_RUNNING) != 0;
  const std::size_t attributes = std::min<std::size_t>(NLMSG_ALIGN(sizeof(ifinfomsg)), payload->size());
  const bool whole = for_each_attribute(payload->subspan(attributes), [&](std::uint16_t type, Bytes value) {
    if (type == IFLA_IFNAME) state.name = read_text(value);
    if (type == IFLA_CARRIER_UP_COUNT) state.carrier_ups = read_u32(value).value_or(0);
  });
  return whole ? std::optional(std::move(state)) : std::nullopt;
}

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
  std::array<std::uint8_t, 65536> buffer;
  const std::weak_ptr<bool> alive = alive_;
  while (true) {
    sockaddr_nl sender{};
    socklen_t sender_size = sizeof(sender);
    const ssize_t size = recvfrom(socket_.native_handle(), buffer.data(), buffer.size(), block ? 0 : MSG_DONTWAIT,
                                  reinterpret_cast<sockaddr*>(&sender), &sender_size);
    if (size < 0 && errno == EINTR) continue;
    if (size < 0 && errno == ENOBUFS) {
      log_warning("link_notices_lost", "action", "reading all interfaces again");
      if (absl::Status status = request_all(); !status.ok()) log_warning("link_read_failed", "error", status);
      continue;
    }
    if (size < 0) return errno != EAGAIN;
    // Other processes may send to this port too; only the kernel is port 0.
    if (sender.nl_pid != 0) continue;
    Bytes rest(buffer.data(), static_cast<std::size_t>(size));
    while (const auto message = take_message(rest)) {
      const auto type = read_structure<nlmsghdr>(*message)->nlmsg_type;
      if ((type == NLMSG_DONE || type == NLMSG_ERROR) && block) return true;
      if (const auto link = decode_link_state(*message)) on_link_(*link);
      if (alive.expired()) return true;
    }
  }
}

}  // namespace kedge::speaker
