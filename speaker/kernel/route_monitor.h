// Tells when the kernel's main routing table has changed for a prefix, whoever changed it. For actors that keep the
// truth elsewhere (bgpd's best path) and only want to be woken: a notice says when to ask, it proves nothing.
//
// Threading: made, called back and destroyed on the executor (a strand or a single-threaded io_context).
// Standards: RFC 3549 (netlink as an IP services protocol).
#pragma once

#include <functional>
#include <memory>

#include "absl/status/statusor.h"
#include "boost/asio/any_io_executor.hpp"
#include "common/ipv6.h"

namespace kedge::speaker {

class RouteNotices {
 public:
  virtual ~RouteNotices() = default;

  // A unicast route of table main for exactly this prefix was added, replaced or removed. May be called several times
  // for one change.
  std::function<void(const Ipv6Prefix&)> on_route;
  // The kernel dropped notices (ENOBUFS): anything may have changed.
  std::function<void()> on_overrun;
};

// Set the callbacks before control returns to the executor. Destruction ends all callbacks at once, also from within
// one. Unavailable when the socket cannot be opened or joined to the group. Needs no privileges.
absl::StatusOr<std::unique_ptr<RouteNotices>> make_route_notices(boost::asio::any_io_executor executor);

}  // namespace kedge::speaker
