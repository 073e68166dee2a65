#include "kedgectl/frr_config.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace kedge::kedgectl {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

v1::LmConfig network() {
  v1::LmConfig config;
  for (const std::string n : {"1", "2"}) {
    auto& ar = *config.add_access_routers();
    ar.set_name("ar" + n);
    ar.set_locator("2001:db8:a" + n + "::1");
    ar.add_pools("2001:db8:" + n + "000::/48");
  }
  config.mutable_access_routers(1)->add_pools("2001:db8:ff::/64");
  config.mutable_mobility()->set_preference_levels(3);
  return config;
}

FrrConfigCommand of(const std::string& ar) {
  FrrConfigCommand command;
  command.ar = ar;
  command.reflectors = {"2001:db8:c0::1"};
  return command;
}

TEST(FrrConfig, AnAccessRouterRedistributesMobilePrefixesOnlyAndAnnouncesItsOwnAggregateOnly) {
  const auto text = make_frr_config(network(), of("ar1"), "");
  ASSERT_TRUE(text.ok()) << text.status();
  EXPECT_THAT(*text, AllOf(HasSubstr("prefix-list KEDGE-MOBILE seq 5 permit 2001:db8:1000::/48 ge 49 le 64\n"),
                           HasSubstr("prefix-list KEDGE-MOBILE seq 15 permit 2001:db8:ff::/64\n"),
                           HasSubstr("prefix-list KEDGE-OUT seq 5 permit 2001:db8:1000::/48\n"),
                           Not(HasSubstr("KEDGE-OUT seq 5 permit 2001:db8:2000::/48\n")),
                           HasSubstr("  network 2001:db8:1000::/48\n"), Not(HasSubstr("network 2001:db8:2000::/48"))));
  EXPECT_THAT(*text, HasSubstr("route-map KEDGE permit 30\n match tag 3\n match ipv6 address prefix-list KEDGE-MOBILE\n"
                               " set local-preference 103\n set weight 0\n"));
  EXPECT_THAT(*text, Not(HasSubstr("match tag 4")));
  // Route-maps above `router bgp`: docs/frr.md.
  EXPECT_LT(text->find("route-map KEDGE deny"), text->rfind("\nrouter bgp"));
}

TEST(FrrConfig, ForRoutesOfTheKernelLevelsAreMetricsAndGoOutAsTheyDoForStatics) {
  auto command = of("ar1");
  command.injector = "kernel";
  const auto text = make_frr_config(network(), command, "");
  ASSERT_TRUE(text.ok()) << text.status();
  EXPECT_THAT(*text,
              AllOf(HasSubstr("route-map KEDGE permit 30\n match metric 881803\n match ipv6 address prefix-list "
                              "KEDGE-MOBILE\n set local-preference 103\n set weight 0\n set tag 3\n set metric 0\n"),
                    HasSubstr("  redistribute kernel route-map KEDGE\n"), Not(HasSubstr("redistribute static")),
                    Not(HasSubstr("match tag"))));
  command.injector = "netlink";
  EXPECT_EQ(make_frr_config(network(), command, "").status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(FrrConfig, AReflectorTakesFromEachAccessRouterWhatIsItsOwnAndWarnsOnlyOfTooMany) {
  const auto text = make_frr_config(network(), of(""), "");
  ASSERT_TRUE(text.ok()) << text.status();
  EXPECT_THAT(*text, AllOf(HasSubstr("neighbor 2001:db8:a2::1 prefix-list KEDGE-FROM-ar2 in\n"),
                           HasSubstr("maximum-prefix 100000 warning-only\n"), HasSubstr("route-reflector-client\n"),
                           HasSubstr("KEDGE-FROM-ar1 seq 5 permit 2001:db8:1000::/48\n"),
                           Not(HasSubstr("KEDGE-FROM-ar1 seq 10 permit 2001:db8:2000::/48\n"))));
}

TEST(FrrConfig, SessionsAreProtected) {
  for (const std::string ar : {"ar1", ""}) {
    const auto text = make_frr_config(network(), of(ar), "secret");
    ASSERT_TRUE(text.ok());
    EXPECT_THAT(*text, AllOf(HasSubstr(" password secret\n"), HasSubstr(" ttl-security hops 1\n"))) << ar;
    auto open = of(ar);
    open.hops = 0;
    EXPECT_THAT(*make_frr_config(network(), open, ""),
                AllOf(Not(HasSubstr("password")), Not(HasSubstr("ttl-security"))));
  }
}

TEST(FrrConfig, MistakesAreNamed) {
  const auto unknown = make_frr_config(network(), of("ar9"), "");
  EXPECT_EQ(unknown.status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(unknown.status().message()), HasSubstr("ar1, ar2"));
  auto none = of("ar1");
  none.reflectors = {"core"};
  EXPECT_THAT(std::string(make_frr_config(network(), none, "").status().message()), HasSubstr("--reflector"));
  auto bad = network();
  bad.mutable_access_routers(0)->set_pools(0, "::/0");
  EXPECT_THAT(std::string(make_frr_config(bad, of("ar1"), "").status().message()), HasSubstr("\"::/0\""));
}

}  // namespace
}  // namespace kedge::kedgectl
