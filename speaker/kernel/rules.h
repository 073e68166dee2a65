// Routing rules: messages (pure functions), the set that the speaker wants, and making the kernel have it.
//
// Standards: RFC 8754, 5.1 (packets from outside the SR domain do not reach its SIDs).
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "speaker/kernel/forwarding_plane.h"
#include "speaker/kernel/netlink_socket.h"

namespace kedge::speaker {

struct KernelRule {
  std::uint32_t priority = 0;
  std::string input_interface;
  std::optional<Ipv6Prefix> source;
  std::optional<Ipv6Prefix> destination;
  std::uint8_t ip_protocol = 0;
  // 0: the packet is dropped.
  std::uint32_t table = 0;
  // Routes with a prefix of this length or shorter do not count.
  std::optional<std::uint32_t> suppress_prefix_length;
  std::uint8_t protocol = 0;

  bool operator==(const KernelRule&) const = default;
};

Message encode_rule(const KernelRule& rule);
Message encode_rule_delete(const KernelRule& rule);
// RTM_NEWRULE or RTM_DELRULE of family IPv6; nullopt for anything else and when malformed.
std::optional<KernelRule> decode_rule(Bytes message);

struct Identity {
  Ipv6Address locator;
  Ipv6Address deliver_sid;
  Ipv6Address uplink_sid;

  bool operator==(const Identity&) const = default;
};

// All rules, from rule_priority on; those that need the identity only when it is known.
std::vector<KernelRule> wanted_rules(const ForwardingPlaneConfig& config, const std::optional<Identity>& identity);

// All of the protocol that the kernel has.
absl::StatusOr<std::vector<KernelRule>> list_rules(NetlinkSocket& socket, std::uint8_t protocol);

// Adds what is missing, then, if `remove_others`, removes every other rule of the protocol.
absl::Status ensure_rules(NetlinkSocket& socket, const std::vector<KernelRule>& wanted, std::uint8_t protocol,
                          bool remove_others);

}  // namespace kedge::speaker
