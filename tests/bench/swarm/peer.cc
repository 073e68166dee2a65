#include "tests/bench/swarm/peer.h"

#include <fcntl.h>
#include <linux/sock_diag.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <functional>
#include <iostream>
#include <map>
#include <queue>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tests/bench/swarm/clock.h"
#include "tests/bench/swarm/command.h"
#include "tests/bench/swarm/flow.h"
#include "tests/bench/swarm/input.h"
#include "tests/tools/flow_file.h"
#include "tests/tools/json_writer.h"

namespace kedge::bench {
namespace {

constexpr std::int64_t kDrain = 500 * kMillisecond;
constexpr std::size_t kBatch = 64;
constexpr std::size_t kSize = 2'048;
constexpr int kBuffer = 64 << 20;

class Peer {
 public:
  Peer(const PeerOptions& options, int stop_descriptor) : options_(options), stop_descriptor_(stop_descriptor) {
    for (std::size_t i = 0; i < kBatch; ++i) {
      vectors_[i] = {payloads_[i].data(), kSize};
      auto& header = messages_[i].msg_hdr;
      header.msg_iov = &vectors_[i];
      header.msg_iovlen = 1;
      header.msg_name = &sources_[i];
      header.msg_control = controls_[i].data();
    }
  }
  ~Peer() {
    if (socket_ >= 0) close(socket_);
  }
  Peer(const Peer&) = delete;
  Peer& operator=(const Peer&) = delete;

  absl::Status open() {
    socket_ = socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (socket_ < 0) return absl::ErrnoToStatus(errno, "cannot open a UDP socket");
    const int on = 1;
    setsockopt(socket_, SOL_SOCKET, SO_TIMESTAMPNS, &on, sizeof(on));
    setsockopt(socket_, SOL_SOCKET, SO_RCVBUFFORCE, &kBuffer, sizeof(kBuffer));
    setsockopt(socket_, SOL_SOCKET, SO_SNDBUFFORCE, &kBuffer, sizeof(kBuffer));
    const auto local = socket_address(options_.local);
    if (bind(socket_, reinterpret_cast<const sockaddr*>(&local), sizeof(local)) != 0) {
      return absl::ErrnoToStatus(errno, absl::StrCat("cannot bind to ", options_.local.to_string()));
    }
    fcntl(STDIN_FILENO, F_SETFL, fcntl(STDIN_FILENO, F_GETFL) | O_NONBLOCK);
    opened_ns_ = now_ns();
    return absl::OkStatus();
  }

  void run() {
    say("ready", "");
    while (!ended_) {
      wait();
      if (!read_commands()) return;
      while (receive()) {
      }
      send();
    }
  }

 private:
  sockaddr_in6 socket_address(const Ipv6Address& address) const {
    sockaddr_in6 out{};
    out.sin6_family = AF_INET6;
    out.sin6_addr = address.to_in6_addr();
    out.sin6_port = htons(options_.udp_port);
    return out;
  }

  static void say(const char* event, std::string_view error) {
    tools::JsonWriter json;
    json.open_object();
    json.add("event", event);
    json.add("monotonic_ns", now_ns());
    json.add("error", error);
    json.close_object();
    std::string text = std::move(json).finish();
    std::replace(text.begin(), text.end(), '\n', ' ');
    std::cout << text << std::endl;
  }

  void wait() {
    std::int64_t due = now_ns() + kSecond;
    if (!sending_.empty()) due = std::min(due, sending_.top().first);
    if (drained_ns_ != 0) due = std::min(due, drained_ns_);
    std::array<pollfd, 3> waits{pollfd{STDIN_FILENO, POLLIN, 0}, {stop_descriptor_, POLLIN, 0}, {socket_, POLLIN, 0}};
    wait_for(waits, due);
    if ((waits[1].revents & POLLIN) != 0) ended_ = true;
  }

  bool read_commands() {
    return input_.read([this](const std::string& line) {
      const auto command = parse_command(line);
      if (command.ok() && std::holds_alternative<EndFlows>(*command)) {
        folder_ = std::get<EndFlows>(*command).folder;
        sending_ = {};
        drained_ns_ = now_ns() + kDrain;
      } else if (command.ok() && std::holds_alternative<Quit>(*command)) {
        ended_ = true;
      } else {
        say("refused", "a peer knows stop-flows FOLDER and quit");
      }
    });
  }

  bool receive() {
    for (auto& message : messages_) {
      message.msg_hdr.msg_namelen = sizeof(sockaddr_in6);
      message.msg_hdr.msg_controllen = controls_[0].size();
    }
    const int count = recvmmsg(socket_, messages_.data(), kBatch, MSG_DONTWAIT, nullptr);
    if (count <= 0) return false;
    const StampClock clock;
    for (std::size_t i = 0; i < static_cast<std::size_t>(count); ++i) {
      if (sources_[i].sin6_port != htons(options_.udp_port)) continue;
      Flow& flow = flow_with(Ipv6Address(sources_[i].sin6_addr));
      flow.receive(std::span(payloads_[i]).first(messages_[i].msg_len), clock.received_at(messages_[i].msg_hdr));
    }
    return static_cast<std::size_t>(count) == kBatch;
  }

  Flow& flow_with(const Ipv6Address& mobile_node) {
    const auto found = flows_.find(mobile_node);
    if (found != flows_.end()) return found->second;
    const std::int64_t now = now_ns();
    auto& flow =
        flows_.try_emplace(mobile_node, options_.local, mobile_node, options_.udp_port, options_.rate, opened_ns_, now)
            .first->second;
    if (drained_ns_ == 0) sending_.push({now, mobile_node});
    return flow;
  }

  void send() {
    std::int64_t now = now_ns();
    while (!sending_.empty() && sending_.top().first <= now) {
      const Ipv6Address mobile_node = sending_.top().second;
      sending_.pop();
      Flow& flow = flows_.at(mobile_node);
      const auto payload = flow.next(now);
      const auto to = socket_address(mobile_node);
      const bool failed = sendto(socket_, payload.data(), payload.size(), MSG_DONTWAIT,
                                 reinterpret_cast<const sockaddr*>(&to), sizeof(to)) < 0;
      flow.sent(now, failed ? errno : 0);
      sending_.push({flow.due_ns(), mobile_node});
      now = now_ns();
    }
    if (drained_ns_ != 0 && now >= drained_ns_) finish(now);
  }

  void finish(std::int64_t now) {
    drained_ns_ = 0;
    std::array<std::uint32_t, SK_MEMINFO_VARS> memory{};
    socklen_t size = sizeof(memory);
    getsockopt(socket_, SOL_SOCKET, SO_MEMINFO, memory.data(), &size);
    absl::Status status;
    for (const auto& [mobile_node, flow] : flows_) {
      status.Update(tools::write_file(record_path(folder_, mobile_node),
                                      tools::encode_end_record(flow.record(now, kDrain, memory[SK_MEMINFO_DROPS]))));
    }
    flows_.clear();
    opened_ns_ = now;
    say("flows", std::string(status.message()));
  }

  using Sending = std::pair<std::int64_t, Ipv6Address>;

  const PeerOptions options_;
  const int stop_descriptor_;
  int socket_ = -1;
  std::int64_t opened_ns_ = 0;
  InputLines input_;
  bool ended_ = false;
  std::map<Ipv6Address, Flow> flows_;
  std::priority_queue<Sending, std::vector<Sending>, std::greater<>> sending_;
  std::string folder_;
  std::int64_t drained_ns_ = 0;
  std::array<std::array<std::uint8_t, kSize>, kBatch> payloads_;
  std::array<std::array<char, 64>, kBatch> controls_;
  std::array<sockaddr_in6, kBatch> sources_;
  std::array<iovec, kBatch> vectors_;
  std::array<mmsghdr, kBatch> messages_{};
};

}  // namespace

absl::Status run_peer(const PeerOptions& options, int stop_descriptor) {
  const auto peer = std::make_unique<Peer>(options, stop_descriptor);
  if (auto status = peer->open(); !status.ok()) return status;
  peer->run();
  return absl::OkStatus();
}

}  // namespace kedge::bench
