// What an AR shall hold for a prefix, as a pure function of the binding's record and of who the AR is. Everything below
// (kernel, FRR, RA) is a reconciler that drives what is to what is desired.
//
// Standards: RFC 8818, 4 (the three cases).
#pragma once

#include <compare>
#include <cstdint>
#include <string>

#include "kedge/v1/types.pb.h"

namespace kedge::speaker {

// Forwarding plane (RFC 8818: FM-DP).
struct Forwarding {
  enum class Kind {
    // Nothing of ours; the aggregate and BGP decide.
    kNone,
    // To the MN on the access link.
    kDeliver,
    // Through the tunnel to `redirect_to`.
    kRedirect,
    // ICMPv6 destination unreachable to the sender.
    kUnreachable,
    // The prefix has ended while its MN is here: ICMPv6 destination unreachable to the MN for what it still sends from
    // it.
    kRefuse,
  };
  Kind kind = Kind::kNone;
  std::string redirect_to;
  // kDeliver: the AR through whose reverse tunnel leaves what the MN sends from the prefix; empty: by this AR's own
  // routes.
  std::string uplink_through;
  // kUnreachable: for good. Senders shall give up rather than wait for the MN to come back.
  bool ended = false;

  bool operator==(const Forwarding&) const = default;
};

// Anchoring plane (RFC 8818: FM-CP).
struct Anchoring {
  enum class Kind {
    kNone,
    // Advertise the prefix by BGP at `level`, as soon as the kernel delivers.
    kAdvertise,
    // Leave as it is until this AR's own bgpd prefers a route of `successor` at `level` or above; then withdraw.
    kUntilSuperseded,
  };
  Kind kind = Kind::kNone;
  std::uint32_t level = 0;
  std::string successor;

  bool operator==(const Anchoring&) const = default;
};

struct Desired {
  Forwarding forwarding;
  Anchoring anchoring;

  bool operator==(const Desired&) const = default;
};

// Pure. `self` is the name of the AR that asks. Never redirects to an AR that has not acknowledged that it delivers at
// the binding's generation.
Desired desired(const v1::Binding& binding, const std::string& self);

// The attached AR has acknowledged that it delivers at the binding's generation.
bool attached_delivers(const v1::Binding& binding);

// Fences compare by epoch, then by revision.
std::strong_ordering compare(const v1::Generation& a, const v1::Generation& b);

}  // namespace kedge::speaker
