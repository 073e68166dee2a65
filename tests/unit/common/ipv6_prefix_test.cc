#include <gtest/gtest.h>

#include <random>
#include <unordered_set>

#include "common/ipv6.h"

namespace kedge {
namespace {

Ipv6Prefix prefix(std::string_view text) { return Ipv6Prefix::parse(text).value(); }
Ipv6Address address(std::string_view text) { return Ipv6Address::parse(text).value(); }
std::string error(std::string_view text) { return std::string(Ipv6Prefix::parse(text).status().message()); }

TEST(Ipv6Prefix, ParsesAndPrintsCanonically) {
  EXPECT_EQ(prefix("2001:0DB8:0:0::/64").to_string(), "2001:db8::/64");
  EXPECT_EQ(prefix("::/0").to_string(), "::/0");
  EXPECT_EQ(prefix("2001:db8::1/128").to_string(), "2001:db8::1/128");
  EXPECT_EQ(Ipv6Prefix(), prefix("::/0"));
}

TEST(Ipv6Prefix, SaysWhatIsWrongWithAText) {
  EXPECT_EQ(error("2001:db8::"), "'2001:db8::' is no IPv6 prefix: it has no /length");
  EXPECT_EQ(error("2001:db8/64"), "'2001:db8/64' is no IPv6 prefix");
  EXPECT_EQ(error("192.0.2.0/24"), "'192.0.2.0/24' is no IPv6 prefix");
  for (const std::string text : {"::/129", "::/", "::/-1", "::/+1", "::/ 1", "::/1 ", "::/6x", "::/0064", "::/64/64",
                                 "::/99999999999999999999"}) {
    EXPECT_EQ(error(text), "'" + text + "': the length of an IPv6 prefix is 0 to 128");
  }
  EXPECT_EQ(error("2001:db8:0:1::5/64"),
            "'2001:db8:0:1::5/64' has bits set past its length; did you mean "
            "2001:db8:0:1::/64?");
  EXPECT_EQ(error("2001:db8:0:1::/63"),
            "'2001:db8:0:1::/63' has bits set past its length; did you mean 2001:db8::/63?");
  EXPECT_EQ(Ipv6Prefix::parse("::/129").status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(Ipv6Prefix, ClearsBitsPastItsLength) {
  const auto all_ones = address("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff");
  EXPECT_EQ(Ipv6Prefix(all_ones, 0).to_string(), "::/0");
  EXPECT_EQ(Ipv6Prefix(all_ones, 1).to_string(), "8000::/1");
  EXPECT_EQ(Ipv6Prefix(all_ones, 63).to_string(), "ffff:ffff:ffff:fffe::/63");
  EXPECT_EQ(Ipv6Prefix(all_ones, 64).to_string(), "ffff:ffff:ffff:ffff::/64");
  EXPECT_EQ(Ipv6Prefix(all_ones, 65).to_string(), "ffff:ffff:ffff:ffff:8000::/65");
  EXPECT_EQ(Ipv6Prefix(all_ones, 128).address(), all_ones);
}

TEST(Ipv6Prefix, ContainsAddressesToItsLastBit) {
  const auto p = prefix("2001:db8:0:2::/63");
  EXPECT_TRUE(p.contains(address("2001:db8:0:2::")));
  EXPECT_TRUE(p.contains(address("2001:db8:0:3:ffff:ffff:ffff:ffff")));
  EXPECT_FALSE(p.contains(address("2001:db8:0:4::")));
  EXPECT_FALSE(p.contains(address("2001:db8:0:1:ffff:ffff:ffff:ffff")));
  EXPECT_TRUE(prefix("::/0").contains(address("ffff::1")));
  EXPECT_TRUE(prefix("2001:db8::1/128").contains(address("2001:db8::1")));
  EXPECT_FALSE(prefix("2001:db8::1/128").contains(address("2001:db8::")));
}

TEST(Ipv6Prefix, ContainsItselfAndLongerOnesInside) {
  const auto pool = prefix("2001:db8::/48");
  EXPECT_TRUE(pool.contains(pool));
  EXPECT_TRUE(pool.contains(prefix("2001:db8:0:ffff::/64")));
  EXPECT_FALSE(pool.contains(prefix("2001:db8::/47")));
  EXPECT_FALSE(pool.contains(prefix("2001:db8:1::/64")));
}

TEST(Ipv6Prefix, OverlapsWhenOneContainsTheOther) {
  EXPECT_TRUE(prefix("2001:db8::/48").overlaps(prefix("2001:db8::/32")));
  EXPECT_TRUE(prefix("2001:db8::/32").overlaps(prefix("2001:db8::/48")));
  EXPECT_FALSE(prefix("2001:db8::/48").overlaps(prefix("2001:db8:1::/48")));
}

TEST(Ipv6Prefix, OrdersByAddressThenShorterFirst) {
  EXPECT_LT(prefix("2001:db8::/32"), prefix("2001:db8::/48"));
  EXPECT_LT(prefix("2001:db8::/48"), prefix("2001:db8:1::/48"));
  EXPECT_LT(prefix("2001:db8::/64"), prefix("2001:db8:1::/48"));
}

TEST(Ipv6Prefix, EqualPrefixesHashAlike) {
  std::unordered_set<Ipv6Prefix> set = {prefix("2001:db8::/48"), prefix("2001:0db8::/48"), prefix("2001:db8::/64")};
  EXPECT_EQ(set.size(), 2U);
}

TEST(Ipv6PrefixPool, CountsItsParts) {
  EXPECT_EQ(prefix("2001:db8::/48").count(64), 65536U);
  EXPECT_EQ(prefix("2001:db8::/56").count(64), 256U);
  EXPECT_EQ(prefix("2001:db8::/64").count(64), 1U);
  EXPECT_EQ(prefix("::/0").count(63), std::uint64_t{1} << 63);
}

TEST(Ipv6PrefixPool, NumbersItsPartsInOrder) {
  const auto pool = prefix("2001:db8:7::/48");
  EXPECT_EQ(pool.nth(64, 0).to_string(), "2001:db8:7::/64");
  EXPECT_EQ(pool.nth(64, 1).to_string(), "2001:db8:7:1::/64");
  EXPECT_EQ(pool.nth(64, 256).to_string(), "2001:db8:7:100::/64");
  EXPECT_EQ(pool.nth(64, 65535).to_string(), "2001:db8:7:ffff::/64");
  EXPECT_EQ(prefix("2001:db8::/64").nth(64, 0).to_string(), "2001:db8::/64");
  EXPECT_EQ(prefix("2001:db8::/61").nth(64, 7).to_string(), "2001:db8:0:7::/64");
  EXPECT_EQ(prefix("2001:db8::/61").nth(63, 3).to_string(), "2001:db8:0:6::/63");
  EXPECT_EQ(prefix("::/0").nth(63, (std::uint64_t{1} << 63) - 1).to_string(), "ffff:ffff:ffff:fffe::/63");
}

TEST(Ipv6PrefixPool, FindsEachPartAgain) {
  std::mt19937_64 random(3);
  for (int length = 48; length <= 64; ++length) {
    const Ipv6Prefix pool(address("2001:db8:abcd:5a5a::"), length);
    const std::uint64_t count = pool.count(64);
    ASSERT_EQ(count, std::uint64_t{1} << (64 - length));
    for (const std::uint64_t index : {std::uint64_t{0}, count / 2, count - 1, random() % count, random() % count}) {
      const auto part = pool.nth(64, index);
      ASSERT_TRUE(pool.contains(part)) << part.to_string();
      ASSERT_EQ(pool.index_of(part), index) << part.to_string();
    }
  }
}

TEST(Ipv6PrefixPool, PartsAreDistinctAndAscending) {
  const auto pool = prefix("2001:db8::/48");
  auto previous = pool.nth(64, 0);
  for (std::uint64_t i = 1; i < pool.count(64); ++i) {
    const auto next = pool.nth(64, i);
    ASSERT_LT(previous, next);
    previous = next;
  }
}

TEST(Ipv6Prefix, NeverCrashesOnNoiseAndReadsBackWhatItPrints) {
  std::mt19937_64 random(4291);
  constexpr std::string_view kAlphabet = "0123456789abF:./";
  for (int i = 0; i < 50'000; ++i) {
    std::string text(random() % 24, ' ');
    for (auto& c : text) c = kAlphabet[random() % kAlphabet.size()];
    text += "::/" + std::to_string(random() % 140);
    if (const auto parsed = Ipv6Prefix::parse(text); parsed.ok()) {
      ASSERT_EQ(*Ipv6Prefix::parse(parsed->to_string()), *parsed) << text;
    }
  }
}

}  // namespace
}  // namespace kedge
