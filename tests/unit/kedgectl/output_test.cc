#include "kedgectl/output.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/kedgectl/sample.h"

namespace kedge::kedgectl {
namespace {

using testing::HasSubstr;

const SystemTime kNow{std::chrono::seconds(1767323057)};

TEST(RenderStatus, ShowsEverything) {
  const auto status = from_text<v1::StatusResponse>(R"(
    version: "0.1.0" started_at { seconds: 1767315665 } revision { epoch: 1 revision: 57 } bindings: 120
    bindings_attached: 118 bindings_moving: 2 nodes: 3 nodes_connected: 2 last_event_id: 4711 store: "ok")");
  EXPECT_EQ(render_status(status, "[::1]:8818", kNow),
            "server       [::1]:8818\n"
            "version      0.1.0\n"
            "started      2026-01-02T01:01:05Z (2h3m ago)\n"
            "store        ok\n"
            "revision     1.57\n"
            "bindings     120 (118 attached, 2 moving)\n"
            "nodes        3 (2 connected)\n"
            "last event   4711\n");
}

TEST(RenderStatus, ShowsAnEmptyAnswerAsSuch) {
  EXPECT_EQ(render_status({}, "x:1", kNow),
            "server       x:1\nversion      -\nstarted      -\nstore        -\nrevision     -\n"
            "bindings     0 (0 attached, 0 moving)\nnodes        0 (0 connected)\nlast event   0\n");
}

TEST(RenderNodes, ShowsHealthAndWhatIsWrong) {
  const auto nodes = from_text<v1::ListNodesResponse>(R"(
    nodes { info { name: "ar1" locator: "2001:db8::1" } connected: true since { seconds: 1767323045 }
            health { kernel: "synced" frr: "synced" access: "synced" frr_version: "8.4.4" } version: "0.1.0"
            attached: 10 home: 120 held: 12 pool_size: 65536 pool_used: 120 draining: true drain_remaining: 3 }
    nodes { info { name: "ar2" locator: "2001:db8::2" } connected: true since { seconds: 1767322865 }
            health { kernel: "synced" frr: "northbound port closed" frr_version: "8.4.4" } version: "0.1.0" }
    nodes { info { name: "ar3" locator: "2001:db8::3" } })");
  EXPECT_EQ(render_nodes(nodes, kNow),
            "NAME  SESSION    AGE  LOCATOR      ATTACHED  HOME  HELD       POOL  DRAIN   VERSION  FRR    HEALTH\n"
            "ar1   up         12s  2001:db8::1        10   120    12  120/65536  3 left  0.1.0    8.4.4  synced\n"
            "ar2   up       3m12s  2001:db8::2         0     0     0        0/0  -       0.1.0    8.4.4  frr: "
            "northbound port "
            "closed; access: not reported\n"
            "ar3   down         -  2001:db8::3         0     0     0        0/0  -       -        -      -\n");
}

TEST(RenderPolicies, ShowsWhatIsSetAndWhereItComesFrom) {
  const auto policies = from_text<v1::ListPoliciesResponse>(R"(
    policies { scope { defaults: true } policy { relocate_after { seconds: 90 } serve_unknown: false } }
    policies { scope { mn_id: "02:00:00:00:00:11" } policy { mode: MODE_REDIRECT allowed_ars: "ar1" allowed_ars: "ar2"
               fixed_prefixes { prefix: "2001:db8:1:f0::/64" home_ar: "ar1" mode: MODE_RELOCATE }
               mobile_network_prefixes { prefix: "2001:db8:1:f00::/56" home_ar: "ar1" }
               mobile_network_prefixes { prefix: "2001:db8:2:f00::/60" home_ar: "ar2" mode: MODE_REDIRECT } } })");
  EXPECT_EQ(render_policies(policies, kNow),
            "SCOPE    NAME               AGE  POLICY\n"
            "default  -                    -  serve_unknown=false relocate_after=90s\n"
            "mn       02:00:00:00:00:11    -  mode=redirect allowed_ars=ar1,ar2 "
            "fixed_prefixes=2001:db8:1:f0::/64@ar1@relocate "
            "mobile_network_prefixes=2001:db8:1:f00::/56@ar1,2001:db8:2:f00::/60@ar2@redirect\n");
  const auto effective = from_text<v1::EffectivePolicy>(R"(
    policy { mode: MODE_REDIRECT max_prefixes: 8 replacement_time { seconds: 120 } }
    sources { key: "mode" value: "mn" } sources { key: "max_prefixes" value: "configuration" })");
  EXPECT_EQ(render_effective_policy(effective),
            "KEY               VALUE     FROM\nmode              redirect  mn\n"
            "max_prefixes      8         configuration\nreplacement_time  2m        -\n");
}

TEST(RenderBindings, ShowsOneLineEach) {
  v1::ListBindingsResponse bindings;
  *bindings.add_bindings() = moving_binding();
  *bindings.add_bindings() = detached_binding();
  *bindings.add_bindings() = mobile_network_binding();
  EXPECT_EQ(
      render_bindings(bindings, kNow),
      "PREFIX                  KIND  MN                 HOME  ATTACHED  AGE  MODE      STATE     GENERATION  PREF  "
      "HOLDERS\n"
      "2001:db8:8818:1::/64    HNP   02:00:00:00:00:11  ar1   ar2       12s  relocate  moving    1.41           2  "
      "ar1,ar2,ar3\n"
      "2001:db8:8818:2::/64    HNP   02:00:00:00:00:12  ar1   -           -  nomadic   detached  1.9            0  -\n"
      "2001:db8:8818:f00::/56  MNP   02:00:00:00:00:11  ar1   ar2       12s  relocate  moving    1.41           2  "
      "ar1,ar2,ar3\n");
}

TEST(RenderBinding, ShowsWhatEachArHoldsAndOwes) {
  EXPECT_EQ(render_binding(moving_binding(), kNow),
            "prefix       2001:db8:8818:1::/64\n"
            "kind         HNP (of the MN itself)\n"
            "mn           02:00:00:00:00:11\n"
            "state        moving\n"
            "home         ar1\n"
            "attached     ar2 (eth1, 02:00:00:00:00:11, fe80::ff:fe00:11)\n"
            "mode         relocate\n"
            "prefix type  session_lasting\n"
            "preference   2\n"
            "generation   1.41\n"
            "revision     1.44\n"
            "created      2026-01-02T02:04:05Z (1h0m ago)\n"
            "heard        2026-01-02T03:04:05Z (12s ago)\n"
            "updated      2026-01-02T03:04:05Z (12s ago)\n"
            "\n"
            "HOLDER  ACKNOWLEDGED  DOES\n"
            "ar1     1.41          redirects to ar2\n"
            "ar2     1.41          delivers, advertises at 2\n"
            "ar3     1.30          letting go, has not acknowledged 1.41 yet\n");
}

TEST(RenderBinding, SaysSinceWhenItIsIdle) {
  auto binding = moving_binding();
  *binding.mutable_idle_since() = to_proto(kNow - std::chrono::minutes(5));
  EXPECT_THAT(render_binding(binding, kNow), HasSubstr("idle since   2026-01-02T02:59:17Z (5m0s ago)\n"));
  EXPECT_THAT(render_binding(moving_binding(), kNow), testing::Not(HasSubstr("idle since")));
}

TEST(RenderBinding, SaysWhatIsAMobileNetwork) {
  EXPECT_THAT(render_binding(mobile_network_binding(), kNow),
              HasSubstr("kind         MNP (of the mobile network behind the MN)\n"));
}

TEST(RenderBinding, ShowsADetachedOneWithoutHolders) {
  const auto text = render_binding(detached_binding(), kNow);
  EXPECT_THAT(text, HasSubstr("attached     -\n"));
  EXPECT_THAT(text, HasSubstr("preference   0 (covered by the home aggregate)\n"));
  EXPECT_THAT(text, HasSubstr("heard        -\n"));
  EXPECT_THAT(text, HasSubstr("\n\nno AR holds anything for it\n"));
}

TEST(RenderEvent, AlignsUnderItsHeader) {
  EXPECT_EQ(render_event_header() + render_event(settled_event()),
            "    ID  AT                        EVENT               AR      PREFIX                  GENERATION  MN"
            "                 DETAIL\n"
            "  4711  2026-01-02T03:04:05.678Z  settled             ar2     2001:db8:8818:1::/64    1.41        "
            "02:00:00:00:00:11  after 1.2 s\n");
}

TEST(RenderEvent, AnAlarmStandsInCapitalLetters) {
  auto event = settled_event();
  event.set_type(v1::EVENT_TYPE_TWO_ACCESS_ROUTERS);
  EXPECT_THAT(render_event(event), HasSubstr("  TWO_ACCESS_ROUTERS  ar2 "));
}

TEST(RenderEvent, TakesTheTimeOfRecordingWhenThereIsNoOther) {
  const auto event = from_text<v1::Event>("id: 1 recorded_at { seconds: 1767323045 }");
  EXPECT_THAT(render_event(event), HasSubstr("     1  2026-01-02T03:04:05.000Z  -  "));
}

TEST(RenderJson, HasTheNamesOfTheApiAndAllPrimitiveFields) {
  EXPECT_EQ(render_json(settled_event(), JsonStyle::kOneLine).value(),
            R"({"id":"4711","type":"EVENT_TYPE_SETTLED","prefix":"2001:db8:8818:1::/64","mn_id":"02:00:00:00:00:11",)"
            R"("ar":"ar2","generation":{"epoch":"1","revision":"41"},"detail":"after 1.2 s",)"
            R"("at":"2026-01-02T03:04:05.678901Z"})"
            "\n");
  EXPECT_EQ(render_json(v1::ListNodesResponse(), JsonStyle::kIndented).value(), "{\n \"nodes\": []\n}\n");
}

TEST(RenderJson, OneLineStaysOneLine) {
  v1::Event event;
  event.set_detail("a\nb\"c\x1b");
  const auto text = render_json(event, JsonStyle::kOneLine).value();
  EXPECT_EQ(text.find('\n'), text.size() - 1);
  EXPECT_THAT(text, HasSubstr(R"("detail":"a\nb\"c\u001b")"));
}

TEST(RenderJson, SaysWhenAMessageCannotBeWritten) {
  v1::Event event;
  event.mutable_at()->set_seconds(std::numeric_limits<std::int64_t>::max());
  const auto text = render_json(event, JsonStyle::kOneLine);
  ASSERT_FALSE(text.ok());
  EXPECT_EQ(text.status().code(), absl::StatusCode::kInternal);
}

}  // namespace
}  // namespace kedge::kedgectl
