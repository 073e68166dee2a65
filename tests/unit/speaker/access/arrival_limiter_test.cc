#include "speaker/access/arrival_limiter.h"

#include "gtest/gtest.h"

namespace kedge::speaker {
namespace {

using namespace std::chrono_literals;

LinkLayerAddress node(std::uint32_t number) {
  return LinkLayerAddress({0x02, 0, static_cast<std::uint8_t>(number >> 24), static_cast<std::uint8_t>(number >> 16),
                           static_cast<std::uint8_t>(number >> 8), static_cast<std::uint8_t>(number)});
}

class ArrivalLimiterTest : public ::testing::Test {
 protected:
  bool known(std::uint32_t number, std::size_t port = 0) {
    return limiter_.admit(port, node(number), true, true, now_) == ArrivalLimit::kNone;
  }
  bool stranger(std::uint32_t number, bool heard_before = false, std::size_t port = 0) {
    return limiter_.admit(port, node(number), false, heard_before, now_) == ArrivalLimit::kNone;
  }
  // How many of `count` invented addresses get in, over a time.
  int flood(int count, std::chrono::milliseconds time, std::uint32_t first = 1'000'000) {
    int admitted = 0;
    for (int i = 0; i < count; ++i) {
      now_ += std::chrono::nanoseconds(time) / count;
      admitted += stranger(first + static_cast<std::uint32_t>(i)) ? 1 : 0;
    }
    return admitted;
  }

  ArrivalLimiter limiter_{{.node = 5, .known = 1000, .strangers = 100}};
  SteadyTime now_ = SteadyTime() + 1h;
};

TEST_F(ArrivalLimiterTest, AFloodOfInventedAddressesGetsTheRateOfStrangers) {
  // 100 a second, and 50 at once.
  const int admitted = flood(50'000, 10s);
  EXPECT_GE(admitted, 1040);
  EXPECT_LE(admitted, 1052);
}

TEST_F(ArrivalLimiterTest, StrangersDoNotUseUpWhatKnownOnesHave) {
  flood(5'000, 1s);
  for (std::uint32_t i = 0; i < 100; ++i) EXPECT_TRUE(known(i));
}

TEST_F(ArrivalLimiterTest, AStrangerThatIsHeardAgainGetsInDuringAFlood) {
  flood(5'000, 1s);
  EXPECT_FALSE(stranger(7));
  EXPECT_TRUE(stranger(7, true));
}

TEST_F(ArrivalLimiterTest, AFloodOnOnePortIsNoneOnAnother) {
  flood(5'000, 1s);
  EXPECT_FALSE(stranger(7));
  EXPECT_TRUE(stranger(7, false, 1));
}

TEST_F(ArrivalLimiterTest, OneNodeDoesNotUseUpWhatOthersHave) {
  int admitted = 0;
  for (int i = 0; i < 10'000; ++i) admitted += known(1) ? 1 : 0;
  EXPECT_EQ(admitted, 20);
  EXPECT_EQ(limiter_.admit(0, node(1), true, true, now_), ArrivalLimit::kNode);
  EXPECT_TRUE(known(2));
  now_ += 1s;
  admitted = 0;
  for (int i = 0; i < 100; ++i) admitted += known(1) ? 1 : 0;
  EXPECT_EQ(admitted, 5);
}

TEST_F(ArrivalLimiterTest, WhatTheInterfaceHoldsBackIsNotCountedAgainstTheNode) {
  for (std::uint32_t i = 0; i < 2'000; ++i) known(i);
  for (int i = 0; i < 100; ++i) EXPECT_EQ(limiter_.admit(0, node(5'000), true, true, now_), ArrivalLimit::kKnown);
  now_ += 1s;
  int admitted = 0;
  for (int i = 0; i < 100; ++i) admitted += known(5'000) ? 1 : 0;
  EXPECT_EQ(admitted, 20);
}

TEST_F(ArrivalLimiterTest, TheMemoryOfStrangersIsBounded) {
  for (std::uint32_t i = 0; i < 100'000; ++i) {
    now_ += 1ms;
    stranger(i, true);
  }
  // Whatever was forgotten, the rate holds.
  int admitted = 0;
  for (std::uint32_t i = 0; i < 1'000; ++i) admitted += stranger(i, true) ? 1 : 0;
  EXPECT_LE(admitted, 51);
}

}  // namespace
}  // namespace kedge::speaker
