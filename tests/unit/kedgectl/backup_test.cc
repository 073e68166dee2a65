// `kedgectl backup` against a server that does all that can go wrong.
#include "kedgectl/backup.h"

#include <chrono>
#include <condition_variable>
#include <filesystem>
#include <fstream>
#include <future>
#include <iterator>
#include <mutex>
#include <sstream>
#include <string>
#include <vector>

#include "common/backup.h"
#include "gmock/gmock.h"
#include "google/protobuf/util/delimited_message_util.h"
#include "grpcpp/security/server_credentials.h"
#include "grpcpp/server.h"
#include "grpcpp/server_builder.h"
#include "gtest/gtest.h"
#include "kedge/v1/admin.grpc.pb.h"
#include "kedgectl/run.h"

namespace kedge::kedgectl {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

class FakeServer final : public v1::Admin::Service {
 public:
  FakeServer() {
    grpc::ServerBuilder builder;
    builder.AddListeningPort("[::1]:0", grpc::InsecureServerCredentials(), &port_);
    builder.RegisterService(this);
    server_ = builder.BuildAndStart();
  }
  ~FakeServer() override { server_->Shutdown(std::chrono::system_clock::now()); }
  std::string address() const { return "[::1]:" + std::to_string(port_); }
  void wait_until_hanging() {
    std::unique_lock lock(mutex_);
    EXPECT_TRUE(changed_.wait_for(lock, std::chrono::seconds(20), [this] { return hanging_; }));
  }

  // What is sent; behind that it ends, or hangs.
  std::vector<v1::BackupRecord> records;
  grpc::Status status;
  bool hangs = false;

 private:
  grpc::Status Backup(grpc::ServerContext* context, const v1::BackupRequest*,
                      grpc::ServerWriter<v1::BackupRecord>* writer) override {
    for (const auto& record : records) writer->Write(record);
    std::unique_lock lock(mutex_);
    hanging_ = hangs;
    changed_.notify_all();
    while (hangs && !context->IsCancelled()) changed_.wait_for(lock, std::chrono::milliseconds(5));
    return status;
  }

  int port_ = 0;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool hanging_ = false;
  std::unique_ptr<grpc::Server> server_;
};

class BackupTest : public testing::Test {
 protected:
  BackupTest() {
    std::string pattern = (std::filesystem::temp_directory_path() / "kedgectl-XXXXXX").string();
    folder_ = ::mkdtemp(pattern.data());
    file_ = folder_ + "/backup";
    auto& header = *server_.records.emplace_back().mutable_header();
    header.set_format(kBackupFormat);
    header.mutable_revision()->set_epoch(1);
    header.mutable_revision()->set_revision(23);
    BackupChecksum checksum;
    for (const char* key : {"a", "b"}) {
      auto& entry = *server_.records.emplace_back().mutable_entry();
      entry.set_key(key);
      entry.set_value("value");
      checksum.add(entry);
    }
    auto& end = *server_.records.emplace_back().mutable_end();
    end.set_entries(2);
    end.set_checksum(checksum.value());
  }
  ~BackupTest() override { std::filesystem::remove_all(folder_); }

  ExitCode back_up(std::vector<std::string> arguments, std::stop_token stop = {}) {
    arguments.insert(arguments.begin(), "backup");
    arguments.insert(arguments.end(), {"--insecure-plaintext", "--server", server_.address()});
    out_.str("");
    err_.str("");
    return run(std::move(arguments), out_, err_, std::move(stop));
  }
  std::vector<std::string> names() const {
    std::vector<std::string> result;
    for (const auto& entry : std::filesystem::directory_iterator(folder_)) result.push_back(entry.path().filename());
    return result;
  }
  std::string content() const {
    std::ifstream in(file_, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
  }
  std::string expected() const {
    std::ostringstream text;
    for (const auto& record : server_.records) {
      google::protobuf::util::SerializeDelimitedToOstream(record, &text);
    }
    return text.str();
  }

  std::string folder_;
  std::string file_;
  FakeServer server_;
  std::ostringstream out_;
  std::ostringstream err_;
};

TEST_F(BackupTest, WritesWhatComesAndSaysHowMuchThatIs) {
  ASSERT_EQ(back_up({file_}), ExitCode::kOk) << err_.str();
  EXPECT_EQ(content(), expected());
  EXPECT_EQ(out_.str(), file_ + ": 2 entries as of revision 1.23\n");
  EXPECT_THAT(names(), ElementsAre("backup"));
  EXPECT_EQ(std::filesystem::status(file_).permissions(), std::filesystem::perms(0600));
  ASSERT_EQ(back_up({file_, "--force", "-o", "json"}), ExitCode::kOk) << err_.str();
  EXPECT_THAT(out_.str(), AllOf(HasSubstr("\"revision\": \"1.23\""), HasSubstr("\"entries\": \"2\"")));
}

TEST_F(BackupTest, StandardOutputGetsTheBackupAlone) {
  ASSERT_EQ(back_up({"-"}), ExitCode::kOk);
  EXPECT_EQ(out_.str(), expected());
  EXPECT_THAT(err_.str(), HasSubstr("2 entries as of revision 1.23"));
}

TEST_F(BackupTest, AFileThatIsThereStaysUnlessItMayBeReplaced) {
  std::ofstream(file_) << "mine";
  EXPECT_EQ(back_up({file_}), ExitCode::kFailed);
  EXPECT_THAT(err_.str(), HasSubstr("--force"));
  EXPECT_EQ(content(), "mine");
  EXPECT_EQ(back_up({file_, "--force"}), ExitCode::kOk);
  EXPECT_EQ(content(), expected());
}

TEST_F(BackupTest, WhatIsNotWholeLeavesNothing) {
  const auto whole = server_.records;
  for (std::size_t size = 0; size < whole.size(); ++size) {
    server_.records.assign(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(size));
    EXPECT_EQ(back_up({file_}), ExitCode::kFailed);
    EXPECT_THAT(err_.str(), HasSubstr("before its end"));
  }
  server_.records = whole;
  server_.records[1].mutable_entry()->set_value("another");
  EXPECT_EQ(back_up({file_}), ExitCode::kFailed);
  EXPECT_THAT(err_.str(), HasSubstr("checksum"));
  server_.records = {whole[0]};
  server_.status = {grpc::StatusCode::DATA_LOSS, "the store is damaged"};
  EXPECT_EQ(back_up({file_}), ExitCode::kFailed);
  EXPECT_THAT(err_.str(), HasSubstr("the store is damaged"));
  EXPECT_THAT(names(), IsEmpty());
}

TEST_F(BackupTest, AFileThatCannotBeWrittenIsNamed) {
  EXPECT_EQ(back_up({folder_ + "/none/backup"}), ExitCode::kFailed);
  EXPECT_THAT(err_.str(), HasSubstr(folder_ + "/none/backup"));
  EXPECT_EQ(back_up({folder_, "--force"}), ExitCode::kFailed);
  EXPECT_THAT(err_.str(), HasSubstr("cannot write " + folder_));
}

TEST_F(BackupTest, AServerThatFallsSilentIsGivenUp) {
  server_.records.pop_back();
  server_.hangs = true;
  EXPECT_EQ(back_up({file_, "--timeout", "0.05"}), ExitCode::kUnreachable);
  EXPECT_THAT(err_.str(), HasSubstr("in time"));
  EXPECT_THAT(names(), IsEmpty());
}

TEST_F(BackupTest, CtrlCEndsIt) {
  server_.records.pop_back();
  server_.hangs = true;
  std::stop_source stop;
  auto code = std::async(std::launch::async, [&] { return back_up({file_}, stop.get_token()); });
  server_.wait_until_hanging();
  stop.request_stop();
  EXPECT_EQ(code.get(), ExitCode::kInterrupted);
  EXPECT_THAT(names(), IsEmpty());
}

}  // namespace
}  // namespace kedge::kedgectl
