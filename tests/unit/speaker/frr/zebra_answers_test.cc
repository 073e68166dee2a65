#include "speaker/frr/zebra_answers.h"

#include "gtest/gtest.h"

namespace kedge::speaker {
namespace {

TEST(ZebraAnswers, VersionIsTheSecondWord) {
  EXPECT_EQ(parse_version("FRRouting 8.4.4 (ar1) on Linux(6.1.0).\nCopyright 1996-2005 Kunihiro Ishiguro, et al.\n"),
            "8.4.4");
  for (const char* answer : {"", "FRRouting", "% Unknown command\n"}) EXPECT_EQ(parse_version(answer), "") << answer;
}

TEST(ZebraAnswers, CountIsOfTheRoutesFromTheKernel) {
  EXPECT_EQ(*parse_kernel_route_count(R"({"routes":[{"fib":2,"rib":2,"type":"connected"},
      {"fib":17377,"rib":20000,"fibOffLoaded":0,"fibTrapped":0,"type":"kernel"}],"routesTotal":20002})"),
            20000U);
  EXPECT_EQ(*parse_kernel_route_count(R"({"routes":[{"rib":2,"type":"connected"}]})"), 0U);
  EXPECT_EQ(*parse_kernel_route_count("{}"), 0U);
  EXPECT_FALSE(parse_kernel_route_count("% Unknown command").ok());
}

}  // namespace
}  // namespace kedge::speaker
