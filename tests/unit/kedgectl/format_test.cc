#include "kedgectl/format.h"

#include <gtest/gtest.h>

#include "kedge/v1/admin.pb.h"

namespace kedge::kedgectl {
namespace {

using namespace std::chrono;

SystemTime at(std::int64_t seconds_since_epoch) { return SystemTime(seconds(seconds_since_epoch)); }

TEST(FormatTime, IsRfc3339InUtc) {
  EXPECT_EQ(format_time(at(1767323045), TimePrecision::kSeconds), "2026-01-02T03:04:05Z");
  EXPECT_EQ(format_time(at(1767323045) + microseconds(678'901), TimePrecision::kMilliseconds),
            "2026-01-02T03:04:05.678Z");
  EXPECT_EQ(format_time(at(1767323045) + milliseconds(7), TimePrecision::kMilliseconds), "2026-01-02T03:04:05.007Z");
  EXPECT_EQ(format_time(at(0), TimePrecision::kSeconds), "1970-01-01T00:00:00Z");
  EXPECT_EQ(format_time(SystemTime(milliseconds(-1)), TimePrecision::kMilliseconds), "1969-12-31T23:59:59.999Z");
  EXPECT_EQ(format_time(at(1709210096), TimePrecision::kSeconds), "2024-02-29T12:34:56Z");
}

TEST(FormatTime, SurvivesTheEndsOfTime) {
  EXPECT_EQ(format_time(SystemTime::max(), TimePrecision::kSeconds), "2262-04-11T23:47:16Z");
  EXPECT_EQ(format_time(SystemTime::min(), TimePrecision::kSeconds), "1677-09-21T00:12:43Z");
}

TEST(FormatAge, ShowsTheTwoLargestUnits) {
  const auto now = at(1'000'000'000);
  const auto age = [now](seconds ago) { return format_age(now - ago, now); };
  EXPECT_EQ(age(seconds(0)), "0s");
  EXPECT_EQ(age(seconds(12)), "12s");
  EXPECT_EQ(age(seconds(59)), "59s");
  EXPECT_EQ(age(seconds(60)), "1m0s");
  EXPECT_EQ(age(seconds(192)), "3m12s");
  EXPECT_EQ(age(hours(2) + minutes(3) + seconds(59)), "2h3m");
  EXPECT_EQ(age(days(5) + hours(4)), "5d4h");
}

TEST(FormatAge, ClocksThatDifferGiveNoNegativeAge) {
  EXPECT_EQ(format_age(at(100), at(90)), "0s");
  EXPECT_EQ(format_age(SystemTime::max(), SystemTime::min()), "0s");
  EXPECT_EQ(format_age(SystemTime::min(), SystemTime::max()).back(), 'h');
}

TEST(FormatGeneration, IsEpochDotRevision) {
  v1::Generation generation;
  EXPECT_EQ(format_generation(generation), "");
  generation.set_epoch(1);
  generation.set_revision(41);
  EXPECT_EQ(format_generation(generation), "1.41");
}

TEST(ShortName, DropsTheTypesPrefix) {
  EXPECT_EQ(short_name(v1::MODE_RELOCATE), "relocate");
  EXPECT_EQ(short_name(v1::BINDING_STATE_DETACHED_GRACE), "detached_grace");
  EXPECT_EQ(short_name(v1::EVENT_TYPE_NODE_CONNECTED), "node_connected");
  EXPECT_EQ(short_name(v1::MODE_UNSPECIFIED), "");
}

TEST(ShortName, ShowsTheNumberOfAValueThatIsNewerThanThisProgram) {
  EXPECT_EQ(short_name(static_cast<v1::Mode>(77)), "77");
}

}  // namespace
}  // namespace kedge::kedgectl
