#include <sys/stat.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "common/certificate.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kedgectl/pki/authority.h"
#include "kedgectl/run.h"

namespace kedge::kedgectl {
namespace {

using testing::HasSubstr;

class Pki : public testing::Test {
 protected:
  Pki() {
    std::string pattern = (std::filesystem::temp_directory_path() / "kedge-pki-XXXXXX").string();
    root_ = ::mkdtemp(pattern.data());
    authority_ = root_ + "/authority";
  }
  ~Pki() override { std::filesystem::remove_all(root_); }

  ExitCode pki(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), "pki");
    arguments.insert(arguments.end(), {"--authority", authority_});
    out_.str("");
    err_.str("");
    return run(std::move(arguments), out_, err_, {});
  }
  static mode_t mode_of(const std::string& path) {
    struct stat file {};
    return stat(path.c_str(), &file) == 0 ? file.st_mode & 07777U : 0;
  }
  static std::string text_of(const std::string& path) {
    std::ostringstream text;
    text << std::ifstream(path).rdbuf();
    return text.str();
  }
  TlsFiles files(const std::string& folder) const {
    return {folder + "/ca.pem", folder + "/certificate.pem", folder + "/key.pem", authority_ + "/crl"};
  }

  std::string root_;
  std::string authority_;
  std::ostringstream out_;
  std::ostringstream err_;
};

TEST_F(Pki, WhatIsIssuedFitsTogetherAndNobodyElseReadsTheKey) {
  ASSERT_EQ(pki({"init"}), ExitCode::kOk) << err_.str();
  const std::string folder = root_ + "/ar1";
  ASSERT_EQ(pki({"issue", "speaker/ar1", "--out", folder}), ExitCode::kOk) << err_.str();
  const auto certificate = check_tls_files(files(folder));
  ASSERT_TRUE(certificate.ok()) << certificate.status();
  EXPECT_EQ(certificate->identity, (Identity{Role::kSpeaker, "ar1"}));
  EXPECT_EQ(mode_of(folder), 0700U);
  EXPECT_EQ(mode_of(folder + "/key.pem"), 0600U);
  EXPECT_EQ(mode_of(authority_ + "/ca-key.pem"), 0600U);
}

TEST_F(Pki, NothingIsOverwrittenWithoutBeingTold) {
  ASSERT_EQ(pki({"init"}), ExitCode::kOk);
  const std::string folder = root_ + "/ar1";
  ASSERT_EQ(pki({"issue", "speaker/ar1", "--out", folder}), ExitCode::kOk);
  const auto ca = text_of(authority_ + "/ca.pem");
  const auto key = text_of(folder + "/key.pem");
  EXPECT_EQ(pki({"init"}), ExitCode::kFailed);
  EXPECT_THAT(err_.str(), HasSubstr("--force"));
  EXPECT_EQ(pki({"issue", "speaker/ar2", "--out", folder}), ExitCode::kFailed);
  EXPECT_THAT(err_.str(), HasSubstr("kedgectl pki renew"));
  EXPECT_EQ(text_of(authority_ + "/ca.pem"), ca);
  EXPECT_EQ(text_of(folder + "/key.pem"), key);
  EXPECT_EQ(pki({"issue", "speaker/ar2", "--out", folder, "--force"}), ExitCode::kOk);
  EXPECT_NE(text_of(folder + "/key.pem"), key);
}

TEST_F(Pki, ARenewedCertificateHasTheSameIdentityAndAnotherKey) {
  ASSERT_EQ(pki({"init"}), ExitCode::kOk);
  const std::string folder = root_ + "/lm";
  ASSERT_EQ(pki({"issue", "lm/lm1", "--out", folder, "--days", "1"}), ExitCode::kOk);
  const auto before = check_tls_files(files(folder));
  ASSERT_EQ(pki({"renew", folder, "--days", "30"}), ExitCode::kOk) << err_.str();
  const auto after = check_tls_files(files(folder));
  ASSERT_TRUE(before.ok() && after.ok()) << after.status();
  EXPECT_EQ(after->identity, before->identity);
  EXPECT_NE(after->fingerprint, before->fingerprint);
  EXPECT_GT(after->not_after, before->not_after);
}

TEST_F(Pki, RevocationIsListedAndGrowsOnly) {
  ASSERT_EQ(pki({"init"}), ExitCode::kOk);
  for (const std::string name : {"ar1", "ar2", "ar3"}) {
    ASSERT_EQ(pki({"issue", "speaker/" + name, "--out", root_ + "/" + name}), ExitCode::kOk);
  }
  EXPECT_THAT(*read_revoked_serials(authority_ + "/crl"), testing::IsEmpty());
  ASSERT_EQ(pki({"revoke", "speaker/ar1"}), ExitCode::kOk) << err_.str();
  ASSERT_EQ(pki({"revoke", "speaker/ar2"}), ExitCode::kOk) << err_.str();
  EXPECT_EQ(pki({"revoke", "speaker/ar2"}), ExitCode::kNotFound);
  EXPECT_EQ(pki({"revoke", "speaker/ar9"}), ExitCode::kNotFound);
  const auto serial = [&](const std::string& name) { return check_tls_files(files(root_ + "/" + name))->serial; };
  EXPECT_THAT(*read_revoked_serials(authority_ + "/crl"), testing::UnorderedElementsAre(serial("ar1"), serial("ar2")));
  ASSERT_EQ(pki({"show"}), ExitCode::kOk);
  EXPECT_THAT(out_.str(), HasSubstr("revoked"));
}

TEST_F(Pki, FilesThatDoNotFitTogetherAreNamed) {
  ASSERT_EQ(pki({"init"}), ExitCode::kOk);
  ASSERT_EQ(pki({"issue", "speaker/ar1", "--out", root_ + "/ar1"}), ExitCode::kOk);
  ASSERT_EQ(pki({"issue", "speaker/ar2", "--out", root_ + "/ar2"}), ExitCode::kOk);
  auto mixed = files(root_ + "/ar1");
  mixed.key = root_ + "/ar2/key.pem";
  EXPECT_THAT(std::string(check_tls_files(mixed).status().message()), HasSubstr("is not the key of"));

  const auto other = Authority::init(root_ + "/other", {});
  ASSERT_TRUE(other.ok());
  auto foreign = files(root_ + "/ar1");
  foreign.ca = root_ + "/other/ca.pem";
  EXPECT_THAT(std::string(check_tls_files(foreign).status().message()), HasSubstr("has signed it"));

  chmod((root_ + "/ar1/key.pem").c_str(), 0644);
  EXPECT_THAT(std::string(check_tls_files(files(root_ + "/ar1")).status().message()), HasSubstr("chmod 0600"));
  // An authority's own certificate has no identity.
  auto authority = files(root_ + "/ar2");
  authority.certificate = authority_ + "/ca.pem";
  EXPECT_THAT(std::string(check_tls_files(authority).status().message()), HasSubstr("kedge://<role>/<name>"));
}

TEST_F(Pki, MistakesOnTheCommandLineSayWhatIsExpected) {
  EXPECT_EQ(pki({"issue", "speaker/ar1"}), ExitCode::kNotFound);
  EXPECT_THAT(err_.str(), HasSubstr("kedgectl pki init"));
  ASSERT_EQ(pki({"init"}), ExitCode::kOk);
  EXPECT_EQ(pki({"issue", "root/x"}), ExitCode::kUsage);
  EXPECT_THAT(err_.str(), HasSubstr("lm, speaker, operator, viewer, mn or proxy"));
  EXPECT_EQ(pki({"issue", "speaker/a b"}), ExitCode::kUsage);
  EXPECT_EQ(pki({"issue", "speaker/ar1", "--days", "-3"}), ExitCode::kUsage);
  EXPECT_EQ(pki({"show", root_ + "/nowhere"}), ExitCode::kNotFound);
}

TEST_F(Pki, JsonIsValidForEachCommand) {
  for (const std::vector<std::string>& command :
       {std::vector<std::string>{"init"}, {"issue", "viewer/bob"}, {"show"}, {"revoke", "viewer/bob"}}) {
    auto arguments = command;
    arguments.insert(arguments.end(), {"-o", "json"});
    ASSERT_EQ(pki(arguments), ExitCode::kOk) << err_.str();
    EXPECT_EQ(out_.str().front(), '{');
    EXPECT_THAT(out_.str(), HasSubstr("not_after"));
  }
}

}  // namespace
}  // namespace kedge::kedgectl
