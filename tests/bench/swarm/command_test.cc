#include "tests/bench/swarm/command.h"

#include <gtest/gtest.h>

namespace kedge::bench {
namespace {

using std::chrono::milliseconds;

TEST(CommandTest, ReadsAPlannedMove) {
  const auto command = parse_command("move ar2 10000 within 0.5 overlap 250");
  ASSERT_TRUE(command.ok());
  const auto& travel = std::get<Travel>(*command);
  EXPECT_EQ(travel.port, "ar2");
  EXPECT_EQ(travel.count, 10'000u);
  EXPECT_EQ(travel.within, milliseconds(500));
  EXPECT_EQ(travel.overlap, milliseconds(250));
  EXPECT_FALSE(travel.gap);
}

TEST(CommandTest, ReadsABreakBeforeMake) {
  const auto command = parse_command("move ar2 10 within 1 gap 50");
  ASSERT_TRUE(command.ok());
  EXPECT_EQ(std::get<Travel>(*command).gap, milliseconds(50));
}

TEST(CommandTest, ReadsTheOthers) {
  const auto flows = parse_command("flows 100 rate 50");
  ASSERT_TRUE(flows.ok());
  EXPECT_EQ(std::get<BeginFlows>(*flows).rate, 50u);
  const auto end = parse_command(" stop-flows  /tmp/x ");
  ASSERT_TRUE(end.ok());
  EXPECT_EQ(std::get<EndFlows>(*end).folder, "/tmp/x");
  EXPECT_TRUE(parse_command("report /tmp/x").ok());
  EXPECT_TRUE(std::holds_alternative<Quit>(*parse_command("quit")));
}

TEST(CommandTest, RefusesWhatIsNoCommand) {
  for (const auto* line :
       {"", "go", "move ar2", "move ar2 0 within 1", "move ar2 x within 1", "move ar2 1 in 1", "move ar2 1 within -1",
        "move ar2 1 within nan", "move ar2 1 within 1e9", "move ar2 1 within 1 overlap", "move ar2 1 within 1 pause 5",
        "flows 1", "flows 0 rate 1", "flows 1 rate 0", "stop-flows", "report a b", "arrive ar1 -5 within 1"}) {
    EXPECT_FALSE(parse_command(line).ok()) << line;
  }
}

}  // namespace
}  // namespace kedge::bench
