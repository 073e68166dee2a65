// Unnamed network namespaces for tests: they and all in them end with the process, also when it is killed.
#pragma once

#include <cstdint>
#include <functional>
#include <future>
#include <memory>
#include <string>
#include <thread>

#include "boost/asio/executor_work_guard.hpp"
#include "boost/asio/io_context.hpp"
#include "boost/asio/post.hpp"

namespace kedge::speaker::testing {

// False when namespaces cannot be made here (not root).
bool can_make_namespaces();

// A network namespace and one thread that lives in it and runs an io_context.
class Namespace {
 public:
  explicit Namespace(std::string name);
  ~Namespace();
  Namespace(const Namespace&) = delete;
  Namespace& operator=(const Namespace&) = delete;

  // Runs on the namespace's thread and waits for the result.
  template <typename F>
  auto run(F function) -> decltype(function()) {
    std::packaged_task<decltype(function())()> task(std::move(function));
    auto result = task.get_future();
    boost::asio::post(context_, [&task] { task(); });
    return result.get();
  }
  // A shell command inside; fails the test, with its output, when it fails. Returns its output.
  std::string shell(const std::string& command);
  // Exit status 0? For commands that are expected to fail.
  bool try_shell(const std::string& command);
  // What "ip link ... netns" takes.
  std::string path() const;
  // "tx" or "rx": packets so far.
  std::uint64_t counter(const std::string& interface, const std::string& direction);

  boost::asio::io_context& context() { return context_; }

 private:
  std::string name_;
  int fd_ = -1;
  boost::asio::io_context context_;
  boost::asio::executor_work_guard<boost::asio::io_context::executor_type> work_;
  std::thread thread_;
};

// veth between two namespaces, both ends up, without DAD.
void connect(Namespace& a, const std::string& a_interface, Namespace& b, const std::string& b_interface);

// Waits until `condition` holds; false when it does not within a generous bound.
bool eventually(const std::function<bool()>& condition);

}  // namespace kedge::speaker::testing
