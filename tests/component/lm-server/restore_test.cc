// A store made from a backup, on real RocksDB and a real file system.
#include "lm-server/store/restore.h"

#include <chrono>
#include <filesystem>
#include <fstream>
#include <future>
#include <map>
#include <sstream>
#include <string>
#include <vector>

#include "common/backup.h"
#include "gmock/gmock.h"
#include "google/protobuf/util/delimited_message_util.h"
#include "gtest/gtest.h"
#include "lm-server/core/machine.h"
#include "lm-server/store/rocksdb_store.h"
#include "tests/component/lm-server/temporary_folder.h"

namespace kedge::lm {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::IsEmpty;

const std::map<std::string, std::string> kValues = {
    {"binding/a", "1"}, {"binding/b", std::string("\0\xff", 2)}, {"c", "3"}};
constexpr std::uint64_t kEpoch = 3;
constexpr std::uint64_t kRevision = 41;

void add(std::string& out, const v1::BackupRecord& record) {
  std::ostringstream text;
  google::protobuf::util::SerializeDelimitedToOstream(record, &text);
  out += text.str();
}

std::string header() {
  std::string out;
  v1::BackupRecord record;
  record.mutable_header()->set_format(kBackupFormat);
  record.mutable_header()->mutable_revision()->set_epoch(kEpoch);
  record.mutable_header()->mutable_revision()->set_revision(kRevision);
  add(out, record);
  return out;
}

std::string backup(bool with_end = true) {
  std::string out = header();
  BackupChecksum checksum;
  v1::BackupRecord record;
  for (const auto& [key, value] : kValues) {
    record.mutable_entry()->set_key(key);
    record.mutable_entry()->set_value(value);
    checksum.add(record.entry());
    add(out, record);
  }
  if (!with_end) return out;
  record.mutable_end()->set_entries(kValues.size());
  record.mutable_end()->set_checksum(checksum.value());
  add(out, record);
  return out;
}

class RestoreTest : public testing::Test {
 protected:
  void write(const std::string& content) { std::ofstream(file_, std::ios::binary) << content; }
  absl::StatusOr<Restored> restore(bool force = false) { return restore_store(file_, directory_, force, now_); }
  StoreSnapshot read(const std::string& directory) {
    auto store = RocksDbStore::open(directory);
    EXPECT_TRUE(store.ok()) << store.status();
    return *(*store)->read();
  }
  // A store with one value, as it stands before a restore.
  void have_a_store() {
    auto store = *RocksDbStore::open(directory_);
    std::promise<absl::Status> done;
    const auto last = store->read()->revision;
    store->commit({last, last + 1, Durability::kSync, {{"old", "1"}}}, [&](absl::Status s) { done.set_value(s); });
    ASSERT_TRUE(done.get_future().get().ok());
  }
  std::vector<std::string> names() {
    std::vector<std::string> result;
    for (const auto& entry : std::filesystem::directory_iterator(folder_.path())) {
      result.push_back(entry.path().filename().string());
    }
    return result;
  }

  TemporaryFolder folder_;
  std::string file_ = folder_.path() + "/backup";
  std::string directory_ = folder_.path() + "/data";
  SystemTime now_ = SystemTime(std::chrono::seconds(1'800'000'000));
};

TEST(BackupChecksumTest, IsTheOneOfRfc3720) {
  BackupChecksum checksum;
  v1::BackupEntry entry;
  entry.set_key("12345");
  entry.set_value("6789");
  checksum.add(entry);
  EXPECT_EQ(checksum.value(), 0xE3069283U);
}

TEST_F(RestoreTest, MakesTheStoreAnewInALaterEpoch) {
  write(backup());
  const auto restored = restore();
  ASSERT_TRUE(restored.ok()) << restored.status();
  EXPECT_EQ(restored->entries, kValues.size());
  EXPECT_EQ(restored->epoch, 1'800'000'000U);
  EXPECT_THAT(restored->moved_to, IsEmpty());
  auto snapshot = read(directory_);
  EXPECT_EQ(snapshot.epoch, 1'800'000'000U);
  EXPECT_GT(snapshot.revision, kRevision);
  v1::BackupHeader from;
  ASSERT_TRUE(from.ParseFromString(snapshot.values.at(Machine::kRestoredFromKey)));
  EXPECT_EQ(from.revision().revision(), kRevision);
  snapshot.values.erase(Machine::kRestoredFromKey);
  EXPECT_EQ(snapshot.values, kValues);
  EXPECT_THAT(names(), testing::UnorderedElementsAre("backup", "data"));
}

TEST_F(RestoreTest, TheFeedBeginsAtTheBackup) {
  write(backup());
  ASSERT_TRUE(restore().ok());
  const auto store = *RocksDbStore::open(directory_);
  EXPECT_EQ(store->watch(kRevision, [](const Change&) {}).status().code(), absl::StatusCode::kOutOfRange);
  EXPECT_TRUE(store->watch(kRevision + 1, [](const Change&) {}).ok());
}

TEST_F(RestoreTest, NoTwoRestoresShareAnEpoch) {
  write(backup());
  now_ = {};  // A machine without a clock.
  ASSERT_TRUE(restore().ok());
  EXPECT_EQ(read(directory_).epoch, kEpoch + 1);
  ASSERT_TRUE(restore(true).ok());
  EXPECT_EQ(read(directory_).epoch, kEpoch + 2);
}

TEST_F(RestoreTest, AStoreThatIsThereIsMovedAsideIfThatIsAskedForAndNeverDeleted) {
  have_a_store();
  write(backup());
  const auto refused = restore();
  EXPECT_EQ(refused.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(refused.status().message()), AllOf(HasSubstr(directory_), HasSubstr("--force")));
  EXPECT_EQ(read(directory_).values.at("old"), "1");
  for (int i = 0; i < 2; ++i) {
    const auto restored = restore(true);
    ASSERT_TRUE(restored.ok()) << restored.status();
    EXPECT_THAT(restored->moved_to, HasSubstr("data.before-restore-20270115T080000Z"));
    const auto opened = RocksDbStore::open(restored->moved_to).status();
    EXPECT_EQ(opened.code(), absl::StatusCode::kFailedPrecondition) << "access routers would believe it";
    EXPECT_THAT(std::string(opened.message()), HasSubstr(restored->moved_to + "/SUPERSEDED"));
    std::filesystem::remove(restored->moved_to + "/SUPERSEDED");
    EXPECT_TRUE(read(restored->moved_to).values.contains(i == 0 ? "old" : "c"));
  }
  EXPECT_FALSE(read(directory_).values.contains("old"));
}

TEST_F(RestoreTest, AnEmptyFolderIsTakenAndAFileOrOtherFilesAreNot) {
  write(backup());
  std::filesystem::create_directory(directory_);
  std::filesystem::permissions(directory_, std::filesystem::perms(0750));
  ASSERT_TRUE(restore().ok());
  EXPECT_EQ(std::filesystem::status(directory_).permissions(), std::filesystem::perms(0750));
  directory_ += "2";
  std::filesystem::create_directory(directory_);
  std::ofstream(directory_ + "/diary") << "x";
  EXPECT_EQ(restore().status().code(), absl::StatusCode::kFailedPrecondition);
  directory_ += "/diary";
  EXPECT_THAT(std::string(restore(true).status().message()), HasSubstr("is no folder"));
}

TEST_F(RestoreTest, AStoreInUseIsLeftAlone) {
  write(backup());
  const auto store = *RocksDbStore::open(directory_);
  const auto status = restore(true).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()), HasSubstr("stop the kedge-lm"));
  EXPECT_THAT(names(), testing::UnorderedElementsAre("backup", "data"));
}

TEST_F(RestoreTest, ADamagedStoreDoesNotHinder) {
  have_a_store();
  std::ofstream(directory_ + "/CURRENT") << "rubbish\n";
  write(backup());
  const auto restored = restore(true);
  ASSERT_TRUE(restored.ok()) << restored.status();
  EXPECT_EQ(read(directory_).values.at("binding/a"), "1");
}

TEST_F(RestoreTest, WhatIsCutOffAnywhereIsRefusedAndTouchesNothing) {
  have_a_store();
  const auto whole = backup();
  for (std::size_t size = 0; size < whole.size(); ++size) {
    write(whole.substr(0, size));
    const auto status = restore(true).status();
    ASSERT_FALSE(status.ok()) << size;
    EXPECT_THAT(std::string(status.message()), AllOf(HasSubstr(file_), HasSubstr("use another backup")));
  }
  EXPECT_EQ(read(directory_).values.at("old"), "1");
  EXPECT_THAT(names(), testing::UnorderedElementsAre("backup", "data"));
}

TEST_F(RestoreTest, AChangedByteAnywhereInTheEntriesIsNoticed) {
  const auto whole = backup();
  for (std::size_t at = header().size(); at < backup(false).size(); ++at) {
    auto changed = whole;
    changed[at] = static_cast<char>(changed[at] ^ 0x10);
    write(changed);
    EXPECT_FALSE(restore().ok()) << "byte " << at;
    EXPECT_THAT(names(), testing::ElementsAre("backup"));
  }
}

TEST_F(RestoreTest, ForeignFilesAreNamed) {
  const auto message = [&](const std::string& content) {
    write(content);
    return std::string(restore().status().message());
  };
  EXPECT_THAT(message(""), HasSubstr("no backup of kedge-lm"));
  EXPECT_THAT(message("listen: '[::1]:8818'\n"), HasSubstr("no backup of kedge-lm"));
  EXPECT_THAT(message(std::string(100'000, '\xff')), HasSubstr("no backup of kedge-lm"));
  EXPECT_THAT(message(backup() + backup()), HasSubstr("something follows the end"));
  v1::BackupRecord later;
  later.mutable_header()->set_format(2);
  later.mutable_header()->mutable_revision()->set_epoch(1);
  later.mutable_header()->set_version("9.0");
  std::string text;
  add(text, later);
  EXPECT_THAT(message(text), AllOf(HasSubstr("format 2"), HasSubstr("9.0")));
  std::filesystem::remove(file_);
  EXPECT_EQ(restore().status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(names(), IsEmpty());
}

}  // namespace
}  // namespace kedge::lm
