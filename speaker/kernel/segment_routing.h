// The kernel's settings for segment routing (generic netlink family SEG6).
//
// Standards: RFC 8754, RFC 2473, 4.1 (the tunnel's source is the entry point's own address).
#pragma once

#include "absl/status/status.h"
#include "common/ipv6.h"

namespace kedge::speaker {

// Source address of everything that this network namespace encapsulates; `::` lets the kernel choose.
absl::Status set_tunnel_source(const Ipv6Address& source);

// Unimplemented: this kernel has no segment routing.
absl::Status check_segment_routing();

}  // namespace kedge::speaker
