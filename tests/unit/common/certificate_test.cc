#include "common/certificate.h"

#include <gtest/gtest.h>

namespace kedge {
namespace {

TEST(Identity, IsAUriOfRoleAndName) {
  for (const std::string text : {"kedge://lm/lm1", "kedge://speaker/ar-1.example", "kedge://operator/alice",
                                 "kedge://viewer/noc_2", "kedge://mn/02:00:00:00:00:11", "kedge://proxy/p"}) {
    const auto identity = parse_identity(text);
    ASSERT_TRUE(identity.ok()) << identity.status();
    EXPECT_EQ(identity->uri(), text);
  }
}

TEST(Identity, RefusesWhatIsNone) {
  for (const std::string text :
       {"", "kedge://", "kedge://speaker", "kedge://speaker/", "kedge://root/ar1", "kedge:/speaker/ar1",
        "http://speaker/ar1", "kedge://speaker/ar1/x", "kedge://speaker/ar 1", "kedge://speaker/ar1\n",
        "kedge://speaker/02:00:00:00:00:11", "kedge://Speaker/ar1"}) {
    EXPECT_EQ(parse_identity(text).status().code(), absl::StatusCode::kInvalidArgument) << text;
  }
  EXPECT_FALSE(parse_identity("kedge://speaker/" + std::string(64, 'a')).ok());
  EXPECT_FALSE(parse_identity(std::string("kedge://speaker/ar1\0x", 21)).ok());
}

TEST(Certificate, WhatIsNoneIsRefusedAndSaysSo) {
  EXPECT_EQ(parse_certificate("").status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(parse_certificate("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").status().code(),
            absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace kedge
