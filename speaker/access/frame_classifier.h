// What a frame on an access link tells of the station that has sent it. Pure; any thread.
//
// Standards: RFC 4861 (neighbour discovery), RFC 4862, 5.4.2 (duplicate address detection), RFC 2710 and RFC 3810
// (multicast listener discovery).
#pragma once

#include <cstdint>
#include <optional>
#include <span>

#include "absl/status/statusor.h"
#include "common/link_layer_address.h"
#include "speaker/access/arrival_tracker.h"

namespace kedge::speaker {

// An Ethernet frame, which may have been cut behind its headers; `own` is the access router's address. Port and time
// are left to the caller. nullopt: it tells of nobody. InvalidArgument: malformed discovery, with icmpv6_codec's texts;
// the frame has at least an Ethernet header then.
absl::StatusOr<std::optional<ArrivalTracker::Frame>> classify_frame(std::span<const std::uint8_t> frame,
                                                                    const LinkLayerAddress& own);

}  // namespace kedge::speaker
