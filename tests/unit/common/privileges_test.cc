#include "common/privileges.h"

#include <linux/capability.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <set>
#include <string>

#include "gtest/gtest.h"

namespace kedge {
namespace {

TEST(Privileges, AreReadFromTheKernelsTextOfAProcess) {
  const auto read = parse_privileges(
      "Name:\tx\nUid:\t1\t8818\t2\t3\nGid:\t1\t8818\t2\t3\nGroups:\t4 107 "
      "\nCapPrm:\t000001ffffffffff\nCapEff:\t0000000000003000\n");
  ASSERT_TRUE(read.ok());
  EXPECT_EQ(read->user, 8818U);
  EXPECT_EQ(read->groups, (std::set<gid_t>{4, 107, 8818}));
  EXPECT_EQ(read->capabilities, 1U << CAP_NET_ADMIN | 1U << CAP_NET_RAW);
  EXPECT_FALSE(parse_privileges("").ok());
  EXPECT_FALSE(parse_privileges("Uid:\t1\t2\t3\t4\n").ok());
  EXPECT_EQ(privileges_of("self")->user, geteuid());
  EXPECT_EQ(privileges_of("0").status().code(), absl::StatusCode::kNotFound);
}

TEST(Privileges, MoreThanIsNeededIsNamed) {
  EXPECT_EQ(excess({8818, 1U << CAP_NET_ADMIN, {}}, {CAP_NET_ADMIN, CAP_NET_RAW}), "");
  EXPECT_EQ(excess({8818, 0, {}}, {}), "");
  EXPECT_EQ(excess({8818, 1U << CAP_NET_ADMIN | 1U << CAP_SYS_ADMIN, {}}, {CAP_NET_ADMIN}),
            "1 capabilities more than needed");
  EXPECT_EQ(excess({0, 0, {}}, {}), "user root");
  EXPECT_EQ(excess({0, 1, {}}, {}), "user root, 1 capabilities more than needed");
}

TEST(Privileges, ThoseThatAreGivenUpAreGone) {
  const auto before = privileges_of("self");
  ASSERT_TRUE(before.ok());
  ASSERT_TRUE(drop_capabilities({CAP_BPF, CAP_SYS_BOOT}).ok());
  EXPECT_EQ(privileges_of("self")->capabilities,
            before->capabilities & ~(std::uint64_t{1} << CAP_BPF | std::uint64_t{1} << CAP_SYS_BOOT));
}

TEST(Privileges, ProcessesAreFoundByTheirName) {
  EXPECT_TRUE(processes_named("no-such-program").empty());
  // This test's own name is longer than the 15 characters that the kernel keeps.
  const auto found = processes_named("common_values_test");
  EXPECT_NE(std::find(found.begin(), found.end(), std::to_string(getpid())), found.end());
}

}  // namespace
}  // namespace kedge
