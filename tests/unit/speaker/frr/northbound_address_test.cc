#include "speaker/frr/northbound_address.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace kedge::speaker {
namespace {

TEST(ParseNorthbound, TakesLoopbackAddresses) {
  EXPECT_EQ(parse_northbound("127.0.0.1:50051")->port(), 50051);
  EXPECT_EQ(parse_northbound("localhost:50051")->address().to_string(), "127.0.0.1");
  EXPECT_EQ(parse_northbound("[::1]:7")->address().to_string(), "::1");
  EXPECT_TRUE(parse_northbound("127.1.2.3:50051").ok());
}

TEST(ParseNorthbound, RefusesOthersAndSaysWhy) {
  for (const char* address : {"[2001:db8::1]:50051", "192.0.2.1:50051", "0.0.0.0:50051", "[::]:50051", "ar1:50051"}) {
    const auto endpoint = parse_northbound(address);
    EXPECT_EQ(endpoint.status().code(), absl::StatusCode::kInvalidArgument) << address;
    EXPECT_THAT(std::string(endpoint.status().message()), testing::HasSubstr("loopback")) << address;
  }
  for (const char* address : {"", "127.0.0.1", "127.0.0.1:", "127.0.0.1:0", "127.0.0.1:65536", "127.0.0.1:x"}) {
    EXPECT_EQ(parse_northbound(address).status().code(), absl::StatusCode::kInvalidArgument) << address;
  }
}

}  // namespace
}  // namespace kedge::speaker
