#include "common/certificate.h"

#include <gtest/gtest.h>

#include "common/openssl.h"

namespace kedge {
namespace {

// Of kedge://speaker/ar1, signed by itself; times are written as in GeneralizedTime.
std::string certificate_of(const char* not_before, const char* not_after) {
  const openssl::Key key(EVP_EC_gen("P-256"));
  const openssl::Cert certificate(X509_new());
  ASN1_INTEGER_set(X509_get_serialNumber(certificate.get()), 1);
  ASN1_TIME_set_string(X509_getm_notBefore(certificate.get()), not_before);
  ASN1_TIME_set_string(X509_getm_notAfter(certificate.get()), not_after);
  X509_set_pubkey(certificate.get(), key.get());
  X509_EXTENSION* name = X509V3_EXT_conf_nid(nullptr, nullptr, NID_subject_alt_name, "URI:kedge://speaker/ar1");
  X509_add_ext(certificate.get(), name, -1);
  X509_EXTENSION_free(name);
  EXPECT_GT(X509_sign(certificate.get(), key.get(), EVP_sha256()), 0);
  const openssl::Bio out(BIO_new(BIO_s_mem()));
  PEM_write_bio_X509(out.get(), certificate.get());
  return openssl::contents(out.get());
}

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

TEST(Certificate, OneWithoutAnEndEndsAsLateAsCanBeTold) {
  // RFC 5280, 4.1.2.5: "the notAfter SHOULD be assigned the GeneralizedTime value of 99991231235959Z".
  const auto certificate = parse_certificate(certificate_of("00000101000000Z", "99991231235959Z"));
  ASSERT_TRUE(certificate.ok()) << certificate.status();
  EXPECT_EQ(to_text(certificate->not_after), "2262-04-11T23:47:16Z");
  EXPECT_EQ(to_text(certificate->not_before), "1970-01-01T00:00:00Z");
  EXPECT_GT(certificate->not_after - certificate->not_before, std::chrono::hours(24 * 365 * 292));
}

TEST(Certificate, ItsTimesAreThoseOfTheCertificate) {
  const auto certificate = parse_certificate(certificate_of("20260102030405Z", "20360102030405Z"));
  ASSERT_TRUE(certificate.ok()) << certificate.status();
  EXPECT_EQ(to_text(certificate->not_before), "2026-01-02T03:04:05Z");
  EXPECT_EQ(to_text(certificate->not_after), "2036-01-02T03:04:05Z");
}

}  // namespace
}  // namespace kedge
