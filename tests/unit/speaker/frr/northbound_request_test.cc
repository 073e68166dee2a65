#include "speaker/frr/northbound_request.h"

#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace kedge::speaker {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Pair;

const std::string kBase =
    "/frr-routing:routing/control-plane-protocols/control-plane-protocol[type='frr-staticd:staticd'][name='staticd']"
    "[vrf='default']/frr-staticd:staticd/route-list[prefix='2001:db8:1:2::/64']";

Ipv6Prefix prefix(const std::string& text) { return Ipv6Prefix::parse(text).value(); }

class SchemaByVersion : public testing::TestWithParam<std::pair<std::string, StaticSchema>> {};

TEST_P(SchemaByVersion, IsChosen) {
  const auto choice = choose_schema(GetParam().first);
  ASSERT_TRUE(choice.ok()) << choice.status();
  EXPECT_EQ(choice->schema, GetParam().second);
  EXPECT_TRUE(choice->known);
}

INSTANTIATE_TEST_SUITE_P(Versions, SchemaByVersion,
                         testing::Values(std::pair{"8.4", StaticSchema::kA}, std::pair{"8.4.4", StaticSchema::kA},
                                         std::pair{"9.1.2", StaticSchema::kA}, std::pair{"10.2.3", StaticSchema::kA},
                                         std::pair{"10.3", StaticSchema::kB}, std::pair{"10.3.1", StaticSchema::kB},
                                         std::pair{"10.6.0", StaticSchema::kB}, std::pair{"10.7-dev", StaticSchema::kC},
                                         std::pair{"10.7.1-6", StaticSchema::kC}));

TEST(ChooseSchema, TakesTheNewestForUnknownLaterVersions) {
  for (const char* version : {"10.8-dev", "11.0", "10.10.1"}) {
    const auto choice = choose_schema(version);
    ASSERT_TRUE(choice.ok()) << version;
    EXPECT_EQ(choice->schema, StaticSchema::kC) << version;
    EXPECT_FALSE(choice->known) << version;
  }
}

TEST(ChooseSchema, RefusesOlderVersionsAndNonsense) {
  for (const char* version : {"8.3.9", "7.5", "0.9"}) {
    const auto choice = choose_schema(version);
    EXPECT_EQ(choice.status().code(), absl::StatusCode::kFailedPrecondition) << version;
    EXPECT_THAT(std::string(choice.status().message()), HasSubstr("8.4 or later")) << version;
  }
  for (const char* version : {"", "banana", "10", "10.", ".4", "x.4"}) {
    EXPECT_EQ(choose_schema(version).status().code(), absl::StatusCode::kFailedPrecondition) << version;
  }
}

std::string one_addition(StaticSchema schema, std::uint32_t level) {
  const RouteChanges changes{{prefix("2001:db8:1:2::/64"), {level}}};
  EXPECT_THAT(build_removals(schema, 7, changes), IsEmpty());
  const auto loads = build_additions(schema, 7, changes);
  EXPECT_EQ(loads.size(), 1u);
  EXPECT_EQ(loads.at(0).candidate_id(), 7u);
  EXPECT_EQ(loads.at(0).type(), frr::LoadToCandidateRequest::MERGE);
  EXPECT_EQ(loads.at(0).config().encoding(), frr::JSON);
  return loads.at(0).config().data();
}

// Around the routes.
const std::string kBefore =
    R"({"frr-routing:routing":{"control-plane-protocols":{"control-plane-protocol":[{"type":"frr-staticd:staticd",)"
    R"("name":"staticd","vrf":"default","frr-staticd:staticd":{"route-list":[)";
const std::string kAfter = "]}}]}}}";

TEST(BuildAdditions, WritesABlackholeWithATagInSchemaA) {
  EXPECT_EQ(
      one_addition(StaticSchema::kA, 3),
      kBefore +
          R"j({"prefix":"2001:db8:1:2::/64","afi-safi":"frr-routing:ipv6-unicast","path-list":[{"table-id":0,)j"
          R"j("distance":1,"tag":3,"frr-nexthops":{"nexthop":[{"nh-type":"blackhole","vrf":"default","gateway":"",)j"
          R"j("interface":"(null)","bh-type":"unspec"}]}}]})j" +
          kAfter);
}

TEST(BuildAdditions, HasTheSourcePrefixAsAKeyInSchemaB) {
  EXPECT_EQ(
      one_addition(StaticSchema::kB, 3),
      kBefore +
          R"j({"prefix":"2001:db8:1:2::/64","src-prefix":"::/0","afi-safi":"frr-routing:ipv6-unicast","path-list":[)j"
          R"j({"table-id":0,"distance":1,"tag":3,"frr-nexthops":{"nexthop":[{"nh-type":"blackhole","vrf":"default",)j"
          R"j("gateway":"","interface":"(null)","bh-type":"unspec"}]}}]})j" +
          kAfter);
}

TEST(BuildAdditions, HasTheNexthopAsThePathInSchemaC) {
  EXPECT_EQ(
      one_addition(StaticSchema::kC, 3),
      kBefore +
          R"j({"prefix":"2001:db8:1:2::/64","src-prefix":"::/0","afi-safi":"frr-routing:ipv6-unicast","path-list":[)j"
          R"j({"table-id":0,"nh-type":"blackhole","vrf":"default","gateway":"","interface":"(null)",)j"
          R"j("bh-type":"unspec","tag":3}]})j" +
          kAfter);
}

std::string one_removal(StaticSchema schema, bool keep_others) {
  const RouteChanges changes{{prefix("2001:db8:1:2::/64"), {0, keep_others}}};
  EXPECT_THAT(build_additions(schema, 7, changes), IsEmpty());
  const auto edits = build_removals(schema, 7, changes);
  EXPECT_EQ(edits.size(), 1u);
  EXPECT_EQ(edits.at(0).candidate_id(), 7u);
  EXPECT_EQ(edits.at(0).update_size(), 0);
  EXPECT_EQ(edits.at(0).delete__size(), 1);
  return edits.at(0).delete_(0).path();
}

TEST(BuildRemovals, RemovesTheRouteListOrOnlyOurPath) {
  const std::string family = "[afi-safi='frr-routing:ipv6-unicast']";
  EXPECT_EQ(one_removal(StaticSchema::kA, false), kBase + family);
  EXPECT_EQ(one_removal(StaticSchema::kB, false), kBase + "[src-prefix='::/0']" + family);
  EXPECT_EQ(one_removal(StaticSchema::kA, true), kBase + family + "/path-list[table-id='0'][distance='1']");
  EXPECT_EQ(one_removal(StaticSchema::kC, true),
            kBase + "[src-prefix='::/0']" + family +
                "/path-list[table-id='0'][nh-type='blackhole'][vrf='default'][gateway=''][interface='(null)']");
}

TEST(BuildRequests, StaysUnderTheServersMessageLimit) {
  RouteChanges changes;
  const Ipv6Prefix pool = prefix("2001:db8::/40");
  for (std::uint64_t i = 0; i < 60'000; ++i) changes[pool.nth(64, i)] = RouteChange{static_cast<std::uint32_t>(i % 3)};
  for (const StaticSchema schema : {StaticSchema::kA, StaticSchema::kB, StaticSchema::kC}) {
    const auto edits = build_removals(schema, 1, changes);
    EXPECT_GT(edits.size(), 1u);
    std::size_t removals = 0;
    for (const auto& edit : edits) {
      EXPECT_LE(edit.ByteSizeLong(), 4u << 20);
      EXPECT_EQ(edit.candidate_id(), 1u);
      removals += static_cast<std::size_t>(edit.delete__size());
    }
    EXPECT_EQ(removals, 20'000u);

    const auto loads = build_additions(schema, 1, changes);
    EXPECT_GT(loads.size(), 1u);
    std::size_t additions = 0;
    for (const auto& load : loads) {
      EXPECT_LE(load.ByteSizeLong(), 4u << 20);
      EXPECT_EQ(load.candidate_id(), 1u);
      const std::string& json = load.config().data();
      for (auto at = json.find("{\"prefix\""); at != json.npos; at = json.find("{\"prefix\"", at + 1)) ++additions;
    }
    EXPECT_EQ(additions, 40'000u);
  }
}

TEST(BuildRequests, PutAtLeastOneChangeIntoEach) {
  const RouteChanges removals{{prefix("2001:db8:0:1::/64"), {0}}, {prefix("2001:db8:0:2::/64"), {0}}};
  EXPECT_EQ(build_removals(StaticSchema::kA, 1, removals, 10).size(), 2u);
  const RouteChanges additions{{prefix("2001:db8:0:1::/64"), {1}}, {prefix("2001:db8:0:2::/64"), {1}}};
  EXPECT_EQ(build_additions(StaticSchema::kA, 1, additions, 10).size(), 2u);
}

TEST(BuildAdditions, WritesWhatIsReadBack) {
  for (const StaticSchema schema : {StaticSchema::kA, StaticSchema::kB, StaticSchema::kC}) {
    const auto held = parse_statics(one_addition(schema, 3));
    ASSERT_TRUE(held.ok()) << held.status();
    EXPECT_THAT(*held, ElementsAre(Pair(prefix("2001:db8:1:2::/64"), HeldRoute{3, true, ""})));
  }
}

std::string in_vrf(const std::string& vrf, const std::string& routes) {
  return R"({"frr-routing:routing":{"control-plane-protocols":{"control-plane-protocol":[{"type":"frr-staticd:staticd",)"
         R"("name":"staticd","vrf":")" +
         vrf + R"(","frr-staticd:staticd":{"route-list":[)" + routes + "]}}]}}}";
}

std::string route_a(const std::string& prefix_text, int tag, int distance, const std::string& nexthop) {
  return R"({"prefix":")" + prefix_text +
         R"(","afi-safi":"frr-routing:ipv6-unicast","path-list":[{"table-id":0,"distance":)" +
         std::to_string(distance) + R"(,"tag":)" + std::to_string(tag) + R"(,"frr-nexthops":{"nexthop":[)" + nexthop +
         "]}}]}";
}

const std::string kBlackhole =
    R"j({"nh-type":"blackhole","vrf":"default","gateway":"","interface":"(null)","bh-type":"unspec"})j";
const std::string kInterface = R"j({"nh-type":"ifindex","vrf":"default","gateway":"","interface":"eth0"})j";

TEST(ParseStatics, FindsTaggedBlackholesAndTellsOthers) {
  const auto held = parse_statics(in_vrf("default", route_a("2001:db8:0:1::/64", 2, 1, kBlackhole) + "," +
                                                        route_a("2001:db8:0:2::/64", 0, 1, kInterface) + "," +
                                                        route_a("2001:db8:0:3::/64", 2, 250, kBlackhole) + "," +
                                                        route_a("2001:db8:0:4::/64", 0, 1, kBlackhole)));
  ASSERT_TRUE(held.ok()) << held.status();
  ASSERT_EQ(held->size(), 4u);
  EXPECT_EQ(held->at(prefix("2001:db8:0:1::/64")), (HeldRoute{2, true, ""}));
  EXPECT_EQ(held->at(prefix("2001:db8:0:2::/64")), (HeldRoute{0, false, "via eth0"}));
  EXPECT_EQ(held->at(prefix("2001:db8:0:3::/64")), (HeldRoute{0, false, "blackhole distance 250 tag 2"}));
  EXPECT_EQ(held->at(prefix("2001:db8:0:4::/64")), (HeldRoute{0, false, "blackhole"}));
}

TEST(ParseStatics, SeesBlackholesWrittenWithOtherKeys) {
  const auto held = parse_statics(in_vrf(
      "default",
      route_a("2001:db8:0:1::/64", 2, 1, R"({"nh-type":"blackhole","vrf":"default","gateway":"","interface":""})")));
  ASSERT_TRUE(held.ok()) << held.status();
  EXPECT_EQ(held->at(prefix("2001:db8:0:1::/64")), (HeldRoute{2, false, ""}));
}

TEST(ParseStatics, ReadsSchemaC) {
  const auto held = parse_statics(in_vrf("default", R"j({"prefix":"2001:db8:0:1::/64","src-prefix":"::/0",
      "afi-safi":"frr-routing:ipv6-unicast","path-list":[
        {"table-id":0,"nh-type":"blackhole","vrf":"default","gateway":"","interface":"(null)","tag":4,"distance":1},
        {"table-id":0,"nh-type":"ip6","vrf":"default","gateway":"2001:db8::9","interface":"(null)","distance":200}
      ]})j"));
  ASSERT_TRUE(held.ok()) << held.status();
  EXPECT_EQ(held->at(prefix("2001:db8:0:1::/64")), (HeldRoute{4, true, "via 2001:db8::9 distance 200"}));
}

TEST(ParseStatics, LeavesOtherFamiliesVrfsAndSourcesOut) {
  EXPECT_TRUE(parse_statics(in_vrf("red", route_a("2001:db8:0:1::/64", 2, 1, kBlackhole)))->empty());
  EXPECT_TRUE(
      parse_statics(in_vrf("default", R"({"prefix":"192.0.2.0/24","afi-safi":"frr-routing:ipv4-unicast"})"))->empty());
  EXPECT_TRUE(parse_statics(in_vrf("default", R"({"prefix":"2001:db8::/64","src-prefix":"2001:db8:9::/48",)"
                                              R"("afi-safi":"frr-routing:ipv6-unicast"})"))
                  ->empty());
}

TEST(ParseStatics, FindsNothingInAnEmptyConfiguration) {
  EXPECT_TRUE(parse_statics("{\n}\n")->empty());
  EXPECT_TRUE(parse_statics(R"({"frr-routing:routing":{}})")->empty());
  EXPECT_TRUE(parse_statics("{}")->empty());
}

TEST(ParseStatics, RefusesOtherText) {
  for (const char* text : {"", "{", "[]", "nonsense", R"({"a":1})", R"({"frr-routing:routing":)"}) {
    EXPECT_EQ(parse_statics(text).status().code(), absl::StatusCode::kInvalidArgument) << text;
  }
}

}  // namespace
}  // namespace kedge::speaker
