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

TEST(PrefixPoolTest, ANetworkIsClaimedAndGivenBackAsAWhole) {
  PrefixPool pool({prefix("2001:db8:9::/64"), prefix("2001:db8:1::/61")});
  EXPECT_TRUE(pool.claim(prefix("2001:db8:1:4::/62")));
  EXPECT_EQ(pool.used(), 4U);
  EXPECT_FALSE(pool.claim(prefix("2001:db8:1:5::/64"))) << "inside of it";
  EXPECT_FALSE(pool.claim(prefix("2001:db8:1::/61"))) << "it is inside";
  EXPECT_FALSE(pool.claim(prefix("2001:db8:1::/60"))) << "no pool is so large";
  EXPECT_FALSE(pool.claim(prefix("::/0")));
  EXPECT_FALSE(pool.claim(prefix("2001:db8:1::/65")));
  EXPECT_EQ(pool.used(), 4U);
  for (const char* next :
       {"2001:db8:1::/64", "2001:db8:1:1::/64", "2001:db8:1:2::/64", "2001:db8:1:3::/64", "2001:db8:9::/64"}) {
    EXPECT_EQ(pool.take()->to_string(), next);
  }
  EXPECT_EQ(pool.take(), std::nullopt);
  pool.give_back(prefix("2001:db8:1:4::/63"));
  EXPECT_EQ(pool.used(), 9U) << "that was never claimed";
  pool.give_back(prefix("2001:db8:1:4::/62"));
  EXPECT_EQ(pool.used(), 5U);
  EXPECT_EQ(pool.take()->to_string(), "2001:db8:1:4::/64");
}

TEST(PrefixPoolTest, AWholePoolCanBeOneNetwork) {
  PrefixPool pool({prefix("2001:db8:1::/48")});
  EXPECT_TRUE(pool.contains(prefix("2001:db8:1::/48")));
  EXPECT_TRUE(pool.claim(prefix("2001:db8:1::/48")));
  EXPECT_EQ(pool.used(), 65536U);
  EXPECT_EQ(pool.take(), std::nullopt);
}

TEST(PrefixPoolTest, GoesOnBehindTheYoungest) {
  PrefixPool pool({prefix("2001:db8:1::/48")});
  pool.continue_behind(prefix("2001:db8:1:10::/64"));
  EXPECT_EQ(pool.take()->to_string(), "2001:db8:1:11::/64");
}

}  // namespace
}  // namespace kedge::lm
