#include "speaker/packet_filter/northbound_guard.h"

#include <sys/socket.h>

#include <memory>
#include <string>

#include "boost/asio/ip/tcp.hpp"
#include "common/log.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "speaker/packet_filter/listeners.h"
#include "speaker/packet_filter/nftables.h"
#include "tests/component/kernel/namespaces.h"

namespace kedge::speaker {
namespace {

using boost::asio::ip::tcp;
using testing::eventually;
using ::testing::HasSubstr;
using testing::Namespace;

constexpr std::uint16_t kPort = 50051;
const std::string kTable = "nft list table inet kedge_northbound";

// A router, and a host that reaches it at 2001:db8::1 and 192.0.2.1.
class NorthboundGuardTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!testing::can_make_namespaces()) GTEST_SKIP() << "needs root: makes network namespaces";
    router_ = std::make_unique<Namespace>("router");
    host_ = std::make_unique<Namespace>("host");
    connect(*router_, "eth1", *host_, "eth1");
    router_->shell(
        "ip link set lo up; ip address add 2001:db8::1/64 dev eth1 nodad; ip address add 192.0.2.1/24 dev eth1");
    host_->shell("ip address add 2001:db8::2/64 dev eth1 nodad; ip address add 192.0.2.2/24 dev eth1");
  }
  void TearDown() override {
    if (router_ == nullptr) return;
    router_->run([this] {
      guard_.reset();
      listener_.reset();
    });
  }

  // As staticd does.
  void listen(const std::string& address = "::") {
    router_->run([&] {
      listener_ = std::make_unique<tcp::acceptor>(router_->context(),
                                                  tcp::endpoint(boost::asio::ip::make_address(address), kPort));
    });
  }
  absl::Status guard(const NorthboundGuardConfig& config) {
    return router_->run([&] {
      auto made = guard_northbound(router_->context().get_executor(), config, metrics_);
      if (made.ok()) guard_ = *std::move(made);
      return made.status();
    });
  }
  static bool reaches(Namespace& from, const std::string& address, const std::string& as = "") {
    return from.try_shell(as + " timeout 1 bash -c '</dev/tcp/" + address + "/50051'");
  }
  bool closes(const std::string& rules) {
    router_->shell("nft flush ruleset; nft '" + rules + "'");
    return router_->run([] { return check_northbound_closed(kPort); }).ok();
  }

  std::unique_ptr<Namespace> router_, host_;
  std::unique_ptr<tcp::acceptor> listener_;
  std::unique_ptr<NorthboundGuard> guard_;
  Metrics metrics_;
};

TEST_F(NorthboundGuardTest, OnlyTheSpeakersUserAndRootReachThePort) {
  listen();
  EXPECT_TRUE(eventually([&] { return reaches(*host_, "2001:db8::1"); }));
  ASSERT_TRUE(guard({}).ok());
  EXPECT_FALSE(reaches(*host_, "2001:db8::1"));
  EXPECT_FALSE(reaches(*host_, "192.0.2.1"));
  for (const std::string own : {"::1", "127.0.0.1", "2001:db8::1"}) {
    EXPECT_TRUE(reaches(*router_, own)) << own;
    EXPECT_FALSE(reaches(*router_, own, "setpriv --reuid=65534 --clear-groups")) << own;
  }
  EXPECT_THAT(metrics_.expose(), HasSubstr("kedge_speaker_northbound_closed 1"));
}

TEST_F(NorthboundGuardTest, AnotherUserThanRootIsTheOnlyOneBesideIt) {
  listen();
  router_->run([] { EXPECT_TRUE(Nftables().run(northbound_table(kPort, 12345)).ok()); });
  EXPECT_TRUE(reaches(*router_, "::1", "setpriv --reuid=12345 --clear-groups"));
  EXPECT_TRUE(reaches(*router_, "::1"));
  EXPECT_FALSE(reaches(*router_, "::1", "setpriv --reuid=12346 --clear-groups"));
}

TEST_F(NorthboundGuardTest, WhatSomebodyRemovesOrChangesIsMadeAgain) {
  ASSERT_TRUE(guard({}).ok());
  const std::string made = router_->shell(kTable);
  int repairs = 0;
  for (const std::string change : {"nft flush ruleset", "nft delete chain inet kedge_northbound input",
                                   "nft insert rule inet kedge_northbound input accept"}) {
    router_->shell(change);
    ++repairs;
    EXPECT_TRUE(eventually([&] { return router_->try_shell(kTable) && router_->shell(kTable) == made; })) << change;
    EXPECT_TRUE(eventually([&] {
      return metrics_.expose().find("repairs_total " + std::to_string(repairs)) != std::string::npos;
    })) << change;
  }
}

TEST_F(NorthboundGuardTest, OtherTablesStayAsTheyAre) {
  router_->shell(
      "nft 'table inet theirs { chain input { type filter hook input priority 0; tcp dport 22 accept; }; }'");
  const std::string theirs = router_->shell("nft list table inet theirs");
  ASSERT_TRUE(guard({}).ok());
  ASSERT_TRUE(router_->run([] { return open_northbound(kPort); }).ok());
  EXPECT_EQ(router_->shell("nft list table inet theirs"), theirs);
}

TEST_F(NorthboundGuardTest, TheTableStaysWhileSomebodyListensThere) {
  ASSERT_TRUE(guard({}).ok());
  listen();
  router_->run([this] { guard_.reset(); });
  const auto status = router_->run([] { return open_northbound(kPort); });
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()), HasSubstr("nft delete table inet kedge_northbound"));
  EXPECT_TRUE(router_->try_shell(kTable));
  router_->run([this] { listener_.reset(); });
  EXPECT_TRUE(router_->run([] { return open_northbound(kPort); }).ok());
  EXPECT_FALSE(router_->try_shell(kTable));
  // Nothing to remove is no error.
  EXPECT_TRUE(router_->run([] { return open_northbound(kPort); }).ok());
}

TEST_F(NorthboundGuardTest, APortThatSomebodyElseHasToCloseAndDoesNotIsAnError) {
  const NorthboundGuardConfig theirs{.close = false};
  const auto status = guard(theirs);
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()), HasSubstr("frr.insecure_open_northbound: true"));
  EXPECT_FALSE(router_->try_shell(kTable));

  EXPECT_TRUE(guard({.close = false, .accept_open = true}).ok());
  EXPECT_THAT(metrics_.expose(), HasSubstr("kedge_speaker_northbound_closed 0"));
  router_->shell(
      "nft 'table inet fw { chain i { type filter hook input priority 0; iifname != lo tcp dport 50051 drop; }; }'");
  EXPECT_TRUE(guard(theirs).ok());
  EXPECT_FALSE(router_->try_shell(kTable));
}

TEST_F(NorthboundGuardTest, AListenerOnLoopbackAloneNeedsNoRule) {
  listen("::1");
  EXPECT_TRUE(guard({.close = false}).ok());
}

TEST_F(NorthboundGuardTest, SeesWhichRulesCloseThePort) {
  const auto input = [](const std::string& rules) {
    return "table inet fw { chain i { type filter hook input priority 0; " + rules + " }; }";
  };
  EXPECT_FALSE(closes(input("")));
  EXPECT_TRUE(closes(input("tcp dport 50051 drop;")));
  EXPECT_TRUE(closes(input("iifname != \"lo\" tcp dport { 22, 50000-50100 } reject;")));
  EXPECT_TRUE(closes(input("tcp dport 50051 iif != lo counter drop;")));
  EXPECT_TRUE(closes(input("policy drop; ct state established accept; iif lo accept; tcp dport 22 accept;")));
  // Another port, only some of what comes, accepted before.
  EXPECT_FALSE(closes(input("tcp dport 50052 drop;")));
  EXPECT_FALSE(closes(input("udp dport 50051 drop;")));
  EXPECT_FALSE(closes(input("tcp dport != 50051 drop;")));
  EXPECT_FALSE(closes(input("iifname \"eth1\" tcp dport 50051 drop;")));
  EXPECT_FALSE(closes(input("ip6 saddr 2001:db8::/32 tcp dport 50051 drop;")));
  EXPECT_FALSE(closes(input("tcp dport 50051 accept; tcp dport 50051 drop;")));
  EXPECT_FALSE(closes(input("policy drop; tcp dport 50000-60000 accept;")));
  // One family alone, and a chain at another hook.
  EXPECT_FALSE(closes("table ip6 fw { chain i { type filter hook input priority 0; tcp dport 50051 drop; }; }"));
  EXPECT_FALSE(closes("table inet fw { chain o { type filter hook output priority 0; tcp dport 50051 drop; }; }"));
  EXPECT_FALSE(closes("table inet fw { chain i { tcp dport 50051 drop; }; }"));
}

TEST_F(NorthboundGuardTest, ListenersAreSeenByTheirAddress) {
  const auto seen = [this] { return router_->run([] { return listeners_of(kPort); }); };
  EXPECT_FALSE(seen().any);
  for (const std::string loopback : {"::1", "127.0.0.1"}) {
    listen(loopback);
    EXPECT_TRUE(seen().any && !seen().beyond_loopback) << loopback;
    router_->run([this] { listener_.reset(); });
  }
  for (const std::string open : {"::", "0.0.0.0", "2001:db8::1", "192.0.2.1"}) {
    listen(open);
    EXPECT_TRUE(seen().any && seen().beyond_loopback) << open;
    router_->run([this] { listener_.reset(); });
  }
}

}  // namespace
}  // namespace kedge::speaker
