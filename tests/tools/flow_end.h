// One end of a flow: sends numbered packets to the peer at a set rate and records what arrives.
//
// Threading: open() and run() belong to one thread, which becomes the sender; run() has a second
// thread for receiving. Both run as SCHED_FIFO where that is permitted.
// Performance: sends at absolute deadlines; nothing but clock_nanosleep and sendto per packet. The
// kernel stamps arrivals, so the receiver reads in batches and its own delays change no figure.
#pragma once

#include <netinet/in.h>

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <stop_token>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "tests/tools/flow_file.h"

namespace kedge::tools {

struct EndOptions {
  std::string name;
  // With the port, and with the interface for link-local addresses.
  sockaddr_in6 local{};
  sockaddr_in6 remote{};
  std::uint32_t rate_pps = 1'000;        // 1..100,000
  std::uint32_t size_bytes = 100;        // UDP payload, kPacketHeaderSize..kPacketMaxSize
  std::chrono::nanoseconds duration{0};  // 0: until stopped
  std::chrono::milliseconds drain{500};
  // How long the local address may stay absent or tentative; 0: it must be there.
  std::chrono::milliseconds wait_address{0};
  // How long the peer may take until it is first heard; 0: sends at once.
  std::chrono::milliseconds wait_peer{10'000};
  std::uint32_t receive_buffer_bytes = 32 * 1024 * 1024;
};

class FlowEnd {
 public:
  // FailedPrecondition when the local address is not there in time, Unavailable when a socket
  // cannot be had, Cancelled when stopped while waiting.
  static absl::StatusOr<std::unique_ptr<FlowEnd>> open(const EndOptions& options, std::stop_token stop);

  virtual ~FlowEnd() = default;

  // Sends until the duration is over or `stop`, then receives for the drain time. `started` is
  // called once with the time (CLOCK_MONOTONIC, ns) of the first deadline. DeadlineExceeded when
  // the peer is not heard in time, Cancelled when stopped before that. What the network does to
  // packets is never an error.
  virtual absl::StatusOr<EndRecord> run(std::stop_token stop, const std::function<void(std::int64_t)>& started) = 0;
};

// "2001:db8::1" without a port. For link-local addresses "fe80::1%eth0".
std::string address_text(const sockaddr_in6& address);

// The same at two ends means that their CLOCK_MONOTONIC is the same: it begins anew with each boot and is shifted by
// time namespaces.
std::string clock_id();

}  // namespace kedge::tools
