// Blackhole routes in the table main under a protocol number of their own, which FRR is told to redistribute: how they
// are written, what stands beside them, and how far zebra has read of it.
//
// Threading: made, called, called back and destroyed on the executor (a strand or a single-threaded io_context). A call
// blocks for the microseconds that the kernel takes; read() for milliseconds for each 10,000 routes.
// Standards: RFC 3549 (netlink as an IP services protocol).
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "boost/asio/any_io_executor.hpp"
#include "common/ipv6.h"
#include "speaker/kernel/netlink_listeners.h"
#include "speaker/kernel/routes.h"

namespace kedge::speaker {

struct AnchorRouteChange {
  Ipv6Prefix prefix;
  std::uint32_t metric = 0;
  // false: the removal.
  bool add = true;

  bool operator==(const AnchorRouteChange&) const = default;
};

class AnchorRoutes {
 public:
  virtual ~AnchorRoutes() = default;

  // All routes of main, but for those that FRR's routing protocols have put there.
  virtual absl::Status read(const std::function<void(const KernelRoute&)>& visit) = 0;
  // One result for each change, in their order. Adding what is there is told to listeners once more; removing what is
  // not there is OK. Unavailable: the kernel's answer was lost, it may or may not have been done. When this returns,
  // each change is either in the queues of all who listen to notices, or counted among their drops.
  virtual std::vector<absl::Status> write(absl::Span<const AnchorRouteChange> changes) = 0;
  // nullopt: no zebra listens in this network namespace.
  virtual std::optional<ZebraListener> zebra() const = 0;

  // A route that read() would tell of was added, or removed, by somebody else.
  std::function<void(const KernelRoute&, bool present)> on_change;
  // Notices of changes were lost: read() again.
  std::function<void()> on_overrun;
};

// `protocol` is the rtm_protocol of ours.
absl::StatusOr<std::unique_ptr<AnchorRoutes>> make_anchor_routes(boost::asio::any_io_executor executor,
                                                                 std::uint8_t protocol);

// Removes all routes of the protocol from main.
absl::Status remove_anchor_routes(std::uint8_t protocol);

}  // namespace kedge::speaker
