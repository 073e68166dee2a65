#include "lm-server/core/prefix_pool.h"

#include "gtest/gtest.h"

namespace kedge::lm {
namespace {

Ipv6Prefix prefix(const char* text) { return *Ipv6Prefix::parse(text); }

TEST(PrefixPoolTest, HandsOutEachPrefixOnceAndTheFirstOneLast) {
  PrefixPool pool({prefix("2001:db8:1::/63"), prefix("2001:db8:2:7::/64")});
  EXPECT_EQ(pool.size(), 3U);
  EXPECT_EQ(pool.take()->to_string(), "2001:db8:1:1::/64");
  EXPECT_EQ(pool.take()->to_string(), "2001:db8:2:7::/64");
  EXPECT_EQ(pool.take()->to_string(), "2001:db8:1::/64");
  EXPECT_EQ(pool.take(), std::nullopt);
  EXPECT_EQ(pool.used(), 3U);
}

TEST(PrefixPoolTest, AReturnedPrefixComesRoundLast) {
  PrefixPool pool({prefix("2001:db8:1::/62")});
  const auto first = *pool.take();
  pool.give_back(first);
  EXPECT_EQ(pool.used(), 0U);
  for (int i = 0; i < 3; ++i) EXPECT_NE(*pool.take(), first);
  EXPECT_EQ(*pool.take(), first);
}

TEST(PrefixPoolTest, AClaimedPrefixIsNotHandedOut) {
  PrefixPool pool({prefix("2001:db8:1::/63")});
  EXPECT_TRUE(pool.claim(prefix("2001:db8:1:1::/64")));
  EXPECT_FALSE(pool.claim(prefix("2001:db8:1:1::/64")));
  EXPECT_FALSE(pool.claim(prefix("2001:db8:2::/64")));
  EXPECT_FALSE(pool.claim(prefix("2001:db8:1::/63")));
  EXPECT_EQ(pool.take()->to_string(), "2001:db8:1::/64");
}

TEST(PrefixPoolTest, GoesOnBehindTheYoungest) {
  PrefixPool pool({prefix("2001:db8:1::/48")});
  pool.continue_behind(prefix("2001:db8:1:10::/64"));
  EXPECT_EQ(pool.take()->to_string(), "2001:db8:1:11::/64");
}

}  // namespace
}  // namespace kedge::lm
