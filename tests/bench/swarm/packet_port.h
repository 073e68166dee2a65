// A network interface whose frames are sent and received as they are, past the kernel's own protocols.
//
// Threading: one thread at a time.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>

#include "absl/status/statusor.h"

namespace kedge::bench {

class PacketPort {
 public:
  struct Counters {
    std::uint64_t received = 0;
    std::uint64_t sent = 0;
    // The kernel did not take them.
    std::uint64_t refused = 0;
    // Arrived and were dropped at this socket, since it was not read in time.
    std::uint64_t overrun = 0;
  };

  // NotFound when there is no such interface, PermissionDenied without CAP_NET_RAW.
  static absl::StatusOr<std::unique_ptr<PacketPort>> open(const std::string& interface);
  ~PacketPort();
  PacketPort(const PacketPort&) = delete;
  PacketPort& operator=(const PacketPort&) = delete;

  int descriptor() const { return socket_; }
  // Each frame that waits, up to some hundred, with the time at which the kernel had it. Own ones are not among them.
  // False when no more wait.
  bool receive(const std::function<void(std::span<const std::uint8_t> frame, std::int64_t at_ns)>& visit);
  // The errno, 0 when the kernel took it.
  int send(std::span<const std::uint8_t> frame);
  Counters counters() const;

 private:
  struct Batch;
  explicit PacketPort(int socket);

  int socket_;
  std::unique_ptr<Batch> batch_;
  mutable Counters counters_;
};

}  // namespace kedge::bench
