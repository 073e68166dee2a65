#include "lm-server/service/audit.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace kedge::lm {
namespace {

using std::chrono::seconds;
const SystemTime kNow{seconds(1'000'000)};
const Request kAlice{"kedge://operator/alice", "ab12", "[::1]:1", "kedge.v1.Admin.SetPolicy", "scope"};

v1::AuditRecord parsed(const std::optional<std::string>& entry) {
  v1::AuditRecord record;
  EXPECT_TRUE(entry && record.ParseFromString(*entry));
  return record;
}

TEST(AuditTrail, ARecordSaysWhoWhatBeforeAndAfter) {
  AuditTrail trail;
  Output output;
  output.commit.emplace();
  output.commit->revision = 7;
  output.epoch = 3;
  output.changes.push_back({"policy/=", "", "mode: MODE_REDIRECT"});
  const auto record = parsed(trail.entry_for(kAlice, output, kNow));
  EXPECT_EQ(record.who(), kAlice.who);
  EXPECT_EQ(record.serial(), "ab12");
  EXPECT_EQ(record.outcome(), "ok");
  EXPECT_EQ(record.revision().epoch(), 3U);
  EXPECT_EQ(record.revision().revision(), 7U);
  EXPECT_EQ(from_proto(record.at()), kNow);
  ASSERT_EQ(record.changes_size(), 1);
  EXPECT_EQ(record.changes(0).after(), "mode: MODE_REDIRECT");
}

TEST(AuditTrail, WhatChangesNothingIsNotRecordedUnlessItWasRefused) {
  AuditTrail trail;
  Output output;
  EXPECT_FALSE(trail.entry_for(kAlice, output, kNow));
  output.status = absl::NotFoundError("no such thing");
  EXPECT_EQ(parsed(trail.entry_for(kAlice, output, kNow)).outcome(), "NOT_FOUND: no such thing");
  // Acknowledgements and sessions.
  EXPECT_FALSE(trail.entry_for({}, output, kNow));
}

TEST(AuditTrail, AFloodOfRefusalsIsCountedAndChangesAreRecordedAllTheSame) {
  AuditTrail trail;
  int recorded = 0;
  for (int i = 0; i < 1'000; ++i) recorded += trail.entry_for_denial(kAlice, "role", kNow).has_value() ? 1 : 0;
  EXPECT_EQ(recorded, AuditTrail::kRefusalsPerSecond);
  Output output;
  output.commit.emplace();
  output.changes.push_back({"drain/ar1", "in service", "draining"});
  EXPECT_EQ(parsed(trail.entry_for(kAlice, output, kNow)).suppressed(), 1'000U - AuditTrail::kRefusalsPerSecond);
  EXPECT_EQ(parsed(trail.entry_for_denial(kAlice, "role", kNow + seconds(1))).suppressed(), 0U);
}

}  // namespace
}  // namespace kedge::lm
