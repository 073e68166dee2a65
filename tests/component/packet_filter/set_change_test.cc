// Transactions with the kernel's packet filter, as the kernel answers to them.
#include "speaker/packet_filter/set_change.h"

#include <linux/netfilter/nfnetlink.h>

#include <optional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "speaker/packet_filter/nftables_state.h"
#include "tests/component/packet_filter/access_link_test.h"

namespace kedge::speaker::testing {
namespace {

using ::testing::HasSubstr;

constexpr char kTable[] = "kedge_test";

class SetChangeTest : public AccessLinkTest {
 protected:
  void SetUp() override {
    AccessLinkTest::SetUp();
    if (IsSkipped()) return;
    ar_->shell("nft add table inet kedge_test");
    for (const char* set : {"one", "two"}) {
      ar_->shell(absl::StrCat("nft 'add set inet kedge_test ", set, " { type ipv6_addr; }'"));
    }
    ar_->run([&] { socket_.emplace(*NetlinkSocket::open(NETLINK_NETFILTER)); });
  }

  static std::vector<std::uint8_t> key(int number) {
    std::vector<std::uint8_t> bytes(16, 0);
    bytes[0] = 0x20;
    bytes[14] = static_cast<std::uint8_t>(number >> 8);
    bytes[15] = static_cast<std::uint8_t>(number & 0xFF);
    return bytes;
  }

  absl::Status commit(SetChange change) {
    return ar_->run([&] { return change.commit(*socket_); });
  }

  std::size_t size_of(const std::string& set) {
    return ar_->run([&] {
      const auto elements = read_set(*socket_, kTable, set);
      EXPECT_TRUE(elements.ok()) << elements.status();
      return elements.ok() ? elements->size() : 0;
    });
  }

  std::optional<NetlinkSocket> socket_;
};

TEST_F(SetChangeTest, ChangesSeveralSetsAtOnce) {
  SetChange change(kTable);
  change.add("one", key(1));
  change.add("one", key(2));
  change.add("two", key(1), std::string(127, 'x'));
  change.remove("one", key(2));
  EXPECT_TRUE(commit(std::move(change)).ok());
  EXPECT_EQ(size_of("one"), 1U);
  EXPECT_EQ(size_of("two"), 1U);
  EXPECT_THAT(ar_->shell("nft list set inet kedge_test two"), HasSubstr(std::string(127, 'x')));
}

TEST_F(SetChangeTest, WhatIsThereAlreadyStays) {
  for (int round = 0; round < 2; ++round) {
    SetChange change(kTable);
    change.add("one", key(1));
    EXPECT_TRUE(commit(std::move(change)).ok());
  }
  EXPECT_EQ(size_of("one"), 1U);
}

TEST_F(SetChangeTest, NothingIsDoneWhenOneCannotBe) {
  // The first, one in the middle, the last.
  for (const int wrong : {0, 5, 9}) {
    SetChange change(kTable);
    for (int i = 0; i < 10; ++i) {
      if (i == wrong) {
        change.remove("one", key(99));
      } else {
        change.add("one", key(i));
      }
    }
    EXPECT_EQ(commit(std::move(change)).code(), absl::StatusCode::kNotFound) << wrong;
    EXPECT_EQ(size_of("one"), 0U) << wrong;
  }
}

TEST_F(SetChangeTest, TellsThatATableIsNotThere) {
  SetChange change("another");
  change.add("one", key(1));
  const auto status = commit(std::move(change));
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(status.message(), HasSubstr("another"));
}

TEST_F(SetChangeTest, GoesOnAfterThousandsOfErrors) {
  SetChange wrong("another");
  for (int i = 0; i < 40'000; ++i) wrong.add("one", key(i));
  EXPECT_FALSE(commit(std::move(wrong)).ok());
  // What was not read of the answers is in nobody's way.
  SetChange right(kTable);
  right.add("one", key(1));
  EXPECT_TRUE(commit(std::move(right)).ok());
  EXPECT_EQ(size_of("one"), 1U);
}

TEST_F(SetChangeTest, TakesTensOfThousandsAtOnce) {
  SetChange change(kTable);
  for (int i = 0; i < 60'000; ++i) change.add("one", key(i), "a comment that makes it longer than it has to be");
  EXPECT_TRUE(commit(std::move(change)).ok());
  EXPECT_EQ(size_of("one"), 60'000U);
}

TEST_F(SetChangeTest, NothingToDoIsDone) { EXPECT_TRUE(commit(SetChange(kTable)).ok()); }

}  // namespace
}  // namespace kedge::speaker::testing
