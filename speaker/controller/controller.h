// The speaker's centre: takes arrivals to the LM, and the LM's records to the planes below; acknowledges what they have
// reached. Keeps nothing on disk: each snapshot is the whole truth.
//
// Threading: everything on the speaker's executor.
// Monitoring: kedge_speaker_* (arrivals, attaches by result, records, acknowledgements, LM connection).
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <tuple>

#include "boost/asio/any_io_executor.hpp"
#include "boost/asio/steady_timer.hpp"
#include "common/ipv6.h"
#include "common/link_layer_address.h"
#include "common/metrics.h"
#include "speaker/access/access_plane.h"
#include "speaker/core/desired.h"
#include "speaker/frr/anchoring_plane.h"
#include "speaker/kernel/forwarding_plane.h"
#include "speaker/lm_client/lm_client.h"

namespace kedge::speaker {

struct ControllerConfig {
  std::string name;
  std::uint64_t incarnation = 0;
  // Level k is local preference local_preference_base + k.
  std::uint32_t local_preference_base = 100;
  // false: old anchors do not tunnel on; only BGP moves the traffic.
  bool redirection = true;
};

class Controller {
 public:
  // Levels are known only from the LM's welcome.
  using MakeInjector = std::function<std::unique_ptr<RouteInjector>(std::uint32_t levels)>;

  // All planes outlive the controller.
  Controller(boost::asio::any_io_executor executor, ControllerConfig config, LmClient& lm, ForwardingPlane& forwarding,
             MakeInjector make_injector, BestPathObserver& observer, AccessPlane& access, Metrics& metrics);
  ~Controller();

  Controller(const Controller&) = delete;
  Controller& operator=(const Controller&) = delete;

 private:
  // One prefix of which this AR may hold something.
  struct Entry {
    v1::Binding record;
    Desired desired;
    // What the kernel has acknowledged.
    std::optional<Route> programmed;
    // What the forwarding plane was last asked for; it goes on trying until it is asked for something else. While that
    // is not confirmed, the kernel holds one of the two.
    std::optional<Route> requested;
    bool confirmed = true;
    std::uint32_t level_wanted = 0;
    // What FRR has committed; nullopt while a commit is awaited.
    std::optional<std::uint32_t> level_committed = 0;
    // Own bgpd prefers the attached AR's route of this generation.
    bool superseded = false;
    bool watched = false;
    // Acknowledged for this generation in this session: stage, the AR that it redirects to, level, and whether it had
    // been told to let go.
    std::set<std::tuple<v1::Stage, std::string, std::uint32_t, bool>> acknowledged;
  };

  // Tried again for as long as the LM cannot take it.
  struct PendingCall {
    bool in_flight = false;
    // Of the request that was sent last.
    std::uint64_t sequence = 0;
    std::chrono::milliseconds retry_after;
    std::shared_ptr<boost::asio::steady_timer> timer;
  };

  struct PendingAttach : PendingCall {
    Arrival arrival;
    // What has been learnt since the request under way was sent has to follow.
    bool changed = false;
    bool replay = false;
  };

  struct PendingDetach : PendingCall {
    Departure departure;
    // The attachment that has ended.
    v1::Generation generation;
  };

  // From the LM.
  void on_connection(const absl::Status& status);
  void on_snapshot(const LmClient::Snapshot& snapshot);
  void on_record(const v1::Record& record);
  void take(const v1::Binding& binding);
  void drop(const Ipv6Prefix& prefix);

  // From the planes.
  void on_programmed(const Ipv6Prefix& prefix);
  void on_committed(const Ipv6Prefix& prefix, std::uint32_t level);
  void on_superseded(const Ipv6Prefix& prefix);
  void on_arrival(const Arrival& arrival);
  void on_departure(const Departure& departure);
  void on_ra_sent(const LinkLayerAddress& mn, const std::vector<AdvertisedPrefix>& prefixes, SystemTime at);

  // Drives the planes towards what is desired for one prefix, and acknowledges what is reached.
  void reconcile(const Ipv6Prefix& prefix, Entry& entry);
  void reconcile_forwarding(const Ipv6Prefix& prefix, Entry& entry);
  void reconcile_anchoring(const Ipv6Prefix& prefix, Entry& entry);
  void acknowledge(const Ipv6Prefix& prefix, Entry& entry);
  void send_ack(const Ipv6Prefix& prefix, Entry& entry, v1::Stage stage, const std::string& redirects_to = {},
                std::uint32_t level = 0, std::optional<SystemTime> at = {});
  void set_level(const Ipv6Prefix& prefix, Entry& entry, std::uint32_t level);
  std::optional<Route> route_of(const Entry& entry) const;
  // Uplink SID of the AR through which the MN's packets leave; nullopt: directly.
  std::optional<Ipv6Address> uplink_segment_of(const Entry& entry) const;
  bool releasing(const Entry& entry) const;
  bool delivering(const Entry& entry) const;
  void watch(const Ipv6Prefix& prefix, Entry& entry);

  // Serves or releases an MN on the access link, from the records that it has here.
  void refresh_mn(const std::string& mn_id);
  bool attached_here(const std::string& mn_id) const;

  void start_attach(const Arrival& arrival);
  void send_attach(const LinkLayerAddress& mn);
  void attach_done(const LinkLayerAddress& mn, std::uint64_t sequence, const absl::Status& status);
  // Its departure has been seen and is not answered yet, and no younger attachment here is known.
  bool leaving(const LinkLayerAddress& mn) const;
  // Of an MN whose departure is pending.
  void report_departure(const LinkLayerAddress& mn);
  void send_detach(const LinkLayerAddress& mn);
  void detach_done(const LinkLayerAddress& mn, std::uint64_t sequence, const absl::Status& status);
  // Calls `again` unless the timer is cancelled before, or the pending call that owns it is gone.
  void wait_to_retry(PendingCall& pending, std::function<void()> again);
  void report_health();

  boost::asio::any_io_executor executor_;
  ControllerConfig config_;
  LmClient& lm_;
  ForwardingPlane& forwarding_;
  MakeInjector make_injector_;
  std::unique_ptr<RouteInjector> injector_;
  BestPathObserver& observer_;
  AccessPlane& access_;

  std::map<std::string, v1::NodeInfo> nodes_;
  std::map<Ipv6Prefix, Entry> entries_;
  std::map<std::string, std::set<Ipv6Prefix>> prefixes_of_mn_;
  // Told to the access plane.
  std::set<LinkLayerAddress> served_;
  // Changed by records of a commit that is not complete yet.
  std::set<std::string> changed_mns_;
  std::map<LinkLayerAddress, PendingAttach> pending_attaches_;
  std::map<LinkLayerAddress, PendingDetach> pending_detaches_;
  std::uint64_t sequence_ = 0;
  v1::SpeakerHealth health_;
  std::string injector_state_ = "waiting for the LM";
  absl::Status bgpd_;
  absl::Status kernel_;
  absl::Status identity_;

  prometheus::Gauge& lm_connected_;
  prometheus::Counter& arrivals_;
  prometheus::Counter& attaches_ok_;
  prometheus::Counter& attaches_failed_;
  prometheus::Counter& records_;
  prometheus::Counter& acks_;
  prometheus::Histogram& attach_latency_;

  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace kedge::speaker
