// mn -- acc ar upl -- cn: an access link with a mobile node, and a correspondent node behind the access router, which
// forwards. Its way to the mobile node's addresses, and these, are the test's.
#pragma once

#include <memory>

#include "gtest/gtest.h"
#include "tests/component/kernel/topology.h"

namespace kedge::speaker::testing {

class AccessLinkTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!can_make_namespaces()) GTEST_SKIP() << "needs root: makes network namespaces";
    ar_ = std::make_unique<Namespace>("ar");
    mn_ = std::make_unique<Namespace>("mn");
    cn_ = std::make_unique<Namespace>("cn");
    connect(*mn_, "eth", *ar_, "acc");
    connect(*cn_, "eth", *ar_, "upl");
    ar_->shell("echo 1 > /proc/sys/net/ipv6/conf/all/forwarding");
    ar_->shell("ip addr add fe80::a/64 dev acc nodad");
    ar_->shell("ip addr add 2001:db8:c::1/64 dev upl nodad");
    cn_->shell("ip addr add 2001:db8:c::2/64 dev eth nodad");
    cn_->shell("ip -6 route add default via 2001:db8:c::1");
    mn_->shell("ip addr add fe80::11/64 dev eth nodad");
    mn_->shell("ip -6 route add default via fe80::a dev eth");
  }

  std::unique_ptr<Namespace> ar_;
  std::unique_ptr<Namespace> mn_;
  std::unique_ptr<Namespace> cn_;
};

}  // namespace kedge::speaker::testing
