// The AR's access links: hears MNs arrive and leave, and answers them with router advertisements.
//
// Threading: all calls and callbacks on the speaker's executor.
// Standards: RFC 4861 (router and neighbour discovery), RFC 4862 (address autoconfiguration), RFC 8273 (a unique prefix
// for each host), RFC 3810 (MLDv2).
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "boost/asio/any_io_executor.hpp"
#include "common/ipv6.h"
#include "common/link_layer_address.h"
#include "common/time.h"
#include "kedge/v1/mobility.pb.h"
#include "speaker/access/arrival_limiter.h"

namespace kedge::speaker {

struct Arrival {
  LinkLayerAddress link_layer_address;
  // Of the source if it was link-local, else the EUI-64 one made from the link-layer address (RFC 4291, 2.5.1).
  Ipv6Address link_local;
  // False when `link_local` is only such a guess.
  bool link_local_seen = false;
  std::string interface;
  v1::Trigger trigger = v1::TRIGGER_UNSPECIFIED;
  // It was moved away while it was served here, and its link has not changed since.
  bool link_unchanged = false;
  // The link was up before this run of the speaker began: the MN may have moved on since and merely keep it up.
  bool on_earlier_link = false;
  SystemTime heard_at;
  SteadyTime heard_at_steady;
};

struct Departure {
  LinkLayerAddress link_layer_address;
  std::string interface;
  v1::DetachReason reason = v1::DETACH_REASON_UNSPECIFIED;
  SteadyTime last_heard;
};

struct AdvertisedPrefix {
  Ipv6Prefix prefix;
  // Of an earlier anchor: preferred lifetime 0 (RFC 4862, 5.5.4).
  bool deprecated = false;
  // Over: its valid lifetime runs out where it is (RFC 4862, 5.5.3, e).
  bool ended = false;

  bool operator==(const AdvertisedPrefix&) const = default;
};

struct AccessPlaneConfig {
  std::vector<std::string> interfaces;
  Ipv6Address link_local;
  LinkLayerAddress link_layer_address;
  std::uint32_t mtu = 1500;
  std::chrono::seconds router_lifetime{1800};
  std::chrono::seconds preferred_lifetime{1800};
  std::chrono::seconds valid_lifetime{7200};
  std::chrono::milliseconds probe_after{5000};
  std::chrono::milliseconds probe_interval{1000};
  // MNs that are probed for the first time since they were heard, a second.
  std::uint32_t probe_rate = 100;
  std::chrono::milliseconds overlap_guard{2000};
  ArrivalRates arrivals{};

  // Source of the frames that ask who is there, on all ARs: link_layer_address with the last bit turned over. While an
  // MN has a link to its old AR too, a bridge in between must not learn from them that the router is here: what the MN
  // sends would come here before it is let in.
  LinkLayerAddress provoking_address() const;
};

// All since the start.
struct AccessCounters {
  // Frames that reached the speaker: the rest was left in the kernel.
  std::uint64_t frames_heard = 0;
  std::uint64_t arrivals = 0;
  // Not passed on, since there were too many.
  std::uint64_t arrivals_limited = 0;
  std::uint64_t departures = 0;
  std::uint64_t router_solicitations = 0;
  std::uint64_t router_advertisements_sent = 0;
  std::uint64_t probes_sent = 0;
  // Frames sent to learn who is behind a link that has come up.
  std::uint64_t provocations_sent = 0;
  std::uint64_t send_errors = 0;
  // False where the kernel does not permit eBPF: arrivals are then told by discovery only.
  bool data_frames_heard = true;
  // Frames that were dropped as malformed, by reason. The reasons are a fixed set.
  std::map<std::string, std::uint64_t> malformed;
};

class AccessPlane {
 public:
  virtual ~AccessPlane() = default;

  // An MN that is not served here was heard; called at most once every 100 ms for an MN until it is served or refused.
  // A router solicitation of a served MN is answered here and also reported (trigger ROUTER_SOLICITATION).
  // Moreover no more often than AccessPlaneConfig::arrivals says.
  std::function<void(const Arrival&)> on_arrival;
  // An arrival was not reported: over that limit.
  std::function<void(ArrivalLimit)> on_limited;
  // More is known of the MN than that it is heard: strangers cannot use up the rate of those. None: only MNs that are
  // served are known.
  std::function<bool(const LinkLayerAddress&)> is_known;
  // The MN may send here from some source, whether it is served or not: it is answered when it looks for the router.
  std::function<bool(const LinkLayerAddress&, const std::string& interface)> is_let_in;
  // A served MN is gone: its link went down, or it answered no probe. It is no longer served.
  std::function<void(const Departure&)> on_departure;
  // The link of an access interface went down, or the interface is gone: nobody is behind it, served or not. Departures
  // of those that were served follow.
  std::function<void(const std::string& interface)> on_link_down;
  // A router advertisement has been sent to the MN.
  std::function<void(const LinkLayerAddress&, const std::vector<AdvertisedPrefix>&, SystemTime at)> on_ra_sent;

  // The MN is attached here: sends it a unicast RA with its prefixes at once if they or the link changed, repeats it
  // before lifetimes run out, answers its RSs, probes it when it is silent. `link_local`/`interface` as in the binding.
  virtual void serve(const LinkLayerAddress& mn, const Ipv6Address& link_local, const std::string& interface,
                     const std::vector<AdvertisedPrefix>& prefixes) = 0;
  // The MN is attached elsewhere now: no RA, no probe; frames do not count as an arrival for `overlap_guard`, unless
  // its link goes down and up. After that a router solicitation or a frame to this router alone does; what goes to a
  // group does not, since an MN with two links up sends it on both.
  virtual void release(const LinkLayerAddress& mn) = 0;
  // The MN was attached elsewhere when this run of the speaker first learnt of it, be it since long or in the moment of
  // the restart: as release(), but only on links that were up before this run, and router solicitations count.
  virtual void release_after_restart(const LinkLayerAddress& mn) = 0;
  // The LM refused it: arrivals by data frames are not reported again for `pause`; an RS or link-up is.
  virtual void refuse(const LinkLayerAddress& mn, std::chrono::milliseconds pause) = 0;
  // When the MN was last heard here; nullopt if never.
  virtual std::optional<SteadyTime> last_heard(const LinkLayerAddress& mn) const = 0;
  // The same on one interface.
  virtual std::optional<SteadyTime> last_heard_on(const std::string& /*interface*/,
                                                  const LinkLayerAddress& /*mn*/) const {
    return std::nullopt;
  }
  // Asks the MN at once whether it is there, served or not: `answered` runs once, true as soon as anything is heard of
  // it on `interface`, false when it has answered none of the solicitations (RFC 4861, 7.3.3), when the link is down,
  // or when it is asked anew. A served MN that has answered none is reported as departed before.
  virtual void probe(const LinkLayerAddress& mn, const Ipv6Address& link_local, const std::string& interface,
                     std::function<void(bool)> answered) = 0;
  // An authenticator vouches for the MN on this interface.
  virtual bool authenticated(const LinkLayerAddress& /*mn*/, const std::string& /*interface*/) const { return false; }
  virtual AccessCounters counters() const { return {}; }
};

// Interfaces that are absent are waited for, with a warning that names them. Where the kernel does not permit eBPF a
// warning is logged, and arrivals are then told by discovery only. Errors: InvalidArgument for a configuration that
// cannot be (the text names the field), PermissionDenied without CAP_NET_RAW.
absl::StatusOr<std::unique_ptr<AccessPlane>> make_access_plane(boost::asio::any_io_executor executor,
                                                               const AccessPlaneConfig& config);

}  // namespace kedge::speaker
