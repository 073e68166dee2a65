#include "speaker/access/access_plane.h"

#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <queue>
#include <random>
#include <span>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "boost/asio/posix/stream_descriptor.hpp"
#include "boost/asio/post.hpp"
#include "boost/asio/steady_timer.hpp"
#include "common/log.h"
#include "speaker/access/arrival_tracker.h"
#include "speaker/access/frame_classifier.h"
#include "speaker/access/frame_filter.h"
#include "speaker/access/icmpv6_codec.h"
#include "speaker/access/link_monitor.h"

namespace kedge::speaker {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

// RFC 4861, 10: MAX_UNICAST_SOLICIT.
constexpr int kMaxProbes = 3;
constexpr milliseconds kProbeTick{100};
constexpr milliseconds kReportInterval{100};
constexpr milliseconds kRouterAdvertisementInterval{100};
constexpr milliseconds kSendRetry{200};
// RFC 4862, 5.5.3: a later RA cannot shorten a valid lifetime below two hours.
constexpr seconds kMaxValidLifetime{7200};
// 32 prefixes fill 1,024 bytes: fits IPv6's minimum MTU with the rest.
constexpr std::size_t kPrefixesPerAdvertisement = 32;
// After link-up, until somebody is heard. Close together at first: of a bridge whose port comes up in the same moment
// the first frames are lost now and then.
constexpr std::array<milliseconds, 6> kProvocations = {milliseconds(0),  milliseconds(2),   milliseconds(8),
                                                       milliseconds(30), milliseconds(100), milliseconds(300)};
constexpr int kFramesPerWake = 256;
constexpr int kMostWakes = 256;
constexpr int kReceiveBuffer = 8 << 20;
constexpr seconds kMalformedWarningInterval{10};
constexpr seconds kLimitedWarningInterval{10};
// Data of stations that are not served, held back in the kernel at one time.
constexpr std::size_t kMaxSuppressedUnserved = 8192;

SystemTime system_now() {
  return std::chrono::time_point_cast<std::chrono::nanoseconds>(std::chrono::system_clock::now());
}

class PacketAccessPlane final : public AccessPlane {
 public:
  PacketAccessPlane(boost::asio::any_io_executor executor, const AccessPlaneConfig& config)
      : executor_(std::move(executor)),
        config_(config),
        filter_(FrameFilter::make()),
        limiter_(config.arrivals),
        tracker_({.report_interval = kReportInterval, .overlap_guard = config.overlap_guard, .max_unknown = 4096}),
        timer_(executor_) {
    for (const std::string& name : config.interfaces) ports_.push_back(std::make_unique<Port>(executor_, name));
  }

  absl::Status start();

  void serve(const LinkLayerAddress& mn, const Ipv6Address& link_local, const std::string& interface,
             const std::vector<AdvertisedPrefix>& prefixes) override;
  void release(const LinkLayerAddress& mn) override;
  void release_after_restart(const LinkLayerAddress& mn) override;
  void refuse(const LinkLayerAddress& mn, milliseconds pause) override;
  std::optional<SteadyTime> last_heard(const LinkLayerAddress& mn) const override;
  std::optional<SteadyTime> last_heard_on(const std::string& interface, const LinkLayerAddress& mn) const override;
  void probe(const LinkLayerAddress& mn, const Ipv6Address& link_local, const std::string& interface,
             std::function<void(bool)> answered) override;
  AccessCounters counters() const override { return counters_; }

 private:
  struct Port {
    Port(const boost::asio::any_io_executor& executor, std::string interface)
        : name(std::move(interface)), provocation_timer(executor) {}

    std::string name;
    std::uint32_t index = 0;  // 0: absent
    bool up = false;
    bool up_before_start = false;
    std::uint32_t carrier_ups = 0;
    SteadyTime changed_at;
    std::unique_ptr<boost::asio::posix::stream_descriptor> socket;
    // Provocations since the link came up, and whether anybody has been heard since.
    std::size_t provocations = kProvocations.size();
    bool heard = false;
    boost::asio::steady_timer provocation_timer;
  };

  struct Served {
    std::size_t port = 0;
    Ipv6Address link_local;
    std::vector<AdvertisedPrefix> prefixes;
    SteadyTime served_since;
    SteadyTime advertise_at;
    std::optional<SteadyTime> advertised_at;
    int probes = 0;
    SteadyTime first_probe_at;
    SteadyTime probe_at;
    // Its one valid entry in the queue.
    SteadyTime queued_for = SteadyTime::max();
  };

  // An MN that was asked whether it is there.
  struct Question {
    Question(const boost::asio::any_io_executor& executor, std::size_t asked_port, const Ipv6Address& asked_address,
             std::function<void(bool)> callback)
        : port(asked_port), link_local(asked_address), answered(std::move(callback)), timer(executor) {}

    std::size_t port;
    Ipv6Address link_local;
    int probes = 0;
    std::function<void(bool)> answered;
    boost::asio::steady_timer timer;
  };

  struct Deadline {
    SteadyTime at;
    // Of a served MN, or of a station whose data is held back in the kernel.
    bool served = false;
    Station station;

    bool operator>(const Deadline& other) const { return at > other.at; }
  };

  // Links.
  // Its number; ports_.size() when there is none of this name.
  std::size_t port_named(const std::string& interface) const;
  void on_link(const LinkState& state);
  void on_interface_lost(std::size_t index);
  void on_port_down(std::size_t index);
  void on_port_up(std::size_t index);
  absl::Status open_socket(std::size_t index);
  void provoke(std::size_t index);
  void send_provocation(Port& port);

  // Frames in.
  void wait_for_frames(std::size_t index);
  // Some of those that wait; false when there are no more.
  bool read_frames(std::size_t index);
  // Nobody is gone whose answer merely waits behind what has kept the executor busy.
  void read_all_frames();
  void discard_frames(Port& port);
  void on_frame(std::size_t index, std::span<const std::uint8_t> bytes, SystemTime at);
  // Whether the arrival may be reported now.
  bool admit(const Station& station, const ArrivalTracker::Verdict& verdict, SteadyTime now);
  void count_malformed(const Port& port, const LinkLayerAddress& source, const absl::Status& reason);

  // Frames out.
  bool send_frame(Port& port, std::span<const std::uint8_t> frame);
  bool send_advertisements(const LinkLayerAddress& mn, Served& served);
  void answer_solicitation(Port& port, std::span<const std::uint8_t> bytes);
  // The first is a neighbour solicitation, those after it are a general query (MLD) too.
  void send_probe(const LinkLayerAddress& mn, std::size_t port, const Ipv6Address& link_local, bool first);
  void ask(const LinkLayerAddress& mn);
  void answer(const LinkLayerAddress& mn, bool answered);
  RouterAdvertisement advertisement() const;

  // Time.
  milliseconds longest_silence() const;
  SteadyTime on_tick(SteadyTime at) const;
  SteadyTime latest_sign(const LinkLayerAddress& mn, const Served& served) const;
  void schedule(const LinkLayerAddress& mn, Served& served);
  void push(const Deadline& deadline);
  void arm();
  void on_timer();
  void run_deadline(const Deadline& deadline, SteadyTime now);
  void run_served(const LinkLayerAddress& mn, SteadyTime now);
  bool is_last_probe_over(const LinkLayerAddress& mn, SteadyTime now) const;
  void depart(const LinkLayerAddress& mn, v1::DetachReason reason);

  // Data of a station in or out of the kernel's map, as the tracker has it.
  void update_suppression(const Station& station);

  template <typename Function>
  void later(Function function) {
    boost::asio::post(executor_, [alive = std::weak_ptr<bool>(alive_), function = std::move(function)] {
      if (!alive.expired()) function();
    });
  }

  boost::asio::any_io_executor executor_;
  AccessPlaneConfig config_;
  std::unique_ptr<FrameFilter> filter_;
  ArrivalLimiter limiter_;
  ArrivalTracker tracker_;
  std::vector<std::unique_ptr<Port>> ports_;
  absl::flat_hash_map<LinkLayerAddress, Served> served_;
  absl::flat_hash_map<LinkLayerAddress, std::unique_ptr<Question>> questions_;
  absl::flat_hash_map<Station, SteadyTime> suppressed_;
  std::priority_queue<Deadline, std::vector<Deadline>, std::greater<>> queue_;
  boost::asio::steady_timer timer_;
  SteadyTime armed_for_ = SteadyTime::max();
  std::minstd_rand random_{std::random_device{}()};
  AccessCounters counters_;
  std::uint64_t malformed_unreported_ = 0;
  std::optional<SteadyTime> malformed_warned_at_;
  std::uint64_t limited_unreported_ = 0;
  std::optional<SteadyTime> limited_warned_at_;
  std::unique_ptr<LinkMonitor> links_;
  std::array<std::uint8_t, 65536> buffer_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

absl::Status PacketAccessPlane::start() {
  // Asked for here, so that a lack of privilege is an error of the start and not of each interface.
  const int fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0);
  if (fd < 0) {
    return absl::ErrnoToStatus(errno, "cannot open a packet socket for the access interfaces (CAP_NET_RAW is needed)");
  }
  close(fd);
  counters_.data_frames_heard = filter_->hears_data();
  if (!filter_->hears_data()) {
    log_warning("access_data_frames_unheard", "reason", filter_->status(), "effect",
                "an MN that sends neither RS nor other discovery is not heard");
  }
  absl::StatusOr<std::unique_ptr<LinkMonitor>> links =
      LinkMonitor::open(executor_, [this](const LinkState& state) { on_link(state); });
  if (!links.ok()) return links.status();
  links_ = std::move(*links);
  for (const std::unique_ptr<Port>& port : ports_) {
    if (port->index == 0) log_warning("access_interface_absent", "interface", port->name, "action", "waiting for it");
  }
  return absl::OkStatus();
}

std::size_t PacketAccessPlane::port_named(const std::string& interface) const {
  const auto port = std::find_if(ports_.begin(), ports_.end(), [&](const auto& p) { return p->name == interface; });
  return static_cast<std::size_t>(port - ports_.begin());
}

void PacketAccessPlane::on_link(const LinkState& state) {
  for (std::size_t i = 0; i < ports_.size(); ++i) {
    Port& port = *ports_[i];
    const bool ours = port.index == state.index && port.index != 0;
    if (ours && (state.removed || state.name != port.name)) {
      on_interface_lost(i);
      continue;
    }
    if (state.removed || state.name != port.name) continue;
    if (port.index != state.index) {
      if (port.index != 0) on_interface_lost(i);
      port.index = state.index;
      port.carrier_ups = state.carrier_ups;
      port.up_before_start = state.up && links_ == nullptr;
      if (absl::Status status = open_socket(i); !status.ok()) {
        log_error("access_interface_failed", "interface", port.name, "error", status);
        port.index = 0;
        continue;
      }
      log_info("access_interface_found", "interface", port.name, "index", port.index, "up", state.up ? "yes" : "no");
    }
    // The link was down for a moment that nobody has told of.
    const bool flapped = state.carrier_ups != port.carrier_ups;
    port.carrier_ups = state.carrier_ups;
    if (port.up && (!state.up || flapped)) on_port_down(i);
    if (!port.up && state.up) on_port_up(i);
  }
}

void PacketAccessPlane::on_interface_lost(std::size_t index) {
  Port& port = *ports_[index];
  log_warning("access_interface_gone", "interface", port.name, "action", "waiting for it");
  for (auto entry = suppressed_.begin(); entry != suppressed_.end();) {
    const auto current = entry++;
    if (current->first.port != index) continue;
    filter_->pass(port.index, current->first.link_layer_address);
    suppressed_.erase(current);
  }
  filter_->pass(port.index, config_.link_layer_address);
  filter_->pass(port.index, config_.provoking_address());
  on_port_down(index);
  port.index = 0;
  port.socket.reset();
}

void PacketAccessPlane::on_port_down(std::size_t index) {
  Port& port = *ports_[index];
  port.up = false;
  port.up_before_start = false;
  port.changed_at = std::chrono::steady_clock::now();
  port.provocation_timer.cancel();
  port.provocations = kProvocations.size();
  // What was sent before the link went down tells of no arrival.
  discard_frames(port);
  log_info("access_link_down", "interface", port.name);
  later([this, interface = port.name] {
    if (on_link_down) on_link_down(interface);
  });

  std::vector<LinkLayerAddress> gone;
  for (const auto& [mn, served] : served_) {
    if (served.port == index) gone.push_back(mn);
  }
  std::vector<LinkLayerAddress> asked;
  for (const auto& [mn, question] : questions_) {
    if (question->port == index) asked.push_back(mn);
  }
  std::vector<Station> held;
  for (const auto& [station, until] : suppressed_) {
    if (station.port == index) held.push_back(station);
  }
  tracker_.link_changed(index);
  for (const LinkLayerAddress& mn : gone) depart(mn, v1::DETACH_REASON_LINK_DOWN);
  for (const LinkLayerAddress& mn : asked) answer(mn, false);
  for (const Station& station : held) update_suppression(station);
}

void PacketAccessPlane::on_port_up(std::size_t index) {
  Port& port = *ports_[index];
  port.up = true;
  port.heard = false;
  port.provocations = 0;
  port.changed_at = std::chrono::steady_clock::now();
  log_info("access_link_up", "interface", port.name);
  for (const Station& station : tracker_.end_guards(index)) update_suppression(station);
  provoke(index);
}

absl::Status PacketAccessPlane::open_socket(std::size_t index) {
  Port& port = *ports_[index];
  const int fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return absl::ErrnoToStatus(errno, "cannot open a packet socket");
  port.socket = std::make_unique<boost::asio::posix::stream_descriptor>(executor_, fd);
  const int on = 1;
  // What we and the kernel send does not tell of an MN.
  setsockopt(fd, SOL_PACKET, PACKET_IGNORE_OUTGOING, &on, sizeof(on));
  setsockopt(fd, SOL_SOCKET, SO_TIMESTAMPNS, &on, sizeof(on));
  // A flood of frames must not push out those of real MNs while the executor is busy.
  setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &kReceiveBuffer, sizeof(kReceiveBuffer));
  if (absl::Status status = filter_->attach(fd); !status.ok()) return status;
  sockaddr_ll address{};
  address.sll_family = AF_PACKET;
  address.sll_protocol = htons(ETH_P_ALL);
  address.sll_ifindex = static_cast<int>(port.index);
  if (bind(fd, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) {
    return absl::ErrnoToStatus(errno, "cannot bind a packet socket");
  }
  // Frames with our own address as their source come back over a loop in the link.
  filter_->suppress(port.index, config_.link_layer_address);
  filter_->suppress(port.index, config_.provoking_address());
  wait_for_frames(index);
  return absl::OkStatus();
}

void PacketAccessPlane::provoke(std::size_t index) {
  Port& port = *ports_[index];
  if (!port.up || port.provocations >= kProvocations.size()) return;
  if (port.provocations > 0 && port.heard) return;
  send_provocation(port);
  const SteadyTime up_at = port.changed_at;
  if (++port.provocations >= kProvocations.size()) return;
  port.provocation_timer.expires_at(up_at + kProvocations[port.provocations]);
  port.provocation_timer.async_wait(
      [this, index, alive = std::weak_ptr<bool>(alive_)](const boost::system::error_code& error) {
        if (!error && !alive.expired()) provoke(index);
      });
}

// A Linux host sends nothing by itself after a short loss of carrier; it answers these within a millisecond. The RA
// goes first: it tells the host the router's address, so that its answer to the echo request needs no resolution.
void PacketAccessPlane::send_provocation(Port& port) {
  const FrameAddresses to_all{.link_source = config_.provoking_address(),
                              .link_destination = multicast_link_layer_address(all_nodes_address()),
                              .source = config_.link_local,
                              .destination = all_nodes_address()};
  send_frame(port, build_frame(to_all, advertisement()));
  send_frame(port, build_echo_request(to_all, 0, static_cast<std::uint16_t>(port.provocations)));
  send_frame(port, build_general_query(to_all));
  // For switches that forward a group's frames to its listeners only (RFC 4541, 3). The kernel's own reports have the
  // router's address, and the access filter keeps them in.
  const auto all_listeners = *Ipv6Address::parse("ff02::16");
  send_frame(port, build_listener_report({.link_source = to_all.link_source,
                                          .link_destination = multicast_link_layer_address(all_listeners),
                                          .source = config_.link_local,
                                          .destination = all_listeners},
                                         {all_routers_address(), solicited_node_address(config_.link_local)}));
  counters_.provocations_sent += 4;
}

void PacketAccessPlane::wait_for_frames(std::size_t index) {
  Port& port = *ports_[index];
  port.socket->async_wait(boost::asio::posix::stream_descriptor::wait_read,
                          [this, index, alive = std::weak_ptr<bool>(alive_)](const boost::system::error_code& error) {
                            if (error || alive.expired() || ports_[index]->socket == nullptr) return;
                            read_frames(index);
                            if (!alive.expired() && ports_[index]->socket != nullptr) wait_for_frames(index);
                          });
}

void PacketAccessPlane::read_all_frames() {
  const std::weak_ptr<bool> alive = alive_;
  for (std::size_t index = 0; index < ports_.size(); ++index) {
    for (int i = 0; i < kMostWakes; ++i) {
      if (!read_frames(index) || alive.expired()) break;
    }
    if (alive.expired()) return;
  }
}

bool PacketAccessPlane::read_frames(std::size_t index) {
  const std::weak_ptr<bool> alive = alive_;
  for (int i = 0; i < kFramesPerWake; ++i) {
    Port& port = *ports_[index];
    if (port.socket == nullptr) return false;
    iovec vector{.iov_base = buffer_.data(), .iov_len = buffer_.size()};
    alignas(cmsghdr) std::array<char, 256> control;
    msghdr message{};
    message.msg_iov = &vector;
    message.msg_iovlen = 1;
    message.msg_control = control.data();
    message.msg_controllen = control.size();
    const ssize_t size = recvmsg(port.socket->native_handle(), &message, 0);
    // ENETDOWN tells once that the interface went down; the link monitor tells so too.
    if (size < 0 && (errno == EINTR || errno == ENETDOWN)) continue;
    if (size < 0) return false;
    SystemTime at = system_now();
    for (cmsghdr* c = CMSG_FIRSTHDR(&message); c != nullptr; c = CMSG_NXTHDR(&message, c)) {
      if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_TIMESTAMPNS) continue;
      timespec stamp;
      std::memcpy(&stamp, CMSG_DATA(c), sizeof(stamp));
      at = SystemTime(seconds(stamp.tv_sec) + std::chrono::nanoseconds(stamp.tv_nsec));
    }
    on_frame(index, std::span(buffer_).first(static_cast<std::size_t>(size)), at);
    if (alive.expired()) return false;
  }
  return true;
}

void PacketAccessPlane::discard_frames(Port& port) {
  if (port.socket == nullptr) return;
  // Bounded: a busy link must not hold the executor.
  for (int i = 0; i < 65536; ++i) {
    const ssize_t size = recv(port.socket->native_handle(), buffer_.data(), buffer_.size(), MSG_DONTWAIT | MSG_TRUNC);
    if (size < 0 && errno != EINTR && errno != ENETDOWN) return;
  }
}

void PacketAccessPlane::on_frame(std::size_t index, std::span<const std::uint8_t> bytes, SystemTime at) {
  Port& port = *ports_[index];
  ++counters_.frames_heard;
  absl::StatusOr<std::optional<ArrivalTracker::Frame>> frame = classify_frame(bytes, config_.link_layer_address);
  if (!frame.ok()) {
    LinkLayerAddress::Bytes source;
    std::copy_n(bytes.begin() + 6, source.size(), source.begin());
    count_malformed(port, LinkLayerAddress(source), frame.status());
    return;
  }
  if (!frame->has_value()) return;
  ArrivalTracker::Frame& heard = **frame;
  // Another access router's question on a shared link.
  if (heard.station.link_layer_address == config_.provoking_address()) return;
  if (heard.trigger == v1::TRIGGER_ROUTER_SOLICITATION) ++counters_.router_solicitations;
  heard.station.port = index;
  heard.at = std::chrono::steady_clock::now();
  port.heard = true;
  const LinkLayerAddress mn = heard.station.link_layer_address;
  const ArrivalTracker::Verdict verdict = tracker_.heard(heard);
  if (const auto asked = questions_.find(mn); asked != questions_.end() && asked->second->port == index) {
    answer(mn, true);
  }

  if (verdict.served && heard.trigger == v1::TRIGGER_ROUTER_SOLICITATION) {
    Served& served = served_.at(mn);
    if (served.advertised_at) {
      served.advertise_at =
          std::min(served.advertise_at, std::max(heard.at, *served.advertised_at + kRouterAdvertisementInterval));
    }
    // Not by the queue: the MN waits.
    if (served.advertise_at <= heard.at) {
      send_advertisements(mn, served);
    }
    schedule(mn, served);
  }
  if (heard.trigger == v1::TRIGGER_NEIGHBOUR_DISCOVERY &&
      (verdict.served || verdict.moved_away || (is_let_in && is_let_in(mn, port.name)))) {
    answer_solicitation(port, bytes);
  }
  const bool report = verdict.report && admit(heard.station, verdict, heard.at);
  if (!verdict.served) update_suppression(heard.station);
  if (!report) return;
  ++counters_.arrivals;
  const Arrival arrival{.link_layer_address = mn,
                        .link_local = verdict.link_local,
                        .link_local_seen = verdict.link_local_seen,
                        .interface = port.name,
                        .trigger = heard.trigger,
                        .link_unchanged = verdict.link_unchanged,
                        .on_earlier_link = port.up_before_start,
                        .heard_at = at,
                        .heard_at_steady = heard.at};
  log_debug("mn_heard", "mn", mn, "interface", port.name, "trigger", v1::Trigger_Name(heard.trigger), "link_local",
            arrival.link_local, "after_link_up_us",
            std::chrono::duration_cast<std::chrono::microseconds>(heard.at - port.changed_at).count());
  if (on_arrival) on_arrival(arrival);
}

bool PacketAccessPlane::admit(const Station& station, const ArrivalTracker::Verdict& verdict, SteadyTime now) {
  const auto& mn = station.link_layer_address;
  const bool known = verdict.served || (is_known && is_known(mn));
  const auto limit = limiter_.admit(station.port, mn, known, verdict.heard_before, now);
  if (limit == ArrivalLimit::kNone) return true;
  tracker_.unreported(station);
  ++counters_.arrivals_limited;
  ++limited_unreported_;
  if (on_limited) on_limited(limit);
  if (limited_warned_at_ && now < *limited_warned_at_ + kLimitedWarningInterval) return false;
  log_warning("arrivals_limited", "interface", ports_[station.port]->name, "mn", mn, "count", limited_unreported_,
              "effect", "not told to the LM now");
  limited_warned_at_ = now;
  limited_unreported_ = 0;
  return false;
}

void PacketAccessPlane::count_malformed(const Port& port, const LinkLayerAddress& source, const absl::Status& reason) {
  ++counters_.malformed[std::string(reason.message())];
  log_debug("malformed_frame", "interface", port.name, "source", source, "reason", std::string(reason.message()));
  ++malformed_unreported_;
  const SteadyTime now = std::chrono::steady_clock::now();
  if (malformed_warned_at_ && now < *malformed_warned_at_ + kMalformedWarningInterval) return;
  log_warning("malformed_frames", "interface", port.name, "source", source, "reason", std::string(reason.message()),
              "count", malformed_unreported_);
  malformed_warned_at_ = now;
  malformed_unreported_ = 0;
}

bool PacketAccessPlane::send_frame(Port& port, std::span<const std::uint8_t> frame) {
  if (port.socket != nullptr) {
    ssize_t sent = send(port.socket->native_handle(), frame.data(), frame.size(), MSG_DONTWAIT);
    // That the interface was down since the last call is told once, on whichever call comes first.
    if (sent < 0 && errno == ENETDOWN) {
      sent = send(port.socket->native_handle(), frame.data(), frame.size(), MSG_DONTWAIT);
    }
    if (sent == static_cast<ssize_t>(frame.size())) return true;
    log_debug("access_send_failed", "interface", port.name, "error", absl::ErrnoToStatus(errno, "send"));
  }
  ++counters_.send_errors;
  return false;
}

RouterAdvertisement PacketAccessPlane::advertisement() const {
  RouterAdvertisement out;
  out.router_lifetime = static_cast<std::uint16_t>(
      std::clamp<std::int64_t>(config_.router_lifetime.count(), 0, 9000));  // RFC 4861, 6.2.1: AdvDefaultLifetime
  out.source_link_layer_address = config_.link_layer_address;
  out.mtu = config_.mtu;
  return out;
}

// The Ethernet frame is ours, so it needs no neighbour entry in the kernel.
bool PacketAccessPlane::send_advertisements(const LinkLayerAddress& mn, Served& served) {
  Port& port = *ports_[served.port];
  const SteadyTime now = std::chrono::steady_clock::now();
  const FrameAddresses to_mn{.link_source = config_.link_layer_address,
                             .link_destination = mn,
                             .source = config_.link_local,
                             .destination = served.link_local};
  const auto valid = std::min(config_.valid_lifetime, kMaxValidLifetime);
  const auto preferred = std::min(config_.preferred_lifetime, valid);
  bool sent = true;
  std::size_t at = 0;
  do {
    RouterAdvertisement message = advertisement();
    const std::size_t end = std::min(served.prefixes.size(), at + kPrefixesPerAdvertisement);
    for (; at < end; ++at) {
      const AdvertisedPrefix& prefix = served.prefixes[at];
      // RFC 8273, 4: "L-flag = 0 (the prefix is not an on-link prefix...)", "A-flag = 1".
      message.prefixes.push_back(
          {.prefix = prefix.prefix,
           .on_link = false,
           .autonomous = true,
           .valid_lifetime = prefix.ended ? 0 : static_cast<std::uint32_t>(valid.count()),
           .preferred_lifetime = prefix.deprecated ? 0 : static_cast<std::uint32_t>(preferred.count())});
    }
    sent = send_frame(port, build_frame(to_mn, message)) && sent;
    if (sent) ++counters_.router_advertisements_sent;
  } while (at < served.prefixes.size());
  if (!sent) {
    served.advertise_at = now + kSendRetry;
    return false;
  }
  served.advertised_at = now;
  // A third of what runs out first, less up to a tenth, so that MNs that came together do not stay together.
  const auto period = std::chrono::duration_cast<milliseconds>(std::max(
      seconds(1),
      std::min({preferred, valid, config_.router_lifetime.count() > 0 ? config_.router_lifetime : valid}) / 3));
  served.advertise_at =
      now + period - milliseconds(std::uniform_int_distribution<std::int64_t>(0, period.count() / 10)(random_));
  later([this, mn, prefixes = served.prefixes, when = system_now()] {
    if (on_ra_sent) on_ra_sent(mn, prefixes, when);
  });
  return true;
}

// The kernel hears, and answers, those that are here, and these only with the link-local address that is known of them:
// it would keep a neighbour for each other address. One that has moved away may be here all the same, or has not heard
// yet that it has; one that is let in may not be served yet, or not any more, while the LM is away.
void PacketAccessPlane::answer_solicitation(Port& port, std::span<const std::uint8_t> bytes) {
  const auto packet = parse_icmpv6_frame(bytes);
  if (!packet.ok() || packet->type() != Icmpv6Type::kNeighbourSolicitation) return;
  const auto solicitation = parse_neighbour_solicitation(*packet);
  if (!solicitation.ok() || solicitation->target != config_.link_local) return;
  // Duplicate address detection.
  if (packet->addresses.source.is_unspecified()) return;
  const auto served = served_.find(packet->addresses.link_source);
  if (served != served_.end() && ports_[served->second.port].get() == &port &&
      served->second.link_local == packet->addresses.source) {
    return;
  }
  send_frame(port, build_frame({.link_source = config_.link_layer_address,
                                .link_destination = packet->addresses.link_source,
                                .source = config_.link_local,
                                .destination = packet->addresses.source},
                               NeighbourAdvertisement{.target = config_.link_local,
                                                      .router = true,
                                                      .solicited = true,
                                                      .override_flag = true,
                                                      .target_link_layer_address = config_.link_layer_address}));
}

// RFC 4861, 7.3.3: a unicast neighbour solicitation. Where the address that we know of the MN is no more than a guess
// it would stay unanswered, so a question to all nodes goes along, in a frame to this MN alone.
void PacketAccessPlane::send_probe(const LinkLayerAddress& mn, std::size_t port, const Ipv6Address& link_local,
                                   bool first) {
  FrameAddresses addresses{.link_source = config_.link_layer_address,
                           .link_destination = mn,
                           .source = config_.link_local,
                           .destination = link_local};
  send_frame(*ports_[port],
             build_frame(addresses, NeighbourSolicitation{.target = link_local,
                                                          .source_link_layer_address = config_.link_layer_address}));
  if (!first) {
    addresses.destination = all_nodes_address();
    send_frame(*ports_[port], build_general_query(addresses));
  }
  ++counters_.probes_sent;
}

void PacketAccessPlane::serve(const LinkLayerAddress& mn, const Ipv6Address& link_local, const std::string& interface,
                              const std::vector<AdvertisedPrefix>& prefixes) {
  const SteadyTime now = std::chrono::steady_clock::now();
  const auto is_down = [&](const Port& port, const Station& station) {
    // A frame can be faster than the notice that the link is up.
    const std::optional<SteadyTime> heard = tracker_.last_heard(station);
    return port.index == 0 || (!port.up && !(heard && *heard > port.changed_at));
  };
  const Station station{.port = port_named(interface), .link_layer_address = mn};
  if (station.port == ports_.size() || is_down(*ports_[station.port], station)) {
    log_warning("served_without_link", "mn", mn, "interface", interface, "action", "reported as departed");
    if (served_.contains(mn)) release(mn);
    ++counters_.departures;
    later([this, departure = Departure{.link_layer_address = mn,
                                       .interface = interface,
                                       .reason = v1::DETACH_REASON_LINK_DOWN,
                                       .last_heard = last_heard(mn).value_or(now)}] {
      if (on_departure) on_departure(departure);
    });
    return;
  }

  const auto [entry, added] = served_.try_emplace(mn);
  Served& served = entry->second;
  if (!added && served.port == station.port && served.link_local == link_local && served.prefixes == prefixes) return;
  const Station before{.port = served.port, .link_layer_address = mn};
  tracker_.serve(station, link_local, now);
  if (added || served.port != station.port) {
    served.served_since = now;
    served.probes = 0;
    // An MN that was never heard in this run is asked at once whether it is there.
    served.probe_at = tracker_.last_heard(station) ? now + config_.probe_after : now;
  }
  served.port = station.port;
  served.link_local = link_local;
  served.prefixes = prefixes;
  if (!added && !(before == station)) update_suppression(before);
  update_suppression(station);
  send_advertisements(mn, served);
  schedule(mn, served);
}

void PacketAccessPlane::release(const LinkLayerAddress& mn) {
  served_.erase(mn);
  for (const Station& station : tracker_.release(mn, ports_.size(), std::chrono::steady_clock::now())) {
    // The link is down: the overlap is over.
    if (!ports_[station.port]->up) tracker_.end_guards(station.port);
    update_suppression(station);
  }
}

void PacketAccessPlane::release_after_restart(const LinkLayerAddress& mn) {
  served_.erase(mn);
  for (std::size_t port = 0; port < ports_.size(); ++port) {
    if (!ports_[port]->up_before_start) continue;
    const Station station{.port = port, .link_layer_address = mn};
    tracker_.release_after_restart(station, std::chrono::steady_clock::now());
    update_suppression(station);
  }
}

void PacketAccessPlane::refuse(const LinkLayerAddress& mn, milliseconds pause) {
  for (const Station& station : tracker_.refuse(mn, pause, std::chrono::steady_clock::now())) {
    update_suppression(station);
  }
}

std::optional<SteadyTime> PacketAccessPlane::last_heard(const LinkLayerAddress& mn) const {
  std::optional<SteadyTime> heard = tracker_.last_heard(mn);
  if (const auto served = served_.find(mn); served != served_.end()) {
    heard = std::max(heard, filter_->last_data(ports_[served->second.port]->index, mn));
  }
  return heard;
}

std::optional<SteadyTime> PacketAccessPlane::last_heard_on(const std::string& interface,
                                                           const LinkLayerAddress& mn) const {
  const Station station{.port = port_named(interface), .link_layer_address = mn};
  const auto heard = tracker_.last_heard(station);
  const auto served = served_.find(mn);
  if (served == served_.end() || served->second.port != station.port) return heard;
  return std::max(heard, filter_->last_data(ports_[station.port]->index, mn));
}

void PacketAccessPlane::probe(const LinkLayerAddress& mn, const Ipv6Address& link_local, const std::string& interface,
                              std::function<void(bool)> answered) {
  answer(mn, false);
  const std::size_t port = port_named(interface);
  if (port == ports_.size() || !ports_[port]->up) return later([answered = std::move(answered)] { answered(false); });
  questions_[mn] = std::make_unique<Question>(executor_, port, link_local, std::move(answered));
  ask(mn);
}

void PacketAccessPlane::ask(const LinkLayerAddress& mn) {
  if (questions_.at(mn)->probes == kMaxProbes) {
    const std::weak_ptr<bool> alive = alive_;
    read_all_frames();
    if (alive.expired() || !questions_.contains(mn)) return;
  }
  Question& question = *questions_.at(mn);
  const bool first = question.probes == 0;
  if (question.probes++ == kMaxProbes) {
    const auto served = served_.find(mn);
    if (served != served_.end() && served->second.port == question.port) depart(mn, v1::DETACH_REASON_UNREACHABLE);
    return answer(mn, false);
  }
  send_probe(mn, question.port, question.link_local, first);
  question.timer.expires_after(config_.probe_interval);
  question.timer.async_wait([this, mn, alive = std::weak_ptr<bool>(alive_)](const boost::system::error_code& error) {
    if (!error && !alive.expired() && questions_.contains(mn)) ask(mn);
  });
}

void PacketAccessPlane::answer(const LinkLayerAddress& mn, bool answered) {
  auto question = questions_.extract(mn);
  if (question.empty()) return;
  later([answered, callback = std::move(question.mapped()->answered)] { callback(answered); });
}

// So many MNs are probed in turn that none may stay silent for less.
milliseconds PacketAccessPlane::longest_silence() const {
  return std::max(config_.probe_after, milliseconds(served_.size() * 1000 / config_.probe_rate));
}

// The next of the times at which MNs are probed: together, so that the speaker wakes up less often.
SteadyTime PacketAccessPlane::on_tick(SteadyTime at) const {
  const auto since = at.time_since_epoch();
  const SteadyTime::duration tick = std::min<milliseconds>(kProbeTick, config_.probe_after / 10);
  const auto over = since % tick;
  return over == over.zero() ? at : at + (tick - over);
}

SteadyTime PacketAccessPlane::latest_sign(const LinkLayerAddress& mn, const Served& served) const {
  return last_heard(mn).value_or(served.served_since);
}

void PacketAccessPlane::schedule(const LinkLayerAddress& mn, Served& served) {
  const SteadyTime due = std::min(served.advertise_at, served.probe_at);
  // A later deadline needs no entry: the one that is queued finds that nothing is due and queues the next.
  if (served.queued_for <= due) return;
  served.queued_for = due;
  push({.at = due, .served = true, .station = {.port = served.port, .link_layer_address = mn}});
}

void PacketAccessPlane::push(const Deadline& deadline) {
  queue_.push(deadline);
  arm();
}

void PacketAccessPlane::arm() {
  if (queue_.empty() || queue_.top().at >= armed_for_) return;
  armed_for_ = queue_.top().at;
  timer_.expires_at(armed_for_);
  timer_.async_wait([this, alive = std::weak_ptr<bool>(alive_)](const boost::system::error_code& error) {
    if (!error && !alive.expired()) on_timer();
  });
}

void PacketAccessPlane::on_timer() {
  const std::weak_ptr<bool> alive = alive_;
  const SteadyTime now = std::chrono::steady_clock::now();
  bool all_read = false;
  while (!queue_.empty() && queue_.top().at <= now) {
    const Deadline deadline = queue_.top();
    if (!all_read && deadline.served && is_last_probe_over(deadline.station.link_layer_address, now)) {
      all_read = true;
      read_all_frames();
      if (alive.expired()) return;
      continue;
    }
    queue_.pop();
    run_deadline(deadline, now);
    if (alive.expired()) return;
  }
  armed_for_ = SteadyTime::max();
  arm();
}

bool PacketAccessPlane::is_last_probe_over(const LinkLayerAddress& mn, SteadyTime now) const {
  const auto served = served_.find(mn);
  return served != served_.end() && served->second.probes >= kMaxProbes && served->second.probe_at <= now;
}

void PacketAccessPlane::run_deadline(const Deadline& deadline, SteadyTime now) {
  if (!deadline.served) {
    const auto found = suppressed_.find(deadline.station);
    if (found != suppressed_.end() && found->second == deadline.at) update_suppression(deadline.station);
    return;
  }
  const auto found = served_.find(deadline.station.link_layer_address);
  if (found == served_.end() || found->second.queued_for != deadline.at) return;
  found->second.queued_for = SteadyTime::max();
  run_served(deadline.station.link_layer_address, now);
}

void PacketAccessPlane::run_served(const LinkLayerAddress& mn, SteadyTime now) {
  Served& served = served_.at(mn);
  if (served.advertise_at <= now) send_advertisements(mn, served);
  if (served.probe_at <= now) {
    const SteadyTime sign = latest_sign(mn, served);
    if (served.probes > 0 && sign > served.first_probe_at) served.probes = 0;
    const bool never_heard = !last_heard(mn).has_value();
    const SteadyTime first_probe_due = sign + longest_silence();
    if (served.probes == 0 && !never_heard && first_probe_due > now) {
      served.probe_at = on_tick(first_probe_due);
    } else if (served.probes >= kMaxProbes) {
      depart(mn, v1::DETACH_REASON_UNREACHABLE);
      return;
    } else {
      const bool first = served.probes++ == 0;
      if (first) served.first_probe_at = now;
      served.probe_at = now + config_.probe_interval;
      send_probe(mn, served.port, served.link_local, first);
    }
  }
  schedule(mn, served);
}

void PacketAccessPlane::depart(const LinkLayerAddress& mn, v1::DetachReason reason) {
  const auto found = served_.find(mn);
  if (found == served_.end()) return;
  const Station station{.port = found->second.port, .link_layer_address = mn};
  const Departure departure{.link_layer_address = mn,
                            .interface = ports_[station.port]->name,
                            .reason = reason,
                            .last_heard = latest_sign(mn, found->second)};
  served_.erase(found);
  tracker_.depart(station);
  update_suppression(station);
  ++counters_.departures;
  // By way of the executor: the owner may call back into this object, which is in the middle of a loop.
  later([this, departure] {
    if (on_departure) on_departure(departure);
  });
}

void PacketAccessPlane::update_suppression(const Station& station) {
  const std::uint32_t interface_index = ports_[station.port]->index;
  const auto until = tracker_.data_unneeded_until(station, std::chrono::steady_clock::now());
  const auto found = suppressed_.find(station);
  if (!until) {
    if (found == suppressed_.end()) return;
    filter_->pass(interface_index, station.link_layer_address);
    suppressed_.erase(found);
    return;
  }
  if (found != suppressed_.end()) {
    if (found->second == *until) return;
    found->second = *until;
  } else {
    if (*until != SteadyTime::max() && suppressed_.size() >= served_.size() + kMaxSuppressedUnserved) return;
    if (interface_index == 0 || !filter_->suppress(interface_index, station.link_layer_address)) return;
    suppressed_.emplace(station, *until);
  }
  if (*until != SteadyTime::max()) push({.at = *until, .served = false, .station = station});
}

absl::Status check_config(const AccessPlaneConfig& config) {
  if (config.link_layer_address.is_zero() || config.link_layer_address.is_multicast()) {
    return absl::InvalidArgumentError(
        absl::StrCat("access: link-layer address ", config.link_layer_address.to_string(), " is no unicast address"));
  }
  if (!config.link_local.is_link_local()) {
    return absl::InvalidArgumentError(
        absl::StrCat("access: link-local address ", config.link_local.to_string(), " is not of fe80::/10"));
  }
  if (config.mtu < 1280) {
    return absl::InvalidArgumentError(
        absl::StrCat("access: MTU ", config.mtu, " is below IPv6's minimum of 1280 (RFC 8200, 5)"));
  }
  for (std::size_t i = 0; i < config.interfaces.size(); ++i) {
    const std::string& name = config.interfaces[i];
    if (name.empty() || name.size() > 15) {
      return absl::InvalidArgumentError(absl::StrCat("access: interface name '", name, "' has not 1 to 15 characters"));
    }
    if (std::find(config.interfaces.begin(), config.interfaces.begin() + static_cast<std::ptrdiff_t>(i), name) !=
        config.interfaces.begin() + static_cast<std::ptrdiff_t>(i)) {
      return absl::InvalidArgumentError(absl::StrCat("access: interface ", name, " is named twice"));
    }
  }
  return absl::OkStatus();
}

}  // namespace

LinkLayerAddress AccessPlaneConfig::provoking_address() const {
  auto bytes = link_layer_address.bytes();
  bytes.back() ^= 1U;
  return LinkLayerAddress(bytes);
}

absl::StatusOr<std::unique_ptr<AccessPlane>> make_access_plane(boost::asio::any_io_executor executor,
                                                               const AccessPlaneConfig& config) {
  if (absl::Status status = check_config(config); !status.ok()) return status;
  auto plane = std::make_unique<PacketAccessPlane>(std::move(executor), config);
  if (absl::Status status = plane->start(); !status.ok()) return status;
  return plane;
}

}  // namespace kedge::speaker
