#include "speaker/kernel/anchor_routes.h"

#include <sys/socket.h>
#include <unistd.h>

#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/component/kernel/topology.h"

namespace kedge::speaker {
namespace {

using ::testing::AllOf;
using ::testing::Each;
using ::testing::ElementsAre;
using testing::eventually;
using ::testing::Key;
using testing::Namespace;
using ::testing::Pair;
using testing::prefix;

constexpr std::uint8_t kProtocol = 89;
const Ipv6Prefix kFirst = prefix("2001:db8:1::/64");
const Ipv6Prefix kSecond = prefix("2001:db8:2::/64");

class AnchorRoutesTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!testing::can_make_namespaces()) GTEST_SKIP() << "needs root: makes network namespaces";
    space_ = std::make_unique<Namespace>("anchors");
    space_->shell("ip link set lo up");
    space_->run([this] {
      routes_ = make_anchor_routes(space_->context().get_executor(), kProtocol).value();
      routes_->on_change = [this](const KernelRoute& route, bool present) {
        changes_.emplace_back(route.destination, present);
      };
    });
  }
  void TearDown() override {
    if (space_) space_->run([this] { routes_.reset(); });
  }

  std::vector<absl::Status> write(std::vector<AnchorRouteChange> changes) {
    return space_->run([&] { return routes_->write(changes); });
  }
  std::string main() { return space_->shell("ip -6 route show table main"); }
  // Prefix to protocol.
  std::map<Ipv6Prefix, int> read() {
    return space_->run([this] {
      std::map<Ipv6Prefix, int> found;
      EXPECT_TRUE(routes_->read([&](const KernelRoute& route) { found[route.destination] = route.protocol; }).ok());
      return found;
    });
  }
  std::vector<std::pair<Ipv6Prefix, bool>> changes() {
    return space_->run([this] { return changes_; });
  }

  std::unique_ptr<Namespace> space_;
  std::unique_ptr<AnchorRoutes> routes_;
  std::vector<std::pair<Ipv6Prefix, bool>> changes_;
};

TEST_F(AnchorRoutesTest, WritesBlackholesOfItsProtocolAndRepeatsBothDirections) {
  for (int i = 0; i < 2; ++i)
    EXPECT_THAT(write({{kFirst, 881801, true}, {kSecond, 881802, true}}), Each(absl::OkStatus()));
  EXPECT_THAT(main(), AllOf(::testing::HasSubstr("blackhole 2001:db8:1::/64 dev lo proto 89 metric 881801"),
                            ::testing::HasSubstr("blackhole 2001:db8:2::/64 dev lo proto 89 metric 881802")));
  for (int i = 0; i < 2; ++i) EXPECT_THAT(write({{kFirst, 881801, false}}), Each(absl::OkStatus()));
  EXPECT_THAT(read(), ElementsAre(Pair(kSecond, kProtocol)));
}

TEST_F(AnchorRoutesTest, RemovesNoRouteOfAnotherProtocol) {
  space_->shell("ip -6 route add blackhole 2001:db8:1::/64 metric 881801 proto static");
  EXPECT_THAT(write({{kFirst, 881801, false}}), Each(absl::OkStatus()));
  EXPECT_THAT(read(), ElementsAre(Key(kFirst)));
}

TEST_F(AnchorRoutesTest, ReadsAndTellsOfWhatOthersDoAndNotOfWhatFrrHasLearnt) {
  write({{prefix("2001:db8:3::/64"), 881801, true}});
  for (const char* learnt : {"bgp", "11", "ospf", "198"}) {
    space_->shell(std::string("ip -6 route add blackhole 2001:db8:9::/64 metric 20 proto ") + learnt);
    space_->shell("ip -6 route del blackhole 2001:db8:9::/64");
  }
  space_->shell("ip -6 route add blackhole 2001:db8:9::/64 metric 20 proto bgp");
  space_->shell("ip -6 route add blackhole 2001:db8:9::/64 table 8818");
  space_->shell("ip -6 route add blackhole 2001:db8:1::/64 proto 196");
  space_->shell("ip -6 route del blackhole 2001:db8:3::/64 proto 89");
  EXPECT_TRUE(eventually([this] { return changes().size() == 2; }));
  EXPECT_THAT(changes(), ElementsAre(Pair(kFirst, true), Pair(prefix("2001:db8:3::/64"), false)));
  EXPECT_THAT(read(), ElementsAre(Pair(kFirst, 196)));
}

TEST_F(AnchorRoutesTest, WhatAListenerLikeZebraHasNotReadOrHasMissedIsKnownWhenAWriteReturns) {
  EXPECT_EQ(space_->run([this] { return routes_->zebra(); }), std::nullopt);
  const int zebra = space_->run([] {
    const int fd = ::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
    const int room = 4096;
    sockaddr_nl address{};
    address.nl_family = AF_NETLINK;
    // Links, routes of both families, multicast routes.
    address.nl_groups = 0x1 | 0x40 | 0x400 | 0x20;
    EXPECT_EQ(::setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &room, sizeof room), 0);
    EXPECT_EQ(::bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
    return fd;
  });
  const auto at_rest = space_->run([this] { return routes_->zebra(); });
  ASSERT_TRUE(at_rest.has_value());
  EXPECT_EQ(at_rest->queued, 0U);
  EXPECT_EQ(at_rest->drops, 0U);
  space_->run([this] {
    routes_->write(std::vector<AnchorRouteChange>{{kFirst, 881801, true}});
    const auto queued = routes_->zebra();
    EXPECT_GT(queued->queued, 0U);
    EXPECT_EQ(queued->drops, 0U);
    std::vector<AnchorRouteChange> many;
    for (std::uint64_t i = 0; i < 100; ++i) many.push_back({prefix("2001:db8:100::/48").nth(64, i), 881801, true});
    routes_->write(many);
    EXPECT_GT(routes_->zebra()->drops, 80U);
  });
  ::close(zebra);
}

TEST_F(AnchorRoutesTest, AllOfOneProtocolAreRemovedAtOnce) {
  write({{kFirst, 881801, true}, {kFirst, 881802, true}, {kSecond, 1, true}});
  space_->shell("ip -6 route add blackhole 2001:db8:1::/64 proto static");
  space_->run([] { EXPECT_TRUE(remove_anchor_routes(kProtocol).ok()); });
  EXPECT_THAT(read(), ElementsAre(Pair(kFirst, 4)));
}

}  // namespace
}  // namespace kedge::speaker
