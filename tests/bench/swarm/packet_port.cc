#include "tests/bench/swarm/packet_port.h"

#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tests/bench/swarm/clock.h"

namespace kedge::bench {
namespace {

constexpr std::size_t kFrames = 128;
constexpr std::size_t kFrameSize = 2'048;
constexpr std::size_t kControlSize = 64;
constexpr int kBuffer = 128 << 20;

}  // namespace

struct PacketPort::Batch {
  std::vector<std::array<std::uint8_t, kFrameSize>> frames{kFrames};
  std::array<std::array<char, kControlSize>, kFrames> controls;
  std::array<iovec, kFrames> vectors;
  std::array<mmsghdr, kFrames> messages{};

  Batch() {
    for (std::size_t i = 0; i < kFrames; ++i) {
      vectors[i] = {frames[i].data(), kFrameSize};
      messages[i].msg_hdr.msg_iov = &vectors[i];
      messages[i].msg_hdr.msg_iovlen = 1;
      messages[i].msg_hdr.msg_control = controls[i].data();
    }
  }
};

PacketPort::PacketPort(int socket) : socket_(socket), batch_(std::make_unique<Batch>()) {}

PacketPort::~PacketPort() { close(socket_); }

absl::StatusOr<std::unique_ptr<PacketPort>> PacketPort::open(const std::string& interface) {
  const unsigned index = if_nametoindex(interface.c_str());
  if (index == 0) return absl::NotFoundError(absl::StrCat("there is no interface ", interface));
  const int fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return absl::ErrnoToStatus(errno, "cannot open a packet socket (CAP_NET_RAW is needed)");
  std::unique_ptr<PacketPort> port(new PacketPort(fd));
  const int on = 1;
  setsockopt(fd, SOL_PACKET, PACKET_IGNORE_OUTGOING, &on, sizeof(on));
  setsockopt(fd, SOL_SOCKET, SO_TIMESTAMPNS, &on, sizeof(on));
  for (const int option : {SO_RCVBUFFORCE, SO_SNDBUFFORCE})
    setsockopt(fd, SOL_SOCKET, option, &kBuffer, sizeof(kBuffer));
  sockaddr_ll address{};
  address.sll_family = AF_PACKET;
  address.sll_protocol = htons(ETH_P_IPV6);
  address.sll_ifindex = static_cast<int>(index);
  if (bind(fd, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) {
    return absl::ErrnoToStatus(errno, absl::StrCat("cannot bind a packet socket to ", interface));
  }
  return port;
}

bool PacketPort::receive(const std::function<void(std::span<const std::uint8_t>, std::int64_t)>& visit) {
  for (auto& message : batch_->messages) message.msg_hdr.msg_controllen = kControlSize;
  const int count = recvmmsg(socket_, batch_->messages.data(), kFrames, MSG_DONTWAIT, nullptr);
  if (count <= 0) return false;
  counters_.received += static_cast<std::uint64_t>(count);
  const StampClock clock;
  for (std::size_t i = 0; i < static_cast<std::size_t>(count); ++i) {
    auto& message = batch_->messages[i];
    visit(std::span(batch_->frames[i]).first(message.msg_len), clock.received_at(message.msg_hdr));
  }
  return static_cast<std::size_t>(count) == kFrames;
}

int PacketPort::send(std::span<const std::uint8_t> frame) {
  if (::send(socket_, frame.data(), frame.size(), MSG_DONTWAIT) >= 0) {
    ++counters_.sent;
    return 0;
  }
  ++counters_.refused;
  return errno;
}

PacketPort::Counters PacketPort::counters() const {
  // Reading them sets them to zero.
  tpacket_stats statistics{};
  socklen_t size = sizeof(statistics);
  if (getsockopt(socket_, SOL_PACKET, PACKET_STATISTICS, &statistics, &size) == 0) {
    counters_.overrun += statistics.tp_drops;
  }
  return counters_;
}

}  // namespace kedge::bench
