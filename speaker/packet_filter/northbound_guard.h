// Keeps FRR's northbound port to this speaker: it listens on every address and asks nobody who they are.
//
// A table of our own, inet kedge_northbound: what comes in by another interface than lo is dropped, and over lo only
// this speaker's user and root may connect. It outlives the speaker, as staticd does.
//
// Threading: made and destroyed on the executor. A check takes about 1 ms.
// Monitoring: kedge_speaker_northbound_closed, kedge_speaker_northbound_repairs_total.
// Standards: RFC 8818, 5 ("MUST NOT introduce new security risks").
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "boost/asio/any_io_executor.hpp"
#include "common/json.h"
#include "common/metrics.h"

namespace kedge::speaker {

struct NorthboundGuardConfig {
  std::uint16_t port = 50051;
  // Make the table; false: somebody else closes the port, and it is only looked whether that can be seen.
  bool close = true;
  // An open port is a warning, and no error.
  bool accept_open = false;
};

class NorthboundGuard {
 public:
  virtual ~NorthboundGuard() = default;
};

// Closes the port, and looks after it from then on: what somebody has removed or changed is made again within a second.
// FailedPrecondition, PermissionDenied and others: the port is open, or cannot be closed; the text says what to do.
absl::StatusOr<std::unique_ptr<NorthboundGuard>> guard_northbound(boost::asio::any_io_executor executor,
                                                                  const NorthboundGuardConfig& config,
                                                                  Metrics& metrics);

// Removes the table. FailedPrecondition, and it stays: somebody listens at the port beyond loopback.
absl::Status open_northbound(std::uint16_t port);

// Looks whether others than this host are kept from the port: by a rule that this can see, or since nobody listens
// there but on loopback. FailedPrecondition: not as far as can be seen; the text says what to do.
absl::Status check_northbound_closed(std::uint16_t port);

// Whether a ruleset (libnftables-json(5), "list ruleset" or "list table") keeps what comes from other hosts from the
// port, over IPv4 and IPv6: it has a rule in a chain at the input hook that drops or rejects it whatever else it is
// like, or such a chain with policy drop and no rule that accepts the port. Chains that are jumped to are not followed.
// Pure.
bool closes_port(const Json& ruleset, std::uint16_t port);

// The table in nft's syntax. `user` may connect over loopback. Pure.
std::string northbound_table(std::uint16_t port, uid_t user);

}  // namespace kedge::speaker
