#include "speaker/packet_filter/access_filter.h"

#include <linux/if_packet.h>
#include <net/if.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <functional>
#include <memory>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "speaker/access/icmpv6_codec.h"
#include "tests/component/kernel/topology.h"
#include "tests/component/packet_filter/access_link_test.h"

namespace kedge::speaker {
namespace {

using testing::address;
using ::testing::HasSubstr;
using testing::Namespace;
using ::testing::Not;
using testing::prefix;

constexpr char kMac[] = "02:00:00:00:00:11";
constexpr char kOtherMac[] = "02:00:00:00:00:22";

PermittedSource source(const std::string& from, const std::string& mac = kMac, const std::string& interface = "acc") {
  return {interface, *LinkLayerAddress::parse(mac), prefix(from)};
}

// The MN's own link-local address.
PermittedSource link_local(const std::string& mac = kMac) { return source("fe80::11/128", mac); }

// Whatever the MN's source is, the CN has a way back to it.
class AccessFilterTest : public testing::AccessLinkTest {
 protected:
  void SetUp() override {
    testing::AccessLinkTest::SetUp();
    if (IsSkipped()) return;
    ar_->shell("ip -6 route add 2001:db8:d::/48 dev acc");
    mn_->shell("ip link set eth address " + std::string(kMac));
    // Neighbours are known, so that what is not answered below was dropped.
    EXPECT_TRUE(testing::eventually([&] { return mn_->try_shell("ping -n -c 1 -W 1 fe80::a%eth"); }));
    EXPECT_TRUE(testing::eventually([&] { return cn_->try_shell("ping -n -c 1 -W 1 2001:db8:c::1"); }));
  }

  void make(std::vector<std::string> interfaces = {"acc"}) {
    ar_->run([&] {
      auto made = make_access_filter({std::move(interfaces)});
      ASSERT_TRUE(made.ok()) << made.status();
      filter_ = *std::move(made);
    });
  }
  void replace_all(const std::set<PermittedSource>& sources, const TunnelEnds& tunnels = {}) {
    ar_->run([&] {
      const auto status = filter_->replace_all(sources, tunnels);
      ASSERT_TRUE(status.ok()) << status;
    });
  }
  absl::Status change(const std::vector<PermittedSource>& added, const std::vector<PermittedSource>& removed) {
    return ar_->run([&] { return filter_->change(added, removed); });
  }
  AccessFilter::Counters counters() {
    return ar_->run([&] {
      const auto counters = filter_->counters();
      EXPECT_TRUE(counters.ok()) << counters.status();
      return counters.value_or(AccessFilter::Counters{});
    });
  }
  // What the AR's kernel knows on the access link, each with its state; groups aside.
  std::string neighbours() { return ar_->shell("ip -6 neigh show dev acc nud all | grep -v NOARP || true"); }
  // As the forwarding plane has it where an MN is served.
  void know_the_mn() {
    ar_->shell("ip -6 route replace 2001:db8:d::/48 via fe80::11 dev acc");
    ar_->shell("ip -6 neigh flush dev acc");
    ar_->shell("ip -6 neigh replace fe80::11 lladdr " + std::string(kMac) + " nud permanent dev acc");
  }
  // The MN's kernel solicits the AR with this source; the AR answers.
  bool finds_router(const std::string& from) {
    mn_->shell("ip -6 neigh flush dev eth");
    return mn_->try_shell("ping -n -c 1 -W 1 -I " + from + "%eth fe80::a");
  }
  void send_frame(const std::vector<std::uint8_t>& frame) {
    const ssize_t sent = mn_->run([&] {
      const int fd = ::socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0);
      sockaddr_ll to{};
      to.sll_family = AF_PACKET;
      to.sll_ifindex = static_cast<int>(if_nametoindex("eth"));
      const ssize_t size =
          ::sendto(fd, frame.data(), frame.size(), 0, reinterpret_cast<const sockaddr*>(&to), sizeof to);
      ::close(fd);
      return size;
    });
    EXPECT_EQ(sent, static_cast<ssize_t>(frame.size()));
  }
  // The MN gets an answer from the CN with this source.
  bool passes(const std::string& from) {
    return testing::eventually([&] { return !drops(from); });
  }
  // One packet.
  bool drops(const std::string& from) {
    mn_->shell("ip addr replace " + from + "/128 dev eth nodad");
    return !mn_->try_shell("ping -n -c 1 -W 1 -I " + from + " 2001:db8:c::2");
  }
  std::string table() { return ar_->shell("nft list table inet kedge_access"); }

  std::unique_ptr<AccessFilter> filter_;
};

TEST_F(AccessFilterTest, NobodyGetsInUntilSomebodyIsPermitted) {
  EXPECT_TRUE(passes("2001:db8:d:1::11"));
  make();
  EXPECT_TRUE(drops("2001:db8:d:1::11"));
  EXPECT_GE(counters().foreign_sources, 1U);
}

TEST_F(AccessFilterTest, AnMnSendsFromItsOwnPrefixAndFromNoOther) {
  make();
  replace_all({source("2001:db8:d:1::/64"), link_local()});
  EXPECT_TRUE(passes("2001:db8:d:1::11"));
  EXPECT_TRUE(passes("2001:db8:d:1:ffff::1"));
  const auto before = counters().foreign_sources;
  EXPECT_TRUE(drops("2001:db8:d:2::11"));
  EXPECT_TRUE(drops("2001:db8:c::3"));
  EXPECT_EQ(counters().foreign_sources, before + 2);
}

TEST_F(AccessFilterTest, AnotherMnOnTheSameLinkDoesNotGetInWithItsNeighboursPrefix) {
  make();
  replace_all({source("2001:db8:d:1::/64"), source("2001:db8:d:2::/64", kOtherMac), link_local(kOtherMac)});
  mn_->shell("ip link set eth address " + std::string(kOtherMac));
  EXPECT_TRUE(testing::eventually([&] { return finds_router("fe80::11"); }));
  EXPECT_TRUE(drops("2001:db8:d:1::11"));
  EXPECT_TRUE(passes("2001:db8:d:2::11"));
}

TEST_F(AccessFilterTest, TheSamePrefixDoesNotGetInByAnotherInterface) {
  make({"acc", "acc2"});
  replace_all({source("2001:db8:d:1::/64", kMac, "acc2")});
  EXPECT_TRUE(drops("2001:db8:d:1::11"));
}

TEST_F(AccessFilterTest, ALinkLocalSourceGetsInWhenItIsTheMnsOwn) {
  make();
  mn_->shell("ip addr add fe80::12/64 dev eth nodad");
  const auto reaches = [&](const std::string& from) {
    return mn_->try_shell("ping -n -c 1 -W 1 -I " + from + "%eth fe80::a");
  };
  EXPECT_FALSE(reaches("fe80::11"));
  EXPECT_EQ(counters().foreign_sources, 0U);
  ASSERT_TRUE(change({source("2001:db8:d:1::/64"), link_local()}, {}).ok());
  EXPECT_TRUE(testing::eventually([&] { return reaches("fe80::11"); }));
  EXPECT_FALSE(reaches("fe80::12"));
  ASSERT_TRUE(change({}, {link_local()}).ok());
  EXPECT_FALSE(reaches("fe80::11"));
  EXPECT_TRUE(passes("2001:db8:d:1::11"));
}

TEST_F(AccessFilterTest, StrangersTakeNoRoomInTheNeighbourTable) {
  make();
  replace_all({source("2001:db8:d:1::/64"), link_local()});
  mn_->shell("ip link set eth address " + std::string(kOtherMac));
  mn_->shell("ip addr add fe80::22/64 dev eth nodad");
  // A solicitation with a source link-layer address.
  EXPECT_FALSE(finds_router("fe80::22"));
  EXPECT_THAT(neighbours(), Not(HasSubstr("fe80::22")));
}

// With gc_thresh3 of them, from as many MNs or from one that invents them, the router has no room for the next hop of
// its own uplink.
TEST_F(AccessFilterTest, AnMnTakesNoRoomInTheNeighbourTableWhateverAddressesItHas) {
  know_the_mn();
  make();
  replace_all({source("2001:db8:d:1::/64"), link_local()});
  mn_->shell("ip addr add 2001:db8:d:1::11/128 dev eth nodad");
  mn_->shell("ip addr add fe80::12/64 dev eth nodad");
  const auto before = neighbours();
  EXPECT_FALSE(finds_router("fe80::12"));
  EXPECT_EQ(neighbours(), before);
  // For the way to a default router a host solicits with the packet's own source.
  mn_->shell("ip -6 neigh flush dev eth");
  EXPECT_FALSE(mn_->try_shell("ping -n -c 1 -W 1 -I 2001:db8:d:1::11 2001:db8:c::2"));
  EXPECT_EQ(neighbours(), before);
  EXPECT_TRUE(finds_router("fe80::11"));
  EXPECT_EQ(neighbours(), before);
  // The kernel looks for no address that an MN names.
  const auto router = ar_->shell("ip -br link show acc | awk '{ printf $3 }'");
  mn_->shell("ip -6 neigh replace fe80::77 lladdr " + router + " nud permanent dev eth");
  for (const std::string from : {"fe80::11", "2001:db8:d:1::11"}) {
    EXPECT_FALSE(mn_->try_shell("ping -n -c 1 -W 1 -I " + from + " fe80::77%eth"));
    EXPECT_EQ(neighbours(), before) << from;
  }
  // Duplicate address detection goes on.
  mn_->shell("echo 1 > /proc/sys/net/ipv6/conf/eth/accept_dad; ip addr add fe80::a/64 dev eth");
  EXPECT_TRUE(
      testing::eventually([&] { return mn_->shell("ip addr show dev eth").find("dadfailed") != std::string::npos; }));
  EXPECT_EQ(neighbours(), before);
}

TEST_F(AccessFilterTest, TheKernelIsKeptOutOfRouterDiscovery) {
  know_the_mn();
  make();
  replace_all({source("2001:db8:d:1::/64"), link_local()});
  // With the option that has the sender's link-layer address.
  const auto solicitation =
      build_frame({.link_source = *LinkLayerAddress::parse(kMac),
                   .link_destination = multicast_link_layer_address(all_routers_address()),
                   .source = address("2001:db8:d:1::77"),
                   .destination = all_routers_address()},
                  RouterSolicitation{.source_link_layer_address = *LinkLayerAddress::parse(kMac)});
  const auto before = neighbours();
  send_frame(solicitation);
  // Behind it on the same way.
  EXPECT_TRUE(passes("2001:db8:d:1::11"));
  EXPECT_EQ(neighbours(), before);
}

TEST_F(AccessFilterTest, WhatComesFromTheCoreIsNotAsked) {
  make();
  replace_all({source("2001:db8:d:1::/64"), link_local()});
  mn_->shell("ip addr add 2001:db8:d:1::11/128 dev eth nodad");
  EXPECT_TRUE(testing::eventually([&] { return cn_->try_shell("ping -n -c 1 -W 1 2001:db8:d:1::11"); }));
}

TEST_F(AccessFilterTest, NetworksOfMobileRoutersHaveTheirOwnLengths) {
  make();
  replace_all({source("2001:db8:d:1::/64"), link_local()});
  EXPECT_TRUE(drops("2001:db8:d:f42::1"));
  ASSERT_TRUE(change({source("2001:db8:d:f00::/56"), source("2001:db8:d:8000::/49")}, {}).ok());
  EXPECT_TRUE(passes("2001:db8:d:f42::1"));
  EXPECT_TRUE(passes("2001:db8:d:8fff::1"));
  EXPECT_TRUE(drops("2001:db8:d:e42::1"));
  EXPECT_TRUE(passes("2001:db8:d:1::11"));
  ASSERT_TRUE(change({}, {source("2001:db8:d:f00::/56")}).ok());
  EXPECT_TRUE(drops("2001:db8:d:f42::1"));
  ASSERT_TRUE(change({source("2001:db8:d:f00::/56")}, {}).ok());
  EXPECT_TRUE(passes("2001:db8:d:f42::1"));
}

TEST_F(AccessFilterTest, SegmentIdentifiersAreForOtherAccessRoutersOnly) {
  ar_->shell("ip addr add 2001:db8:a1::d/128 dev lo");
  cn_->shell("ip addr add 2001:db8:a2::1/128 dev lo");
  ar_->shell("ip -6 route add 2001:db8:a2::/64 via 2001:db8:c::2");
  make();
  const auto reaches = [&](const std::string& from) {
    return cn_->try_shell("ping -n -c 1 -W 1 -I " + from + " 2001:db8:a1::d");
  };
  EXPECT_TRUE(reaches("2001:db8:c::2"));
  replace_all({source("2001:db8:d:1::/64")}, {{address("2001:db8:a1::d")}, {address("2001:db8:a2::1")}});
  EXPECT_FALSE(reaches("2001:db8:c::2"));
  EXPECT_TRUE(reaches("2001:db8:a2::1"));
  EXPECT_EQ(counters().foreign_tunnels, 1U);
  // Not from the access link, whatever the source.
  mn_->shell("ip addr add 2001:db8:d:1::11/128 dev eth nodad");
  EXPECT_FALSE(mn_->try_shell("ping -n -c 1 -W 1 -I 2001:db8:d:1::11 2001:db8:a1::d"));
  mn_->shell("ip addr add 2001:db8:a2::1/128 dev eth nodad");
  EXPECT_FALSE(mn_->try_shell("ping -n -c 1 -W 1 -I 2001:db8:a2::1 2001:db8:a1::d"));
  EXPECT_EQ(counters().foreign_tunnels, 3U);
}

TEST_F(AccessFilterTest, ANewRunBeginsWithWhatTheLastOneHasLeft) {
  make();
  const std::set<PermittedSource> sources = {source("2001:db8:d:1::/64"), link_local(),
                                             source("2001:db8:d:f00::/56", kOtherMac)};
  replace_all(sources, {{address("2001:db8:a1::d")}, {address("2001:db8:a2::1")}});
  const auto before = table();
  filter_.reset();
  EXPECT_TRUE(passes("2001:db8:d:1::11"));
  make();
  EXPECT_EQ(filter_->held(), sources);
  EXPECT_TRUE(passes("2001:db8:d:1::11"));
  EXPECT_THAT(table(), HasSubstr("2001:db8:a2::1"));
  EXPECT_THAT(table(), HasSubstr("2001:db8:a1::d"));
}

TEST_F(AccessFilterTest, NoPacketIsLostWhileAllIsReplaced) {
  make();
  replace_all({source("2001:db8:d:1::/64"), link_local()});
  mn_->shell("ip addr add 2001:db8:d:1::11/128 dev eth nodad");
  const int receiver = testing::udp_receiver(*cn_, 4000);
  const int sender = testing::udp_sender(*mn_, "2001:db8:c::2", 4000);
  std::atomic<bool> stop = false;
  std::atomic<int> sent = 0;
  std::thread stream([&] {
    while (!stop) {
      sent += ::send(sender, "x", 1, 0) == 1 ? 1 : 0;
      std::this_thread::sleep_for(std::chrono::microseconds(50));
    }
  });
  for (int i = 0; i < 50; ++i) {
    replace_all({source("2001:db8:d:1::/64"), source("2001:db8:d:2::/64"), link_local()});
  }
  stop = true;
  stream.join();
  int received = 0;
  while (received < sent && testing::receive_hop_limit(receiver) > 0) ++received;
  ::close(sender);
  ::close(receiver);
  EXPECT_EQ(received, sent);
  EXPECT_EQ(counters().foreign_sources, 0U);
}

TEST_F(AccessFilterTest, TellsThatSomebodyHasRemovedIt) {
  make();
  replace_all({source("2001:db8:d:1::/64"), link_local()});
  ar_->shell("nft flush ruleset");
  ar_->run([&] { EXPECT_EQ(filter_->counters().status().code(), absl::StatusCode::kNotFound); });
  EXPECT_FALSE(change({source("2001:db8:d:2::/64")}, {}).ok());
  replace_all({source("2001:db8:d:1::/64"), link_local()});
  EXPECT_TRUE(drops("2001:db8:d:2::11"));
  ar_->shell("nft flush chain inet kedge_access prerouting");
  ar_->run([&] { EXPECT_EQ(filter_->counters().status().code(), absl::StatusCode::kNotFound); });
}

TEST_F(AccessFilterTest, AChangeThatCannotBeMadeChangesNothing) {
  make();
  replace_all({source("2001:db8:d:1::/64"), link_local()});
  // What is not there cannot be removed.
  EXPECT_FALSE(change({source("2001:db8:d:2::/64")}, {source("2001:db8:d:9::/64")}).ok());
  EXPECT_TRUE(drops("2001:db8:d:2::11"));
  EXPECT_TRUE(passes("2001:db8:d:1::11"));
}

TEST_F(AccessFilterTest, RemovalLeavesNothingAndOthersTablesAlone) {
  ar_->shell("nft add table inet operator");
  make();
  EXPECT_TRUE(ar_->run([] { return remove_access_filter(); }).ok());
  EXPECT_THAT(ar_->shell("nft list tables"), Not(HasSubstr("kedge")));
  EXPECT_THAT(ar_->shell("nft list tables"), HasSubstr("operator"));
  EXPECT_TRUE(ar_->run([] { return remove_access_filter(); }).ok());
  EXPECT_TRUE(passes("2001:db8:d:2::11"));
}

TEST_F(AccessFilterTest, RefusesNamesThatNftWouldTakeForSomethingElse) {
  for (const std::string name : {"eth*", "a\"b", "a b", "a;b", ""}) {
    const auto status = ar_->run([&] { return make_access_filter({{name}}).status(); });
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << name;
  }
}

// Run with --gtest_also_run_disabled_tests: prints how long changes take with 10,000 MNs. docs/forwarding.md has them.
TEST_F(AccessFilterTest, DISABLED_TimesWithTenThousandSources) {
  make();
  std::set<PermittedSource> sources;
  const auto nth = [](int i) {
    char mac[18];
    std::snprintf(mac, sizeof mac, "02:00:00:01:%02x:%02x", i >> 8, i & 0xFF);
    char text[32];
    std::snprintf(text, sizeof text, "2001:db8:d:%x::/64", i);
    return source(text, mac);
  };
  const auto its_link_local = [&](int i) {
    char text[32];
    std::snprintf(text, sizeof text, "fe80::1:%x/128", i);
    return PermittedSource{"acc", nth(i).mn, prefix(text)};
  };
  for (int i = 0; i < 10'000; ++i) sources.merge(std::set<PermittedSource>{nth(i), its_link_local(i)});
  const auto time = [&](const char* what, int count, const std::function<void()>& action) {
    const auto begin = std::chrono::steady_clock::now();
    action();
    const std::chrono::duration<double, std::milli> took = std::chrono::steady_clock::now() - begin;
    std::printf("%s: %.3f ms each, %.1f ms in all\n", what, took.count() / count, took.count());
  };
  time("10,000 at once", 1, [&] { replace_all(sources); });
  time("the same in place of them", 1, [&] { replace_all(sources); });
  time("one more, 500 times", 500, [&] {
    for (int i = 10'000; i < 10'500; ++i) ASSERT_TRUE(change({nth(i), its_link_local(i)}, {}).ok());
  });
  time("one less, 500 times", 500, [&] {
    for (int i = 10'000; i < 10'500; ++i) ASSERT_TRUE(change({}, {nth(i), its_link_local(i)}).ok());
  });
  time("500 more at once", 1, [&] {
    std::vector<PermittedSource> more;
    for (int i = 10'000; i < 10'500; ++i) more.insert(more.end(), {nth(i), its_link_local(i)});
    ASSERT_TRUE(change(more, {}).ok());
  });
  time("500 less at once", 1, [&] {
    std::vector<PermittedSource> less;
    for (int i = 10'000; i < 10'500; ++i) less.insert(less.end(), {nth(i), its_link_local(i)});
    ASSERT_TRUE(change({}, less).ok());
  });
  time("counters", 1, [&] { counters(); });
  const std::vector<PermittedSource> all(sources.begin(), sources.end());
  time("10,000 less at once", 1, [&] { ASSERT_TRUE(change({}, all).ok()); });
  time("10,000 more at once", 1, [&] { ASSERT_TRUE(change(all, {}).ok()); });
  filter_.reset();
  time("a new run", 1, [&] { make(); });
}

}  // namespace
}  // namespace kedge::speaker
