// A netlink socket that listens to groups of notices, on an Asio executor.
//
// Threading: made, called back and destroyed on the executor (a strand or a single-threaded io_context).
// Standards: RFC 3549.
#pragma once

#include <linux/filter.h>

#include <functional>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "boost/asio/any_io_executor.hpp"
#include "speaker/kernel/attributes.h"

namespace kedge::speaker {

class NetlinkMonitor {
 public:
  // `filter` (classic BPF over one message, empty: none) runs in the kernel: what it rejects takes no buffer space.
  static absl::StatusOr<std::unique_ptr<NetlinkMonitor>> open(boost::asio::any_io_executor executor,
                                                              const std::vector<int>& groups,
                                                              std::vector<sock_filter> filter);
  // Ends all callbacks at once, also from within one.
  ~NetlinkMonitor();

  // One whole message, nlmsghdr included; not yet validated past its length.
  std::function<void(Bytes)> on_message;
  // Notices were lost (ENOBUFS).
  std::function<void()> on_overrun;

 private:
  struct State;
  explicit NetlinkMonitor(std::shared_ptr<State> state);
  static void wait(const std::shared_ptr<State>& state);
  static void drain(const std::shared_ptr<State>& state);

  std::shared_ptr<State> state_;
};

}  // namespace kedge::speaker
