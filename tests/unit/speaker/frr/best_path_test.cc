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

TEST(PathsCommand, NamesThePrefix) {
  EXPECT_EQ(paths_command(kPrefix), "show bgp ipv6 unicast 2001:db8:1:2::/64 json");
}

TEST(ParsePaths, TakesTheBestPathsGlobalNextHop) {
  const auto paths = parse_paths(
      kPrefix, answer("2001:db8:1:2::/64", path("2001:db8::1", 101, false) + "," + path("2001:db8::2", 102, true)));
  ASSERT_TRUE(paths.ok()) << paths.status();
  EXPECT_EQ(paths->best, (BestPath{Ipv6Address::parse("2001:db8::2").value(), 102}));
}

TEST(ParsePaths, HasNoneWithoutABestPathOrForAnotherPrefix) {
  EXPECT_EQ(parse_paths(kPrefix, "{}\n")->best, std::nullopt);
  EXPECT_EQ(parse_paths(kPrefix, answer("2001:db8:1:2::/64", path("2001:db8::1", 101, false)))->best, std::nullopt);
  EXPECT_EQ(parse_paths(kPrefix, answer("2001:db8:1::/48", path("2001:db8::1", 101, true)))->best, std::nullopt);
}

TEST(ParsePaths, ReadsAnOwnPathAsUnspecified) {
  const auto paths = parse_paths(kPrefix, answer("2001:db8:1:2::/64", path("::", 101, true)));
  ASSERT_TRUE(paths.ok());
  EXPECT_EQ(paths->best, (BestPath{Ipv6Address(), 101}));
}

TEST(ParsePaths, TakesTheTagsOfItsOwnPathsOnly) {
  const std::string learned = path("2001:db8::1", 102, true);
  const std::string redistributed =
      R"({"locPrf":101,"tag":3,"sourced":true,"nexthops":[{"ip":"::","scope":"global"}]})";
  const std::string configured = R"({"locPrf":100,"sourced":true,"local":true,"nexthops":[{"ip":"::"}]})";
  const auto all = parse_paths(kPrefix, answer("2001:db8:1:2::/64", learned + "," + redistributed + "," + configured));
  ASSERT_TRUE(all.ok()) << all.status();
  EXPECT_EQ(all->own_tags, (std::vector<std::uint32_t>{3, 0}));
  EXPECT_EQ(parse_paths(kPrefix, answer("2001:db8:1:2::/64", learned))->own_tags, std::vector<std::uint32_t>());
  EXPECT_EQ(parse_paths(kPrefix, answer("2001:db8:1:2::/63", redistributed))->own_tags, std::vector<std::uint32_t>());
}

TEST(ParsePaths, RefusesWhatIsNoJson) {
  EXPECT_EQ(parse_paths(kPrefix, "% Network not in table").status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(parse_paths(kPrefix, "{\"prefix\":").status().code(), absl::StatusCode::kInvalidArgument);
}

std::string neighbour(const std::string& name, const std::string& members) {
  return "\"" + name + R"(":{"addressFamilyInfo":{"ipv6Unicast":{}},)" + members + "}";
}

bool follow(const std::string& neighbours, std::chrono::milliseconds running = std::chrono::milliseconds(1000)) {
  const auto result = neighbours_follow("{" + neighbours + "}", running, std::chrono::milliseconds(10'000));
  EXPECT_TRUE(result.ok()) << result.status();
  return result.ok() && *result;
}

constexpr char kPreserves[] = R"("neighborCapabilities":{"gracefulRestart":"advertisedAndReceived"})";

TEST(NeighboursFollow, OnceEachHasBeenSentEndOfRib) {
  const std::string told =
      neighbour("2001:db8::1", std::string(R"("bgpState":"Established",)") + kPreserves +
                                   R"(,"gracefulRestartInfo":{"endOfRibSend":{"ipv6Unicast":true}})");
  const std::string untold = neighbour("2001:db8::2", std::string(R"("bgpState":"Established",)") + kPreserves +
                                                          R"(,"gracefulRestartInfo":{"endOfRibSend":{}})");
  EXPECT_TRUE(follow(told));
  EXPECT_FALSE(follow(told + "," + untold));
}

TEST(NeighboursFollow, AtOnceWhereRoutesDoNotOutliveTheSession) {
  EXPECT_TRUE(follow(neighbour("2001:db8::1", R"("bgpState":"Established","neighborCapabilities":{})")));
}

TEST(NeighboursFollow, WithoutASessionWhenNoneKeepsItsRoutesAnyMore) {
  const auto down = [](int established, int milliseconds) {
    return neighbour("2001:db8::1", R"("bgpState":"Active","connectionsEstablished":)" + std::to_string(established) +
                                        R"(,"lastResetTimerMsecs":)" + std::to_string(milliseconds));
  };
  EXPECT_FALSE(follow(down(1, 9'000)));
  EXPECT_TRUE(follow(down(1, 10'000)));
  // The session may have been one of an earlier bgpd.
  EXPECT_FALSE(follow(down(0, 20'000), std::chrono::milliseconds(9'000)));
  EXPECT_TRUE(follow(down(0, 20'000), std::chrono::milliseconds(10'000)));
}

TEST(NeighboursFollow, WithoutAnyOnlyWhenBgpdHasHadTheTimeToReadItsConfiguration) {
  const std::string other = R"("192.0.2.1":{"addressFamilyInfo":{"ipv4Unicast":{}},"bgpState":"Established"})";
  EXPECT_FALSE(follow(""));
  EXPECT_FALSE(follow(other));
  EXPECT_TRUE(follow("", std::chrono::milliseconds(10'000)));
  EXPECT_TRUE(follow(other, std::chrono::milliseconds(10'000)));
}

TEST(NeighboursFollow, RefusesWhatIsNoJson) {
  const auto result = neighbours_follow("% none", std::chrono::milliseconds(0), std::chrono::milliseconds(0));
  EXPECT_EQ(result.status().code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace kedge::speaker
