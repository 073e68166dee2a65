// A large snapshot from the real server to the speaker's own client.
#include <chrono>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "boost/asio/io_context.hpp"
#include "fmt/format.h"
#include "gtest/gtest.h"
#include "speaker/lm_client/lm_client.h"
#include "tests/component/lm-server/running_server.h"
#include "tests/component/lm-server/temporary_folder.h"

namespace kedge::lm {
namespace {

constexpr int kBindings = 10'000;
constexpr int kSessions = 5;
// Less than a keepalive (10 s) for each session: what gRPC holds back until then comes too late.
constexpr auto kPatience = std::chrono::seconds(45);

void attach_all(RunningServer& run) {
  std::vector<v1::AttachRequest> requests;
  const auto send = [&] {
    v1::AttachManyResponse response;
    ASSERT_TRUE(run.attach_many(requests, response).ok());
    for (const auto& result : response.results()) ASSERT_EQ(result.code(), 0) << result.message();
    requests.clear();
  };
  for (int i = 0; i < kBindings; ++i) {
    requests.push_back(run.attach_request("ar1", fmt::format("02:00:00:00:{:02x}:{:02x}", i / 256, i % 256)));
    if (requests.size() == 256) send();
  }
  send();
}

TEST(Snapshot, TenThousandBindingsReachTheSpeakersClientEachTimeItConnects) {
  const TemporaryFolder folder;
  // A session that has been stopped ends in gRPC's threads, and says so to its executor: this one outlives them all.
  boost::asio::io_context io{1};
  auto configured = settings();
  configured.new_nodes_window = {};
  RunningServer run(folder.path() + "/data", {}, "[::1]:0", configured);
  attach_all(run);

  const auto deadline = std::chrono::steady_clock::now() + kPatience;
  for (int session = 0; session < kSessions; ++session) {
    std::vector<std::string> prefixes;
    bool taken = false;
    const auto client = speaker::make_lm_client(io.get_executor(), run.connect(), {"ar1", 1, "test"});
    client->on_connection = [](const absl::Status&) {};
    client->on_record = [](const v1::Record&) {};
    client->on_snapshot = [&](const speaker::LmClient::Snapshot& snapshot) {
      for (const auto& binding : snapshot.bindings) prefixes.push_back(binding.prefix());
      taken = true;
    };
    client->start();
    while (!taken) {
      ASSERT_LT(std::chrono::steady_clock::now(), deadline) << "session " << session;
      io.run_one_for(std::chrono::milliseconds(20));
      io.restart();
    }
    client->stop();
    io.run_for(std::chrono::milliseconds(10));
    EXPECT_EQ(prefixes.size(), static_cast<std::size_t>(kBindings));
    EXPECT_EQ(std::set<std::string>(prefixes.begin(), prefixes.end()).size(), static_cast<std::size_t>(kBindings));
  }
}

}  // namespace
}  // namespace kedge::lm
