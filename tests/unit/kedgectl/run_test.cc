#include "kedgectl/run.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <google/protobuf/util/json_util.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <future>
#include <sstream>
#include <thread>

#include "tests/unit/kedgectl/fake_admin.h"
#include "tests/unit/kedgectl/sample.h"

namespace kedge::kedgectl {
namespace {

using testing::HasSubstr;
using testing::IsEmpty;

constexpr const char* kPrefix = "2001:db8:8818:1::/64";
constexpr auto kBound = std::chrono::seconds(20);

struct Result {
  ExitCode code;
  std::string out;
  std::string err;
};

Result run_against(const std::string& server, std::vector<std::string> arguments, std::stop_token stop = {}) {
  arguments.insert(arguments.end(), {"--insecure-plaintext", "--server", server});
  std::ostringstream out;
  std::ostringstream err;
  const auto code = run(std::move(arguments), out, err, std::move(stop));
  return {code, out.str(), err.str()};
}

template <typename Message>
Message from_json(const std::string& text) {
  Message message;
  const auto status = google::protobuf::util::JsonStringToMessage(text, &message);
  EXPECT_TRUE(status.ok()) << std::string(status.message()) << "\n" << text;
  return message;
}

// The address of a port at which nobody listens.
std::string closed_address() { return FakeAdmin().address(); }

class Run : public testing::Test {
 protected:
  void SetUp() override {
    admin_.status_answer.set_store("ok");
    admin_.bindings = {moving_binding(), detached_binding(), moving_binding()};
    admin_.bindings[2].set_prefix("2001:db8:8818:3::/64");
    admin_.nodes_answer.add_nodes()->mutable_info()->set_name("ar1");
  }
  Result ask(std::vector<std::string> arguments) { return run_against(admin_.address(), std::move(arguments)); }
  std::future<Result> watch(std::vector<std::string> arguments, const std::string& server) {
    arguments.insert(arguments.begin(), "watch");
    return std::async(std::launch::async, [arguments = std::move(arguments), server, stop = stop_.get_token()] {
      return run_against(server, arguments, stop);
    });
  }
  std::future<Result> watch(std::vector<std::string> arguments) {
    return watch(std::move(arguments), admin_.address());
  }

  FakeAdmin admin_;
  std::stop_source stop_;
};

TEST_F(Run, AServerThatKnowsNoPoliciesIsNamed) {
  for (const std::vector<std::string>& arguments : std::vector<std::vector<std::string>>{
           {"policy", "list"}, {"policy", "delete", "--default"}, {"node", "drain", "ar1"}, {"detach", "x"}}) {
    const auto result = ask(arguments);
    EXPECT_EQ(result.code, ExitCode::kFailed);
    EXPECT_THAT(result.err, HasSubstr("does not know this request"));
    EXPECT_THAT(result.out, IsEmpty());
  }
}

TEST_F(Run, PrintsTablesAndNothingElse) {
  for (const auto& [command, expected] :
       std::vector<std::pair<std::string, std::string>>{{"status", "store        ok\n"}, {"nodes", "\nar1 "}}) {
    const auto result = ask({command});
    EXPECT_EQ(result.code, ExitCode::kOk);
    EXPECT_THAT(result.out, HasSubstr(expected));
    EXPECT_THAT(result.err, IsEmpty());
  }
}

TEST_F(Run, EveryCommandsJsonIsTheAnswerItself) {
  EXPECT_EQ(from_json<v1::StatusResponse>(ask({"status", "-o", "json"}).out).store(), "ok");
  EXPECT_EQ(from_json<v1::ListNodesResponse>(ask({"nodes", "-o", "json"}).out).nodes(0).info().name(), "ar1");
  EXPECT_EQ(from_json<v1::Binding>(ask({"binding", kPrefix, "-o", "json"}).out).SerializeAsString(),
            moving_binding().SerializeAsString());
}

TEST_F(Run, BindingsComeFromAllPages) {
  const auto bindings = from_json<v1::ListBindingsResponse>(ask({"bindings", "-o", "json"}).out);
  ASSERT_EQ(bindings.bindings_size(), 3);
  EXPECT_EQ(bindings.bindings(2).prefix(), "2001:db8:8818:3::/64");
  EXPECT_EQ(bindings.revision().revision(), 5U);
  EXPECT_EQ(bindings.next_page_token(), "");
}

TEST_F(Run, BindingsAreFiltered) {
  const auto result = ask({"bindings", "--ar", "ar2", "-o", "json"});
  EXPECT_EQ(from_json<v1::ListBindingsResponse>(result.out).bindings_size(), 2);
  EXPECT_EQ(from_json<v1::ListBindingsResponse>(ask({"bindings", "--mn-id", "02:00:00:00:00:12", "-o", "json"}).out)
                .bindings_size(),
            1);
}

TEST_F(Run, NoMatchIsAnEmptyListAndAMessage) {
  const auto result = ask({"bindings", "--ar", "nobody", "-o", "json"});
  EXPECT_EQ(result.code, ExitCode::kOk);
  EXPECT_EQ(from_json<v1::ListBindingsResponse>(result.out).bindings_size(), 0);
  EXPECT_EQ(result.err, "kedgectl: no binding matches\n");
}

TEST_F(Run, APageThatRepeatsItselfIsAnError) {
  admin_.page_size = 1;
  admin_.repeats_page = true;
  EXPECT_EQ(ask({"bindings"}).code, ExitCode::kFailed);
}

TEST_F(Run, AnUnknownBindingIsNotFound) {
  const auto result = ask({"binding", "2001:db8::1"});
  EXPECT_EQ(result.code, ExitCode::kNotFound);
  EXPECT_THAT(result.out, IsEmpty());
  EXPECT_EQ(result.err, "kedgectl: no binding covers 2001:db8::1\n");
}

TEST_F(Run, ARefusalIsPassedOn) {
  const auto result = ask({"bindings", "--ar", "bad ar"});
  EXPECT_EQ(result.code, ExitCode::kFailed);
  EXPECT_THAT(result.err, HasSubstr("refused: 'bad ar' is no name"));
}

TEST_F(Run, AnUnreachableServerIsNamed) {
  const auto address = closed_address();
  for (const std::string command : {"status", "nodes", "bindings", "watch"}) {
    const auto result = run_against(address, {command});
    EXPECT_EQ(result.code, ExitCode::kUnreachable);
    EXPECT_THAT(result.out, IsEmpty());
    EXPECT_THAT(result.err, HasSubstr("cannot reach the server at " + address));
  }
}

TEST_F(Run, AServerThatDoesNotAnswerIsUnreachable) {
  admin_.hangs = true;
  const auto result = ask({"status", "--timeout", "0.05"});
  EXPECT_EQ(result.code, ExitCode::kUnreachable);
  EXPECT_THAT(result.err, HasSubstr("--timeout"));
}

TEST_F(Run, WithoutCertificatesPlaintextHasToBeAskedFor) {
  std::ostringstream out;
  std::ostringstream err;
  EXPECT_EQ(run({"status", "--tls", "/nonexistent"}, out, err, {}), ExitCode::kUsage);
  EXPECT_THAT(err.str(), HasSubstr("/nonexistent/certificate.pem: cannot be read"));
  EXPECT_THAT(err.str(), HasSubstr("--insecure-plaintext"));
  EXPECT_THAT(err.str(), HasSubstr("KEDGECTL_TLS"));
}

TEST_F(Run, AFullDiskIsAnError) {
  std::ostringstream out;
  out.setstate(std::ios::badbit);
  std::ostringstream err;
  EXPECT_EQ(run({"status", "--insecure-plaintext", "--server", admin_.address()}, out, err, {}), ExitCode::kFailed);
  EXPECT_THAT(err.str(), HasSubstr("cannot write to standard output"));
}

TEST_F(Run, WatchEndsAfterItsCount) {
  for (std::uint64_t id = 1; id <= 5; ++id) admin_.add_event(id, kPrefix);
  const auto result = ask({"watch", "--from-start", "--count", "3", "-o", "json"});
  EXPECT_EQ(result.code, ExitCode::kOk);
  ASSERT_EQ(std::count(result.out.begin(), result.out.end(), '\n'), 3);
  std::istringstream lines(result.out);
  std::uint64_t expected = 1;
  for (std::string line; std::getline(lines, line);) EXPECT_EQ(from_json<v1::Event>(line).id(), expected++);
}

TEST_F(Run, WatchBeginsAfterAnId) {
  for (std::uint64_t id = 1; id <= 5; ++id) admin_.add_event(id, kPrefix);
  const auto result = ask({"watch", "--after", "3", "--count", "2"});
  EXPECT_EQ(result.code, ExitCode::kOk);
  EXPECT_THAT(result.out, testing::StartsWith("    ID  AT"));
  EXPECT_THAT(result.out, HasSubstr("\n     4  2026"));
  EXPECT_THAT(result.out, HasSubstr("\n     5  2026"));
  EXPECT_FALSE(admin_.watches()[0].from_start());
}

TEST_F(Run, WatchAfterZeroIsFromTheStart) {
  admin_.add_event(1, kPrefix);
  EXPECT_EQ(ask({"watch", "--after", "0", "--count", "1"}).code, ExitCode::kOk);
  EXPECT_TRUE(admin_.watches()[0].from_start());
}

TEST_F(Run, WatchPassesItsFiltersOn) {
  admin_.add_event(1, "2001:db8::/64");
  admin_.add_event(2, kPrefix);
  const auto result =
      ask({"watch", "--from-start", "--count", "1", "--prefix", kPrefix, "--ar", "ar2", "--mn-id", "x"});
  EXPECT_THAT(result.out, HasSubstr(kPrefix));
  EXPECT_EQ(admin_.watches()[0].ar(), "ar2");
  EXPECT_EQ(admin_.watches()[0].mn_id(), "x");
}

TEST_F(Run, WatchThatIsStoppedSaysWhereToGoOn) {
  auto result = watch({"--after", "41"});
  ASSERT_TRUE(admin_.wait_for_watches(1));
  stop_.request_stop();
  ASSERT_EQ(result.wait_for(kBound), std::future_status::ready);
  const auto ended = result.get();
  EXPECT_EQ(ended.code, ExitCode::kInterrupted);
  EXPECT_EQ(ended.err, "kedgectl: go on from here with: watch --after 41\n");
}

TEST_F(Run, WatchOfDroppedEventsSaysHowToSeeTheRest) {
  admin_.dropped = 100;
  const auto result = ask({"watch", "--after", "5"});
  EXPECT_EQ(result.code, ExitCode::kFailed);
  EXPECT_THAT(result.err, HasSubstr("--from-start"));
}

TEST_F(Run, WatchEndsWhenTheServerGoesAway) {
  auto server = std::make_unique<FakeAdmin>();
  server->add_event(7, kPrefix);
  auto result = watch({"--from-start", "-o", "json"}, server->address());
  ASSERT_TRUE(server->wait_for_watches(1));
  server.reset();
  ASSERT_EQ(result.wait_for(kBound), std::future_status::ready);
  const auto ended = result.get();
  EXPECT_EQ(ended.code, ExitCode::kUnreachable);
  EXPECT_THAT(ended.err, HasSubstr("cannot reach the server at "));
  EXPECT_THAT(ended.err, HasSubstr("watch --after "));
}

// A server at the same address, in place of one that is gone.
class Follow : public Run {
 protected:
  std::unique_ptr<FakeAdmin> start(int port, std::int64_t started_at) {
    auto server = std::make_unique<FakeAdmin>(port);
    server->started_at = started_at;
    return server;
  }
};

TEST_F(Follow, GoesOnAfterTheLastEventOfTheSameRun) {
  auto server = start(0, 1);
  const int port = server->port();
  server->add_event(7, kPrefix);
  auto result = watch({"--follow", "--count", "1"}, server->address());
  ASSERT_TRUE(server->wait_for_watches(1));
  EXPECT_EQ(server->watches()[0].after_id(), 7U);  // from now on, with nothing missed in between
  server.reset();
  server = start(port, 1);
  ASSERT_TRUE(server->wait_for_watches(1));
  EXPECT_EQ(server->watches()[0].after_id(), 7U);
  server->add_event(8, kPrefix);
  ASSERT_EQ(result.wait_for(kBound), std::future_status::ready);
  const auto ended = result.get();
  EXPECT_EQ(ended.code, ExitCode::kOk);
  EXPECT_THAT(ended.err, HasSubstr("Trying again."));
}

TEST_F(Follow, BeginsAnewAfterARestartOfTheServer) {
  auto server = start(0, 1);
  const int port = server->port();
  auto result = watch({"--follow", "--after", "500", "--count", "1"}, server->address());
  ASSERT_TRUE(server->wait_for_watches(1));
  server.reset();
  server = start(port, 2);
  ASSERT_TRUE(server->wait_for_watches(1));
  EXPECT_TRUE(server->watches()[0].from_start());
  server->add_event(1, kPrefix);
  ASSERT_EQ(result.wait_for(kBound), std::future_status::ready);
  const auto ended = result.get();
  EXPECT_EQ(ended.code, ExitCode::kOk);
  EXPECT_THAT(ended.err, HasSubstr("the server was restarted"));
}

TEST_F(Follow, ShowsWhatIsLeftOfDroppedEvents) {
  admin_.dropped = 100;
  admin_.add_event(101, kPrefix);
  const auto result = ask({"watch", "--follow", "--after", "5", "--count", "1"});
  EXPECT_EQ(result.code, ExitCode::kOk);
  EXPECT_THAT(result.out, HasSubstr("   101  "));
  EXPECT_THAT(result.err, HasSubstr("events after 5 have been dropped"));
}

TEST_F(Follow, CanBeStoppedWhileTheServerIsAway) {
  auto result = watch({"--follow"}, closed_address());
  stop_.request_stop();
  ASSERT_EQ(result.wait_for(kBound), std::future_status::ready);
  EXPECT_EQ(result.get().code, ExitCode::kInterrupted);
}

// The program itself, for what only a process has.
class Process : public Run {
 protected:
  void start(std::vector<std::string> arguments) {
    ASSERT_EQ(pipe2(pipe_, O_CLOEXEC), 0);
    arguments.insert(arguments.begin(), KEDGECTL_BINARY);
    arguments.insert(arguments.end(), {"--insecure-plaintext", "--server", admin_.address()});
    std::vector<char*> argv;
    for (auto& argument : arguments) argv.push_back(argument.data());
    argv.push_back(nullptr);
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, pipe_[1], STDOUT_FILENO);
    posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
    ASSERT_EQ(posix_spawn(&pid_, KEDGECTL_BINARY, &actions, nullptr, argv.data(), environ), 0);
    posix_spawn_file_actions_destroy(&actions);
    close(pipe_[1]);
  }
  void TearDown() override {
    if (pid_ > 0) {
      kill(pid_, SIGKILL);
      waitpid(pid_, nullptr, 0);
    }
    if (pipe_[0] >= 0) close(pipe_[0]);
  }
  std::string read_line() {
    std::string line;
    pollfd poller{pipe_[0], POLLIN, 0};
    char c = 0;
    while (poll(&poller, 1, 20'000) == 1 && read(pipe_[0], &c, 1) == 1 && c != '\n') line += c;
    return line;
  }
  int wait_exit() {
    int status = 0;
    waitpid(pid_, &status, 0);
    pid_ = -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
  }

  int pipe_[2] = {-1, -1};
  pid_t pid_ = -1;
};

TEST_F(Process, CtrlCEndsWatchCleanlyAfterLinesThatCameAtOnce) {
  for (const int signal : {SIGINT, SIGTERM}) {
    admin_.add_event(1, kPrefix);
    start({"watch", "--from-start", "-o", "json"});
    EXPECT_EQ(from_json<v1::Event>(read_line()).id(), 1U);
    kill(pid_, signal);
    EXPECT_EQ(wait_exit(), 130);
    close(pipe_[0]);
  }
}

TEST_F(Process, CtrlCEndsACallThatIsNotAnswered) {
  admin_.hangs = true;
  start({"watch", "--follow"});
  kill(pid_, SIGINT);
  const int code = wait_exit();
  // The signal may come before the process has taken charge of it.
  EXPECT_TRUE(code == 130 || code == -SIGINT) << code;
}

TEST_F(Process, ExitsWithTheCommandsCode) {
  start({"binding", "2001:db8::1"});
  EXPECT_EQ(wait_exit(), 4);
}

TEST_F(Process, AReaderThatLeavesEndsIt) {
  admin_.add_event(1, kPrefix);
  start({"watch", "--from-start"});
  EXPECT_THAT(read_line(), HasSubstr("ID"));
  close(pipe_[0]);
  pipe_[0] = -1;
  admin_.add_event(2, kPrefix);
  EXPECT_EQ(wait_exit(), -SIGPIPE);
}

}  // namespace
}  // namespace kedge::kedgectl
