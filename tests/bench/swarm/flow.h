// One end of a numbered flow among many: when to send what, and what came. Its record is a file of the flow probe
// (tests/tools/README.md), so that `flow_probe report` tells what was lost.
//
// Threading: none of its own. No clock: times are CLOCK_MONOTONIC nanoseconds, given.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "common/ipv6.h"
#include "tests/tools/flow_file.h"

namespace kedge::bench {

class Flow {
 public:
  // `begin_ns`: of the first datagram. 1 to 100,000 datagrams a second.
  Flow(const Ipv6Address& local, const Ipv6Address& remote, std::uint16_t udp_port, std::uint32_t rate,
       std::int64_t opened_ns, std::int64_t begin_ns);

  const Ipv6Address& local() const { return local_; }
  const Ipv6Address& remote() const { return remote_; }

  // When the next datagram is due. Until the other end was heard these are greetings, ten a second.
  std::int64_t due_ns() const { return due_ns_; }
  // It is due and goes now; what it is.
  std::span<const std::uint8_t> next(std::int64_t now_ns);
  // It was sent; `error`: the errno with which the kernel refused it.
  void sent(std::int64_t now_ns, int error);
  // What came from the other end. False when it is no datagram of a flow.
  bool receive(std::span<const std::uint8_t> payload, std::int64_t at_ns);
  bool heard() const { return heard_; }

  // `until_ns`: until then all that came was received; the last `drain_ns` before it nothing was sent.
  tools::EndRecord record(std::int64_t until_ns, std::int64_t drain_ns, std::uint64_t local_drops) const;

 private:
  Ipv6Address local_;
  Ipv6Address remote_;
  std::uint8_t direction_;
  std::int64_t interval_ns_;
  std::int64_t due_ns_;
  bool heard_ = false;
  bool greeting_ = true;
  std::vector<std::uint8_t> payload_;
  tools::EndRecord record_;
};

// Where the record of an MN's flow stands in a folder, at both ends.
std::string record_path(const std::string& folder, const Ipv6Address& mobile_node);

}  // namespace kedge::bench
