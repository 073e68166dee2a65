#include "common/link_layer_address.h"

#include <gtest/gtest.h>

namespace kedge {
namespace {

TEST(LinkLayerAddress, ParsesEitherCaseAndPrintsLowerCase) {
  EXPECT_EQ(LinkLayerAddress::parse("02:AB:cd:00:00:0F")->to_string(), "02:ab:cd:00:00:0f");
  EXPECT_EQ(LinkLayerAddress().to_string(), "00:00:00:00:00:00");
}

class BadLinkLayerAddress : public testing::TestWithParam<std::string> {};

TEST_P(BadLinkLayerAddress, IsRefusedByName) {
  const auto address = LinkLayerAddress::parse(GetParam());
  ASSERT_FALSE(address.ok());
  EXPECT_EQ(address.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(std::string(address.status().message()),
            "'" + GetParam() + "' is no link-layer address; write it as 02:00:00:00:00:11");
}

INSTANTIATE_TEST_SUITE_P(Texts, BadLinkLayerAddress,
                         testing::Values("", "02:00:00:00:00", "02:00:00:00:00:1", "02:00:00:00:00:111",
                                         "02-00-00-00-00-11", "0200.0000.0011", "02:00:00:00:00:1g",
                                         "02:00:00:00:00:-1", " 2:00:00:00:00:11", "02:00:00:00:00:11 ",
                                         "02:00:00:00:00:11:22:33"));

TEST(LinkLayerAddress, KnowsGroupsAndZero) {
  EXPECT_TRUE(LinkLayerAddress::parse("33:33:00:00:00:01")->is_multicast());
  EXPECT_TRUE(LinkLayerAddress::parse("ff:ff:ff:ff:ff:ff")->is_multicast());
  EXPECT_FALSE(LinkLayerAddress::parse("02:00:00:00:00:11")->is_multicast());
  EXPECT_TRUE(LinkLayerAddress().is_zero());
  EXPECT_FALSE(LinkLayerAddress::parse("00:00:00:00:00:01")->is_zero());
}

TEST(LinkLayerAddress, OrdersByBytes) {
  EXPECT_LT(*LinkLayerAddress::parse("02:00:00:00:00:ff"), *LinkLayerAddress::parse("02:00:00:00:01:00"));
  EXPECT_EQ(*LinkLayerAddress::parse("02:00:00:00:00:AA"), *LinkLayerAddress::parse("02:00:00:00:00:aa"));
}

}  // namespace
}  // namespace kedge
