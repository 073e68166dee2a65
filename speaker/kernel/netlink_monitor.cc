#include "speaker/kernel/netlink_monitor.h"

#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>

#include "boost/asio/posix/stream_descriptor.hpp"
#include "speaker/kernel/netlink_socket.h"

namespace kedge::speaker {
namespace {

constexpr int kBufferBytes = 8 << 20;

}  // namespace

struct NetlinkMonitor::State {
  State(const boost::asio::any_io_executor& executor, int fd) : socket(executor, fd) {}
  boost::asio::posix::stream_descriptor socket;
  NetlinkMonitor* owner = nullptr;
  std::array<std::uint8_t, 64 * 1024> buffer;
};

absl::StatusOr<std::unique_ptr<NetlinkMonitor>> NetlinkMonitor::open(boost::asio::any_io_executor executor,
                                                                     const std::vector<int>& groups,
                                                                     std::vector<sock_filter> filter) {
  const int fd = ::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_ROUTE);
  if (fd < 0) return kernel_status(errno, "open a netlink socket for notices");
  auto state = std::make_shared<State>(executor, fd);

  if (::setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &kBufferBytes, sizeof kBufferBytes) < 0) {
    ::setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &kBufferBytes, sizeof kBufferBytes);
  }
  if (!filter.empty()) {
    const sock_fprog program{static_cast<unsigned short>(filter.size()), filter.data()};
    if (::setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program) < 0) {
      return kernel_status(errno, "attach a filter to the netlink socket for notices");
    }
  }
  sockaddr_nl address{};
  address.nl_family = AF_NETLINK;
  if (::bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) < 0) {
    return kernel_status(errno, "bind the netlink socket for notices");
  }
  for (const int group : groups) {
    if (::setsockopt(fd, SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, &group, sizeof group) < 0) {
      return kernel_status(errno, "join a group of netlink notices");
    }
  }
  std::unique_ptr<NetlinkMonitor> monitor(new NetlinkMonitor(state));
  wait(state);
  return monitor;
}

NetlinkMonitor::NetlinkMonitor(std::shared_ptr<State> state) : state_(std::move(state)) { state_->owner = this; }

NetlinkMonitor::~NetlinkMonitor() {
  state_->owner = nullptr;
  boost::system::error_code ignored;
  state_->socket.close(ignored);
}

void NetlinkMonitor::wait(const std::shared_ptr<State>& state) {
  state->socket.async_wait(boost::asio::posix::stream_descriptor::wait_read,
                           [state](const boost::system::error_code& error) {
                             if (error || state->owner == nullptr) return;
                             drain(state);
                             if (state->owner != nullptr) wait(state);
                           });
}

void NetlinkMonitor::drain(const std::shared_ptr<State>& state) {
  while (state->owner != nullptr) {
    sockaddr_nl sender{};
    socklen_t sender_size = sizeof sender;
    const auto n = ::recvfrom(state->socket.native_handle(), state->buffer.data(), state->buffer.size(), 0,
                              reinterpret_cast<sockaddr*>(&sender), &sender_size);
    if (n < 0) {
      if (errno == EINTR) continue;
      if (errno != ENOBUFS) return;
      if (state->owner->on_overrun) state->owner->on_overrun();
      continue;
    }
    // Other processes may send to this port too; only the kernel is port 0.
    if (sender.nl_pid != 0) continue;
    Bytes rest(state->buffer.data(), static_cast<std::size_t>(n));
    while (state->owner != nullptr) {
      const auto message = take_message(rest);
      if (!message) break;
      if (state->owner->on_message) state->owner->on_message(*message);
    }
  }
}

}  // namespace kedge::speaker
