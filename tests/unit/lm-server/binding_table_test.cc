#include "lm-server/core/binding_table.h"

#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace kedge::lm {
namespace {

using ::testing::ElementsAre;

Ipv6Prefix prefix(const std::string& text) { return Ipv6Prefix::parse(text).value(); }

Ipv6Prefix numbered(int number) { return prefix("2001:db8:" + std::to_string(number) + "::/64"); }

// At most four entries are objects.
class BindingTableTest : public ::testing::Test {
 protected:
  BindingEntry& add(const Ipv6Prefix& key, const std::string& mn_id) {
    auto [entry, fresh] = table_.try_emplace(key);
    EXPECT_TRUE(fresh);
    entry.binding.set_prefix(key.to_string());
    entry.binding.set_mn_id(mn_id);
    return entry;
  }
  // So that everything before is packed.
  void pack_all() {
    for (int i = 0; i < 8; ++i) {
      add(numbered(900 + i), "filler");
      table_.pack();
    }
  }

  BindingTable table_{4};
};

TEST_F(BindingTableTest, KeepsAllOfAnEntryThatIsPacked) {
  auto& entry = add(numbered(1), "02:00:00:00:00:11");
  auto& holder = *entry.binding.add_holders();
  holder.set_ar("ar1");
  holder.set_delivers(true);
  entry.progress["ar1"].seen.emplace(v1::STAGE_DELIVERING, "");
  entry.progress["ar1"].seen.emplace(v1::STAGE_ADVERTISED, "level 2");
  entry.progress["ar1"].advertised = 2;
  entry.progress["ar2"].releasable_since = SystemTime(std::chrono::nanoseconds(1'700'000'000'123'456'789));
  entry.grace_ends = SystemTime(std::chrono::nanoseconds(1'700'000'001'000'000'001));
  entry.idle = IdleTime{*entry.grace_ends, *entry.grace_ends, "ar2", true};
  entry.moved_from = "ar3";
  const auto idle = entry.idle;
  const auto bytes = entry.binding.SerializeAsString();
  const auto progress = entry.progress;
  const auto grace_ends = entry.grace_ends;
  pack_all();

  const auto& again = table_.at(numbered(1));
  EXPECT_EQ(again.binding.SerializeAsString(), bytes);
  EXPECT_EQ(again.progress, progress);
  EXPECT_EQ(again.grace_ends, grace_ends);
  EXPECT_EQ(again.timer, std::nullopt);
  EXPECT_EQ(again.idle, idle);
  EXPECT_EQ(again.moved_from, "ar3");
}

TEST_F(BindingTableTest, TakesARecordAsTheStoreHasIt) {
  v1::Binding binding;
  binding.set_mn_id("02:00:00:00:00:11");
  // Longer than what one byte counts.
  for (int i = 0; i < 100; ++i) binding.add_holders()->set_ar("ar" + std::to_string(i));
  const SystemTime grace_ends{std::chrono::nanoseconds(1'700'000'001'000'000'001)};
  const SystemTime timer{std::chrono::nanoseconds(1'700'000'002'000'000'002)};
  table_.add(numbered(1), BindingTable::pack_binding(binding.SerializeAsString()), grace_ends, timer);
  table_.add(numbered(2), BindingTable::pack_binding(binding.SerializeAsString()));

  for (int i : {1, 2}) {
    EXPECT_EQ(table_.copy(numbered(i)).SerializeAsString(), binding.SerializeAsString());
    const auto& entry = table_.at(numbered(i));
    EXPECT_EQ(entry.binding.SerializeAsString(), binding.SerializeAsString());
    EXPECT_EQ(entry.grace_ends, i == 1 ? std::optional(grace_ends) : std::nullopt);
    EXPECT_EQ(entry.timer, i == 1 ? std::optional(timer) : std::nullopt);
  }
}

TEST_F(BindingTableTest, KeepsChangesOfAnEntryThatWasPackedBefore) {
  add(numbered(1), "a");
  pack_all();
  table_.at(numbered(1)).binding.set_mn_id("b");
  for (int i = 0; i < 8; ++i) table_.at(numbered(900 + i));
  table_.pack();
  EXPECT_EQ(table_.copy(numbered(1)).mn_id(), "b");
  EXPECT_EQ(table_.at(numbered(1)).binding.mn_id(), "b");
}

TEST_F(BindingTableTest, KeepsReferencesUntilItPacks) {
  auto& first = add(numbered(1), "a");
  for (int i = 2; i < 100; ++i) add(numbered(i), "x");
  first.binding.set_mn_id("b");
  EXPECT_EQ(&table_.at(numbered(1)), &first);
  EXPECT_EQ(table_.copy(numbered(1)).mn_id(), "b");
}

TEST_F(BindingTableTest, DoesNotPackWhatWasErasedAndHasComeBack) {
  add(numbered(1), "a");
  table_.erase(numbered(1));
  EXPECT_EQ(table_.find(numbered(1)), nullptr);
  add(numbered(1), "b");
  pack_all();
  EXPECT_EQ(table_.at(numbered(1)).binding.mn_id(), "b");
  EXPECT_EQ(table_.size(), 9U);
}

TEST_F(BindingTableTest, FindsWhatCoversAPrefixPackedOrNot) {
  add(prefix("2001:db8:1::/56"), "network");
  pack_all();
  ASSERT_NE(table_.find_covering(prefix("2001:db8:1:a::/64")), nullptr);
  EXPECT_EQ(table_.find_covering(prefix("2001:db8:1:a::/64"))->binding.mn_id(), "network");
  EXPECT_EQ(table_.find_covering(prefix("2001:db8:2::/64")), nullptr);
}

TEST_F(BindingTableTest, VisitsInOrderPackedOrNot) {
  for (int i = 5; i > 0; --i) add(numbered(i), std::to_string(i));
  table_.pack();
  std::vector<std::string> seen;
  table_.visit(numbered(1), [&](const Ipv6Prefix&, const v1::Binding& binding) {
    seen.push_back(binding.mn_id());
    return seen.size() < 3;
  });
  EXPECT_THAT(seen, ElementsAre("2", "3", "4"));
  seen.clear();
  table_.visit_overlapping(prefix("2001:db8::/46"), [&](const Ipv6Prefix& key, const v1::Binding&) {
    seen.push_back(key.to_string());
    return true;
  });
  EXPECT_THAT(seen, ElementsAre("2001:db8:1::/64", "2001:db8:2::/64", "2001:db8:3::/64"));
}

}  // namespace
}  // namespace kedge::lm
