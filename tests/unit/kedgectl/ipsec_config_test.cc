#include "kedgectl/ipsec_config.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace kedge::kedgectl {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

v1::LmConfig network() {
  v1::LmConfig config;
  config.set_listen("[2001:db8:0:1::2]:8819");
  for (const std::string n : {"1", "2", "3"}) {
    auto& ar = *config.add_access_routers();
    ar.set_name("ar" + n);
    ar.set_locator("2001:db8:a" + n + "::1");
    ar.set_deliver_sid("2001:db8:a" + n + "::d");
    ar.add_pools("2001:db8:" + n + "000::/48");
  }
  config.mutable_access_routers(0)->set_uplink_sid("2001:db8:a1::e");
  return config;
}

IpsecConfigCommand of(const std::string& ar) {
  IpsecConfigCommand command;
  command.ar = ar;
  return command;
}

// From `kedge-<name> {` to the end of its block.
std::string connection(const std::string& text, const std::string& name) {
  const auto begin = text.find("  kedge-" + name + " {\n");
  return begin == std::string::npos ? "" : text.substr(begin, text.find("\n  }\n", begin) - begin);
}

TEST(IpsecConfig, SignallingIsInTransportModeBetweenEachAccessRouterAndTheLm) {
  const auto ar = make_ipsec_config(network(), of("ar2"));
  ASSERT_TRUE(ar.ok()) << ar.status();
  EXPECT_THAT(connection(*ar, "lm"),
              AllOf(HasSubstr("remote_addrs = 2001:db8:0:1::2\n"), HasSubstr("id = \"CN=speaker ar2\""),
                    HasSubstr("id = \"CN=lm lm\""), HasSubstr("mode = transport\n"),
                    HasSubstr("remote_ts = dynamic[tcp/8819]\n"), HasSubstr("start_action = trap|start\n")));
  const auto lm = make_ipsec_config(network(), of(""));
  ASSERT_TRUE(lm.ok()) << lm.status();
  for (const std::string name : {"ar1", "ar2", "ar3"}) {
    EXPECT_THAT(connection(*lm, name),
                AllOf(HasSubstr("remote_addrs = %any\n"), HasSubstr("id = \"CN=speaker " + name + "\""),
                      HasSubstr("local_ts = dynamic[tcp/8819]\n"), Not(HasSubstr("start_action"))));
  }
}

TEST(IpsecConfig, TheTunnelsBetweenAccessRoutersAreProtectedFromBothEnds) {
  const auto first = make_ipsec_config(network(), of("ar1"));
  const auto second = make_ipsec_config(network(), of("ar2"));
  ASSERT_TRUE(first.ok() && second.ok());
  EXPECT_THAT(connection(*first, "ar2"),
              AllOf(HasSubstr("local_addrs = 2001:db8:a1::1\n"), HasSubstr("remote_addrs = 2001:db8:a2::1\n"),
                    HasSubstr("local_ts = 2001:db8:a1::1/128[41], 2001:db8:a1::d/128[41], 2001:db8:a1::e/128[41]\n"),
                    HasSubstr("remote_ts = 2001:db8:a2::1/128[41], 2001:db8:a2::d/128[41]\n"),
                    HasSubstr("start_action = trap|start\n")));
  EXPECT_THAT(connection(*second, "ar1"), HasSubstr("start_action = trap|start\n"));
  EXPECT_EQ(connection(*second, "ar2"), "");
}

TEST(IpsecConfig, TunnelsCanBeLeftAsTheyAre) {
  auto command = of("ar1");
  command.tunnels = false;
  const auto text = make_ipsec_config(network(), command);
  ASSERT_TRUE(text.ok());
  EXPECT_EQ(connection(*text, "ar2"), "");
  EXPECT_NE(connection(*text, "lm"), "");
}

TEST(IpsecConfig, MistakesAreNamed) {
  EXPECT_EQ(make_ipsec_config(network(), of("ar9")).status().code(), absl::StatusCode::kNotFound);
  for (const std::string listen : {"", "[::]:8818", "[::1]:8818"}) {
    auto config = network();
    config.set_listen(listen);
    EXPECT_THAT(std::string(make_ipsec_config(config, of("ar1")).status().message()), HasSubstr("--lm-address"));
    auto command = of("ar1");
    command.lm_address = "2001:db8::5";
    EXPECT_THAT(make_ipsec_config(config, command).value(), HasSubstr("remote_addrs = 2001:db8::5\n"));
  }
  auto config = network();
  config.set_listen("lm:8818");
  EXPECT_THAT(std::string(make_ipsec_config(config, of("")).status().message()), HasSubstr("listen"));
  config = network();
  config.mutable_access_routers(1)->set_deliver_sid("nowhere");
  EXPECT_THAT(std::string(make_ipsec_config(config, of("ar1")).status().message()),
              AllOf(HasSubstr("ar2"), HasSubstr("nowhere")));
}

}  // namespace
}  // namespace kedge::kedgectl
