// RFC 4443 (ICMPv6 error messages)
#include "tests/tools/flow_end.h"

#include <arpa/inet.h>
#include <linux/sock_diag.h>
#include <net/if.h>
#include <netdb.h>
#include <netinet/icmp6.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <climits>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <deque>
#include <fstream>
#include <map>
#include <random>
#include <sstream>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tests/tools/flow_packet.h"

namespace kedge::tools {
namespace {

constexpr std::int64_t kMillisecond = 1'000'000;
constexpr std::int64_t kSecond = 1'000'000'000;
constexpr std::int64_t kHelloInterval = 10 * kMillisecond;
constexpr std::int64_t kStopCheckInterval = 50 * kMillisecond;
constexpr std::int64_t kReceiveInterval = kMillisecond;
constexpr std::int64_t kLate = kMillisecond;
// A sender that was held up makes good for so much and gives up older deadlines: a longer burst
// could overflow queues on the way, and the loss would be the probe's own.
constexpr std::int64_t kCatchUpTime = 20 * kMillisecond;
constexpr std::int64_t kCatchUpPackets = 256;
constexpr int kSenderPriority = 20;
constexpr int kReceiverPriority = 10;
constexpr std::size_t kMaxFlows = 64;
constexpr std::size_t kBatch = 64;
constexpr std::size_t kMessageSize = 9'216;
constexpr std::size_t kControlSize = 128;

std::int64_t to_ns(const timespec& time) { return time.tv_sec * kSecond + time.tv_nsec; }

std::int64_t clock_ns(clockid_t clock) {
  timespec time{};
  clock_gettime(clock, &time);
  return to_ns(time);
}

std::int64_t now_ns() { return clock_ns(CLOCK_MONOTONIC); }

void sleep_until(std::int64_t time_ns) {
  const timespec time{time_ns / kSecond, time_ns % kSecond};
  while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &time, nullptr) == EINTR) {
  }
}

// False when stopped before.
bool sleep_until(std::int64_t time_ns, const std::stop_token& stop) {
  for (std::int64_t now = now_ns(); now < time_ns; now = now_ns()) {
    if (stop.stop_requested()) return false;
    sleep_until(std::min(time_ns, now + kStopCheckInterval));
  }
  return !stop.stop_requested();
}

bool become_realtime(int priority) {
  prctl(PR_SET_TIMERSLACK, 1UL);
  const sched_param parameter{priority};
  return pthread_setschedparam(pthread_self(), SCHED_FIFO, &parameter) == 0;
}

absl::Status socket_error(const char* what) {
  return absl::UnavailableError(absl::StrCat(what, ": ", std::strerror(errno)));
}

class FileDescriptor {
 public:
  explicit FileDescriptor(int fd) : fd_(fd) {}
  ~FileDescriptor() {
    if (fd_ >= 0) close(fd_);
  }
  FileDescriptor(FileDescriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  FileDescriptor& operator=(FileDescriptor&&) = delete;
  int get() const { return fd_; }
  bool valid() const { return fd_ >= 0; }

 private:
  int fd_;
};

bool same_address(const in6_addr& one, const in6_addr& two) { return std::memcmp(&one, &two, sizeof(one)) == 0; }

// From the kernel's list of this namespace's addresses: absent, or the address's IFA_F_* flags.
std::optional<unsigned> address_flags(const in6_addr& address) {
  std::string wanted;
  for (const std::uint8_t octet : address.s6_addr) wanted += absl::StrCat(absl::Hex(octet, absl::kZeroPad2));
  std::ifstream list("/proc/self/net/if_inet6");
  std::string line;
  while (std::getline(list, line)) {
    std::istringstream fields(line);
    std::string found, index, length, scope, flags;
    fields >> found >> index >> length >> scope >> flags;
    if (found == wanted) return static_cast<unsigned>(std::strtoul(flags.c_str(), nullptr, 16));
  }
  return std::nullopt;
}

absl::Status wait_for_address(const EndOptions& options, const std::stop_token& stop) {
  constexpr unsigned kTentative = 0x40;
  constexpr unsigned kDuplicate = 0x08;
  const std::int64_t deadline = now_ns() + std::chrono::nanoseconds(options.wait_address).count();
  for (;;) {
    const auto flags = address_flags(options.local.sin6_addr);
    if (flags && (*flags & (kTentative | kDuplicate)) == 0) return absl::OkStatus();
    const std::int64_t now = now_ns();
    if (now >= deadline) {
      const char* state = !flags                       ? "not on any interface"
                          : (*flags & kDuplicate) != 0 ? "a duplicate of another host's"
                                                       : "still tentative";
      return absl::FailedPreconditionError(absl::StrCat(
          "local address ", address_text(options.local), " is ", state,
          options.wait_address.count() > 0 ? absl::StrCat(" after ", options.wait_address.count(), " ms")
                                           : "; give it to an interface, or wait for it with --wait-address"));
    }
    if (!sleep_until(std::min(deadline, now + 20 * kMillisecond), stop)) {
      return absl::CancelledError("stopped while waiting for the local address");
    }
  }
}

absl::StatusOr<FileDescriptor> open_udp(const EndOptions& options) {
  FileDescriptor socket(::socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!socket.valid()) return socket_error("cannot open a UDP socket");
  const int one = 1;
  const int receive_buffer = static_cast<int>(options.receive_buffer_bytes / 2);  // the kernel doubles it
  const int send_buffer = 4 * 1024 * 1024;
  setsockopt(socket.get(), IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof(one));
  if (setsockopt(socket.get(), SOL_SOCKET, SO_RCVBUFFORCE, &receive_buffer, sizeof(receive_buffer)) != 0) {
    setsockopt(socket.get(), SOL_SOCKET, SO_RCVBUF, &receive_buffer, sizeof(receive_buffer));
  }
  if (setsockopt(socket.get(), SOL_SOCKET, SO_SNDBUFFORCE, &send_buffer, sizeof(send_buffer)) != 0) {
    setsockopt(socket.get(), SOL_SOCKET, SO_SNDBUF, &send_buffer, sizeof(send_buffer));
  }
  if (setsockopt(socket.get(), SOL_SOCKET, SO_TIMESTAMPNS, &one, sizeof(one)) != 0) {
    return socket_error("cannot ask for receive timestamps");
  }
  // Not connected: on a connected socket an ICMPv6 error makes the next send fail, and the probe
  // would lose a packet that the network never saw.
  if (bind(socket.get(), reinterpret_cast<const sockaddr*>(&options.local), sizeof(options.local)) != 0) {
    return socket_error(
        absl::StrCat("cannot bind to ", address_text(options.local), " port ", ntohs(options.local.sin6_port)).c_str());
  }
  return socket;
}

// Invalid without CAP_NET_RAW: then errors are not counted, which the record says.
FileDescriptor open_icmp(const EndOptions& options) {
  FileDescriptor socket(::socket(AF_INET6, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, IPPROTO_ICMPV6));
  if (!socket.valid()) return socket;
  icmp6_filter filter;
  ICMP6_FILTER_SETBLOCKALL(&filter);
  for (const int type : {ICMP6_DST_UNREACH, ICMP6_PACKET_TOO_BIG, ICMP6_TIME_EXCEEDED, ICMP6_PARAM_PROB}) {
    ICMP6_FILTER_SETPASS(type, &filter);
  }
  setsockopt(socket.get(), IPPROTO_ICMPV6, ICMP6_FILTER, &filter, sizeof(filter));
  sockaddr_in6 local = options.local;
  local.sin6_port = 0;
  if (bind(socket.get(), reinterpret_cast<const sockaddr*>(&local), sizeof(local)) != 0) return FileDescriptor(-1);
  return socket;
}

std::uint64_t socket_drops(int socket) {
  std::array<std::uint32_t, SK_MEMINFO_VARS> values{};
  socklen_t size = sizeof(values);
  if (getsockopt(socket, SOL_SOCKET, SO_MEMINFO, values.data(), &size) != 0) return 0;
  return values[SK_MEMINFO_DROPS];
}

std::uint64_t socket_buffer(int socket) {
  int value = 0;
  socklen_t size = sizeof(value);
  getsockopt(socket, SOL_SOCKET, SO_RCVBUF, &value, &size);
  return static_cast<std::uint64_t>(value);
}

std::uint64_t random_flow() {
  std::random_device device;
  return static_cast<std::uint64_t>(device()) << 32 | device();
}

// The kernel stamps packets with CLOCK_REALTIME. This translates to CLOCK_MONOTONIC by the
// difference of the two now, and refuses when the realtime clock has been set meanwhile.
class StampClock {
 public:
  // To be called before each batch.
  void synchronise() {
    std::int64_t best_width = INT64_MAX;
    std::int64_t offset = 0;
    for (int attempt = 0; attempt < 5 && best_width > 5'000; ++attempt) {
      const std::int64_t before = now_ns();
      const std::int64_t realtime = clock_ns(CLOCK_REALTIME);
      const std::int64_t after = now_ns();
      if (after - before >= best_width) continue;
      best_width = after - before;
      offset = realtime - (before + best_width / 2);
      now_ns_ = after;
    }
    // A disciplined clock drifts by at most 500 ppm against the other; more is a step.
    const std::int64_t allowed = kMillisecond + (now_ns_ - last_ns_) / 1'000;
    trusted_ = last_ns_ == 0 || std::abs(offset - offset_ns_) <= allowed;
    offset_ns_ = offset;
    last_ns_ = now_ns_;
  }

  // Time of arrival; `fallback` is set when it is only the time of reading.
  std::int64_t monotonic_ns(const std::optional<std::int64_t>& stamp_ns, bool& fallback) const {
    fallback = !stamp_ns || !trusted_;
    return fallback ? now_ns() : *stamp_ns - offset_ns_;
  }

 private:
  std::int64_t offset_ns_ = 0;
  std::int64_t last_ns_ = 0;
  std::int64_t now_ns_ = 0;
  bool trusted_ = true;
};

// Belongs to the receiving thread; the others may read heard_peer() at any time and the rest after
// the thread has ended.
class Receiver {
 public:
  Receiver(const EndOptions& options, int udp, int icmp, std::uint64_t own_flow, std::uint8_t own_direction)
      : options_(options), udp_(udp), icmp_(icmp), own_flow_(own_flow), own_direction_(own_direction) {
    for (std::size_t i = 0; i < kBatch; ++i) {
      vectors_[i] = {payloads_[i].data(), kMessageSize};
      messages_[i].msg_hdr.msg_iov = &vectors_[i];
      messages_[i].msg_hdr.msg_iovlen = 1;
      messages_[i].msg_hdr.msg_name = &sources_[i];
      messages_[i].msg_hdr.msg_control = controls_[i].data();
    }
  }

  void run(const std::stop_token& stop) {
    while (!stop.stop_requested()) {
      std::array<pollfd, 2> waits{pollfd{udp_, POLLIN, 0}, pollfd{icmp_, POLLIN, 0}};
      poll(waits.data(), waits.size(), static_cast<int>(kStopCheckInterval / kMillisecond));
      read_all();
      // Arrivals are stamped by the kernel, so reading them later in one batch costs nothing and
      // saves a wake-up for each packet.
      sleep_until(now_ns() + kReceiveInterval);
    }
    read_all();
    until_ns_ = now_ns();
  }

  bool heard_peer() const { return heard_peer_.load(std::memory_order_acquire); }

  void fill(EndRecord& record) const {
    for (const auto& [flow, packets] : flows_) {
      record.received.push_back({flow, std::vector<ReceivedPacket>(packets.begin(), packets.end())});
    }
    record.rejected = rejected_;
    if (icmp_ >= 0) record.icmp_errors = icmp_errors_;
    record.timestamp_fallbacks = timestamp_fallbacks_;
    record.receiving_until_ns = until_ns_;
    record.local_drops = socket_drops(udp_);
  }

 private:
  void read_all() {
    while (read_batch() == static_cast<int>(kBatch)) {
    }
    if (icmp_ >= 0) read_icmp();
  }

  int read_batch() {
    for (std::size_t i = 0; i < kBatch; ++i) {
      messages_[i].msg_hdr.msg_namelen = sizeof(sockaddr_in6);
      messages_[i].msg_hdr.msg_controllen = kControlSize;
      messages_[i].msg_hdr.msg_flags = 0;
    }
    stamp_clock_.synchronise();
    const int count = recvmmsg(udp_, messages_.data(), kBatch, MSG_DONTWAIT | MSG_TRUNC, nullptr);
    for (int i = 0; i < count; ++i) take(static_cast<std::size_t>(i));
    return count;
  }

  void take(std::size_t i) {
    const sockaddr_in6& source = sources_[i];
    if (!same_address(source.sin6_addr, options_.remote.sin6_addr) || source.sin6_port != options_.remote.sin6_port) {
      ++rejected_["other_source"];
      return;
    }
    const std::size_t length = messages_[i].msg_len;
    const auto packet = read_packet(std::span(payloads_[i]).first(std::min(length, kMessageSize)), length);
    if (!packet) {
      ++rejected_["malformed"];
    } else if (packet->direction == own_direction_ || packet->flow == own_flow_) {
      ++rejected_["own_direction"];
    } else {
      heard_peer_.store(true, std::memory_order_release);
      if (packet->type == PacketType::kData) store(*packet, messages_[i].msg_hdr);
    }
  }

  void store(const FlowPacket& packet, msghdr& header) {
    auto flow = flows_.find(packet.flow);
    if (flow == flows_.end()) {
      if (flows_.size() >= kMaxFlows) {
        ++rejected_["too_many_flows"];
        return;
      }
      flow = flows_.try_emplace(packet.flow).first;
    }
    bool fallback = false;
    const std::int64_t received_ns = stamp_clock_.monotonic_ns(stamp_of(header), fallback);
    timestamp_fallbacks_ += fallback;
    flow->second.push_back({packet.sequence, received_ns});
  }

  static std::optional<std::int64_t> stamp_of(msghdr& header) {
    for (cmsghdr* control = CMSG_FIRSTHDR(&header); control != nullptr; control = CMSG_NXTHDR(&header, control)) {
      if (control->cmsg_level != SOL_SOCKET || control->cmsg_type != SCM_TIMESTAMPNS) continue;
      timespec stamp{};
      std::memcpy(&stamp, CMSG_DATA(control), sizeof(stamp));
      return to_ns(stamp);
    }
    return std::nullopt;
  }

  void read_icmp() {
    // The ICMPv6 header, then the packet that caused the error, as much of it as fits.
    constexpr std::size_t kCause = 8;
    constexpr std::size_t kNextHeader = kCause + 6;
    constexpr std::size_t kSource = kCause + 8;
    constexpr std::size_t kDestination = kCause + 24;
    constexpr std::size_t kPorts = kCause + 40;
    std::array<std::uint8_t, 2'048> error{};
    for (;;) {
      const ssize_t length = recv(icmp_, error.data(), error.size(), MSG_DONTWAIT);
      if (length < 0) return;
      if (length < static_cast<ssize_t>(kPorts + 4) || error[kNextHeader] != IPPROTO_UDP) continue;
      if (std::memcmp(&error[kSource], &options_.local.sin6_addr, 16) != 0 ||
          std::memcmp(&error[kDestination], &options_.remote.sin6_addr, 16) != 0 ||
          std::memcmp(&error[kPorts], &options_.local.sin6_port, 2) != 0 ||
          std::memcmp(&error[kPorts + 2], &options_.remote.sin6_port, 2) != 0) {
        continue;
      }
      ++icmp_errors_[absl::StrCat(error[0], "/", error[1])];
    }
  }

  const EndOptions& options_;
  const int udp_;
  const int icmp_;
  const std::uint64_t own_flow_;
  const std::uint8_t own_direction_;

  std::atomic<bool> heard_peer_{false};
  StampClock stamp_clock_;
  // A deque never moves what it holds: a growing vector would stop the thread for milliseconds.
  std::map<std::uint64_t, std::deque<ReceivedPacket>> flows_;
  std::map<std::string, std::uint64_t> rejected_;
  std::map<std::string, std::uint64_t> icmp_errors_;
  std::uint64_t timestamp_fallbacks_ = 0;
  std::int64_t until_ns_ = 0;

  std::array<mmsghdr, kBatch> messages_{};
  std::array<iovec, kBatch> vectors_{};
  std::array<sockaddr_in6, kBatch> sources_{};
  alignas(cmsghdr) std::array<std::array<std::uint8_t, kControlSize>, kBatch> controls_{};
  std::array<std::array<std::uint8_t, kMessageSize>, kBatch> payloads_{};
};

class Sender {
 public:
  Sender(const EndOptions& options, int udp, std::uint64_t flow, std::uint8_t direction)
      : options_(options), udp_(udp), payload_(options.size_bytes) {
    packet_.flow = flow;
    packet_.direction = direction;
  }

  // Tells the peer that this end's socket is open until the peer has said the same.
  absl::Status greet(const Receiver& receiver, const std::stop_token& stop) {
    packet_.type = PacketType::kHello;
    const std::int64_t deadline = now_ns() + std::chrono::nanoseconds(options_.wait_peer).count();
    while (!receiver.heard_peer()) {
      const std::int64_t now = now_ns();
      if (now >= deadline) {
        return absl::DeadlineExceededError(
            absl::StrCat("nothing heard from ", address_text(options_.remote), " port ",
                         ntohs(options_.remote.sin6_port), " within ", options_.wait_peer.count(),
                         " ms; start the other end, check the path, or send at once with --wait-peer 0"));
      }
      send_now(now);
      if (!sleep_until(std::min(deadline, now + kHelloInterval), stop)) {
        return absl::CancelledError("stopped before the peer was heard");
      }
    }
    return absl::OkStatus();
  }

  void run(std::int64_t start_ns, const std::stop_token& stop) {
    packet_.type = PacketType::kData;
    const std::int64_t rate = options_.rate_pps;
    const std::int64_t slots = options_.duration.count() == 0 ? INT64_MAX : slots_within(options_.duration.count());
    const std::int64_t catch_up = std::min(kCatchUpTime, kCatchUpPackets * kSecond / rate);
    for (std::int64_t slot = 0; slot < slots; ++slot) {
      const std::int64_t deadline = start_ns + deadline_of(slot);
      if (!sleep_until(deadline, stop)) return;
      const std::int64_t now = now_ns();
      const std::int64_t late = now - deadline;
      max_jitter_ns_ = std::max(max_jitter_ns_, late);
      late_sends_ += late > kLate;
      if (late > catch_up) {
        const std::int64_t current = std::min(slots - 1, slots_within(now - start_ns));
        skipped_slots_ += static_cast<std::uint64_t>(std::max<std::int64_t>(0, current - slot));
        slot = std::max(slot, current);
      }
      send_numbered(now);
    }
  }

  void fill(EndRecord& record) const {
    record.sent.assign(sent_.begin(), sent_.end());
    record.skipped_slots = skipped_slots_;
    record.late_sends = late_sends_;
    record.max_send_jitter_ns = max_jitter_ns_;
    record.max_send_call_ns = max_call_ns_;
  }

 private:
  // Whole seconds apart, so that no product overflows however long the flow.
  std::int64_t deadline_of(std::int64_t slot) const {
    const std::int64_t rate = options_.rate_pps;
    return slot / rate * kSecond + slot % rate * kSecond / rate;
  }
  std::int64_t slots_within(std::int64_t time_ns) const {
    const std::int64_t rate = options_.rate_pps;
    return time_ns / kSecond * rate + time_ns % kSecond * rate / kSecond;
  }

  void send_numbered(std::int64_t now) {
    packet_.sequence = sent_.size();
    const std::int32_t error = send_now(now);
    sent_.push_back({now, error});
    max_call_ns_ = std::max(max_call_ns_, now_ns() - now);
  }

  // The errno, 0 when the kernel took the packet.
  std::int32_t send_now(std::int64_t now) {
    packet_.sent_ns = now;
    write_packet(packet_, payload_);
    const ssize_t length = sendto(udp_, payload_.data(), payload_.size(), MSG_DONTWAIT,
                                  reinterpret_cast<const sockaddr*>(&options_.remote), sizeof(options_.remote));
    return length < 0 ? errno : 0;
  }

  const EndOptions& options_;
  const int udp_;
  std::vector<std::uint8_t> payload_;
  FlowPacket packet_;
  std::deque<SentPacket> sent_;
  std::uint64_t skipped_slots_ = 0;
  std::uint64_t late_sends_ = 0;
  std::int64_t max_jitter_ns_ = 0;
  std::int64_t max_call_ns_ = 0;
};

class SocketFlowEnd final : public FlowEnd {
 public:
  SocketFlowEnd(EndOptions options, FileDescriptor udp, FileDescriptor icmp)
      : options_(std::move(options)), udp_(std::move(udp)), icmp_(std::move(icmp)), opened_ns_(now_ns()) {}

  absl::StatusOr<EndRecord> run(std::stop_token stop, const std::function<void(std::int64_t)>& started) override {
    const std::uint64_t flow = random_flow();
    const bool lower = std::memcmp(&options_.local.sin6_addr, &options_.remote.sin6_addr, sizeof(in6_addr)) < 0;
    const std::uint8_t direction = lower ? 0 : 1;
    const auto receiver = std::make_unique<Receiver>(options_, udp_.get(), icmp_.get(), flow, direction);
    Sender sender(options_, udp_.get(), flow, direction);

    EndRecord record = describe(flow);
    std::jthread receiving([&receiver](const std::stop_token& receiver_stop) {
      become_realtime(kReceiverPriority);
      receiver->run(receiver_stop);
    });
    record.realtime_scheduling = become_realtime(kSenderPriority);
    if (options_.wait_peer.count() > 0) {
      if (absl::Status status = sender.greet(*receiver, stop); !status.ok()) return status;
    }
    const std::int64_t start_ns = now_ns() + kMillisecond;
    started(start_ns);
    sender.run(start_ns, stop);
    sleep_until(now_ns() + record.drain_ns);
    receiving.request_stop();
    receiving.join();

    sender.fill(record);
    receiver->fill(record);
    return record;
  }

 private:
  EndRecord describe(std::uint64_t flow) const {
    EndRecord record;
    record.name = options_.name;
    record.local = address_text(options_.local);
    record.remote = address_text(options_.remote);
    record.port = ntohs(options_.local.sin6_port);
    record.rate_pps = options_.rate_pps;
    record.size_bytes = options_.size_bytes;
    record.flow = flow;
    record.clock_id = clock_id();
    record.receiving_from_ns = opened_ns_;
    record.drain_ns = std::chrono::nanoseconds(options_.drain).count();
    record.receive_buffer_bytes = socket_buffer(udp_.get());
    return record;
  }

  const EndOptions options_;
  const FileDescriptor udp_;
  const FileDescriptor icmp_;
  const std::int64_t opened_ns_;
};

}  // namespace

std::string clock_id() {
  std::string boot;
  std::getline(std::ifstream("/proc/sys/kernel/random/boot_id"), boot);
  std::array<char, 64> target{};
  const ssize_t length = readlink("/proc/self/ns/time", target.data(), target.size());
  return absl::StrCat(boot, "/", std::string(target.data(), length > 0 ? static_cast<std::size_t>(length) : 0));
}

absl::StatusOr<std::unique_ptr<FlowEnd>> FlowEnd::open(const EndOptions& options, std::stop_token stop) {
  if (absl::Status status = wait_for_address(options, stop); !status.ok()) return status;
  absl::StatusOr<FileDescriptor> udp = open_udp(options);
  if (!udp.ok()) return udp.status();
  return std::make_unique<SocketFlowEnd>(options, *std::move(udp), open_icmp(options));
}

std::string address_text(const sockaddr_in6& address) {
  std::array<char, INET6_ADDRSTRLEN> text{};
  inet_ntop(AF_INET6, &address.sin6_addr, text.data(), text.size());
  std::array<char, IF_NAMESIZE> interface {};
  if (address.sin6_scope_id == 0 || if_indextoname(address.sin6_scope_id, interface.data()) == nullptr) {
    return text.data();
  }
  return absl::StrCat(text.data(), "%", interface.data());
}

}  // namespace kedge::tools
