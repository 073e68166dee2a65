#include "speaker/doctor/route_map.h"

#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace kedge::speaker {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

// As bgpd 8.4.4 shows one.
std::string entry(const std::string& action, int sequence, int tag, int preference, const std::string& weight = "0") {
  return " " + action + ", sequence " + std::to_string(sequence) + " Invoked 0\n  Match clauses:\n    tag " +
         std::to_string(tag) + "\n  Set clauses:\n    local-preference " + std::to_string(preference) +
         "\n    weight " + weight + "\n  Call clause:\n  Action:\n    Exit routemap\n";
}
const std::string kHead = "BGP:\nroute-map: KEDGE Invoked: 0 Optimization: enabled Processed Change: false\n";

TEST(RouteMap, LevelsAreThoseWhosePreferenceAndWeightFit) {
  const std::string map =
      kHead + entry("permit", 10, 1, 101) + entry("permit", 20, 2, 102) + " deny, sequence 1000 Invoked 0\n";
  EXPECT_THAT(*parse_levels(map, 100), ElementsAre(1, 2));
  EXPECT_THAT(*parse_levels(map, 200), IsEmpty());
}

TEST(RouteMap, AnEntryThatDoesSomethingElseIsNoLevel) {
  EXPECT_THAT(*parse_levels(kHead + entry("deny", 10, 1, 101), 100), IsEmpty());
  EXPECT_THAT(*parse_levels(kHead + entry("permit", 10, 1, 102), 100), IsEmpty());
  EXPECT_THAT(*parse_levels(kHead + entry("permit", 10, 1, 101, "10"), 100), IsEmpty());
  EXPECT_THAT(
      *parse_levels(kHead + " permit, sequence 10 Invoked 0\n  Match clauses:\n    tag 1\n  Set clauses:\n", 100),
      IsEmpty());
}

TEST(RouteMap, ALevelOfTheKernelsRoutesHasItsMetricAndSetsItsTag) {
  const auto with = [](int metric, const std::string& more) {
    return " permit, sequence 10 Invoked 0\n  Match clauses:\n    metric " + std::to_string(metric) +
           "\n  Set clauses:\n    local-preference 102\n    weight 0\n" + more + "  Call clause:\n";
  };
  EXPECT_THAT(*parse_levels(kHead + with(881802, "    tag 2\n    metric 0\n"), 100, LevelMatch::kMetric),
              ElementsAre(2));
  // Not as statics are known, without the tag, with another level's.
  EXPECT_THAT(*parse_levels(kHead + with(881802, "    tag 2\n    metric 0\n"), 100), IsEmpty());
  EXPECT_THAT(*parse_levels(kHead + with(881802, ""), 100, LevelMatch::kMetric), IsEmpty());
  EXPECT_THAT(*parse_levels(kHead + with(881801, "    tag 2\n"), 100, LevelMatch::kMetric), IsEmpty());
  EXPECT_THAT(*parse_levels(kHead + entry("permit", 10, 1, 101), 100, LevelMatch::kMetric), IsEmpty());
}

TEST(RouteMap, AbsentIsNotFound) {
  for (const std::string answer : {"", "BGP:\n", "% Can't find route-map named 'KEDGE'\n"}) {
    EXPECT_EQ(parse_levels(answer, 100).status().code(), absl::StatusCode::kNotFound) << answer;
  }
}

}  // namespace
}  // namespace kedge::speaker
