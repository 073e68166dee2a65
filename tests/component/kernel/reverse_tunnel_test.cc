// RFC 8818, 4.2, Figures 5 and 6: both directions of a redirected prefix through its home AR, with real packets. The
// home AR is ar1; the MN is attached to ar2 as mn2.
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <set>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "speaker/kernel/forwarding_plane.h"
#include "tests/component/kernel/topology.h"

namespace kedge::speaker {
namespace {

using ::testing::AnyOf;
using testing::Capture;
using ::testing::Contains;
using ::testing::Each;
using testing::eventually;
using ::testing::HasSubstr;
using testing::Namespace;
using ::testing::Not;
using testing::prefix;
using ::testing::StartsWith;
using testing::Topology;

constexpr char kCn[] = "2001:db8:c:3::2";
// Wired hosts behind ports that are no access interfaces.
constexpr char kHostAtOldAr[] = "2001:db8:a1:5::2";
constexpr char kHostAtNewAr[] = "2001:db8:a2:5::2";
constexpr char kNodeAtHome[] = "2001:db8:d:2::22";
constexpr char kNodeAtNewAr[] = "2001:db8:d:3::33";

#define EXPECT_OK(expression) EXPECT_EQ((expression), absl::OkStatus())
#define ASSERT_OK(expression) ASSERT_EQ((expression), absl::OkStatus())

class ReverseTunnelTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!testing::can_make_namespaces()) GTEST_SKIP() << "needs root: makes network namespaces";
    topology_ = std::make_unique<Topology>();
    auto& t = *topology_;
    ASSERT_OK(t.ar2.set(t.mobile_prefix, through_home()));
    ASSERT_OK(t.ar1.set(t.mobile_prefix, t.redirect(t.ar2)));
  }

  // At ar2.
  Route through_home() const {
    auto route = topology_->deliver();
    route.uplink_segment = topology_->ar1.uplink_sid();
    return route;
  }
  std::string ping_from_mn(const std::string& options, const std::string& to = kCn) {
    return topology_->mn2.shell("ping -n -c 3 -i 0.05 -W 3 " + options + " " + to + " || true");
  }
  // What ar2 sends and what it gets while the command runs.
  std::vector<std::string> at_uplink_of_new_ar(const std::function<void()>& action) {
    Capture capture(topology_->ar2.space, "upl");
    action();
    return capture.take();
  }
  void add_host(Namespace& host, testing::AccessRouter& router, const std::string& address) {
    testing::connect(host, "eth", router.space, "lan");
    const auto gateway = address.substr(0, address.size() - 1) + "1";
    host.shell("ip addr add " + address + "/64 dev eth nodad");
    router.space.shell("ip addr add " + gateway + "/64 dev lan nodad");
    host.shell("ip -6 route add default via " + gateway);
  }
  void expect_both_ways(Namespace& peer, const std::string& address) {
    EXPECT_THAT(ping_from_mn("", address), HasSubstr(" 0% packet loss")) << address;
    EXPECT_THAT(peer.shell("ping -n -c 3 -i 0.05 -W 3 " + topology_->mobile_address + " || true"),
                HasSubstr(" 0% packet loss"))
        << address;
  }
  std::string uplink_packet(const std::string& to) const {
    const auto& t = *topology_;
    return t.ar2.locator().to_string() + " > " + t.ar1.uplink_sid().to_string() + " (" + t.mobile_address + " > " + to +
           ")";
  }
  std::string downlink_packet(const std::string& from) const {
    const auto& t = *topology_;
    return t.ar1.locator().to_string() + " > " + t.ar2.deliver_sid().to_string() + " (" + from + " > " +
           t.mobile_address + ")";
  }

  std::unique_ptr<Topology> topology_;
};

TEST_F(ReverseTunnelTest, CarriesBothDirectionsWithACorrespondentInTheCore) {
  auto& t = *topology_;
  Capture home(t.ar1.space, "upl");
  const auto packets = at_uplink_of_new_ar([&] { expect_both_ways(t.cn, kCn); });
  EXPECT_EQ(std::count(packets.begin(), packets.end(), uplink_packet(kCn)), 6);
  EXPECT_EQ(std::count(packets.begin(), packets.end(), downlink_packet(kCn)), 6);
  EXPECT_THAT(packets, Not(Contains(StartsWith(t.mobile_address))));
  // Out of the tunnel the home AR sends it on as it is.
  EXPECT_THAT(home.take(), Contains(t.mobile_address + " > " + kCn));
}

TEST_F(ReverseTunnelTest, CarriesBothDirectionsWithACorrespondentAtTheOldAr) {
  auto& t = *topology_;
  Namespace host("host");
  add_host(host, t.ar1, kHostAtOldAr);
  const auto packets = at_uplink_of_new_ar([&] { expect_both_ways(host, kHostAtOldAr); });
  EXPECT_EQ(std::count(packets.begin(), packets.end(), uplink_packet(kHostAtOldAr)), 6);
  EXPECT_EQ(std::count(packets.begin(), packets.end(), downlink_packet(kHostAtOldAr)), 6);
}

// What the MN sends comes back to ar2 from the core, with the MN's source address: it must not go into the tunnel
// again.
TEST_F(ReverseTunnelTest, DoesNotTakeInAgainWhatComesBackFromTheCore) {
  auto& t = *topology_;
  Namespace host("host");
  add_host(host, t.ar2, kHostAtNewAr);
  Capture pair(t.ar2.space, "kx0");
  const auto packets = at_uplink_of_new_ar([&] { expect_both_ways(host, kHostAtNewAr); });
  EXPECT_EQ(std::count(packets.begin(), packets.end(), uplink_packet(kHostAtNewAr)), 6);
  EXPECT_EQ(std::count(packets.begin(), packets.end(), t.mobile_address + " > " + kHostAtNewAr), 6);
  const auto taken_in = pair.take();
  EXPECT_EQ(std::count(taken_in.begin(), taken_in.end(), t.mobile_address + " > " + kHostAtNewAr), 6);
}

TEST_F(ReverseTunnelTest, CarriesBothDirectionsWithAnotherMobileNodeAtTheHomeAr) {
  auto& t = *topology_;
  // mn1 is another node now.
  t.mn1.shell("ip addr del 2001:db8:d:1::11/128 dev eth && ip addr add " + std::string(kNodeAtHome) +
              "/128 dev eth nodad");
  ASSERT_OK(t.ar1.set(prefix("2001:db8:d:2::/64"), t.deliver()));
  const auto packets = at_uplink_of_new_ar([&] { expect_both_ways(t.mn1, kNodeAtHome); });
  EXPECT_EQ(std::count(packets.begin(), packets.end(), uplink_packet(kNodeAtHome)), 6);
  EXPECT_EQ(std::count(packets.begin(), packets.end(), downlink_packet(kNodeAtHome)), 6);
}

TEST_F(ReverseTunnelTest, ReachesAnotherMobileNodeOfTheSameArDirectly) {
  auto& t = *topology_;
  t.ar2.stop();
  t.ar2.config.access_interfaces.push_back("acc2");
  Namespace node("node");
  testing::connect(node, "eth", t.ar2.space, "acc2");
  node.shell("ip link set eth address 02:00:00:00:00:33");
  node.shell("ip addr add fe80::33/64 dev eth nodad && ip addr add " + std::string(kNodeAtNewAr) +
             "/128 dev eth nodad && ip -6 route add default via fe80::a dev eth");
  ASSERT_OK(t.ar2.start());
  auto second = through_home();
  second.interface = "acc2";
  second.link_local = testing::address("fe80::33");
  second.link_layer_address = LinkLayerAddress::parse("02:00:00:00:00:33").value();
  ASSERT_OK(t.ar2.replace_all({{t.mobile_prefix, through_home()}, {prefix("2001:db8:d:3::/64"), second}}));
  const auto packets = at_uplink_of_new_ar([&] { expect_both_ways(node, kNodeAtNewAr); });
  EXPECT_THAT(packets, Each(Not(HasSubstr(t.mobile_address))));
}

TEST_F(ReverseTunnelTest, ReachesAPrefixThatIsRedirectedElsewhereByItsOwnTunnel) {
  auto& t = *topology_;
  t.mn1.shell("ip addr del 2001:db8:d:1::11/128 dev eth && ip addr add " + std::string(kNodeAtHome) +
              "/128 dev eth nodad");
  ASSERT_OK(t.ar1.set(prefix("2001:db8:d:2::/64"), t.deliver()));
  ASSERT_OK(t.ar2.set(prefix("2001:db8:d:2::/64"), t.redirect(t.ar1)));
  const auto packets = at_uplink_of_new_ar([&] { expect_both_ways(t.mn1, kNodeAtHome); });
  EXPECT_THAT(packets, Contains(HasSubstr("> " + t.ar1.deliver_sid().to_string() + " (" + t.mobile_address)));
  EXPECT_THAT(packets, Not(Contains(uplink_packet(kNodeAtHome))));
}

TEST_F(ReverseTunnelTest, LowersTheHopLimit) {
  auto& t = *topology_;
  const int receiver = testing::udp_receiver(t.cn, 4000);
  const int sender = testing::udp_sender(t.mn2, kCn, 4000);
  ASSERT_EQ(::send(sender, "x", 1, 0), 1);
  // ar2 into the pair, ar1 out of the tunnel, core.
  EXPECT_EQ(testing::receive_hop_limit(receiver), 64 - 3);
  ::close(sender);
  ::close(receiver);
  EXPECT_THAT(ping_from_mn("-t 1"), HasSubstr("Time exceeded"));
}

TEST_F(ReverseTunnelTest, TellsTheMobileNodeThatAPacketIsTooBigForTheTunnel) {
  EXPECT_THAT(ping_from_mn("-M do -s 1452"), HasSubstr("Packet too big: mtu=1460"));
  EXPECT_THAT(ping_from_mn("-M do -s 1412"), HasSubstr(" 0% packet loss"));
}

TEST_F(ReverseTunnelTest, DropsWhatTheMobileNodeSendsToItsOwnPrefix) {
  auto& t = *topology_;
  ASSERT_THAT(ping_from_mn(""), HasSubstr(" 0% packet loss"));
  const auto received = t.mn2.counter("eth", "rx");
  const auto packets = at_uplink_of_new_ar([&] {
    const int sender = testing::udp_sender(t.mn2, "2001:db8:d:1::99", 4000);
    for (int i = 0; i < 1000; ++i) ::send(sender, &i, sizeof i, 0);
    ::close(sender);
    // The next answer to come back passes everything that would have been bounced or tunnelled.
    ASSERT_THAT(ping_from_mn(""), HasSubstr(" 0% packet loss"));
  });
  EXPECT_LT(t.mn2.counter("eth", "rx") - received, 100U);
  EXPECT_THAT(packets, Each(Not(HasSubstr("2001:db8:d:1::99"))));
}

// RFC 8818, 2: MNP. mn2 is a router with a host behind it.
TEST_F(ReverseTunnelTest, CarriesAMobileNetworkBesideTheRoutersOwnPrefix) {
  auto& t = *topology_;
  const auto network = prefix("2001:db8:d:f00::/56");
  constexpr char kHost[] = "2001:db8:d:f12::2";
  Namespace host("host");
  testing::connect(host, "eth", t.mn2, "inner");
  t.mn2.shell("echo 1 > /proc/sys/net/ipv6/conf/all/forwarding");
  t.mn2.shell("ip addr add 2001:db8:d:f12::1/64 dev inner nodad");
  host.shell("ip addr add 2001:db8:d:f12::2/64 dev eth nodad");
  host.shell("ip -6 route add default via 2001:db8:d:f12::1");
  ASSERT_OK(t.ar2.set(network, through_home()));
  ASSERT_OK(t.ar1.set(network, t.redirect(t.ar2)));
  EXPECT_TRUE(t.ar2.holds("8820", "default from 2001:db8:d:f00::/56"));
  EXPECT_TRUE(t.ar2.holds("8818", "2001:db8:d:f00::/56 via fe80::11"));
  const auto both_ways = [&] {
    EXPECT_THAT(host.shell("ping -n -c 3 -i 0.05 -W 3 " + std::string(kCn) + " || true"), HasSubstr(" 0% packet loss"));
    EXPECT_THAT(t.cn.shell("ping -n -c 3 -i 0.05 -W 3 " + std::string(kHost) + " || true"),
                HasSubstr(" 0% packet loss"));
  };
  const auto packets = at_uplink_of_new_ar(both_ways);
  const std::string up =
      t.ar2.locator().to_string() + " > " + t.ar1.uplink_sid().to_string() + " (" + kHost + " > " + kCn + ")";
  EXPECT_EQ(std::count(packets.begin(), packets.end(), up), 6);
  EXPECT_THAT(ping_from_mn(""), HasSubstr(" 0% packet loss"));

  // The next run finds it with its length.
  t.ar2.stop();
  both_ways();
  ASSERT_OK(t.ar2.start());
  const auto held = t.ar2.space.run([&] { return t.ar2.plane->held(network); });
  ASSERT_TRUE(held.has_value());
  EXPECT_EQ(held->uplink_segment, t.ar1.uplink_sid());
  ASSERT_OK(t.ar2.replace_all({{t.mobile_prefix, through_home()}, {network, through_home()}}));
  both_ways();
  ASSERT_OK(t.ar2.set(network, std::nullopt));
  EXPECT_FALSE(t.ar2.holds("8820", "2001:db8:d:f00::"));
  EXPECT_TRUE(t.ar2.holds("8820", "default from 2001:db8:d:1::/64"));
  EXPECT_THAT(t.ar2.space.shell("ip -6 neigh show nud permanent"), HasSubstr("fe80::11"));
}

TEST_F(ReverseTunnelTest, EndsWhenTheUplinkIsDirectAgain) {
  auto& t = *topology_;
  ASSERT_OK(t.ar2.set(t.mobile_prefix, t.deliver()));
  EXPECT_FALSE(t.ar2.holds("8820", "default"));
  EXPECT_TRUE(t.ar2.holds("8820", "blackhole 2001:db8:d:1::/64 from 2001:db8:d:1::/64"));
  EXPECT_TRUE(eventually([&] { return t.ar2.space.shell("ip -6 route show table 8819") == ""; }));
  const auto packets = at_uplink_of_new_ar([&] { EXPECT_THAT(ping_from_mn(""), HasSubstr(" 0% packet loss")); });
  EXPECT_EQ(std::count(packets.begin(), packets.end(), t.mobile_address + " > " + kCn), 3);
}

TEST_F(ReverseTunnelTest, RemovalAndRedirectLeaveNothingOfIt) {
  auto& t = *topology_;
  ASSERT_OK(t.ar2.set(t.mobile_prefix, t.redirect(t.ar1)));
  EXPECT_EQ(t.ar2.space.shell("ip -6 route show table 8820"), "");
  EXPECT_TRUE(eventually([&] { return !t.ar2.holds("8819", "default"); }));
  EXPECT_TRUE(t.ar2.holds("8819", "2001:db8:d:1::/64"));
  ASSERT_OK(t.ar2.set(t.mobile_prefix, through_home()));
  ASSERT_OK(t.ar2.set(t.mobile_prefix, std::nullopt));
  for (const auto* table : {"8818", "8819", "8820"}) {
    EXPECT_TRUE(eventually([&] { return t.ar2.space.shell("ip -6 route show table " + std::string(table)) == ""; }))
        << table;
  }
}

// A numbered stream of the MN at 5,000/s.
TEST_F(ReverseTunnelTest, NoPacketIsLostWhileItComesAndGoes) {
  auto& t = *topology_;
  ASSERT_THAT(ping_from_mn(""), HasSubstr(" 0% packet loss"));
  const int receiver = testing::udp_receiver(t.cn, 4000);
  const int sender = testing::udp_sender(t.mn2, kCn, 4000);
  const auto tunnelled = t.ar2.space.counter("kx0", "tx");
  std::atomic<bool> stop = false;
  std::uint32_t sent = 0;
  std::thread stream([&] {
    auto next = std::chrono::steady_clock::now();
    while (!stop) {
      if (::send(sender, &sent, sizeof sent, 0) == sizeof sent) ++sent;
      next += std::chrono::microseconds(200);
      std::this_thread::sleep_until(next);
    }
  });
  for (int i = 0; i < 500; ++i) {
    EXPECT_OK(t.ar2.set(t.mobile_prefix, t.deliver()));
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
    EXPECT_OK(t.ar2.set(t.mobile_prefix, through_home()));
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  stop = true;
  stream.join();
  std::set<std::uint32_t> received;
  EXPECT_TRUE(eventually([&] {
    std::uint32_t number = 0;
    while (::recv(receiver, &number, sizeof number, MSG_DONTWAIT) == sizeof number) received.insert(number);
    return received.size() == sent;
  })) << received.size()
      << " of " << sent << " arrived";
  const auto by_tunnel = t.ar2.space.counter("kx0", "tx") - tunnelled;
  EXPECT_GT(by_tunnel, sent / 10);
  EXPECT_LT(by_tunnel, sent - sent / 10);
  ::close(sender);
  ::close(receiver);
}

TEST_F(ReverseTunnelTest, IsRestoredWhenSomebodyDeletesIt) {
  auto& t = *topology_;
  const auto restored = [&](const std::string& deletion) {
    t.ar2.space.shell(deletion);
    EXPECT_TRUE(eventually([&] {
      return t.ar2.holds("8820", "default from 2001:db8:d:1::/64 via fe80::6b78 dev kx0") &&
             t.ar2.holds("8819", "default from 2001:db8:d:1::/64") && t.ar2.holds("8819", "2001:db8:a1::e");
    })) << deletion;
    EXPECT_THAT(ping_from_mn(""), HasSubstr(" 0% packet loss")) << deletion;
  };
  restored("true");
  restored("ip -6 route del default from 2001:db8:d:1::/64 table 8820");
  restored("ip -6 route del default from 2001:db8:d:1::/64 table 8819");
  restored("ip -6 route flush table 8820; ip -6 route flush table 8819");
  restored("ip -6 route replace unreachable default from 2001:db8:d:1::/64 table 8820 metric 1024 proto static");
  restored("ip link set kx0 down");
  restored("ip link del kx0");
  const auto packets = at_uplink_of_new_ar([&] { expect_both_ways(t.cn, kCn); });
  EXPECT_EQ(std::count(packets.begin(), packets.end(), uplink_packet(kCn)), 6);
}

TEST_F(ReverseTunnelTest, GoesOnAfterAStopAndLeftoversArePurged) {
  auto& t = *topology_;
  const auto other = prefix("2001:db8:d:4::/64");
  ASSERT_OK(t.ar2.set(other, through_home()));
  t.ar2.stop();
  EXPECT_THAT(ping_from_mn(""), HasSubstr(" 0% packet loss"));
  ASSERT_OK(t.ar2.start());
  EXPECT_THAT(ping_from_mn(""), HasSubstr(" 0% packet loss"));
  ASSERT_OK(t.ar2.replace_all({{t.mobile_prefix, through_home()}}));
  EXPECT_FALSE(t.ar2.holds("8820", "2001:db8:d:4::"));
  EXPECT_TRUE(eventually([&] { return !t.ar2.holds("8819", "2001:db8:d:4::"); }));
  EXPECT_TRUE(t.ar2.holds("8819", "default from 2001:db8:d:1::/64"));
  EXPECT_THAT(ping_from_mn(""), HasSubstr(" 0% packet loss"));
  // A prefix that was relocated while the speaker was down.
  t.ar2.stop();
  ASSERT_OK(t.ar2.start());
  ASSERT_OK(t.ar2.replace_all({{t.mobile_prefix, t.deliver()}}));
  EXPECT_FALSE(t.ar2.holds("8820", "default"));
  EXPECT_TRUE(eventually([&] { return t.ar2.space.shell("ip -6 route show table 8819") == ""; }));
}

TEST_F(ReverseTunnelTest, RemoveAllTakesItAlong) {
  auto& t = *topology_;
  t.ar2.stop();
  ASSERT_OK(t.ar2.space.run([&] { return remove_all(t.ar2.config); }));
  EXPECT_THAT(t.ar2.space.shell("ip -6 route show table all"),
              Not(AnyOf(HasSubstr("proto 88"), HasSubstr("table 88"))));
}

TEST_F(ReverseTunnelTest, CarriesTenThousandPrefixes) {
  auto& t = *topology_;
  std::map<Ipv6Prefix, Route> routes;
  const auto pool = prefix("2001:db8:d::/48");
  for (std::uint64_t i = 0; i < 10'000; ++i) routes[pool.nth(64, i)] = through_home();
  // The kernel may refuse some for want of memory at the moment (ENOMEM); they are made a little later.
  const auto status = t.ar2.replace_all(routes);
  EXPECT_TRUE(status.ok() || absl::IsResourceExhausted(status)) << status;
  EXPECT_TRUE(eventually([&] { return t.ar2.space.shell("ip -6 route show table 8819 | wc -l") == "10000\n"; }));
  EXPECT_EQ(t.ar2.space.shell("ip -6 route show table 8820 | wc -l"), "20000\n");
  EXPECT_THAT(ping_from_mn(""), HasSubstr(" 0% packet loss"));
  ASSERT_OK(t.ar2.replace_all({{t.mobile_prefix, through_home()}}));
  EXPECT_EQ(t.ar2.space.shell("ip -6 route show table 8820 | wc -l"), "2\n");
  EXPECT_TRUE(eventually([&] { return t.ar2.space.shell("ip -6 route show table 8819 | wc -l") == "1\n"; }));
}

}  // namespace
}  // namespace kedge::speaker
