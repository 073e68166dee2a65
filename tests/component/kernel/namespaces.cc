#include "tests/component/kernel/namespaces.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <sstream>

#include "gtest/gtest.h"

namespace kedge::speaker::testing {
namespace {

std::pair<int, std::string> execute(const std::string& command) {
  std::string output;
  auto* pipe = ::popen((command + " 2>&1").c_str(), "re");
  if (pipe == nullptr) return {-1, "popen failed"};
  std::array<char, 4096> buffer;
  while (const auto n = std::fread(buffer.data(), 1, buffer.size(), pipe)) output.append(buffer.data(), n);
  return {::pclose(pipe), output};
}

}  // namespace

bool can_make_namespaces() {
  bool made = false;
  std::thread([&made] { made = ::unshare(CLONE_NEWNET) == 0; }).join();
  return made;
}

Namespace::Namespace(std::string name) : name_(std::move(name)), work_(context_.get_executor()) {
  std::promise<void> ready;
  thread_ = std::thread([this, &ready] {
    if (::unshare(CLONE_NEWNET) == 0) fd_ = ::open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
    ready.set_value();
    context_.run();
  });
  ready.get_future().wait();
  EXPECT_GE(fd_, 0) << name_;
  shell("ip link set lo up");
}

Namespace::~Namespace() {
  work_.reset();
  context_.stop();
  thread_.join();
  ::close(fd_);
}

std::string Namespace::shell(const std::string& command) {
  const auto [status, output] = run([&] { return execute(command); });
  EXPECT_EQ(status, 0) << name_ << ": " << command << "\n" << output;
  return output;
}

bool Namespace::try_shell(const std::string& command) {
  return run([&] { return execute(command); }).first == 0;
}

std::string Namespace::path() const { return "/proc/" + std::to_string(::getpid()) + "/fd/" + std::to_string(fd_); }

std::uint64_t Namespace::counter(const std::string& interface, const std::string& direction) {
  // /sys shows the namespace in which it was mounted, so the figures come from iproute2.
  std::istringstream lines(shell("ip -s link show dev " + interface));
  std::string line;
  const std::string wanted = direction == "tx" ? "TX:" : "RX:";
  while (std::getline(lines, line)) {
    if (line.find(wanted) == std::string::npos) continue;
    std::uint64_t bytes = 0;
    std::uint64_t packets = 0;
    lines >> bytes >> packets;
    return packets;
  }
  ADD_FAILURE() << "no counters for " << interface;
  return 0;
}

void connect(Namespace& a, const std::string& a_interface, Namespace& b, const std::string& b_interface) {
  a.shell("ip link add " + a_interface + " type veth peer name " + b_interface + " netns " + b.path());
  for (auto& [space, interface] : {std::pair{&a, a_interface}, std::pair{&b, b_interface}}) {
    space->shell("echo 0 > /proc/sys/net/ipv6/conf/" + interface + "/accept_dad");
    space->shell("ip link set " + interface + " up");
  }
}

bool eventually(const std::function<bool()>& condition) {
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  while (!condition()) {
    if (std::chrono::steady_clock::now() > end) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  return true;
}

}  // namespace kedge::speaker::testing
