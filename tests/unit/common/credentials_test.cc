#include "common/credentials.h"

#include <gtest/gtest.h>

#include "common/log.h"

namespace kedge {
namespace {

constexpr std::string_view kRefusal =
    "[::1]:8818: no certificates are configured; to go without TLS set 'insecure_plaintext: true'";

TEST(Credentials, RefusesAChannelWithoutTlsUnlessAskedForByName) {
  const auto channel = make_channel("[::1]:8818", {});
  ASSERT_FALSE(channel.ok());
  EXPECT_EQ(channel.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(std::string(channel.status().message()), kRefusal);
}

TEST(Credentials, RefusesAPortWithoutTlsUnlessAskedForByName) {
  grpc::ServerBuilder builder;
  int port = 0;
  const auto status = add_listening_port(builder, "[::1]:8818", {}, &port);
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(std::string(status.message()), kRefusal);
}

TEST(Credentials, PlaintextWarnsEachTime) {
  testing::internal::CaptureStderr();
  EXPECT_TRUE(make_channel("[::1]:1", {.insecure_plaintext = true}).ok());
  EXPECT_TRUE(make_channel("[::1]:2", {.insecure_plaintext = true}).ok());
  const std::string text = testing::internal::GetCapturedStderr();
  EXPECT_NE(text.find("warning insecure_plaintext peer=[::1]:1"), std::string::npos) << text;
  EXPECT_NE(text.find("warning insecure_plaintext peer=[::1]:2"), std::string::npos) << text;
}

}  // namespace
}  // namespace kedge
