// Tells when interfaces appear, go, and gain or lose their carrier.
//
// Threading: all calls and callbacks on the executor.
// Standards: RFC 2863 (operational status), as the kernel keeps it; RFC 3549 (netlink).
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "boost/asio/any_io_executor.hpp"
#include "boost/asio/posix/stream_descriptor.hpp"
#include "speaker/kernel/attributes.h"

namespace kedge::speaker {

struct LinkState {
  std::uint32_t index = 0;
  std::string name;
  // Administratively up and operational.
  bool up = false;
  // How often the carrier has come: a flap that was too short to be reported as a state of its own shows here.
  std::uint32_t carrier_ups = 0;
  // The interface is gone (also to another network namespace).
  bool removed = false;
};

// Of a notice or an answer of the kernel, nlmsghdr included. nullopt: it is of something else, or cut short.
std::optional<LinkState> decode_link_state(Bytes message);

class LinkMonitor {
 public:
  using OnLink = std::function<void(const LinkState&)>;

  // Reports every interface that exists before it returns, and each change after that. Notices that the kernel had to
  // drop are made good by reading all interfaces again.
  static absl::StatusOr<std::unique_ptr<LinkMonitor>> open(const boost::asio::any_io_executor& executor,
                                                           OnLink on_link);

  // Asks the kernel for the state of all interfaces; the answers come by `on_link`.
  absl::Status request_all();

 private:
  LinkMonitor(const boost::asio::any_io_executor& executor, int fd, OnLink on_link);
  void wait();
  // Reads what is there; true when the end of a dump was among it.
  bool read_all(bool block);

  boost::asio::posix::stream_descriptor socket_;
  OnLink on_link_;
  std::shared_ptr<bool> alive_;
};

}  // namespace kedge::speaker
