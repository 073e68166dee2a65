// Messages of one small network, written as Protobuf's text format.
#pragma once

#include <stdexcept>
#include <string>

#include "google/protobuf/text_format.h"
#include "kedge/v1/admin.pb.h"

namespace kedge::kedgectl {

template <typename Message>
Message from_text(const std::string& text) {
  Message message;
  if (!google::protobuf::TextFormat::ParseFromString(text, &message)) throw std::invalid_argument(text);
  return message;
}

// A node of ar1 that has moved to ar2, where BGP has yet to settle. 2026-01-02T03:04:05Z is 1767323045.
inline v1::Binding moving_binding() {
  return from_text<v1::Binding>(R"(
    prefix: "2001:db8:8818:1::/64" mn_id: "02:00:00:00:00:11" home_ar: "ar1" attached_ar: "ar2"
    mode: MODE_RELOCATE prefix_type: PREFIX_TYPE_SESSION_LASTING state: BINDING_STATE_MOVING
    generation { epoch: 1 revision: 41 } revision { epoch: 1 revision: 44 } preference: 2
    holders { ar: "ar1" generation { epoch: 1 revision: 41 } redirects_to: "ar2" }
    holders { ar: "ar2" generation { epoch: 1 revision: 41 } delivers: true advertises_preference: 2 }
    holders { ar: "ar3" generation { epoch: 1 revision: 30 } releasing: true }
    attachment { interface: "eth1" link_layer_address: "02:00:00:00:00:11" link_local: "fe80::ff:fe00:11" }
    created_at { seconds: 1767319445 } attached_at { seconds: 1767323045 nanos: 500000000 }
    updated_at { seconds: 1767323045 nanos: 600000000 })");
}

// Of the same node, which is a mobile router.
inline v1::Binding mobile_network_binding() {
  auto binding = moving_binding();
  binding.set_prefix("2001:db8:8818:f00::/56");
  binding.set_mobile_network(true);
  return binding;
}

inline v1::Binding detached_binding() {
  return from_text<v1::Binding>(R"(
    prefix: "2001:db8:8818:2::/64" mn_id: "02:00:00:00:00:12" home_ar: "ar1"
    mode: MODE_NOMADIC prefix_type: PREFIX_TYPE_NON_PERSISTENT state: BINDING_STATE_DETACHED
    generation { epoch: 1 revision: 9 } revision { epoch: 1 revision: 9 })");
}

inline v1::Event settled_event() {
  return from_text<v1::Event>(R"(
    id: 4711 type: EVENT_TYPE_SETTLED prefix: "2001:db8:8818:1::/64" mn_id: "02:00:00:00:00:11" ar: "ar2"
    generation { epoch: 1 revision: 41 } at { seconds: 1767323045 nanos: 678901000 } detail: "after 1.2 s")");
}

}  // namespace kedge::kedgectl
