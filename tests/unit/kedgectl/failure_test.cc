#include "kedgectl/failure.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace kedge::kedgectl {
namespace {

using grpc::StatusCode;
using testing::HasSubstr;
using testing::StartsWith;

constexpr const char* kServer = "[::1]:8818";

TEST(Explain, GivesEachKindOfFailureItsExitCode) {
  EXPECT_EQ(explain({StatusCode::NOT_FOUND, "x"}, kServer).code, ExitCode::kNotFound);
  EXPECT_EQ(explain({StatusCode::UNAVAILABLE, "x"}, kServer).code, ExitCode::kUnreachable);
  EXPECT_EQ(explain({StatusCode::DEADLINE_EXCEEDED, "x"}, kServer).code, ExitCode::kUnreachable);
  for (const auto code : {StatusCode::INVALID_ARGUMENT, StatusCode::OUT_OF_RANGE, StatusCode::INTERNAL,
                          StatusCode::UNIMPLEMENTED, StatusCode::PERMISSION_DENIED, StatusCode::UNKNOWN}) {
    EXPECT_EQ(explain({code, "x"}, kServer).code, ExitCode::kFailed);
  }
}

TEST(Explain, AnUnreachableServerIsNamedWithItsOptionAndVariable) {
  const auto text =
      explain({StatusCode::UNAVAILABLE, "failed to connect to all addresses; last error: UNKNOWN: Connection refused"},
              kServer)
          .text;
  EXPECT_THAT(text, StartsWith("cannot reach the server at [::1]:8818: UNKNOWN: Connection refused\n"));
  EXPECT_THAT(text, HasSubstr("--server"));
  EXPECT_THAT(text, HasSubstr("KEDGECTL_SERVER"));
}

TEST(Explain, PassesOnTheServersText) {
  EXPECT_EQ(explain({StatusCode::NOT_FOUND, "no binding covers 2001:db8::1"}, kServer).text,
            "no binding covers 2001:db8::1");
  EXPECT_EQ(explain({StatusCode::INTERNAL, "disk full\x1b[2J"}, kServer).text,
            "the server at [::1]:8818 refused: disk full [2J");
  EXPECT_EQ(explain({StatusCode::INTERNAL, ""}, kServer).text, "the server at [::1]:8818 refused: code 13");
}

}  // namespace
}  // namespace kedge::kedgectl
