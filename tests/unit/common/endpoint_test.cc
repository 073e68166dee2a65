#include "common/endpoint.h"

#include "gtest/gtest.h"

namespace kedge {
namespace {

TEST(Endpoint, IsAnAddressAndAPort) {
  EXPECT_EQ(parse_endpoint("[2001:db8::1]:8818")->address().to_string(), "2001:db8::1");
  EXPECT_EQ(parse_endpoint("[2001:db8::1]:8818")->port(), 8818);
  EXPECT_EQ(parse_endpoint("192.0.2.1:0")->address().to_string(), "192.0.2.1");
  for (const char* wrong : {"", "8818", ":8818", "[::1]", "[::1]:", "[::1]:65536", "[::1]:-1", "[::1]:x", "host:8818",
                            "192.0.2.256:1", "[]:1"}) {
    EXPECT_EQ(parse_endpoint(wrong).status().code(), absl::StatusCode::kInvalidArgument) << wrong;
  }
}

}  // namespace
}  // namespace kedge
