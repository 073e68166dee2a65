// The speaker's centre: takes arrivals to the LM, and the LM's records to the planes below; acknowledges what they have
// reached. Keeps nothing on disk: each snapshot is the whole truth.
//
// Threading: everything on the speaker's executor.
// Monitoring: kedge_speaker_* (arrivals, attaches by result, records, acknowledgements, LM connection).
#pragma once

#include <chrono>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <tuple>
#include <vector>

#include "boost/asio/any_io_executor.hpp"
#include "boost/asio/steady_timer.hpp"
#include "common/ipv6.h"
#include "common/link_layer_address.h"
#include "common/metrics.h"
#include "common/recovery.h"
#include "common/token_bucket.h"
#include "speaker/access/access_plane.h"
#include "speaker/controller/activity_reporter.h"
#include "speaker/controller/source_guard.h"
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
  // How long redirects are kept of which a restored LM does not know.
  std::chrono::milliseconds recovery_time = kRecoveryTime;
};

class Controller {
 public:
  // Levels are known only from the LM's welcome.
  using MakeInjector = std::function<std::unique_ptr<RouteInjector>(std::uint32_t levels)>;

  // All planes outlive the controller. Without a guard, sources on the access links are not checked; without a
  // reporter, the LM does not learn what is idle.
  Controller(boost::asio::any_io_executor executor, ControllerConfig config, LmClient& lm, ForwardingPlane& forwarding,
             MakeInjector make_injector, BestPathObserver& observer, AccessPlane& access, Metrics& metrics,
             SourceGuard* guard = nullptr, ActivityReporter* activity = nullptr);
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
    // bgpd and its neighbours have followed the last removal that FRR has committed, if there was one.
    bool withdrawn = true;
    // Own bgpd prefers the attached AR's route of this generation.
    bool superseded = false;
    bool watched = false;
    // Acknowledged for this generation in this session: stage, the AR that it redirects to, level, and whether it had
    // been told to let go.
    std::set<std::tuple<v1::Stage, std::string, std::uint32_t, bool>> acknowledged;
    // The record is of an earlier epoch. Kernel, FRR and RA stay as they are, and nothing is acknowledged, until the LM
    // has told something newer or the recovery is over.
    bool kept = false;
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
    // As in the request that was sent last.
    bool authenticated = false;
    bool replay = false;
    // It was served here until the LM came back with another epoch, and brings along what it was served with.
    bool recovery = false;
    // It has left; only what it was served with is told, and that it has left.
    bool departed = false;
    // Until fewer are under way.
    bool waits = false;
    // Waits to be asked whether it is there; has been asked.
    bool queued = false;
    bool asked = false;
    // When it was heard by itself before it was asked, and when it answered.
    SteadyTime heard;
    std::optional<SteadyTime> answered;
  };

  struct PendingDetach : PendingCall {
    Departure departure;
    // The attachment that has ended.
    v1::Generation generation;
  };

  // From the LM.
  void on_connection(const absl::Status& status);
  void on_snapshot(const LmClient::Snapshot& snapshot);
  void on_record(v1::Record record);
  // All that has come meanwhile: kernel and packet filter take many changes for little more than one.
  void take_records();
  void take_commits(const std::vector<v1::Record>& records);
  // False: it is ignored.
  bool take(const v1::Binding& binding);
  void drop(const Ipv6Prefix& prefix);

  // From the planes.
  void on_programmed(const Ipv6Prefix& prefix);
  void on_committed(const Ipv6Prefix& prefix, std::uint32_t level);
  void on_superseded(const Ipv6Prefix& prefix);
  void on_withdrawn(const Ipv6Prefix& prefix);
  void on_arrival(const Arrival& arrival);
  void on_departure(const Departure& departure);
  void on_ra_sent(const LinkLayerAddress& mn, const std::vector<AdvertisedPrefix>& prefixes, SystemTime at);

  void on_limited(ArrivalLimit limit);
  void log_refusal(const LinkLayerAddress& mn, const absl::Status& status);
  // To the guard and the reporter.
  void hand_on_snapshot(const v1::Welcome& welcome);
  void guard_records(const std::vector<v1::Record>& records);
  // It is older than what is known, or has to wait until the recovery is over.
  bool ignores(const Entry& entry, const v1::Binding& binding) const;

  // Drives the planes towards what is desired for one prefix, and acknowledges what is reached.
  void reconcile(const Ipv6Prefix& prefix, Entry& entry);
  void reconcile_forwarding(const Ipv6Prefix& prefix, Entry& entry);
  // The forwarding of all of these, and then the rest of each.
  void reconcile_all(const std::set<Ipv6Prefix>& prefixes);
  void reconcile_rest(const Ipv6Prefix& prefix, Entry& entry);
  // What the forwarding plane has to be asked for, if anything.
  std::optional<ForwardingPlane::Change> forwarding_change(const Ipv6Prefix& prefix, const Entry& entry) const;
  void forwarding_changed(const ForwardingPlane::Change& change, Entry& entry, const absl::Status& status);
  void reconcile_anchoring(const Ipv6Prefix& prefix, Entry& entry);
  void acknowledge(const Ipv6Prefix& prefix, Entry& entry);
  void send_ack(const Ipv6Prefix& prefix, Entry& entry, v1::Stage stage, const std::string& redirects_to = {},
                std::uint32_t level = 0, std::optional<SystemTime> at = {});
  void set_level(const Ipv6Prefix& prefix, Entry& entry, std::uint32_t level);
  // FRR has to confirm what it holds, and bgpd what it has withdrawn.
  void doubt_announcement(const Ipv6Prefix& prefix, Entry& entry);
  // Neither FRR nor the network, as far as bgpd knows, has a route to here.
  static bool announces_nothing(const Entry& entry);
  // That FRR has to announce after a snapshot; `known`: since before it.
  std::uint32_t level_of(const Entry& entry, bool known) const;
  std::optional<Route> route_of(const Entry& entry) const;
  // By the record's attachment.
  std::optional<Route> to_mn_route(const Entry& entry, Route::Kind kind) const;
  // Uplink SID of the AR through which the MN's packets leave; nullopt: directly.
  std::optional<Ipv6Address> uplink_segment_of(const Entry& entry) const;
  bool releasing(const Entry& entry) const;
  bool delivering(const Entry& entry) const;
  void watch(const Ipv6Prefix& prefix, Entry& entry);

  // Serves or releases an MN on the access link, from the records that it has here.
  void refresh_mn(const std::string& mn_id);
  bool attached_here(const std::string& mn_id) const;
  // Where the MN is on its link; nullptr when it is not attached here.
  const v1::Attachment* attachment_of(const std::string& mn_id) const;

  void start_attach(const Arrival& arrival);
  void send_attach(const LinkLayerAddress& mn);
  void send_waiting_attaches();
  bool is_authenticated(const Arrival& arrival) const;
  // MNs that are attached elsewhere, and of which an earlier run of the speaker knew whether they had left.
  void hold_back_those_elsewhere(const std::set<Ipv6Prefix>& known);
  void attach_done(const LinkLayerAddress& mn, std::uint64_t sequence, const absl::Status& status);
  // Its departure has been seen and is not answered yet, and no younger attachment here is known.
  bool leaving(const LinkLayerAddress& mn) const;
  // No longer one of the MN's.
  void unlist(const Ipv6Prefix& prefix, const std::string& mn_id);

  // Replay (controller_recovery.cc). An Attach that could not be sent or answered at once is sent again, after the MN
  // has been asked whether it is there if it has been silent since.
  void resend_attach(const LinkLayerAddress& mn);
  void ask_some();
  void ask(const LinkLayerAddress& mn);
  void on_answer(const LinkLayerAddress& mn, bool answered);
  // Answers to what it was asked do not count: of two ARs that have a link to the MN, the one where it speaks wins.
  SteadyTime heard_by_itself(const LinkLayerAddress& mn, const PendingAttach& pending) const;
  bool was_heard_lately(const LinkLayerAddress& mn, const PendingAttach& pending) const;

  // Recovery (controller_recovery.cc). The LM has come back with another epoch: its store was restored, and what it
  // knows is old. Each MN that is served here is attached anew; what it is served with stays meanwhile.
  void begin_recovery();
  void recover(const LinkLayerAddress& mn, bool departed);
  bool recovering(const std::string& mn_id) const;
  // Whether `known`, what the LM has of a kept prefix, has to wait. Null: it has nothing.
  bool keeps(const Entry& entry, const v1::Binding* known) const;
  void add_held_prefixes(v1::AttachRequest& request) const;
  // The recovering MN has left.
  void recover_departed(const Departure& departure);
  void recovered(const LinkLayerAddress& mn, bool departed);
  // What the LM has not told of by now is let go.
  void end_recovery(const std::string& mn_id);
  void end_keeping();
  void after(std::chrono::milliseconds time, std::function<void()> action);
  void expect_detach(const Departure& departure, const v1::Generation& generation);
  // Of an MN whose departure is pending.
  void report_departure(const LinkLayerAddress& mn);
  void send_detach(const LinkLayerAddress& mn);
  void detach_done(const LinkLayerAddress& mn, std::uint64_t sequence, const absl::Status& status);
  // Calls `again` unless the timer is cancelled before, or the pending call that owns it is gone.
  void wait_to_retry(PendingCall& pending, std::function<void()> again);
  void report_health();
  void report_access_health();

  boost::asio::any_io_executor executor_;
  ControllerConfig config_;
  LmClient& lm_;
  ForwardingPlane& forwarding_;
  MakeInjector make_injector_;
  std::unique_ptr<RouteInjector> injector_;
  BestPathObserver& observer_;
  AccessPlane& access_;
  SourceGuard* guard_;
  ActivityReporter* activity_;

  std::map<std::string, v1::NodeInfo> nodes_;
  std::map<Ipv6Prefix, Entry> entries_;
  std::map<std::string, std::set<Ipv6Prefix>> prefixes_of_mn_;
  // Tags of FRR's statics that are ours: 1 to this.
  std::uint32_t levels_ = 0;
  // Told to the access plane.
  std::set<LinkLayerAddress> served_;
  // Of a commit that is not complete yet.
  std::vector<v1::Record> commit_;
  // Complete and not taken yet.
  std::deque<std::vector<v1::Record>> commits_;
  // MNs to be served or released once its records have been taken.
  std::set<std::string> changed_mns_;
  std::map<LinkLayerAddress, PendingAttach> pending_attaches_;
  std::size_t attaches_in_flight_ = 0;
  // In the order in which they came.
  std::deque<LinkLayerAddress> waiting_attaches_;
  // Attachments wait for it: it tells which of them are known to be old.
  bool snapshot_taken_ = false;
  // Since the last snapshot.
  bool lm_was_away_ = false;
  std::map<LinkLayerAddress, PendingDetach> pending_detaches_;
  std::uint64_t sequence_ = 0;
  // Of the LM's store, as of the last snapshot; 0: there was none in this run.
  std::uint64_t epoch_ = 0;
  // Records of kept prefixes, not acted upon yet.
  std::map<Ipv6Prefix, v1::Binding> withheld_;
  const SteadyTime started_at_ = std::chrono::steady_clock::now();
  // Until then, redirects are kept.
  SteadyTime keep_until_;
  // Dropped while FRR still announced them, and not confirmed as withdrawn.
  std::set<Ipv6Prefix> withdrawing_;
  std::deque<LinkLayerAddress> to_ask_;
  bool asking_ = false;
  // Refusals that are logged, each for itself.
  TokenBucket logged_refusals_{20, 1};
  std::uint64_t unlogged_refusals_ = 0;
  v1::SpeakerHealth health_;
  std::string injector_state_ = "waiting for the LM";
  absl::Status bgpd_;
  absl::Status kernel_;
  absl::Status identity_;
  absl::Status guard_health_;
  absl::Status activity_health_;
  // Why there is no session with the LM, as it was logged.
  absl::Status connection_error_;

  prometheus::Gauge& lm_connected_;
  prometheus::Counter& arrivals_;
  prometheus::Counter& attaches_ok_;
  prometheus::Counter& attaches_failed_;
  prometheus::Counter& limited_nodes_;
  prometheus::Counter& limited_known_;
  prometheus::Counter& limited_strangers_;
  prometheus::Counter& records_;
  prometheus::Counter& acks_;
  prometheus::Histogram& attach_latency_;
  prometheus::Histogram& commit_latency_;
  prometheus::Counter& committed_changes_;

  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace kedge::speaker
