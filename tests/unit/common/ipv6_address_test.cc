#include <arpa/inet.h>
#include <gtest/gtest.h>

#include <cstring>
#include <random>

#include "absl/hash/hash.h"
#include "common/ipv6.h"
#include "common/text.h"

namespace kedge {
namespace {

std::string canonical(std::string_view text) {
  const auto address = Ipv6Address::parse(text);
  return address.ok() ? address->to_string() : std::string(address.status().message());
}

TEST(Ipv6AddressText, DropsLeadingZeros) {  // RFC 5952, 4.1
  EXPECT_EQ(canonical("2001:0db8:0001:0020:0300:4000:0005:0006"), "2001:db8:1:20:300:4000:5:6");
}

TEST(Ipv6AddressText, ShortensAsMuchAsPossible) {  // RFC 5952, 4.2.1
  EXPECT_EQ(canonical("2001:db8:0:0:0:0:2:1"), "2001:db8::2:1");
  EXPECT_EQ(canonical("2001:db8::0:1"), "2001:db8::1");
}

TEST(Ipv6AddressText, KeepsASingleZeroField) {  // RFC 5952, 4.2.2
  EXPECT_EQ(canonical("2001:db8::1:1:1:1:1"), "2001:db8:0:1:1:1:1:1");
  EXPECT_EQ(canonical("::2:3:4:5:6:7:8"), "0:2:3:4:5:6:7:8");
  EXPECT_EQ(canonical("1:2:3:4:5:6:7::"), "1:2:3:4:5:6:7:0");
}

TEST(Ipv6AddressText, ShortensTheLongestRun) {  // RFC 5952, 4.2.3
  EXPECT_EQ(canonical("2001:0:0:1:0:0:0:1"), "2001:0:0:1::1");
}

TEST(Ipv6AddressText, ShortensTheFirstOfTwoEqualRuns) {  // RFC 5952, 4.2.3
  EXPECT_EQ(canonical("2001:db8:0:0:1:0:0:1"), "2001:db8::1:0:0:1");
}

TEST(Ipv6AddressText, IsLowerCase) {  // RFC 5952, 4.3
  EXPECT_EQ(canonical("2001:DB8::ABCD:EF"), "2001:db8::abcd:ef");
}

TEST(Ipv6AddressText, WritesOnlyMappedAddressesInMixedNotation) {  // RFC 5952, 5
  EXPECT_EQ(canonical("::ffff:c000:201"), "::ffff:192.0.2.1");
  EXPECT_EQ(canonical("::192.0.2.1"), "::c000:201");
  EXPECT_EQ(canonical("::1:0"), "::1:0");
  EXPECT_EQ(canonical("64:ff9b::192.0.2.1"), "64:ff9b::c000:201");
}

TEST(Ipv6AddressText, WritesTheEnds) {
  EXPECT_EQ(canonical("0:0:0:0:0:0:0:0"), "::");
  EXPECT_EQ(canonical("0:0:0:0:0:0:0:1"), "::1");
  EXPECT_EQ(canonical("1:0:0:0:0:0:0:0"), "1::");
  EXPECT_EQ(canonical("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"), "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff");
  EXPECT_EQ(Ipv6Address().to_string(), "::");
}

class BadAddress : public testing::TestWithParam<std::string> {};

TEST_P(BadAddress, IsRefusedByName) {
  const auto address = Ipv6Address::parse(GetParam());
  ASSERT_FALSE(address.ok());
  EXPECT_EQ(address.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(std::string(address.status().message()), "'" + shortened(GetParam()) + "' is no IPv6 address");
}

INSTANTIATE_TEST_SUITE_P(Texts, BadAddress,
                         testing::Values("", " ", ":", ":::", "2001:db8", "2001:db8::1::2", "1:2:3:4:5:6:7",
                                         "1:2:3:4:5:6:7:8:9", "2001:db8::g", "2001:db8::12345", " 2001:db8::1",
                                         "2001:db8::1 ", "2001:db8::1\n", "fe80::1%eth0", "[2001:db8::1]",
                                         "2001:db8::1/64", "192.0.2.1", "::192.0.2.256",
                                         std::string("2001:db8::1\0", 12), std::string(4096, ':')));

TEST(Ipv6Address, SurvivesTextBothWays) {
  std::mt19937_64 random(8818);
  for (int i = 0; i < 20'000; ++i) {
    Ipv6Address::Bytes bytes{};
    // Sparse addresses exercise the runs of zeros.
    for (auto& byte : bytes) byte = random() % 3 == 0 ? static_cast<std::uint8_t>(random()) : 0;
    const Ipv6Address address(bytes);
    const auto parsed = Ipv6Address::parse(address.to_string());
    ASSERT_TRUE(parsed.ok()) << address.to_string();
    ASSERT_EQ(*parsed, address) << address.to_string();
  }
}

TEST(Ipv6Address, IsWrittenAsTheCLibraryDoes) {
  std::mt19937_64 random(5952);
  for (int i = 0; i < 50'000; ++i) {
    in6_addr raw{};
    for (auto& byte : raw.s6_addr) byte = random() % 3 == 0 ? static_cast<std::uint8_t>(random()) : 0;
    if (i % 10 == 0) std::memcpy(raw.s6_addr, "\0\0\0\0\0\0\0\0\0\0\xff\xff", 12);
    char text[INET6_ADDRSTRLEN];
    const std::string expected = inet_ntop(AF_INET6, &raw, text, sizeof text);
    // It writes ::/96 in mixed notation; RFC 5952, 5 does not.
    const bool mapped = expected.starts_with("::ffff:");
    if (expected.find('.') != std::string::npos && !mapped) continue;
    ASSERT_EQ(Ipv6Address(raw).to_string(), expected);
  }
}

TEST(Ipv6Address, NeverCrashesOnNoise) {
  std::mt19937_64 random(5952);
  constexpr std::string_view kAlphabet = "0123456789abcdefF:./%";
  for (int i = 0; i < 50'000; ++i) {
    std::string text(random() % 48, ' ');
    for (auto& c : text) c = kAlphabet[random() % kAlphabet.size()];
    if (const auto address = Ipv6Address::parse(text); address.ok()) {
      ASSERT_EQ(*Ipv6Address::parse(address->to_string()), *address) << text;
    }
  }
}

TEST(Ipv6Address, OrdersByBytes) {
  const auto a = *Ipv6Address::parse("2001:db8::ff");
  const auto b = *Ipv6Address::parse("2001:db8::100");
  EXPECT_LT(a, b);
  EXPECT_NE(a, b);
  EXPECT_EQ(a, *Ipv6Address::parse("2001:0DB8::00ff"));
  EXPECT_EQ(absl::HashOf(a), absl::HashOf(*Ipv6Address::parse("2001:0DB8::00ff")));

  std::mt19937_64 random(4291);
  const Ipv6Address::Bytes base = a.bytes();
  for (int i = 0; i < 10'000; ++i) {
    auto x = base;
    auto y = base;
    x[random() % x.size()] = static_cast<std::uint8_t>(random());
    y[random() % y.size()] = static_cast<std::uint8_t>(random());
    ASSERT_EQ(Ipv6Address(x) <=> Ipv6Address(y), x <=> y)
        << Ipv6Address(x).to_string() << " " << Ipv6Address(y).to_string();
    ASSERT_EQ(Ipv6Address(x) == Ipv6Address(y), x == y);
  }
}

TEST(Ipv6Address, KnowsItsScope) {
  EXPECT_TRUE(Ipv6Address().is_unspecified());
  EXPECT_FALSE(Ipv6Address::parse("::1")->is_unspecified());
  EXPECT_TRUE(Ipv6Address::parse("fe80::1")->is_link_local());
  EXPECT_TRUE(Ipv6Address::parse("febf:ffff::1")->is_link_local());
  EXPECT_FALSE(Ipv6Address::parse("fec0::1")->is_link_local());
  EXPECT_FALSE(Ipv6Address::parse("fe7f::1")->is_link_local());
  EXPECT_TRUE(Ipv6Address::parse("ff02::1")->is_multicast());
  EXPECT_FALSE(Ipv6Address::parse("fe80::1")->is_multicast());
}

TEST(Ipv6Address, ConvertsToTheKernelsFormAndBack) {
  const auto address = *Ipv6Address::parse("2001:db8:1:2:3:4:5:6");
  const in6_addr raw = address.to_in6_addr();
  EXPECT_EQ(raw.s6_addr[0], 0x20);
  EXPECT_EQ(raw.s6_addr[15], 6);
  EXPECT_EQ(Ipv6Address(raw), address);
}

}  // namespace
}  // namespace kedge
