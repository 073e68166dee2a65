#include "common/credentials.h"

#include <gtest/gtest.h>

#include "common/log.h"

namespace kedge {
namespace {

TEST(Credentials, NeitherChannelNorPortGoesWithoutCertificatesUnlessAskedByName) {
  const TransportSecurity nothing = make_transport_security(false, {});
  EXPECT_EQ(nothing.tls.certificate, "/etc/kedge/pki/certificate.pem");
  TransportSecurity security;
  security.tls = {"/nonexistent/ca.pem", "/nonexistent/certificate.pem", "/nonexistent/key.pem", ""};
  const auto channel = make_channel("[::1]:8818", security);
  EXPECT_EQ(channel.status().code(), absl::StatusCode::kNotFound);
  const auto status = make_server_credentials("[::1]:8818", security).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_NE(std::string(status.message()).find("/nonexistent/certificate.pem: cannot be read"), std::string::npos);
  EXPECT_NE(std::string(status.message()).find("kedgectl pki issue"), std::string::npos);
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
