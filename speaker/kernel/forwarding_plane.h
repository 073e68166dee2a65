// The AR's forwarding plane (RFC 8818: FM-DP): drives the kernel's tables to what is desired for each prefix.
//
// Threading: all calls and callbacks on the speaker's executor. Netlink requests are synchronous and take microseconds;
// each is acknowledged by the kernel before `set` returns.
// Standards: RFC 2473 (tunnel), RFC 8754 and RFC 8986 (segment routing), RFC 4861 (neighbours).
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "boost/asio/any_io_executor.hpp"
#include "common/ipv6.h"
#include "common/link_layer_address.h"

namespace kedge::speaker {

// What the kernel shall hold for one prefix; all names are resolved.
struct Route {
  enum class Kind { kDeliver, kRedirect, kUnreachable, kRefuse };
  Kind kind = Kind::kUnreachable;
  // kDeliver, kRefuse
  std::string interface;
  Ipv6Address link_local;
  LinkLayerAddress link_layer_address;
  // RFC 8818, Figure 6, "FM: IP1 via IPa1": uplink SID of the home AR, through which leaves what the MN sends from the
  // prefix. nullopt: by this AR's own routes.
  std::optional<Ipv6Address> uplink_segment;
  // kRedirect: deliver SID of the target AR.
  Ipv6Address segment;
  // kUnreachable: for good, as an error that applications do not wait out (RFC 4443, 3.1, code 1 instead of 0).
  bool ended = false;

  bool operator==(const Route&) const = default;
};

struct ForwardingPlaneConfig {
  std::uint32_t mobile_table = 8818;
  std::uint32_t encapsulation_table = 8819;
  std::uint32_t uplink_table = 8820;
  std::uint32_t refusal_table = 8821;
  std::uint32_t rule_priority = 880;
  // Of rules, neighbours and what is in the table main. 17 to 255, not 186 to 198: those are FRR's, whose zebra removes
  // such routes when it starts.
  std::uint8_t route_protocol = 88;
  std::uint32_t access_mtu = 1500;
  std::vector<std::string> access_interfaces;
  // The same on all ARs, set on each access interface (DESIGN: the MN's default router never changes).
  Ipv6Address access_link_local;
  LinkLayerAddress access_link_layer_address;
};

class ForwardingPlane {
 public:
  // Called when something that was programmed is no longer there (deleted by somebody, interface gone) and could not be
  // restored at once, and again when it is back. Empty status text: all is as desired.
  using OnHealth = std::function<void(const absl::Status&)>;

  virtual ~ForwardingPlane() = default;

  // Own identity, known once the LM has welcomed the speaker. Makes the SIDs and sets the tunnel source. Idempotent.
  virtual absl::Status set_identity(const Ipv6Address& locator, const Ipv6Address& deliver_sid,
                                    const Ipv6Address& uplink_sid) = 0;

  // Programs, replaces or (nullopt) removes what the kernel holds for the prefix, without a moment in which the prefix
  // has neither the old nor the new. OK only when the kernel has acknowledged and, to deliver, the link can send. On
  // error the desire is kept and retried; `on_programmed` then tells of success.
  virtual absl::Status set(const Ipv6Prefix& prefix, const std::optional<Route>& route) = 0;

  // The same for several prefixes, each once, which costs less than one after the other; the status of each.
  using Change = std::pair<Ipv6Prefix, std::optional<Route>>;
  virtual std::vector<absl::Status> set_all(const std::vector<Change>& changes) {
    std::vector<absl::Status> statuses;
    for (const auto& [prefix, route] : changes) statuses.push_back(set(prefix, route));
    return statuses;
  }

  // What the kernel holds for the prefix, also of an earlier run; without the MN's link-layer address.
  virtual std::optional<Route> held(const Ipv6Prefix& prefix) const = 0;

  // Takes `routes` as all that is desired: programs each and removes every route of ours for any other prefix,
  // leftovers of an earlier run included.
  virtual absl::Status replace_all(const std::map<Ipv6Prefix, Route>& routes) = 0;

  // A desire whose set() had failed is programmed now.
  std::function<void(const Ipv6Prefix&)> on_programmed;
  OnHealth on_health;
};

// Makes rules, kx0/kx1 and sysctls at once; leaves routes of an earlier run in place (they forward until replace_all).
// Errors say which object could not be made and what to do.
absl::StatusOr<std::unique_ptr<ForwardingPlane>> make_kernel_forwarding_plane(boost::asio::any_io_executor executor,
                                                                              const ForwardingPlaneConfig& config);

// Removes routes, rules, neighbours, the pair kx0-kx1 and the tunnel source of every earlier run, so that only `main`
// forwards. Access interfaces keep their addresses. Goes on after an error; returns the first.
absl::Status remove_all(const ForwardingPlaneConfig& config);

}  // namespace kedge::speaker
