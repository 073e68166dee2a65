#include "common/time.h"

#include <gtest/gtest.h>

#include <limits>

namespace kedge {
namespace {

using std::chrono::milliseconds;
using std::chrono::nanoseconds;
using std::chrono::seconds;

constexpr auto kMostSeconds = std::numeric_limits<std::int64_t>::max();
constexpr auto kLeastSeconds = std::numeric_limits<std::int64_t>::min();
constexpr auto kMostNanos = std::numeric_limits<std::int32_t>::max();
constexpr auto kLeastNanos = std::numeric_limits<std::int32_t>::min();

google::protobuf::Duration duration(std::int64_t s, std::int32_t n) {
  google::protobuf::Duration d;
  d.set_seconds(s);
  d.set_nanos(n);
  return d;
}

google::protobuf::Timestamp timestamp(std::int64_t s, std::int32_t n) {
  google::protobuf::Timestamp t;
  t.set_seconds(s);
  t.set_nanos(n);
  return t;
}

TEST(TimeToProto, NanosOfADurationHaveTheSignOfItsSeconds) {
  const auto d = to_proto(milliseconds(-1500));
  EXPECT_EQ(d.seconds(), -1);
  EXPECT_EQ(d.nanos(), -500'000'000);
}

TEST(TimeToProto, NanosOfATimestampAreNeverNegative) {
  const auto t = to_proto(SystemTime(milliseconds(-1500)));
  EXPECT_EQ(t.seconds(), -2);
  EXPECT_EQ(t.nanos(), 500'000'000);
}

TEST(TimeToProto, EveryRepresentableValueComesBack) {
  for (const nanoseconds n : {nanoseconds(0), nanoseconds(1), nanoseconds(-1), nanoseconds(999'999'999),
                              nanoseconds(-999'999'999), nanoseconds(1'000'000'000), nanoseconds(seconds(-62'135'596)),
                              nanoseconds(seconds(9'000'000'000)), nanoseconds(seconds(-9'000'000'000))}) {
    EXPECT_EQ(from_proto(to_proto(n)), n);
    EXPECT_EQ(from_proto(to_proto(SystemTime(n))), SystemTime(n));
  }
}

TEST(TimeFromProto, ClampsWhatDoesNotFit) {
  // The sanitizer sees an overflow; without it the sign would show it.
  for (const auto nanos : {0, 999'999'999, -999'999'999, kMostNanos, kLeastNanos}) {
    EXPECT_GT(from_proto(duration(kMostSeconds, nanos)), seconds(9'000'000'000)) << nanos;
    EXPECT_LT(from_proto(duration(kLeastSeconds, nanos)), seconds(-9'000'000'000)) << nanos;
    EXPECT_GT(from_proto(timestamp(kMostSeconds, nanos)), SystemTime(seconds(9'000'000'000))) << nanos;
    EXPECT_LT(from_proto(timestamp(kLeastSeconds, nanos)), SystemTime(seconds(-9'000'000'000))) << nanos;
  }
}

TEST(TimeFromProto, ClampsNanosPastASecond) {
  EXPECT_EQ(from_proto(duration(1, kMostNanos)), nanoseconds(1'999'999'999));
  EXPECT_EQ(from_proto(duration(-1, kLeastNanos)), nanoseconds(-1'999'999'999));
}

TEST(TimeFromProto, AnUnsetMessageIsZero) {
  EXPECT_EQ(from_proto(google::protobuf::Duration()), nanoseconds(0));
  EXPECT_EQ(from_proto(google::protobuf::Timestamp()), SystemTime());
}

}  // namespace
}  // namespace kedge
