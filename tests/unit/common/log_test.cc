#include "common/log.h"

#include <gtest/gtest.h>

#include <regex>

#include "common/ipv6.h"
#include "common/link_layer_address.h"

namespace kedge {
namespace {

class Log : public testing::Test {
 protected:
  void TearDown() override { set_log_level(LogLevel::kInfo); }

  // What `value` looks like in a line, everything after "value=".
  template <typename T>
  static std::string shown(const T& value) {
    testing::internal::CaptureStderr();
    log_info("event", "value", value);
    const std::string line = testing::internal::GetCapturedStderr();
    EXPECT_EQ(std::count(line.begin(), line.end(), '\n'), 1) << line;
    const auto at = line.find("value=");
    return at == std::string::npos || line.empty() ? line : line.substr(at + 6, line.size() - at - 7);
  }
};

TEST_F(Log, WritesTimeLevelEventAndPairs) {
  testing::internal::CaptureStderr();
  log_warning("redirect_programmed", "prefix", "2001:db8::/64", "tries", 3, "up", true);
  const std::string line = testing::internal::GetCapturedStderr();
  EXPECT_TRUE(std::regex_match(line, std::regex(R"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z warning redirect_programmed )"
                                                R"(prefix=2001:db8::/64 tries=3 up=true\n)")))
      << line;
}

TEST_F(Log, WritesValuesOfOurTypes) {
  EXPECT_EQ(shown(Ipv6Prefix::parse("2001:db8::/64").value()), "2001:db8::/64");
  EXPECT_EQ(shown(LinkLayerAddress::parse("02:00:00:00:00:11").value()), "02:00:00:00:00:11");
  EXPECT_EQ(shown(absl::NotFoundError("no such AR")), "\"NOT_FOUND: no such AR\"");
}

TEST_F(Log, QuotesWhatWouldNotReadBack) {
  EXPECT_EQ(shown("plain"), "plain");
  EXPECT_EQ(shown(""), "\"\"");
  EXPECT_EQ(shown("two words"), "\"two words\"");
  EXPECT_EQ(shown("a=b"), "\"a=b\"");
  EXPECT_EQ(shown("say \"hi\""), "\"say \\\"hi\\\"\"");
  EXPECT_EQ(shown("back\\slash"), "\"back\\\\slash\"");
}

TEST_F(Log, AValueCannotBeginALineOfItsOwn) {
  EXPECT_EQ(shown("x\n2026-01-01T00:00:00Z error forged"), "\"x 2026-01-01T00:00:00Z error forged\"");
  EXPECT_EQ(shown("x\r\ny"), "\"x  y\"");
  EXPECT_EQ(shown("x\vy\fz"), "\"x y z\"");
}

TEST_F(Log, AValueCannotSteerTheTerminal) {
  EXPECT_EQ(shown("\x1b[2J"), "\" [2J\"");
  EXPECT_EQ(shown("x\x7f"), "\"x \"");
  EXPECT_EQ(shown("x\xc2\x9b"
                  "2J"),
            "\"x 2J\"");  // CSI of the C1 set, in UTF-8
  EXPECT_EQ(shown(std::string("a\0b", 3)), "\"a b\"");
}

TEST_F(Log, KeepsTextOutsideOfAscii) {
  EXPECT_EQ(shown("Größe"), "Größe");
  EXPECT_EQ(shown("x\xc2"), "x\xc2");
}

TEST_F(Log, NoByteEscapesItsLineOrItsQuotes) {
  for (int byte = 0; byte < 256; ++byte) {
    const std::string text = shown(std::string("a b") + static_cast<char>(byte));
    ASSERT_EQ(text.front(), '"');
    ASSERT_EQ(text.back(), '"');
    for (std::size_t i = 1; i + 1 < text.size(); ++i) {
      ASSERT_GE(static_cast<unsigned char>(text[i]), 0x20);
      if (text[i] == '"') {
        ASSERT_EQ(text[i - 1], '\\');
      }
    }
  }
}

TEST_F(Log, WritesNothingBelowItsLevel) {
  ASSERT_TRUE(set_log_level("error").ok());
  testing::internal::CaptureStderr();
  log_warning("hidden");
  log_error("shown");
  const std::string text = testing::internal::GetCapturedStderr();
  EXPECT_EQ(text.find("hidden"), std::string::npos);
  EXPECT_NE(text.find("shown"), std::string::npos);
}

TEST_F(Log, RefusesAnUnknownLevelAndKeepsTheOldOne) {
  const auto status = set_log_level("loud");
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(status.message(), "log level 'loud' is none of trace, debug, info, warning, error");
  EXPECT_TRUE(log_enabled(LogLevel::kInfo));
  EXPECT_FALSE(log_enabled(LogLevel::kDebug));
}

}  // namespace
}  // namespace kedge
