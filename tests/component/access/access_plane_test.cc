// The access plane on a real link: network namespaces for the AR and the MN, joined by a veth pair. The MN is a Linux
// host whose one interface is a bridge with a port to the AR, or a socket that sends what a test wants.
#include "speaker/access/access_plane.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <sched.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "boost/asio/io_context.hpp"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "speaker/access/icmpv6_codec.h"

namespace kedge::speaker {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

const LinkLayerAddress kRouterMac({0x02, 0, 0, 0, 0, 0x01});
const LinkLayerAddress kMnMac({0x02, 0, 0, 0, 0, 0x11});
const LinkLayerAddress kOtherMac({0x02, 0, 0, 0, 0, 0x22});

Ipv6Address address(const std::string& text) { return *Ipv6Address::parse(text); }
AdvertisedPrefix prefix(const std::string& text, bool deprecated = false) {
  return {.prefix = *Ipv6Prefix::parse(text), .deprecated = deprecated};
}

// A network namespace without a name: it is gone when the test is, however the test ends.
class Namespace {
 public:
  static int current() { return open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC); }

  Namespace() {
    const int before = current();
    EXPECT_EQ(unshare(CLONE_NEWNET), 0);
    fd_ = current();
    run("ip link set lo up");
    EXPECT_EQ(setns(before, CLONE_NEWNET), 0);
    close(before);
  }
  ~Namespace() { close(fd_); }
  Namespace(const Namespace&) = delete;
  Namespace& operator=(const Namespace&) = delete;

  template <typename Function>
  auto inside(Function function) const {
    struct Return {
      int before = current();
      ~Return() {
        setns(before, CLONE_NEWNET);
        close(before);
      }
    } back;
    EXPECT_EQ(setns(fd_, CLONE_NEWNET), 0);
    return function();
  }
  void exec(const std::string& command) const {
    inside([&] { run(command); });
  }
  std::string output(const std::string& command) const {
    return inside([&] {
      std::string out;
      FILE* pipe = popen(command.c_str(), "r");
      std::array<char, 4096> buffer;
      while (const std::size_t size = fread(buffer.data(), 1, buffer.size(), pipe)) out.append(buffer.data(), size);
      pclose(pipe);
      return out;
    });
  }
  void sysctl(const std::string& key, const std::string& value) const {
    inside([&] { std::ofstream("/proc/sys/" + key) << value; });
  }
  std::string path() const { return absl::StrCat("/proc/", getpid(), "/fd/", fd_); }

 private:
  static void run(const std::string& command) { EXPECT_EQ(std::system(command.c_str()), 0) << command; }

  int fd_ = -1;
};

// Sends and receives raw frames on an interface.
class Wire {
 public:
  Wire(const Namespace& where, const std::string& interface) {
    fd_ = where.inside([&] {
      const int fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, htons(ETH_P_ALL));
      sockaddr_ll to{};
      to.sll_family = AF_PACKET;
      to.sll_protocol = htons(ETH_P_ALL);
      to.sll_ifindex = static_cast<int>(if_nametoindex(interface.c_str()));
      EXPECT_EQ(bind(fd, reinterpret_cast<const sockaddr*>(&to), sizeof(to)), 0);
      const int on = 1;
      setsockopt(fd, SOL_PACKET, PACKET_IGNORE_OUTGOING, &on, sizeof(on));
      return fd;
    });
  }
  ~Wire() { close(fd_); }
  Wire(const Wire&) = delete;
  Wire& operator=(const Wire&) = delete;

  void send(const std::vector<std::uint8_t>& frame) const {
    ssize_t sent = ::send(fd_, frame.data(), frame.size(), 0);
    // That the link was down since the last call is told once.
    if (sent < 0 && errno == ENETDOWN) sent = ::send(fd_, frame.data(), frame.size(), 0);
    EXPECT_EQ(sent, static_cast<ssize_t>(frame.size()));
  }
  // What has arrived; does not wait.
  std::vector<std::vector<std::uint8_t>> received() const {
    std::vector<std::vector<std::uint8_t>> frames;
    std::array<std::uint8_t, 2048> buffer;
    while (true) {
      const ssize_t size = recv(fd_, buffer.data(), buffer.size(), MSG_DONTWAIT);
      if (size < 0) return frames;
      frames.emplace_back(buffer.begin(), buffer.begin() + size);
    }
  }

 private:
  int fd_ = -1;
};

// Takes the thread's right to load eBPF while it lives; raw sockets stay permitted.
class WithoutEbpf {
 public:
  WithoutEbpf() {
    syscall(SYS_capget, &header_, before_.data());
    std::array<__user_cap_data_struct, 2> less = before_;
    for (const unsigned capability : {CAP_SYS_ADMIN, CAP_BPF}) {
      less[capability / 32].effective &= ~(1U << (capability % 32));
    }
    EXPECT_EQ(syscall(SYS_capset, &header_, less.data()), 0);
  }
  ~WithoutEbpf() { EXPECT_EQ(syscall(SYS_capset, &header_, before_.data()), 0); }
  WithoutEbpf(const WithoutEbpf&) = delete;
  WithoutEbpf& operator=(const WithoutEbpf&) = delete;

 private:
  __user_cap_header_struct header_{.version = _LINUX_CAPABILITY_VERSION_3, .pid = 0};
  std::array<__user_cap_data_struct, 2> before_{};
};

FrameAddresses from(const LinkLayerAddress& mac, const std::string& destination) {
  return {.link_source = mac,
          .link_destination = multicast_link_layer_address(address(destination)),
          .source = eui64_link_local(mac),
          .destination = address(destination)};
}

std::vector<std::uint8_t> solicitation(const LinkLayerAddress& mac) {
  return build_frame(from(mac, "ff02::2"), RouterSolicitation{.source_link_layer_address = mac});
}

// An IPv6 packet that is no ICMPv6, from a global address.
std::vector<std::uint8_t> data(const LinkLayerAddress& mac) {
  std::vector<std::uint8_t> frame = build_frame({.link_source = mac,
                                                 .link_destination = kRouterMac,
                                                 .source = address("2001:db8:1:1::1"),
                                                 .destination = address("2001:db8:f::1")},
                                                RouterSolicitation{});
  frame[20] = 17;
  return frame;
}

class AccessPlaneTest : public testing::Test {
 protected:
  void SetUp() override {
    if (geteuid() != 0) GTEST_SKIP() << "needs root for network namespaces";
    const int probe = Namespace::current();
    if (unshare(CLONE_NEWNET) != 0) {
      close(probe);
      GTEST_SKIP() << "cannot make a network namespace here";
    }
    setns(probe, CLONE_NEWNET);
    close(probe);
    before_ = Namespace::current();
    ar_.emplace();
    mn_.emplace();
    mn_->sysctl("net/ipv6/conf/default/accept_dad", "0");
    config_.interfaces = {"acc0"};
    config_.link_local = address("fe80::1");
    config_.link_layer_address = kRouterMac;
    config_.probe_after = seconds(60);
  }
  void TearDown() override {
    plane_.reset();
    io_.restart();
    io_.poll();
    if (before_ >= 0) {
      setns(before_, CLONE_NEWNET);
      close(before_);
    }
  }

  void make_link(const std::string& interface = "acc0", const std::string& peer = "port0") {
    ar_->exec(absl::StrCat("ip link add ", interface, " address ", kRouterMac.to_string(), " type veth peer name ",
                           peer, " && ip link set ", peer, " netns ", mn_->path(), " && ip link set ", interface,
                           " addrgenmode none && ip link set ", interface, " up && ip addr add fe80::1/64 dev ",
                           interface, " nodad"));
    mn_->exec(absl::StrCat("ip link set ", peer, " addrgenmode none"));
    mn_->sysctl(absl::StrCat("net/ipv6/conf/", peer, "/disable_ipv6"), "1");
  }
  void link_up(const std::string& peer = "port0") { mn_->exec(absl::StrCat("ip link set ", peer, " up")); }
  void link_down(const std::string& peer = "port0") { mn_->exec(absl::StrCat("ip link set ", peer, " down")); }
  // A Linux host: a bridge with one port to the AR; not up yet.
  void make_host() {
    mn_->exec(absl::StrCat("ip link add br0 address ", kMnMac.to_string(),
                           " type bridge mcast_snooping 0 && ip link set port0 master br0"));
  }

  void start() {
    ar_->inside([&] {
      std::optional<WithoutEbpf> without;
      if (!permit_ebpf_) without.emplace();
      auto plane = make_access_plane(io_.get_executor(), config_);
      ASSERT_TRUE(plane.ok()) << plane.status();
      plane_ = std::move(*plane);
    });
    plane_->on_arrival = [this](const Arrival& arrival) {
      arrivals_.push_back(arrival);
      if (serve_with_) plane_->serve(arrival.link_layer_address, arrival.link_local, arrival.interface, *serve_with_);
    };
    plane_->on_departure = [this](const Departure& departure) { departures_.push_back(departure); };
    plane_->on_ra_sent = [this](const LinkLayerAddress& mn, const std::vector<AdvertisedPrefix>& prefixes, SystemTime) {
      advertised_.emplace_back(mn, prefixes);
    };
  }

  // Runs the plane until the condition holds; false when it does not within the bound.
  bool until(const std::function<bool()>& condition) {
    const auto deadline = std::chrono::steady_clock::now() + seconds(20);
    return ar_->inside([&] {
      while (!condition()) {
        if (std::chrono::steady_clock::now() > deadline) return false;
        io_.restart();
        io_.run_one_for(milliseconds(20));
      }
      return true;
    });
  }
  bool heard(const LinkLayerAddress& mac) {
    return until([&] {
      for (const Arrival& arrival : arrivals_) {
        if (arrival.link_layer_address == mac) return true;
      }
      return false;
    });
  }
  // All that was sent before on the wire has been handled when this returns: a frame of a new MAC has been heard.
  void barrier(const Wire& wire) {
    const LinkLayerAddress mac({0x02, 0, 0, 0, 0xff, ++barriers_});
    wire.send(solicitation(mac));
    ASSERT_TRUE(heard(mac));
  }
  std::size_t count(const LinkLayerAddress& mac) const {
    std::size_t n = 0;
    for (const Arrival& arrival : arrivals_) n += arrival.link_layer_address == mac ? 1 : 0;
    return n;
  }
  void use_fake_mn() {
    make_link();
    link_up();
    start();
    ASSERT_TRUE(until([&] { return plane_->counters().provocations_sent > 0; }));
  }
  // Heard, served, and attached elsewhere then.
  void come_and_be_moved_away(const Wire& wire) {
    wire.send(solicitation(kMnMac));
    ASSERT_TRUE(heard(kMnMac));
    plane_->serve(kMnMac, eui64_link_local(kMnMac), "acc0", {});
    plane_->release(kMnMac);
  }

  std::vector<std::uint8_t> solicit_router(const Ipv6Address& from) const {
    const auto group = solicited_node_address(config_.link_local);
    return build_frame({.link_source = kMnMac,
                        .link_destination = multicast_link_layer_address(group),
                        .source = from,
                        .destination = group},
                       NeighbourSolicitation{.target = config_.link_local, .source_link_layer_address = kMnMac});
  }
  // The router's address is not the kernel's, which would answer.
  void keep_the_kernel_out() { ar_->exec("ip addr del fe80::1/64 dev acc0"); }
  // An answer to the fake MN is among what has come since the last look.
  bool has_found_router(const Wire& wire) const {
    bool found = false;
    for (const auto& received : wire.received()) {
      const auto packet = parse_icmpv6_frame(received);
      if (!packet.ok() || packet->type() != Icmpv6Type::kNeighbourAdvertisement) continue;
      const auto advertisement = parse_neighbour_advertisement(*packet);
      found =
          found || (advertisement.ok() && packet->addresses.link_destination == kMnMac && advertisement->solicited &&
                    advertisement->target_link_layer_address == config_.link_layer_address);
    }
    return found;
  }
  bool finds_router(const Wire& wire, const Ipv6Address& from) {
    return until([&] {
      wire.send(solicit_router(from));
      return has_found_router(wire);
    });
  }

  int before_ = -1;
  std::optional<Namespace> ar_;
  std::optional<Namespace> mn_;
  boost::asio::io_context io_;
  AccessPlaneConfig config_;
  std::unique_ptr<AccessPlane> plane_;
  std::vector<Arrival> arrivals_;
  std::vector<Departure> departures_;
  std::vector<std::pair<LinkLayerAddress, std::vector<AdvertisedPrefix>>> advertised_;
  std::optional<std::vector<AdvertisedPrefix>> serve_with_;
  std::uint8_t barriers_ = 0;
  bool permit_ebpf_ = true;
};

TEST_F(AccessPlaneTest, GivesALinuxHostItsPrefixesAndDeprecatesTheEarlierOne) {
  make_link();
  make_host();
  start();
  serve_with_ = {prefix("2001:db8:1:1::/64"), prefix("2001:db8:2:1::/64")};
  mn_->exec("ip link set br0 up");
  link_up();
  ASSERT_TRUE(heard(kMnMac));
  EXPECT_EQ(arrivals_.front().interface, "acc0");
  const auto addresses = [&](const std::string& filter) {
    return mn_->output("ip -6 -o addr show dev br0 scope global " + filter);
  };
  EXPECT_TRUE(until([&] {
    const std::string now = addresses("-deprecated");
    return now.find("2001:db8:1:1:") != std::string::npos && now.find("2001:db8:2:1:") != std::string::npos;
  })) << addresses("");

  serve_with_ = {prefix("2001:db8:1:1::/64", true), prefix("2001:db8:2:1::/64")};
  plane_->serve(kMnMac, arrivals_.back().link_local, "acc0", *serve_with_);
  EXPECT_TRUE(until([&] { return addresses("deprecated").find("2001:db8:1:1:") != std::string::npos; }))
      << addresses("");
  EXPECT_EQ(addresses("deprecated").find("2001:db8:2:1:"), std::string::npos);
  const std::string routes = mn_->output("ip -6 route show default");
  EXPECT_NE(routes.find("via fe80::1 dev br0"), std::string::npos) << routes;
  // Not on-link (RFC 8273).
  EXPECT_EQ(mn_->output("ip -6 route show 2001:db8:2:1::/64 proto kernel"), "");
}

TEST_F(AccessPlaneTest, HearsALinuxHostAfterACarrierFlapWithoutARouterSolicitation) {
  make_link();
  make_host();
  start();
  serve_with_.emplace();
  mn_->exec("ip link set br0 up");
  link_up();
  ASSERT_TRUE(heard(kMnMac));
  mn_->sysctl("net/ipv6/conf/br0/router_solicitations", "0");
  link_down();
  ASSERT_TRUE(until([&] { return !departures_.empty(); }));
  EXPECT_EQ(departures_[0].link_layer_address, kMnMac);
  EXPECT_EQ(departures_[0].reason, v1::DETACH_REASON_LINK_DOWN);
  const std::uint64_t solicitations = plane_->counters().router_solicitations;
  arrivals_.clear();

  link_up();
  ASSERT_TRUE(heard(kMnMac));
  EXPECT_EQ(plane_->counters().router_solicitations, solicitations);
  EXPECT_TRUE(arrivals_[0].link_local_seen);
  EXPECT_EQ(arrivals_[0].link_local, eui64_link_local(kMnMac));
}

TEST_F(AccessPlaneTest, ALinuxHostThatIsSilentStaysSinceItAnswersProbes) {
  config_.probe_after = milliseconds(40);
  config_.probe_interval = milliseconds(500);
  make_link();
  make_host();
  start();
  serve_with_.emplace();
  mn_->exec("ip link set br0 up");
  link_up();
  ASSERT_TRUE(heard(kMnMac));
  ASSERT_TRUE(until([&] { return plane_->counters().probes_sent >= 5; }));
  EXPECT_TRUE(departures_.empty());
}

TEST_F(AccessPlaneTest, AnswersARouterSolicitationOfAServedMnAtOnceAndReportsIt) {
  use_fake_mn();
  const Wire wire(*mn_, "port0");
  wire.send(solicitation(kMnMac));
  ASSERT_TRUE(heard(kMnMac));
  EXPECT_EQ(arrivals_[0].trigger, v1::TRIGGER_ROUTER_SOLICITATION);
  plane_->serve(kMnMac, arrivals_[0].link_local, "acc0",
                {prefix("2001:db8:1:1::/64"), prefix("2001:db8:2:1::/64", true)});
  ASSERT_TRUE(until([&] { return advertised_.size() == 1; }));
  arrivals_.clear();
  // Again and again, since the first ones may fall into the pause after the RA before.
  ASSERT_TRUE(until([&] {
    wire.send(solicitation(kMnMac));
    return advertised_.size() >= 2 && !arrivals_.empty();
  }));

  std::vector<RouterAdvertisement> unicast;
  for (const auto& frame : wire.received()) {
    const auto packet = parse_icmpv6_frame(frame);
    if (!packet.ok() || packet->type() != Icmpv6Type::kRouterAdvertisement) continue;
    if (packet->addresses.link_destination != kMnMac) continue;
    EXPECT_EQ(packet->addresses.source, address("fe80::1"));
    EXPECT_EQ(packet->addresses.link_source, kRouterMac);
    EXPECT_EQ(packet->addresses.destination, eui64_link_local(kMnMac));
    const auto advertisement = parse_router_advertisement(*packet);
    ASSERT_TRUE(advertisement.ok()) << advertisement.status();
    unicast.push_back(*advertisement);
  }
  ASSERT_GE(unicast.size(), 2U);
  const RouterAdvertisement expected{.current_hop_limit = 64,
                                     .router_lifetime = 1800,
                                     .source_link_layer_address = kRouterMac,
                                     .mtu = 1500,
                                     .prefixes = {{.prefix = *Ipv6Prefix::parse("2001:db8:1:1::/64"),
                                                   .on_link = false,
                                                   .autonomous = true,
                                                   .valid_lifetime = 7200,
                                                   .preferred_lifetime = 1800},
                                                  {.prefix = *Ipv6Prefix::parse("2001:db8:2:1::/64"),
                                                   .on_link = false,
                                                   .autonomous = true,
                                                   .valid_lifetime = 7200,
                                                   .preferred_lifetime = 0}}};
  EXPECT_EQ(unicast[0], expected);
  EXPECT_EQ(unicast[1], expected);
}

TEST_F(AccessPlaneTest, ServingTheSameAgainSendsNothing) {
  use_fake_mn();
  const Wire wire(*mn_, "port0");
  wire.send(solicitation(kMnMac));
  ASSERT_TRUE(heard(kMnMac));
  const auto serve = [&](bool deprecated) {
    plane_->serve(kMnMac, eui64_link_local(kMnMac), "acc0", {prefix("2001:db8:1:1::/64", deprecated)});
  };
  serve(false);
  serve(false);
  EXPECT_EQ(plane_->counters().router_advertisements_sent, 1U);
  serve(true);
  EXPECT_EQ(plane_->counters().router_advertisements_sent, 2U);
}

TEST_F(AccessPlaneTest, AnyFrameOfAnUnservedStationTellsOfItsArrival) {
  use_fake_mn();
  const Wire wire(*mn_, "port0");
  wire.send(data(kMnMac));
  ASSERT_TRUE(heard(kMnMac));
  EXPECT_EQ(arrivals_[0].trigger, v1::TRIGGER_DATA_FRAME);
  EXPECT_FALSE(arrivals_[0].link_local_seen);
  EXPECT_EQ(arrivals_[0].link_local, eui64_link_local(kMnMac));
  EXPECT_EQ(arrivals_[0].interface, "acc0");
}

TEST_F(AccessPlaneTest, DataOfAServedMnStaysInTheKernelAndStillCountsAsASign) {
  use_fake_mn();
  const Wire wire(*mn_, "port0");
  wire.send(solicitation(kMnMac));
  ASSERT_TRUE(heard(kMnMac));
  plane_->serve(kMnMac, eui64_link_local(kMnMac), "acc0", {});
  const auto heard_before = plane_->last_heard(kMnMac);
  const std::uint64_t frames_before = plane_->counters().frames_heard;
  for (int i = 0; i < 1000; ++i) wire.send(data(kMnMac));
  barrier(wire);
  EXPECT_EQ(plane_->counters().frames_heard, frames_before + 1);
  EXPECT_GT(plane_->last_heard(kMnMac), heard_before);
  EXPECT_EQ(count(kMnMac), 1U);
}

TEST_F(AccessPlaneTest, LinkDownDepartsAllThatAreServedOnIt) {
  use_fake_mn();
  const Wire wire(*mn_, "port0");
  for (const LinkLayerAddress& mac : {kMnMac, kOtherMac}) {
    wire.send(solicitation(mac));
    ASSERT_TRUE(heard(mac));
    plane_->serve(mac, eui64_link_local(mac), "acc0", {});
  }
  link_down();
  ASSERT_TRUE(until([&] { return departures_.size() == 2; }));
  for (const Departure& departure : departures_) {
    EXPECT_EQ(departure.reason, v1::DETACH_REASON_LINK_DOWN);
    EXPECT_EQ(departure.interface, "acc0");
  }
  EXPECT_NE(departures_[0].link_layer_address, departures_[1].link_layer_address);
}

TEST_F(AccessPlaneTest, AnAnswerThatWaitsBehindMuchElseIsHeardBeforeAnMnIsGone) {
  config_.probe_after = milliseconds(30);
  config_.probe_interval = milliseconds(50);
  use_fake_mn();
  const Wire wire(*mn_, "port0");
  wire.send(solicitation(kMnMac));
  ASSERT_TRUE(heard(kMnMac));
  plane_->serve(kMnMac, eui64_link_local(kMnMac), "acc0", {});
  ASSERT_TRUE(until([&] { return plane_->counters().probes_sent >= 3; }));
  for (int i = 0; i < 1000; ++i) wire.send(solicitation(LinkLayerAddress({2, 0, 0, 9, 0, 1})));
  wire.send(solicitation(kMnMac));
  // The executor is busy for longer than it waits for an answer.
  std::this_thread::sleep_for(config_.probe_interval);
  const auto heard_before = plane_->counters().frames_heard;
  ASSERT_TRUE(until([&] { return plane_->counters().frames_heard >= heard_before + 1001; }));
  EXPECT_TRUE(departures_.empty());
}

TEST_F(AccessPlaneTest, WhereThereAreManySilentMnsEachIsProbedLessOften) {
  config_.probe_after = milliseconds(30);
  config_.probe_interval = milliseconds(10'000);
  config_.probe_rate = 20;
  use_fake_mn();
  const Wire wire(*mn_, "port0");
  constexpr std::uint8_t kMany = 10;
  const auto mn = [](std::uint8_t i) { return LinkLayerAddress({2, 0, 0, 9, 0, i}); };
  for (std::uint8_t i = 0; i < kMany; ++i) {
    wire.send(solicitation(mn(i)));
    ASSERT_TRUE(heard(mn(i)));
  }
  for (std::uint8_t i = 0; i < kMany; ++i) plane_->serve(mn(i), eui64_link_local(mn(i)), "acc0", {});
  const auto last_heard = *plane_->last_heard(mn(kMany - 1));
  ASSERT_TRUE(until([&] { return plane_->counters().probes_sent >= kMany; }));
  // Ten, of which twenty a second may be asked: each after half a second, though 30 ms are long enough for one.
  EXPECT_GE(std::chrono::steady_clock::now() - last_heard, milliseconds(500));
}

TEST_F(AccessPlaneTest, ASilentMnIsProbedThreeTimesAndDeparts) {
  config_.probe_after = milliseconds(30);
  config_.probe_interval = milliseconds(20);
  use_fake_mn();
  const Wire wire(*mn_, "port0");
  wire.send(solicitation(kMnMac));
  ASSERT_TRUE(heard(kMnMac));
  plane_->serve(kMnMac, eui64_link_local(kMnMac), "acc0", {});
  ASSERT_TRUE(until([&] { return !departures_.empty(); }));
  EXPECT_EQ(departures_[0].reason, v1::DETACH_REASON_UNREACHABLE);
  EXPECT_EQ(departures_[0].link_layer_address, kMnMac);
  int probes = 0;
  for (const auto& frame : wire.received()) {
    const auto packet = parse_icmpv6_frame(frame);
    if (!packet.ok() || packet->type() != Icmpv6Type::kNeighbourSolicitation) continue;
    const auto asked = parse_neighbour_solicitation(*packet);
    ASSERT_TRUE(asked.ok());
    EXPECT_EQ(asked->target, eui64_link_local(kMnMac));
    EXPECT_EQ(packet->addresses.link_destination, kMnMac);
    ++probes;
  }
  EXPECT_EQ(probes, 3);
  // It is an arrival again when it comes back.
  arrivals_.clear();
  wire.send(data(kMnMac));
  EXPECT_TRUE(heard(kMnMac));
}

TEST_F(AccessPlaneTest, ANeighbourAdvertisementEndsTheProbing) {
  config_.probe_interval = milliseconds(500);
  use_fake_mn();
  const Wire wire(*mn_, "port0");
  wire.send(solicitation(kMnMac));
  ASSERT_TRUE(heard(kMnMac));
  plane_->serve(kMnMac, eui64_link_local(kMnMac), "acc0", {});
  for (std::uint64_t round = 1; round <= 4; ++round) {
    std::optional<bool> answered;
    plane_->probe(kMnMac, eui64_link_local(kMnMac), "acc0", [&](bool yes) { answered = yes; });
    EXPECT_EQ(plane_->counters().probes_sent, round);
    const auto before = plane_->last_heard(kMnMac);
    FrameAddresses to_router = from(kMnMac, "fe80::1");
    to_router.link_destination = kRouterMac;
    wire.send(build_frame(to_router, NeighbourAdvertisement{.target = eui64_link_local(kMnMac), .solicited = true}));
    ASSERT_TRUE(until([&] { return plane_->last_heard(kMnMac) > before; }));
    ASSERT_TRUE(until([&] { return answered.has_value(); }));
    EXPECT_TRUE(*answered);
  }
  EXPECT_TRUE(departures_.empty());
}

TEST_F(AccessPlaneTest, ALinuxHostThatIsNotServedAnswersWhetherItIsThere) {
  make_link();
  make_host();
  start();
  mn_->exec("ip link set br0 up");
  link_up();
  ASSERT_TRUE(heard(kMnMac));
  std::optional<bool> answered;
  plane_->probe(kMnMac, eui64_link_local(kMnMac), "acc0", [&](bool yes) { answered = yes; });
  ASSERT_TRUE(until([&] { return answered.has_value(); }));
  EXPECT_TRUE(*answered);
}

TEST_F(AccessPlaneTest, WhoDoesNotAnswerOrHasNoLinkIsNotThere) {
  config_.probe_interval = milliseconds(20);
  use_fake_mn();
  const Wire wire(*mn_, "port0");
  wire.send(solicitation(kMnMac));
  ASSERT_TRUE(heard(kMnMac));
  std::optional<bool> answered;
  const auto ask = [&](const std::string& interface) {
    answered.reset();
    plane_->probe(kMnMac, eui64_link_local(kMnMac), interface, [&](bool yes) { answered = yes; });
  };
  ask("acc0");
  ASSERT_TRUE(until([&] { return answered.has_value(); }));
  EXPECT_FALSE(*answered);
  EXPECT_EQ(plane_->counters().probes_sent, 3U);
  EXPECT_TRUE(departures_.empty()) << "it was not served";
  ask("none");
  ASSERT_TRUE(until([&] { return answered.has_value(); }));
  EXPECT_FALSE(*answered);

  plane_->serve(kMnMac, eui64_link_local(kMnMac), "acc0", {});
  ask("acc0");
  ASSERT_TRUE(until([&] { return answered.has_value(); }));
  EXPECT_FALSE(*answered);
  ASSERT_EQ(departures_.size(), 1U) << "it was served, and has left";
  EXPECT_EQ(departures_[0].reason, v1::DETACH_REASON_UNREACHABLE);

  plane_->serve(kMnMac, eui64_link_local(kMnMac), "acc0", {});
  link_down();
  ASSERT_TRUE(until([&] { return departures_.size() == 2; }));
  const auto probes = plane_->counters().probes_sent;
  ask("acc0");
  ASSERT_TRUE(until([&] { return answered.has_value(); }));
  EXPECT_FALSE(*answered);
  EXPECT_EQ(plane_->counters().probes_sent, probes);
}

TEST_F(AccessPlaneTest, FramesAfterAReleaseAreNoArrivalUntilTheLinkHasChanged) {
  config_.overlap_guard = seconds(600);
  use_fake_mn();
  const Wire wire(*mn_, "port0");
  ASSERT_NO_FATAL_FAILURE(come_and_be_moved_away(wire));
  arrivals_.clear();
  wire.send(solicitation(kMnMac));
  wire.send(data(kMnMac));
  barrier(wire);
  EXPECT_EQ(count(kMnMac), 0U);

  const std::uint64_t provocations = plane_->counters().provocations_sent;
  link_down();
  link_up();
  ASSERT_TRUE(until([&] { return plane_->counters().provocations_sent > provocations; }));
  wire.send(data(kMnMac));
  EXPECT_TRUE(heard(kMnMac));
}

TEST_F(AccessPlaneTest, FramesCountAgainWhenTheGuardHasRunOut) {
  config_.overlap_guard = milliseconds(200);
  use_fake_mn();
  const Wire wire(*mn_, "port0");
  ASSERT_NO_FATAL_FAILURE(come_and_be_moved_away(wire));
  arrivals_.clear();
  // Data only: it must pass the kernel's filter again.
  EXPECT_TRUE(until([&] {
    wire.send(data(kMnMac));
    return count(kMnMac) > 0;
  }));
}

// The kernel hears nothing of a station that is not let in, nor by another link-local address than is known.
TEST_F(AccessPlaneTest, AnMnThatWasMovedAwayFindsTheRouterAgain) {
  config_.overlap_guard = milliseconds(0);
  use_fake_mn();
  const Wire wire(*mn_, "port0");
  ASSERT_NO_FATAL_FAILURE(come_and_be_moved_away(wire));
  ASSERT_NO_FATAL_FAILURE(keep_the_kernel_out());
  EXPECT_TRUE(finds_router(wire, eui64_link_local(kMnMac)));
}

TEST_F(AccessPlaneTest, AnMnOfAPlannedMoveFindsTheOldRouterForAsLongAsItsLinkIsUp) {
  config_.overlap_guard = seconds(600);
  use_fake_mn();
  const Wire wire(*mn_, "port0");
  ASSERT_NO_FATAL_FAILURE(come_and_be_moved_away(wire));
  ASSERT_NO_FATAL_FAILURE(keep_the_kernel_out());
  arrivals_.clear();
  EXPECT_TRUE(finds_router(wire, address("2001:db8:1:1::11")));
  EXPECT_EQ(count(kMnMac), 0U);
}

TEST_F(AccessPlaneTest, AnMnThatIsServedFindsTheRouterByAnyOfItsAddresses) {
  use_fake_mn();
  const Wire wire(*mn_, "port0");
  wire.send(solicitation(kMnMac));
  ASSERT_TRUE(heard(kMnMac));
  plane_->serve(kMnMac, eui64_link_local(kMnMac), "acc0", {});
  ASSERT_NO_FATAL_FAILURE(keep_the_kernel_out());
  EXPECT_TRUE(finds_router(wire, address("2001:db8:1:1::11")));
  EXPECT_TRUE(finds_router(wire, address("fe80::1234")));
  // By the one that is known it is the kernel that answers.
  barrier(wire);
  wire.received();
  wire.send(solicit_router(eui64_link_local(kMnMac)));
  barrier(wire);
  EXPECT_FALSE(has_found_router(wire));
}

// After a restart, say, while the LM is away.
TEST_F(AccessPlaneTest, AnMnThatIsLetInFindsTheRouterAlsoWhenItIsNotServed) {
  use_fake_mn();
  const Wire wire(*mn_, "port0");
  plane_->is_let_in = [](const LinkLayerAddress& mn, const std::string& interface) {
    return mn == kMnMac && interface == "acc0";
  };
  ASSERT_NO_FATAL_FAILURE(keep_the_kernel_out());
  EXPECT_TRUE(finds_router(wire, address("2001:db8:1:1::11")));
}

TEST_F(AccessPlaneTest, AStrangerIsNotAnswered) {
  use_fake_mn();
  const Wire wire(*mn_, "port0");
  plane_->is_let_in = [](const LinkLayerAddress& mn, const std::string&) { return mn != kMnMac; };
  ASSERT_NO_FATAL_FAILURE(keep_the_kernel_out());
  wire.send(solicit_router(eui64_link_local(kMnMac)));
  barrier(wire);
  EXPECT_FALSE(has_found_router(wire));
}

TEST_F(AccessPlaneTest, TheSameMnOnTwoPortsIsServedOnTheNewest) {
  config_.interfaces = {"acc0", "acc1"};
  config_.overlap_guard = milliseconds(200);
  make_link("acc1", "port1");
  use_fake_mn();
  link_up("port1");
  const Wire first(*mn_, "port0");
  const Wire second(*mn_, "port1");
  serve_with_ = {prefix("2001:db8:1:1::/64")};
  const auto heard_on = [&](const std::string& interface) {
    return until([&] { return !arrivals_.empty() && arrivals_.back().interface == interface; });
  };
  const auto advertised = [](const Wire& wire) {
    for (const auto& frame : wire.received()) {
      const auto packet = parse_icmpv6_frame(frame);
      if (packet.ok() && packet->type() == Icmpv6Type::kRouterAdvertisement && !(frame[0] & 1U)) return true;
    }
    return false;
  };
  first.send(solicitation(kMnMac));
  ASSERT_TRUE(heard_on("acc0"));
  EXPECT_FALSE(arrivals_.back().link_unchanged);
  second.send(data(kMnMac));
  ASSERT_TRUE(heard_on("acc1"));
  EXPECT_TRUE(advertised(second));
  first.received();
  // Now it really uses the first port again, whose link has not changed.
  EXPECT_TRUE(until([&] {
    first.send(data(kMnMac));
    return arrivals_.back().interface == "acc0";
  }));
  EXPECT_TRUE(arrivals_.back().link_unchanged);
  EXPECT_TRUE(advertised(first));
  EXPECT_TRUE(departures_.empty());
}

TEST_F(AccessPlaneTest, ARefusedStationIsNotReportedForItsDataButForASolicitation) {
  use_fake_mn();
  const Wire wire(*mn_, "port0");
  wire.send(data(kMnMac));
  ASSERT_TRUE(heard(kMnMac));
  plane_->refuse(kMnMac, seconds(600));
  arrivals_.clear();
  for (int i = 0; i < 20; ++i) wire.send(data(kMnMac));
  barrier(wire);
  EXPECT_EQ(count(kMnMac), 0U);
  wire.send(solicitation(kMnMac));
  EXPECT_TRUE(heard(kMnMac));
}

TEST_F(AccessPlaneTest, CountsMalformedFramesByReasonAndGoesOn) {
  use_fake_mn();
  const Wire wire(*mn_, "port0");
  std::vector<std::uint8_t> hop_limit = solicitation(kMnMac);
  hop_limit[21] = 64;
  std::vector<std::uint8_t> checksum = solicitation(kMnMac);
  checksum[57] ^= 0xff;
  FrameAddresses routed = from(kMnMac, "ff02::2");
  routed.source = address("2001:db8::1");
  wire.send(hop_limit);
  wire.send(checksum);
  wire.send(checksum);
  wire.send(build_frame(routed, RouterSolicitation{}));
  barrier(wire);
  EXPECT_EQ(count(kMnMac), 0U);
  EXPECT_THAT(plane_->counters().malformed,
              testing::UnorderedElementsAre(
                  testing::Pair("router solicitation: hop limit is not 255 (RFC 4861, 6.1.1)", 1U),
                  testing::Pair("ICMPv6: wrong checksum (RFC 4443, 2.3)", 2U),
                  testing::Pair("router solicitation: source is neither link-local nor unspecified", 1U)));
}

TEST_F(AccessPlaneTest, WaitsForAnInterfaceThatIsAbsentAndForItsReturn) {
  start();
  for (int round = 0; round < 2; ++round) {
    arrivals_.clear();
    departures_.clear();
    const std::uint64_t provocations = plane_->counters().provocations_sent;
    make_link();
    link_up();
    ASSERT_TRUE(until([&] { return plane_->counters().provocations_sent > provocations; }));
    const Wire wire(*mn_, "port0");
    wire.send(data(kMnMac));
    ASSERT_TRUE(heard(kMnMac));
    plane_->serve(kMnMac, eui64_link_local(kMnMac), "acc0", {});
    ar_->exec("ip link del acc0");
    ASSERT_TRUE(until([&] { return departures_.size() == 1; }));
    EXPECT_EQ(departures_[0].reason, v1::DETACH_REASON_LINK_DOWN);
  }
}

TEST_F(AccessPlaneTest, WithoutEbpfDiscoveryIsStillHeard) {
  make_link();
  link_up();
  permit_ebpf_ = false;
  start();
  if (plane_->counters().data_frames_heard) GTEST_SKIP() << "this kernel permits eBPF to everybody";
  const Wire wire(*mn_, "port0");
  wire.send(data(kMnMac));
  wire.send(solicitation(kOtherMac));
  ASSERT_TRUE(heard(kOtherMac));
  EXPECT_EQ(arrivals_[0].trigger, v1::TRIGGER_ROUTER_SOLICITATION);
  const FrameAddresses to_group = from(kMnMac, "ff02::1:ff00:1");
  wire.send(build_frame(to_group, NeighbourSolicitation{.target = address("fe80::1")}));
  ASSERT_TRUE(heard(kMnMac));
  // The data frame was not what told of it.
  EXPECT_EQ(count(kMnMac), 1U);
  EXPECT_EQ(arrivals_[1].trigger, v1::TRIGGER_NEIGHBOUR_DISCOVERY);
}

TEST_F(AccessPlaneTest, AnMnThatWasNeverHeardIsProbedAtOnceWhenServed) {
  use_fake_mn();
  plane_->serve(kMnMac, eui64_link_local(kMnMac), "acc0", {});
  EXPECT_TRUE(until([&] { return plane_->counters().probes_sent > 0; }));
}

TEST_F(AccessPlaneTest, ServingOnAnAbsentInterfaceIsADeparture) {
  start();
  plane_->serve(kMnMac, eui64_link_local(kMnMac), "acc0", {});
  ASSERT_TRUE(until([&] { return departures_.size() == 1; }));
  EXPECT_EQ(departures_[0].reason, v1::DETACH_REASON_LINK_DOWN);
  EXPECT_EQ(departures_[0].link_layer_address, kMnMac);
}

TEST_F(AccessPlaneTest, AGuessedLinkLocalAddressIsCorrected) {
  use_fake_mn();
  const Wire wire(*mn_, "port0");
  wire.send(data(kMnMac));
  ASSERT_TRUE(heard(kMnMac));
  plane_->serve(kMnMac, arrivals_[0].link_local, "acc0", {});
  arrivals_.clear();
  FrameAddresses real = from(kMnMac, "ff02::1:ff00:1");
  real.source = address("fe80::abcd");
  // Again and again, since reports of one MN keep a distance.
  ASSERT_TRUE(until([&] {
    wire.send(build_frame(real, NeighbourSolicitation{.target = address("fe80::1")}));
    return count(kMnMac) > 0;
  }));
  EXPECT_TRUE(arrivals_[0].link_local_seen);
  EXPECT_EQ(arrivals_[0].link_local, address("fe80::abcd"));
  plane_->serve(kMnMac, arrivals_[0].link_local, "acc0", {});
  arrivals_.clear();
  wire.send(build_frame(real, NeighbourSolicitation{.target = address("fe80::1")}));
  barrier(wire);
  EXPECT_EQ(count(kMnMac), 0U);
}

TEST(MakeAccessPlane, NamesWhatIsWrongInAConfiguration) {
  boost::asio::io_context io;
  AccessPlaneConfig config{.interfaces = {"acc0"}, .link_local = address("fe80::1"), .link_layer_address = kRouterMac};
  AccessPlaneConfig bad = config;
  bad.mtu = 1200;
  EXPECT_THAT(std::string(make_access_plane(io.get_executor(), bad).status().message()),
              testing::HasSubstr("MTU 1200"));
  bad = config;
  bad.link_local = address("2001:db8::1");
  EXPECT_THAT(std::string(make_access_plane(io.get_executor(), bad).status().message()),
              testing::HasSubstr("2001:db8::1 is not of fe80::/10"));
  bad = config;
  bad.interfaces = {"acc0", "acc0"};
  EXPECT_THAT(std::string(make_access_plane(io.get_executor(), bad).status().message()),
              testing::HasSubstr("acc0 is named twice"));
}

}  // namespace
}  // namespace kedge::speaker
