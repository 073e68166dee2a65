#include "speaker/core/desired.h"

#include <tuple>

namespace kedge::speaker {
namespace {

const v1::Holder* find_holder(const v1::Binding& binding, const std::string& ar) {
  for (const auto& holder : binding.holders()) {
    if (holder.ar() == ar) return &holder;
  }
  return nullptr;
}

// RFC 8818, 4.2: "the previous anchor still anchors the traffic using the old IP address", in both directions: Figure 6
// has "FM: IP1 via IPa1" at AR2.
Forwarding deliver(const v1::Binding& binding, const std::string& self) {
  const bool through_home =
      binding.mode() == v1::MODE_REDIRECT && !binding.direct_uplink() && binding.home_ar() != self;
  return {Forwarding::Kind::kDeliver, {}, through_home ? binding.home_ar() : std::string(), false};
}

// What the AR has last acknowledged stays until something better is safe.
Forwarding as_acknowledged(const v1::Binding& binding, const v1::Holder& holder) {
  if (holder.delivers()) return deliver(binding, holder.ar());
  if (!holder.redirects_to().empty()) return {Forwarding::Kind::kRedirect, holder.redirects_to(), {}, false};
  if (holder.unreachable()) return {Forwarding::Kind::kUnreachable, {}, {}, false};
  return {};
}

}  // namespace

std::strong_ordering compare(const v1::Generation& a, const v1::Generation& b) {
  return std::make_tuple(a.epoch(), a.revision()) <=> std::make_tuple(b.epoch(), b.revision());
}

bool attached_delivers(const v1::Binding& binding) {
  if (binding.attached_ar().empty()) return false;
  const v1::Holder* attached = find_holder(binding, binding.attached_ar());
  return attached != nullptr && attached->delivers() && compare(attached->generation(), binding.generation()) == 0;
}

Desired desired(const v1::Binding& binding, const std::string& self) {
  const v1::Holder* own = find_holder(binding, self);
  if (own == nullptr || own->releasing()) return {};

  Desired result;
  if (binding.attached_ar().empty()) {
    if (binding.state() == v1::BINDING_STATE_DETACHED_GRACE) {
      result.forwarding = as_acknowledged(binding, *own);
      if (own->advertises_preference() > 0) {
        result.anchoring = {Anchoring::Kind::kAdvertise, own->advertises_preference(), {}};
      }
      return result;
    }
    if (binding.home_ar() == self) {
      result.forwarding.kind = Forwarding::Kind::kUnreachable;
      result.forwarding.ended = binding.released();
    } else if (binding.released()) {
      // RFC 8818, 4.1: "the IP address (IP1) configured at the previously visited network is not valid at the current
      // attachment point".
      result.forwarding.kind = Forwarding::Kind::kRefuse;
    }
    return result;
  }

  if (binding.attached_ar() == self) {
    result.forwarding = deliver(binding, self);
    // RFC 8818, 2: "an IP prefix ... is topologically anchored to an anchor node when the anchor node is able to
    // advertise a route into the routing infrastructure for the assigned IP prefix".
    if (binding.preference() > 0) {
      result.anchoring = {Anchoring::Kind::kAdvertise, binding.preference(), {}};
    }
    return result;
  }

  // RFC 8818, 4.2: "the previous anchor ... forwards it to the new MN's location", once that location can deliver.
  result.forwarding = attached_delivers(binding)
                          ? Forwarding{Forwarding::Kind::kRedirect, binding.attached_ar(), {}, false}
                          : as_acknowledged(binding, *own);
  if (binding.preference() > 0) {
    // RFC 8818, 4.3: "If the MN moves to a new anchor, the old anchor withdraws the /64 and the new anchor injects it".
    result.anchoring = {Anchoring::Kind::kUntilSuperseded, binding.preference(), binding.attached_ar()};
  }
  return result;
}

}  // namespace kedge::speaker
