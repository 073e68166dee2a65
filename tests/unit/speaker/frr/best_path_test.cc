#include "speaker/frr/best_path.h"

#include "gtest/gtest.h"

namespace kedge::speaker {
namespace {

const Ipv6Prefix kPrefix = Ipv6Prefix::parse("2001:db8:1:2::/64").value();

std::string path(const std::string& next_hop, int local_preference, bool best) {
  return R"({"aspath":{"string":"Local"},"valid":true,"locPrf":)" + std::to_string(local_preference) +
         (best ? R"(,"bestpath":{"overall":true,"selectionReason":"Local Pref"})" : "") +
         R"(,"nexthops":[{"ip":"fe80::2","afi":"ipv6","scope":"link-local","used":true},{"ip":")" + next_hop +
         R"(","afi":"ipv6","scope":"global","metric":0,"accessible":true}]})";
}

std::string answer(const std::string& prefix, const std::string& paths) {
  return R"({"prefix":")" + prefix + R"(","version":3,"paths":[)" + paths + "]}\n";
}

TEST(BestPathCommand, NamesThePrefix) {
  EXPECT_EQ(best_path_command(kPrefix), "show bgp ipv6 unicast 2001:db8:1:2::/64 json");
}

TEST(ParseBestPath, TakesTheBestPathsGlobalNextHop) {
  const auto best = parse_best_path(
      kPrefix, answer("2001:db8:1:2::/64", path("2001:db8::1", 101, false) + "," + path("2001:db8::2", 102, true)));
  ASSERT_TRUE(best.ok()) << best.status();
  EXPECT_EQ(*best, (BestPath{Ipv6Address::parse("2001:db8::2").value(), 102}));
}

TEST(ParseBestPath, HasNoneWithoutABestPathOrForAnotherPrefix) {
  EXPECT_EQ(parse_best_path(kPrefix, "{}\n").value(), std::nullopt);
  EXPECT_EQ(parse_best_path(kPrefix, answer("2001:db8:1:2::/64", path("2001:db8::1", 101, false))).value(),
            std::nullopt);
  EXPECT_EQ(parse_best_path(kPrefix, answer("2001:db8:1::/48", path("2001:db8::1", 101, true))).value(), std::nullopt);
}

TEST(ParseBestPath, ReadsAnOwnPathAsUnspecified) {
  const auto best = parse_best_path(kPrefix, answer("2001:db8:1:2::/64", path("::", 101, true)));
  ASSERT_TRUE(best.ok());
  EXPECT_EQ(*best, (BestPath{Ipv6Address(), 101}));
}

TEST(ParseBestPath, RefusesWhatIsNoJson) {
  EXPECT_EQ(parse_best_path(kPrefix, "% Network not in table").status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(parse_best_path(kPrefix, "{\"prefix\":").status().code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace kedge::speaker
