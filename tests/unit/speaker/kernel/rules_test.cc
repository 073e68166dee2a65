#include "speaker/kernel/rules.h"

#include <linux/rtnetlink.h>

#include <algorithm>

#include "gtest/gtest.h"

namespace kedge::speaker {
namespace {

Ipv6Address address(const char* text) { return Ipv6Address::parse(text).value(); }

ForwardingPlaneConfig config() {
  ForwardingPlaneConfig c;
  c.access_interfaces = {"acc0", "acc1"};
  return c;
}

const std::optional<Identity> kIdentity =
    Identity{address("2001:db8:a1::1"), address("2001:db8:a1::d"), address("2001:db8:a1::e")};

TEST(WantedRules, PacketsOutOfThePairNeverReachTheMobileTable) {
  const auto rules = wanted_rules(config(), kIdentity);
  const auto mobile = std::find_if(rules.begin(), rules.end(), [](const auto& r) { return r.table == 8818; });
  const auto drop = std::find_if(rules.begin(), rules.end(), [](const auto& r) {
    return r.input_interface == "kx1" && r.table == 0 && !r.source && !r.destination;
  });
  ASSERT_NE(mobile, rules.end());
  ASSERT_NE(drop, rules.end());
  EXPECT_LT(drop->priority, mobile->priority);
}

TEST(WantedRules, OnlyWhatThisRouterEncapsulatedPassesFromThePairToMain) {
  for (const auto& rule : wanted_rules(config(), kIdentity)) {
    if (rule.table != RT_TABLE_MAIN) continue;
    EXPECT_EQ(rule.input_interface, "kx1");
    EXPECT_EQ(rule.source, Ipv6Prefix(address("2001:db8:a1::1"), 128));
    EXPECT_EQ(rule.ip_protocol, 41);
  }
}

TEST(WantedRules, AccessInterfacesCannotReachTheSegmentIdentifiers) {
  const auto rules = wanted_rules(config(), kIdentity);
  for (const auto* interface : {"acc0", "acc1"}) {
    EXPECT_EQ(
        std::count_if(rules.begin(), rules.end(),
                      [&](const auto& r) { return r.input_interface == interface && r.table == 0 && r.destination; }),
        2);
  }
}

TEST(WantedRules, AllStandAheadOfMainAndCarryTheProtocol) {
  for (const auto& rule : wanted_rules(config(), kIdentity)) {
    EXPECT_LT(rule.priority, 32766U);
    EXPECT_GE(rule.priority, config().rule_priority);
    EXPECT_EQ(rule.protocol, config().route_protocol);
  }
}

TEST(WantedRules, BeforeTheIdentityIsKnownNothingPassesFromThePairToMain) {
  for (const auto& rule : wanted_rules(config(), std::nullopt)) EXPECT_NE(rule.table, std::uint32_t{RT_TABLE_MAIN});
}

}  // namespace
}  // namespace kedge::speaker
