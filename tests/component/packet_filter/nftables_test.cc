#include "speaker/packet_filter/nftables.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/component/kernel/namespaces.h"

namespace kedge::speaker {
namespace {

using ::testing::HasSubstr;
using testing::Namespace;
using ::testing::Not;

class NftablesTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!testing::can_make_namespaces()) GTEST_SKIP() << "needs root: makes network namespaces";
    space_ = std::make_unique<Namespace>("nftables");
  }

  std::unique_ptr<Namespace> space_;
};

TEST_F(NftablesTest, RunsAllCommandsOrNone) {
  space_->run([] {
    Nftables nftables;
    EXPECT_TRUE(nftables.run("add table inet a\nadd set inet a s { type ipv6_addr ; }").ok());
    const auto status = nftables.run("add table inet b\nadd element inet nowhere s { ::1 }");
    EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
    EXPECT_THAT(std::string(status.message()), Not(HasSubstr("\n")));
    EXPECT_EQ(nftables.list("list table inet b").status().code(), absl::StatusCode::kNotFound);
    EXPECT_TRUE(nftables.run("add element inet a s { 2001:db8::1 }").ok());
    EXPECT_THAT(nftables.list("list set inet a s").value(), HasSubstr("\"elem\": [\"2001:db8::1\"]"));
  });
}

TEST_F(NftablesTest, TellsWhatItCouldNotRead) {
  space_->run([] {
    Nftables nftables;
    const auto status = nftables.run("add tabel inet a");
    EXPECT_EQ(status.code(), absl::StatusCode::kInternal);
    EXPECT_THAT(std::string(status.message()), HasSubstr("syntax error"));
    // The error of one call is not that of the next.
    EXPECT_TRUE(nftables.run("add table inet a").ok());
  });
}

}  // namespace
}  // namespace kedge::speaker
