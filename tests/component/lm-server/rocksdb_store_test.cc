// The embedded store over real RocksDB.
#include "lm-server/store/rocksdb_store.h"

#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <future>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/component/lm-server/temporary_folder.h"

namespace kedge::lm {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Pair;

class RocksDbStoreTest : public testing::Test {
 protected:
  void open(const RocksDbStoreOptions& options = {}) {
    store_.reset();
    auto store = RocksDbStore::open(directory_, options);
    ASSERT_TRUE(store.ok()) << store.status();
    store_ = std::move(*store);
    last_ = store_->read()->revision;
  }
  std::future<absl::Status> begin(std::vector<Write> writes, Durability durability = Durability::kSync) {
    auto promise = std::make_shared<std::promise<absl::Status>>();
    auto future = promise->get_future();
    const std::uint64_t previous = last_++;
    store_->commit({previous, last_, durability, std::move(writes)},
                   [promise](absl::Status status) { promise->set_value(std::move(status)); });
    return future;
  }
  absl::Status put(const std::string& key, const std::string& value) { return begin({{key, value}}).get(); }

  TemporaryFolder folder_;
  std::string directory_ = folder_.path() + "/data";
  std::unique_ptr<RocksDbStore> store_;
  std::uint64_t last_ = 0;
};

TEST_F(RocksDbStoreTest, KeepsValuesAndNeverGoesBackInRevisions) {
  open();
  EXPECT_EQ(store_->read()->revision, 0U);
  EXPECT_EQ(store_->read()->epoch, 1U);
  ASSERT_TRUE(begin({{"a", "1"}, {"b", "2"}}).get().ok());
  ASSERT_TRUE(begin({{"a", std::nullopt}, {"c", ""}}).get().ok());
  const auto before = *store_->read();
  EXPECT_EQ(before.revision, 2U);
  open();
  const auto after = *store_->read();
  EXPECT_THAT(after.values, ElementsAre(Pair("b", "2"), Pair("c", "")));
  EXPECT_GT(after.revision, before.revision);
  EXPECT_EQ(after.epoch, before.epoch);
  EXPECT_TRUE(put("d", "3").ok());
}

TEST_F(RocksDbStoreTest, LazyCommitsSurviveAReopeningToo) {
  open();
  ASSERT_TRUE(begin({{"a", "1"}}, Durability::kLazy).get().ok());
  EXPECT_EQ(store_->syncs(), 0U);
  open();
  EXPECT_THAT(store_->read()->values, ElementsAre(Pair("a", "1")));
}

TEST_F(RocksDbStoreTest, CommitsThatWaitTogetherShareOneSync) {
  open();
  std::vector<std::future<absl::Status>> answers;
  {
    const auto held = store_->hold_writer();
    for (int i = 0; i < 100; ++i) {
      answers.push_back(begin({{"k" + std::to_string(i), "v"}}, i % 2 == 0 ? Durability::kSync : Durability::kLazy));
    }
  }
  for (auto& answer : answers) EXPECT_TRUE(answer.get().ok());
  EXPECT_EQ(store_->commits(), 100U);
  EXPECT_EQ(store_->batches(), 1U);
  EXPECT_EQ(store_->syncs(), 1U);
  EXPECT_EQ(store_->read()->values.size(), 100U);
}

TEST_F(RocksDbStoreTest, TheJournalGoesWithItsCommitAndKeepsItsIdsOverRestarts) {
  open({.kept_journal = 1'000});
  const auto commit = [this](std::uint64_t previous, std::uint64_t revision, std::vector<Write> writes,
                             std::vector<std::string> journal) {
    std::promise<absl::Status> answer;
    store_->commit({previous, revision, Durability::kSync, std::move(writes), std::move(journal)},
                   [&](absl::Status status) { answer.set_value(std::move(status)); });
    return answer.get_future().get();
  };
  const auto journal = [this](std::uint64_t after) {
    std::vector<std::pair<std::uint64_t, std::string>> entries;
    const auto cursor = store_->journal(after);
    std::uint64_t id = 0;
    std::string entry;
    while (*cursor->next(&id, &entry)) entries.emplace_back(id, entry);
    return entries;
  };
  ASSERT_TRUE(commit(0, 1, {{"a", "1"}}, {"one"}).ok());
  // Of a commit that fails, nothing is kept.
  EXPECT_TRUE(absl::IsAborted(commit(7, 8, {{"a", "2"}}, {"never"})));
  // Alone, and without an answer that anybody waits for.
  store_->commit({0, 0, Durability::kLazy, {}, {"two", "three"}}, nullptr);
  ASSERT_TRUE(commit(1, 2, {{"b", "2"}}, {"four"}).ok());
  EXPECT_THAT(journal(0), ElementsAre(Pair(1, "one"), Pair(2, "two"), Pair(3, "three"), Pair(4, "four")));
  EXPECT_THAT(journal(3), ElementsAre(Pair(4, "four")));
  EXPECT_THAT(store_->read()->values, ElementsAre(Pair("a", "1"), Pair("b", "2")));
  EXPECT_EQ(store_->read()->revision, 2U);
  open();
  ASSERT_TRUE(commit(last_, last_ + 1, {}, {"five"}).ok());
  EXPECT_THAT(journal(4), ElementsAre(Pair(5, "five")));
}

TEST_F(RocksDbStoreTest, TheJournalForgetsTheOldest) {
  open({.kept_journal = 100});
  std::promise<absl::Status> answer;
  for (int i = 1; i <= 300; ++i) store_->commit({0, 0, Durability::kLazy, {}, {std::to_string(i)}}, nullptr);
  store_->commit({0, 0, Durability::kSync, {}, {"301"}}, [&](absl::Status s) { answer.set_value(std::move(s)); });
  ASSERT_TRUE(answer.get_future().get().ok());
  const auto cursor = store_->journal(0);
  std::uint64_t first = 0;
  std::uint64_t id = 0;
  std::string entry;
  std::size_t kept = 0;
  for (; *cursor->next(&id, &entry); ++kept) {
    if (first == 0) first = id;
    EXPECT_EQ(entry, std::to_string(id));
  }
  EXPECT_EQ(id, 301U);
  EXPECT_GE(kept, 100U);
  EXPECT_LE(kept, 114U);
  EXPECT_EQ(first, 302 - kept);
}

TEST_F(RocksDbStoreTest, AnswersInTheOrderOfTheCalls) {
  open();
  std::vector<int> order;
  std::promise<void> done;
  for (int i = 0; i < 200; ++i) {
    const std::uint64_t previous = last_++;
    store_->commit({previous, last_, i % 7 == 0 ? Durability::kSync : Durability::kLazy, {{"k", std::to_string(i)}}},
                   [&, i](const absl::Status& status) {
                     EXPECT_TRUE(status.ok());
                     order.push_back(i);
                     if (i == 199) done.set_value();
                   });
  }
  done.get_future().wait();
  EXPECT_TRUE(std::is_sorted(order.begin(), order.end()));
  EXPECT_EQ(order.size(), 200U);
  EXPECT_THAT(store_->read()->values, ElementsAre(Pair("k", "199")));
}

TEST_F(RocksDbStoreTest, ACommitOnAnotherRevisionIsRefusedAsAWhole) {
  open();
  ASSERT_TRUE(put("a", "1").ok());
  last_ = 7;
  EXPECT_EQ(begin({{"a", "2"}, {"b", "2"}}).get().code(), absl::StatusCode::kAborted);
  EXPECT_THAT(store_->read()->values, ElementsAre(Pair("a", "1")));
  EXPECT_EQ(store_->read()->revision, 1U);
  last_ = 1;
  EXPECT_TRUE(put("a", "3").ok());
}

TEST_F(RocksDbStoreTest, TheFeedShowsThePastAndThenThePresent) {
  open();
  ASSERT_TRUE(put("a", "1").ok());
  ASSERT_TRUE(begin({{"a", std::nullopt}, {"b", "2"}}).get().ok());
  std::vector<Change> seen;
  const auto id = store_->watch(2, [&](const Change& change) { seen.push_back(change); });
  ASSERT_TRUE(id.ok());
  ASSERT_TRUE(put("c", "3").ok());
  store_->unwatch(*id);
  ASSERT_TRUE(put("d", "4").ok());
  EXPECT_THAT(seen, ElementsAre(Change{2, {{"a", std::nullopt}, {"b", "2"}}}, Change{3, {{"c", "3"}}}));
}

TEST_F(RocksDbStoreTest, TheFeedOutlivesAReopening) {
  open();
  ASSERT_TRUE(put("a", "1").ok());
  open();
  ASSERT_TRUE(put("b", "2").ok());
  std::vector<std::uint64_t> seen;
  ASSERT_TRUE(store_->watch(1, [&](const Change& change) { seen.push_back(change.revision); }).ok());
  EXPECT_THAT(seen, ElementsAre(1, last_));
}

TEST_F(RocksDbStoreTest, CompactionForcesAResync) {
  open();
  for (int i = 0; i < 5; ++i) ASSERT_TRUE(put("k", std::to_string(i)).ok());
  ASSERT_TRUE(store_->compact(3).ok());
  EXPECT_EQ(store_->watch(3, [](const Change&) {}).status().code(), absl::StatusCode::kOutOfRange);
  EXPECT_TRUE(store_->watch(4, [](const Change&) {}).ok());
  EXPECT_EQ(store_->compact(6).code(), absl::StatusCode::kOutOfRange);
  EXPECT_THAT(store_->read()->values, ElementsAre(Pair("k", "4")));
  open();
  EXPECT_EQ(store_->watch(3, [](const Change&) {}).status().code(), absl::StatusCode::kOutOfRange);
}

TEST_F(RocksDbStoreTest, OldChangesAreCompactedByTheWay) {
  open({.kept_changes = 10, .least_free_bytes = 0});
  for (int i = 0; i < 50; ++i) ASSERT_TRUE(put("k", std::to_string(i)).ok());
  EXPECT_EQ(store_->watch(1, [](const Change&) {}).status().code(), absl::StatusCode::kOutOfRange);
  int seen = 0;
  ASSERT_TRUE(store_->watch(last_ - 5, [&](const Change&) { ++seen; }).ok());
  EXPECT_EQ(seen, 6);
}

TEST_F(RocksDbStoreTest, ClosingAnswersWhatWaits) {
  open();
  std::vector<std::future<absl::Status>> answers;
  for (int i = 0; i < 50; ++i) answers.push_back(begin({{std::to_string(i), "v"}}));
  store_.reset();
  for (auto& answer : answers) EXPECT_TRUE(answer.get().ok());
  open();
  EXPECT_EQ(store_->read()->values.size(), 50U);
}

TEST_F(RocksDbStoreTest, ASecondServerIsToldThatTheFolderIsInUse) {
  open();
  const auto second = RocksDbStore::open(directory_);
  EXPECT_EQ(second.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(second.status().message()), AllOf(HasSubstr(directory_), HasSubstr("another kedge-lm")));
}

TEST_F(RocksDbStoreTest, AMissingParentIsNamed) {
  const auto store = RocksDbStore::open(folder_.path() + "/a/b");
  EXPECT_EQ(store.status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(store.status().message()), HasSubstr(folder_.path() + "/a"));
}

TEST_F(RocksDbStoreTest, AFileInTheWayIsNamed) {
  std::ofstream(directory_) << "x";
  EXPECT_THAT(std::string(RocksDbStore::open(directory_).status().message()), HasSubstr("is no folder"));
}

TEST_F(RocksDbStoreTest, DamageIsReportedWithWhatToDo) {
  open();
  ASSERT_TRUE(put("a", "1").ok());
  store_.reset();
  std::ofstream(directory_ + "/CURRENT") << "rubbish\n";
  const auto status = RocksDbStore::open(directory_).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("restore a backup"));
}

TEST_F(RocksDbStoreTest, AFullDiskIsReportedBeforeAnythingIsWritten) {
  const auto status =
      RocksDbStore::open(directory_, {.kept_changes = 10, .least_free_bytes = std::uint64_t{1} << 60U}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(status.message()), AllOf(HasSubstr(directory_), HasSubstr("make room")));
}

TEST_F(RocksDbStoreTest, AnUnwritableFolderIsReported) {
  if (::geteuid() == 0) GTEST_SKIP() << "root may write everywhere";
  std::filesystem::permissions(folder_.path(), std::filesystem::perms::owner_read | std::filesystem::perms::owner_exec);
  EXPECT_EQ(RocksDbStore::open(directory_).status().code(), absl::StatusCode::kPermissionDenied);
  std::filesystem::permissions(folder_.path(), std::filesystem::perms::owner_all);
}

}  // namespace
}  // namespace kedge::lm
