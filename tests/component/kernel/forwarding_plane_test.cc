// The kernel's forwarding plane with real packets, in network namespaces of the test's own.
#include "speaker/kernel/forwarding_plane.h"

#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <set>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/component/kernel/topology.h"

namespace kedge::speaker {
namespace {

using testing::AccessRouter;
using ::testing::AllOf;
using ::testing::AnyOf;
using ::testing::Contains;
using testing::eventually;
using ::testing::HasSubstr;
using testing::Namespace;
using ::testing::Not;
using testing::prefix;
using testing::Topology;

class ForwardingPlaneTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!testing::can_make_namespaces()) GTEST_SKIP() << "needs root: makes network namespaces";
    topology_ = std::make_unique<Topology>();
  }

  std::unique_ptr<Topology> topology_;
};

#define EXPECT_OK(expression) EXPECT_EQ((expression), absl::OkStatus())
#define ASSERT_OK(expression) ASSERT_EQ((expression), absl::OkStatus())

TEST_F(ForwardingPlaneTest, DeliversToTheMobileNode) {
  auto& t = *topology_;
  ASSERT_OK(t.ar1.set(t.mobile_prefix, t.deliver()));
  const auto output = t.ping();
  EXPECT_THAT(output, HasSubstr(" 0% packet loss"));
  EXPECT_THAT(output, HasSubstr("ttl=62"));
}

TEST_F(ForwardingPlaneTest, RedirectsThroughTheTunnelAndLowersTheHopLimit) {
  auto& t = *topology_;
  ASSERT_OK(t.ar2.set(t.mobile_prefix, t.deliver()));
  ASSERT_OK(t.ar1.set(t.mobile_prefix, t.redirect(t.ar2)));
  EXPECT_THAT(t.ping(), HasSubstr(" 0% packet loss"));
  // The sender's hops: core, ar1 into the pair, ar2 out of the tunnel.
  const int receiver = testing::udp_receiver(t.mn2, 4000);
  const int sender = testing::udp_sender(t.cn, t.mobile_address, 4000);
  ASSERT_EQ(::send(sender, "x", 1, 0), 1);
  EXPECT_EQ(testing::receive_hop_limit(receiver), 64 - 3);
  ::close(sender);
  ::close(receiver);
  EXPECT_THAT(t.ping("-t 2"), HasSubstr("Time exceeded"));
}

TEST_F(ForwardingPlaneTest, TellsTheSenderThatAPacketIsTooBigForTheTunnel) {
  auto& t = *topology_;
  ASSERT_OK(t.ar2.set(t.mobile_prefix, t.deliver()));
  ASSERT_OK(t.ar1.set(t.mobile_prefix, t.redirect(t.ar2)));
  EXPECT_THAT(t.ping("-M do -s 1452"), HasSubstr("Packet too big: mtu=1460"));
  EXPECT_THAT(t.ping("-M do -s 1412"), HasSubstr(" 0% packet loss"));
}

TEST_F(ForwardingPlaneTest, TwoRoutersThatRedirectToEachOtherDoNotLoopForever) {
  auto& t = *topology_;
  ASSERT_OK(t.ar1.set(t.mobile_prefix, t.redirect(t.ar2)));
  ASSERT_OK(t.ar2.set(t.mobile_prefix, t.redirect(t.ar1)));
  const auto tunnelled = [&] { return t.ar1.space.counter("kx0", "tx") + t.ar2.space.counter("kx0", "tx"); };
  const auto before = tunnelled();
  const auto output = t.cn.shell("ping -n -c 20 -i 0.01 -W 1 -t 64 " + t.mobile_address + " || true");
  EXPECT_THAT(output, HasSubstr("100% packet loss"));
  const auto sent = tunnelled() - before;
  // It did loop, and each time through a tunnel cost a hop.
  EXPECT_GT(sent, 20U * 10);
  EXPECT_LE(sent, 20U * 64);
}

TEST_F(ForwardingPlaneTest, AnswersForAnUnreachablePrefix) {
  auto& t = *topology_;
  ASSERT_OK(t.ar1.set(t.mobile_prefix, Topology::unreachable()));
  EXPECT_THAT(t.ping(), HasSubstr("Destination unreachable"));
}

TEST_F(ForwardingPlaneTest, AnswersForAPrefixThatHasEndedSoThatNobodyWaits) {
  auto& t = *topology_;
  auto ended = Topology::unreachable();
  ended.ended = true;
  ASSERT_OK(t.ar1.set(t.mobile_prefix, ended));
  EXPECT_THAT(t.ping(), HasSubstr("Administratively prohibited"));
  t.ar1.stop();
  ASSERT_OK(t.ar1.start());
  EXPECT_EQ(t.ar1.space.run([&] { return t.ar1.plane->held(t.mobile_prefix); }), ended);
  ASSERT_OK(t.ar1.replace_all({{t.mobile_prefix, Topology::unreachable()}}));
  EXPECT_THAT(t.ping(), HasSubstr("Destination unreachable: No route"));
}

TEST_F(ForwardingPlaneTest, AnswersForAnUnreachablePrefixBehindTheTunnel) {
  auto& t = *topology_;
  ASSERT_OK(t.ar1.set(t.mobile_prefix, t.redirect(t.ar2)));
  ASSERT_OK(t.ar2.set(t.mobile_prefix, Topology::unreachable()));
  EXPECT_THAT(t.ping(), HasSubstr("Destination unreachable"));
}

// RFC 8818, 4.1: an address of the previous network "is not valid at the current attachment point".
class RefusalTest : public ForwardingPlaneTest {
 protected:
  void SetUp() override {
    ForwardingPlaneTest::SetUp();
    if (topology_ == nullptr) return;
    auto& t = *topology_;
    refuse_ = t.deliver();
    refuse_.kind = Route::Kind::kRefuse;
    ASSERT_OK(t.ar1.set(t.mobile_prefix, Topology::unreachable()));
    ASSERT_OK(t.ar2.set(t.mobile_prefix, refuse_));
  }
  // The node is at ar2 and sends from the address that it has kept.
  std::string ping_from_mn(const std::string& to = "2001:db8:c:3::2") {
    return topology_->mn2.shell("ping -n -c 2 -i 0.05 -W 3 " + to + " || true");
  }

  Route refuse_;
};

TEST_F(RefusalTest, AnswersTheNodeItselfAndItsCorrespondent) {
  auto& t = *topology_;
  EXPECT_THAT(ping_from_mn(), HasSubstr("From 2001:db8:"));
  EXPECT_THAT(ping_from_mn(), HasSubstr("Administratively prohibited"));
  EXPECT_THAT(t.ping(), HasSubstr("Destination unreachable"));
}

TEST_F(RefusalTest, CountsForNeighboursAtTheSameRouterToo) {
  auto& t = *topology_;
  ASSERT_OK(t.ar2.set(prefix("2001:db8:d:3::/64"), t.deliver()));
  EXPECT_THAT(ping_from_mn("2001:db8:d:3::33"), HasSubstr("Administratively prohibited"));
}

TEST_F(RefusalTest, DeliversNothingToThePrefix) {
  auto& t = *topology_;
  t.core.shell("ip -6 route replace 2001:db8:d::/48 via 2001:db8:c:2::2");
  testing::Capture capture(t.mn2, "eth");
  EXPECT_THAT(t.ping(),
              HasSubstr("From 2001:db8:c:2::2 icmp_seq=1 Destination unreachable: Administratively prohibited"));
  EXPECT_THAT(capture.take(), ::testing::IsEmpty());
}

TEST_F(RefusalTest, OutlivesTheSpeakerAndIsRestored) {
  auto& t = *topology_;
  t.ar2.stop();
  EXPECT_THAT(ping_from_mn(), HasSubstr("Administratively prohibited"));
  ASSERT_OK(t.ar2.start());
  const auto held = t.ar2.space.run([&] { return t.ar2.plane->held(t.mobile_prefix); });
  ASSERT_TRUE(held.has_value());
  EXPECT_EQ(held->kind, Route::Kind::kRefuse);
  EXPECT_EQ(held->interface, "acc");
  ASSERT_OK(t.ar2.replace_all({{t.mobile_prefix, refuse_}}));
  for (const auto* deletion :
       {"ip -6 route flush table 8821", "ip -6 route flush table 8820", "ip -6 rule del iif lo lookup 8821"}) {
    t.ar2.space.shell(deletion);
    EXPECT_TRUE(eventually([&] {
      return t.ar2.holds("8821", "2001:db8:d:1::/64 via fe80::11") &&
             t.ar2.holds("8820", "prohibit 8000::/1 from 2001:db8:d:1::/64") &&
             t.ar2.space.shell("ip -6 rule").find("iif lo lookup 8821") != std::string::npos;
    })) << deletion;
  }
  EXPECT_THAT(ping_from_mn(), HasSubstr("Administratively prohibited"));
}

TEST_F(RefusalTest, EndsWithoutATrace) {
  auto& t = *topology_;
  ASSERT_OK(t.ar2.set(t.mobile_prefix, t.deliver()));
  ASSERT_OK(t.ar1.set(t.mobile_prefix, t.redirect(t.ar2)));
  EXPECT_THAT(ping_from_mn(), HasSubstr(" 0% packet loss"));
  EXPECT_THAT(t.ping(), HasSubstr(" 0% packet loss"));
  EXPECT_FALSE(t.ar2.holds("8820", "prohibit"));
  EXPECT_FALSE(t.ar2.holds("8821", "2001:db8:d:1::"));
  ASSERT_OK(t.ar2.set(t.mobile_prefix, refuse_));
  ASSERT_OK(t.ar2.set(t.mobile_prefix, t.redirect(t.ar1)));
  EXPECT_FALSE(t.ar2.holds("8820", "2001:db8:d:1::"));
  ASSERT_OK(t.ar2.set(t.mobile_prefix, refuse_));
  ASSERT_OK(t.ar2.set(t.mobile_prefix, std::nullopt));
  for (const auto* table : {"8818", "8820", "8821"}) EXPECT_FALSE(t.ar2.holds(table, "2001:db8:d:1::")) << table;
  EXPECT_THAT(t.ar2.space.shell("ip -6 neigh show nud permanent"), Not(HasSubstr("fe80::11")));
}

TEST_F(ForwardingPlaneTest, RemovalLeavesNothing) {
  auto& t = *topology_;
  ASSERT_OK(t.ar1.set(t.mobile_prefix, t.deliver()));
  ASSERT_OK(t.ar1.set(t.mobile_prefix, t.redirect(t.ar2)));
  ASSERT_OK(t.ar1.set(t.mobile_prefix, t.deliver()));
  ASSERT_OK(t.ar1.set(t.mobile_prefix, std::nullopt));
  for (const auto* table : {"8818", "8819", "8820"}) {
    EXPECT_TRUE(eventually([&] { return !t.ar1.holds(table, "2001:db8:d:1::"); })) << table;
  }
  EXPECT_THAT(t.ar1.space.shell("ip -6 neigh show nud permanent"), Not(HasSubstr("fe80::11")));
}

// A numbered stream at 5,000/s during many changes.
TEST_F(ForwardingPlaneTest, NoPacketIsLostWhileDeliverAndRedirectReplaceEachOther) {
  auto& t = *topology_;
  ASSERT_OK(t.ar2.set(t.mobile_prefix, t.deliver()));
  ASSERT_OK(t.ar1.set(t.mobile_prefix, t.deliver()));
  ASSERT_THAT(t.ping(), HasSubstr(" 0% packet loss"));

  const std::vector<int> receivers{testing::udp_receiver(t.mn1, 4000), testing::udp_receiver(t.mn2, 4000)};
  const int sender = testing::udp_sender(t.cn, t.mobile_address, 4000);
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
  for (int i = 0; i < 1000; ++i) {
    EXPECT_OK(t.ar1.set(t.mobile_prefix, t.redirect(t.ar2)));
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
    EXPECT_OK(t.ar1.set(t.mobile_prefix, t.deliver()));
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  stop = true;
  stream.join();

  std::vector<std::set<std::uint32_t>> received(2);
  const auto drain = [&] {
    for (std::size_t i = 0; i < receivers.size(); ++i) {
      std::uint32_t number = 0;
      while (::recv(receivers[i], &number, sizeof number, MSG_DONTWAIT) == sizeof number) received[i].insert(number);
    }
    std::set<std::uint32_t> all = received[0];
    all.insert(received[1].begin(), received[1].end());
    return all.size();
  };
  EXPECT_TRUE(eventually([&] { return drain() == sent; })) << drain() << " of " << sent << " arrived";
  EXPECT_GT(received[0].size(), sent / 10);
  EXPECT_GT(received[1].size(), sent / 10);
  for (const int fd : receivers) ::close(fd);
  ::close(sender);
}

TEST_F(ForwardingPlaneTest, RestoresWhatSomebodyDeletes) {
  auto& t = *topology_;
  const auto other = prefix("2001:db8:d:2::/64");
  ASSERT_OK(t.ar1.set(t.mobile_prefix, t.deliver()));
  ASSERT_OK(t.ar1.set(other, t.redirect(t.ar2)));
  const auto& ar = t.ar1;
  const auto restored = [&](const std::string& deletion, const std::string& show, const std::string& text) {
    t.ar1.space.shell(deletion);
    EXPECT_TRUE(eventually([&] { return t.ar1.space.shell(show).find(text) != std::string::npos; })) << deletion;
  };
  restored("ip -6 route del 2001:db8:d:1::/64 table 8818", "ip -6 route show table 8818",
           "2001:db8:d:1::/64 via fe80::11");
  restored("ip -6 route del 2001:db8:d:2::/64 table 8818", "ip -6 route show table 8818", "2001:db8:d:2::/64 via");
  restored("ip -6 route del 2001:db8:d:2::/64 table 8819", "ip -6 route show table 8819", "2001:db8:a2::d");
  restored("ip -6 route flush table 8820", "ip -6 route show table 8820", "blackhole 2001:db8:d:1::/64");
  restored("ip -6 route del " + ar.deliver_sid().to_string(), "ip -6 route show", "End.DT6");
  restored("ip -6 rule del lookup 8818", "ip -6 rule", "lookup 8818");
  restored("ip -6 rule del iif kx1 lookup 8819", "ip -6 rule", "iif kx1 lookup 8819");
  restored("ip addr del fe80::a/64 dev acc", "ip addr show dev acc", "fe80::a/64");
  restored("ip link set acc address 02:00:00:00:bb:bb", "ip link show dev acc", "02:00:00:00:aa:aa");
  restored("ip link set kx1 mtu 1280", "ip link show dev kx1", "mtu 1460");
  restored("ip link set kx0 down", "ip -6 route show table 8818", "2001:db8:d:2::/64 via");
  restored("ip link del kx0", "ip -6 route show table 8818", "2001:db8:d:2::/64 via");
  restored("true", "ip -6 route show", "End.DT6");
  restored("true", "ip -6 route show", "End.DX6");
  EXPECT_THAT(t.ping(), HasSubstr(" 0% packet loss"));
}

TEST_F(ForwardingPlaneTest, RestoresWhatSomebodyDeletesWhileNoticesAreLost) {
  auto& t = *topology_;
  ASSERT_OK(t.ar1.set(t.mobile_prefix, t.deliver()));
  ASSERT_OK(t.ar1.set(prefix("2001:db8:d:2::/64"), t.redirect(t.ar2)));
  // On the plane's own thread, so that it reads no notice until the buffer has overflowed.
  t.ar1.space.run([] {
    EXPECT_EQ(
        std::system("for i in $(seq 0 30000); do printf 'route add blackhole 2001:db8:1:%x::/64 table 9999\\n' $i;"
                    " done | ip -6 -batch -"),
        0);
    EXPECT_EQ(std::system("ip -6 route flush table 8818; ip -6 route flush table 8819; ip -6 rule del lookup 8818"), 0);
  });
  EXPECT_TRUE(eventually([&] { return t.ar1.holds("8818", "2001:db8:d:1::/64 via fe80::11"); }));
  EXPECT_TRUE(eventually([&] { return t.ar1.holds("8819", "2001:db8:a2::d"); }));
  EXPECT_THAT(t.ping(), HasSubstr(" 0% packet loss"));
}

TEST_F(ForwardingPlaneTest, ReplacesARouteThatSomebodyPutInPlaceOfOurs) {
  auto& t = *topology_;
  ASSERT_OK(t.ar1.set(t.mobile_prefix, t.deliver()));
  t.ar1.space.shell("ip -6 route replace unreachable 2001:db8:d:1::/64 table 8818 proto static");
  EXPECT_TRUE(eventually([&] { return t.ar1.holds("8818", "via fe80::11"); }));
}

TEST_F(ForwardingPlaneTest, PreparesAnAccessInterfaceAgainThatWasRecreated) {
  auto& t = *topology_;
  ASSERT_OK(t.ar1.set(t.mobile_prefix, t.deliver()));
  t.ar1.space.shell("ip link del acc");
  EXPECT_TRUE(
      eventually([&] { return t.ar1.space.run([&] { return !t.ar1.health.empty() && !t.ar1.health.back().ok(); }); }));
  Topology::attach(t.mn1, t.ar1);
  EXPECT_TRUE(eventually([&] { return t.ar1.space.run([&] { return t.ar1.health.back().ok(); }); }));
  EXPECT_THAT(t.ping(), HasSubstr(" 0% packet loss"));
  EXPECT_THAT(t.ar1.space.shell("ip link show dev acc"), HasSubstr("02:00:00:00:aa:aa"));
}

TEST_F(ForwardingPlaneTest, WaitsForAnAccessInterfaceThatSomebodySetDown) {
  auto& t = *topology_;
  ASSERT_OK(t.ar1.set(t.mobile_prefix, t.deliver()));
  t.ar1.space.shell("ip link set acc down");
  EXPECT_TRUE(
      eventually([&] { return t.ar1.space.run([&] { return !t.ar1.health.empty() && !t.ar1.health.back().ok(); }); }));
  EXPECT_THAT(t.ar1.space.shell("ip link show dev acc"), HasSubstr("state DOWN"));
  t.ar1.space.shell("ip link set acc up");
  EXPECT_TRUE(eventually([&] { return t.ar1.space.run([&] { return t.ar1.health.back().ok(); }); }));
  EXPECT_THAT(t.ping(), HasSubstr(" 0% packet loss"));
}

TEST_F(ForwardingPlaneTest, ProgramsLaterWhatFailedForLackOfTheInterface) {
  auto& t = *topology_;
  t.ar1.space.shell("ip link del acc");
  const auto status = t.ar1.set(t.mobile_prefix, t.deliver());
  EXPECT_FALSE(status.ok());
  EXPECT_THAT(std::string(status.message()), HasSubstr("deliver 2001:db8:d:1::/64"));
  EXPECT_THAT(std::string(status.message()), HasSubstr("acc"));
  Topology::attach(t.mn1, t.ar1);
  EXPECT_TRUE(eventually([&] { return t.ar1.space.run([&] { return !t.ar1.programmed.empty(); }); }));
  EXPECT_THAT(t.ar1.space.run([&] { return t.ar1.programmed; }), Contains(t.mobile_prefix));
  EXPECT_THAT(t.ping(), HasSubstr(" 0% packet loss"));
}

TEST_F(ForwardingPlaneTest, KeepsARedirectUntilTheLinkCanSend) {
  auto& t = *topology_;
  ASSERT_OK(t.ar2.set(t.mobile_prefix, t.deliver()));
  t.mn1.shell("ip link set eth down");
  // Until the plane has noticed, it takes the link for one that can send.
  ASSERT_TRUE(eventually([&] {
    return t.ar1.set(t.mobile_prefix, t.redirect(t.ar2)).ok() &&
           t.ar1.set(t.mobile_prefix, t.deliver()).code() == absl::StatusCode::kUnavailable;
  }));
  EXPECT_THAT(t.ar1.mobile_table(), HasSubstr("dev kx0"));
  EXPECT_THAT(t.ping(), HasSubstr(" 0% packet loss"));

  t.mn1.shell("ip link set eth up");
  EXPECT_TRUE(eventually([&] { return t.ar1.space.run([&] { return !t.ar1.programmed.empty(); }); }));
  EXPECT_THAT(t.ar1.space.run([&] { return t.ar1.programmed; }), Contains(t.mobile_prefix));
  EXPECT_THAT(t.ar1.mobile_table(), HasSubstr("via fe80::11 dev acc"));
}

// An attempt to deliver that was given up leaves nothing to be programmed later.
TEST_F(ForwardingPlaneTest, ForgetsADeliveryThatWaitsForTheLinkWhenTheRedirectIsWantedAgain) {
  auto& t = *topology_;
  ASSERT_OK(t.ar2.set(t.mobile_prefix, t.deliver()));
  t.mn1.shell("ip link set eth down");
  // Until the plane has noticed, it takes the link for one that can send.
  ASSERT_TRUE(eventually([&] {
    return t.ar1.set(t.mobile_prefix, t.redirect(t.ar2)).ok() &&
           t.ar1.set(t.mobile_prefix, t.deliver()).code() == absl::StatusCode::kUnavailable;
  }));
  ASSERT_OK(t.ar1.set(t.mobile_prefix, t.redirect(t.ar2)));
  t.mn1.shell("ip link set eth up");
  EXPECT_TRUE(
      eventually([&] { return t.ar1.space.shell("ip link show dev acc").find("LOWER_UP") != std::string::npos; }));
  EXPECT_THAT(t.ping(), HasSubstr(" 0% packet loss"));
  EXPECT_TRUE(t.ar1.space.run([&] { return t.ar1.programmed.empty(); }));
  EXPECT_THAT(t.ar1.mobile_table(), HasSubstr("dev kx0"));
}

TEST_F(ForwardingPlaneTest, RefusesAnInterfaceThatIsNoAccessInterface) {
  auto& t = *topology_;
  auto route = t.deliver();
  route.interface = "upl";
  EXPECT_TRUE(absl::IsInvalidArgument(t.ar1.set(t.mobile_prefix, route)));
  EXPECT_FALSE(t.ar1.holds("8818", "2001:db8:d:1::"));
}

TEST_F(ForwardingPlaneTest, ForwardsOnAfterAStopAndAdoptsWhatIsThere) {
  auto& t = *topology_;
  ASSERT_OK(t.ar1.set(t.mobile_prefix, t.deliver()));
  ASSERT_OK(t.ar1.set(prefix("2001:db8:d:2::/64"), t.redirect(t.ar2)));
  const auto rules = t.ar1.space.shell("ip -6 rule");
  const auto links = t.ar1.space.shell("ip link show type veth");
  t.ar1.stop();
  EXPECT_THAT(t.ping(), HasSubstr(" 0% packet loss"));
  ASSERT_OK(t.ar1.start());
  EXPECT_EQ(t.ar1.space.shell("ip -6 rule"), rules);
  EXPECT_EQ(t.ar1.space.shell("ip link show type veth"), links);
  EXPECT_THAT(t.ping(), HasSubstr(" 0% packet loss"));

  ASSERT_OK(t.ar1.replace_all({{t.mobile_prefix, t.deliver()}}));
  EXPECT_FALSE(t.ar1.holds("8818", "2001:db8:d:2::"));
  EXPECT_TRUE(eventually([&] { return !t.ar1.holds("8819", "2001:db8:d:2::"); }));
  EXPECT_THAT(t.ping(), HasSubstr(" 0% packet loss"));
}

TEST_F(ForwardingPlaneTest, ReplacesTenThousandPrefixes) {
  auto& t = *topology_;
  std::map<Ipv6Prefix, Route> routes;
  const auto pool = prefix("2001:db8:d::/48");
  for (std::uint64_t i = 0; i < 10'000; ++i) {
    routes[pool.nth(64, i)] = i % 2 == 0 ? t.deliver() : t.redirect(t.ar2);
  }
  // The kernel may refuse some for want of memory at the moment (ENOMEM); they are made a little later.
  const auto status = t.ar1.replace_all(routes);
  ASSERT_TRUE(status.ok() || absl::IsResourceExhausted(status)) << status;
  EXPECT_TRUE(eventually([&] { return t.ar1.space.shell("ip -6 route show table 8818 | wc -l") == "10000\n"; }));
  EXPECT_TRUE(eventually([&] { return t.ar1.space.shell("ip -6 route show table 8819 | wc -l") == "5000\n"; }));
  ASSERT_OK(t.ar1.replace_all({{t.mobile_prefix, t.deliver()}}));
  EXPECT_EQ(t.ar1.space.shell("ip -6 route show table 8818 | wc -l"), "1\n");
  EXPECT_TRUE(eventually([&] { return t.ar1.space.shell("ip -6 route show table 8819 | wc -l") == "0\n"; }));
  EXPECT_THAT(t.ping(), HasSubstr(" 0% packet loss"));
}

TEST_F(ForwardingPlaneTest, DropsWhatAMobileNodeSendsToItsOwnPrefix) {
  auto& t = *topology_;
  ASSERT_OK(t.ar1.set(t.mobile_prefix, t.deliver()));
  ASSERT_THAT(t.ping(), HasSubstr(" 0% packet loss"));
  const auto before = t.mn1.counter("eth", "rx");
  const int sender = testing::udp_sender(t.mn1, "2001:db8:d:1::99", 4000);
  for (int i = 0; i < 1000; ++i) ::send(sender, &i, sizeof i, 0);
  ::close(sender);
  // The next answer to come back passes everything that would have been bounced.
  ASSERT_THAT(t.ping(), HasSubstr(" 0% packet loss"));
  EXPECT_LT(t.mn1.counter("eth", "rx") - before, 100U);
}

TEST_F(ForwardingPlaneTest, DropsWhatAMobileNodeSendsToASegmentIdentifier) {
  auto& t = *topology_;
  ASSERT_OK(t.ar1.set(t.mobile_prefix, t.deliver()));
  ASSERT_THAT(t.ping(), HasSubstr(" 0% packet loss"));
  ASSERT_OK(t.ar1.set(prefix("2001:db8:d:7::/64"), t.redirect(t.ar2)));
  testing::Capture pair(t.ar1.space, "kx0");
  // The pair has packets of its own too, such as listener reports.
  std::size_t seen = 0;
  const auto tunnelled = [&] {
    for (const auto& packet : pair.take()) seen += packet.ends_with("> 2001:db8:d:7::1") ? 1 : 0;
    return seen;
  };
  const auto sid = t.ar1.deliver_sid().to_string();

  auto before = tunnelled();
  testing::send_ip_in_ip(t.mn1, sid, t.mobile_address, "2001:db8:d:7::1", 10);
  ASSERT_THAT(t.ping(), HasSubstr(" 0% packet loss"));
  EXPECT_EQ(tunnelled(), before);

  // The same from the core's side is what the identifier is for.
  before = tunnelled();
  testing::send_ip_in_ip(t.cn, sid, t.mobile_address, "2001:db8:d:7::1", 10);
  ASSERT_THAT(t.ping(), HasSubstr(" 0% packet loss"));
  EXPECT_EQ(tunnelled(), before + 10);
}

TEST_F(ForwardingPlaneTest, UplinkIdentifierForwardsByAllTables) {
  auto& t = *topology_;
  ASSERT_OK(t.ar1.set(t.mobile_prefix, t.deliver()));
  const int receiver = testing::udp_receiver(t.cn, 4000);
  // From ar2's side to ar1's uplink identifier, as the reverse tunnel would, and on by ar1's table main.
  testing::send_ip_in_ip(t.ar2.space, t.ar1.uplink_sid().to_string(), "2001:db8:a2::1", "2001:db8:c:3::2", 1, 4000);
  EXPECT_GT(testing::receive_hop_limit(receiver), 0);
  ::close(receiver);
}

TEST_F(ForwardingPlaneTest, NeverTellsAMobileNodeOfABetterFirstHop) {
  auto& t = *topology_;
  ASSERT_OK(t.ar1.set(t.mobile_prefix, t.deliver()));
  // A second mobile node behind the same port: in and out by one interface.
  t.mn1.shell("ip addr add fe80::12/64 dev eth nodad");
  t.mn1.shell("ip addr add 2001:db8:d:2::12/128 dev eth nodad");
  auto second = t.deliver();
  second.link_local = testing::address("fe80::12");
  ASSERT_OK(t.ar1.set(prefix("2001:db8:d:2::/64"), second));
  const auto redirects = [&] {
    return t.mn1.shell("awk '$1 == \"Icmp6InRedirects\" {print $2}' /proc/thread-self/net/snmp6");
  };
  const auto before = t.mn1.counter("eth", "rx");
  t.mn1.shell("ip -6 route flush table local type local 2001:db8:d:2::12 || true");
  t.mn1.shell("ip -6 addr del 2001:db8:d:2::12/128 dev eth");
  t.mn1.shell("ping -n -c 3 -i 0.05 -W 1 -I " + t.mobile_address + " 2001:db8:d:2::12 || true");
  EXPECT_GE(t.mn1.counter("eth", "rx") - before, 3U);
  EXPECT_EQ(redirects(), "0\n");
}

TEST_F(ForwardingPlaneTest, RemoveAllLeavesNothingOfOurs) {
  auto& t = *topology_;
  ASSERT_OK(t.ar1.set(t.mobile_prefix, t.deliver()));
  ASSERT_OK(t.ar1.set(prefix("2001:db8:d:2::/64"), t.redirect(t.ar2)));
  t.ar1.stop();
  ASSERT_OK(t.ar1.space.run([&] { return remove_all(t.ar1.config); }));
  EXPECT_THAT(t.ar1.space.shell("ip -6 rule"), Not(HasSubstr("88")));
  EXPECT_THAT(t.ar1.space.shell("ip -6 route show table all"),
              Not(AnyOf(HasSubstr("proto 88"), HasSubstr("table 88"))));
  EXPECT_FALSE(t.ar1.space.try_shell("ip link show dev kx0"));
  EXPECT_THAT(t.ar1.space.shell("ip -6 neigh show nud permanent"), Not(HasSubstr("fe80::11")));
  EXPECT_OK(t.ar1.space.run([&] { return remove_all(t.ar1.config); }));
}

TEST_F(ForwardingPlaneTest, TheKernelsOwnRoutesOfTheMainTableStay) {
  auto& t = *topology_;
  const auto kernels = [&] { return t.ar1.space.shell("ip -6 route show table main proto kernel | grep -v kx"); };
  t.ar1.space.shell("ip link add stays type veth peer name other && ip link set stays up && ip link set other up");
  t.ar1.space.shell("ip addr add 2001:db8:57a7::1/64 dev stays nodad");
  const auto before = kernels();
  ASSERT_THAT(before, HasSubstr("2001:db8:57a7::/64"));
  t.ar1.stop();
  ASSERT_OK(t.ar1.start());
  EXPECT_EQ(kernels(), before);
  ASSERT_OK(t.ar1.set(t.mobile_prefix, t.deliver()));
  t.ar1.stop();
  ASSERT_OK(t.ar1.space.run([&] { return remove_all(t.ar1.config); }));
  EXPECT_EQ(kernels(), before);
}

TEST_F(ForwardingPlaneTest, RoutesThatAnEarlierVersionHasLeftAreTakenUp) {
  auto& t = *topology_;
  ASSERT_OK(t.ar1.set(t.mobile_prefix, t.deliver()));
  ASSERT_OK(t.ar1.set(prefix("2001:db8:d:2::/64"), t.redirect(t.ar2)));
  const auto routes = [&] {
    return t.ar1.space.shell("for t in 8818 8819 8820 8821; do ip -6 route show table $t; done 2>/dev/null; true");
  };
  const auto before = routes();
  t.ar1.stop();
  t.ar1.space.shell(
      "for t in 8818 8819 8820; do ip -6 route show table $t | while read -r r; do "
      "ip -6 route replace $(echo \"$r\" | sed 's/proto kernel/proto 88/; s/ pref medium//; s/segs 1 . \\([^ ]*\\) "
      "./segs "
      "\\1/') table $t; done; done");
  ASSERT_THAT(routes(), AllOf(HasSubstr("proto 88"), Not(HasSubstr("proto kernel"))));
  ASSERT_OK(t.ar1.start());
  EXPECT_EQ(routes(), before);
}

TEST_F(ForwardingPlaneTest, RefusesToTakeOverInterfacesThatAreNotItsPair) {
  Namespace space("taken");
  space.shell("ip link add kx0 type veth peer name other");
  ForwardingPlaneConfig config;
  const auto status =
      space.run([&] { return make_kernel_forwarding_plane(space.context().get_executor(), config).status(); });
  EXPECT_TRUE(absl::IsFailedPrecondition(status)) << status;
}

}  // namespace
}  // namespace kedge::speaker
