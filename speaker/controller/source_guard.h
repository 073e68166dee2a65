// Keeps the access filter as the records and the access links say, counts what it drops, and puts it right when
// somebody has taken it away.
//
// Threading: everything on the speaker's executor.
// Monitoring: kedge_speaker_foreign_source_packets_total, kedge_speaker_foreign_tunnel_packets_total,
// kedge_speaker_permitted_sources.
#pragma once

#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>

#include "absl/status/status.h"
#include "boost/asio/any_io_executor.hpp"
#include "boost/asio/steady_timer.hpp"
#include "common/metrics.h"
#include "speaker/access/access_plane.h"
#include "speaker/core/permitted_sources.h"
#include "speaker/packet_filter/access_filter.h"

namespace kedge::speaker {

class SourceGuard {
 public:
  struct Config {
    // Name of this AR.
    std::string self;
    // An MN that has moved away and has not been heard for so long has left the link, too.
    std::chrono::milliseconds silence;
    // How often it is looked after.
    std::chrono::milliseconds interval = std::chrono::seconds(2);
    // Who may tunnel to this AR besides other ARs.
    std::set<Ipv6Address> tunnel_sources = {};
  };

  // Filter and plane outlive it. Takes the plane's on_link_down and is_let_in.
  SourceGuard(boost::asio::any_io_executor executor, Config config, AccessFilter& filter, AccessPlane& access,
              Metrics& metrics);
  ~SourceGuard();

  SourceGuard(const SourceGuard&) = delete;
  SourceGuard& operator=(const SourceGuard&) = delete;

  // Whole state. A null record: the prefix stays as it is.
  void take_snapshot(const v1::Welcome& welcome, const std::map<Ipv6Prefix, const v1::Binding*>& records);
  // Records of one commit. Returns when the kernel lets in all that they permit.
  void take(const std::map<Ipv6Prefix, const v1::Binding*>& records);
  void forget(const Ipv6Prefix& prefix);
  void departed(const Departure& departure);

  // Empty text: the kernel has what it should.
  std::function<void(const absl::Status&)> on_health;

 private:
  void link_down(const std::string& interface);
  // What is to be let in is so at once; what is not any more, with others of its kind, and behind the redirect of an MN
  // that has moved away.
  void apply();
  void apply_now();
  void replace();
  void report(const absl::Status& status);
  void wait();
  void look_after();
  void count(const AccessFilter::Counters& counters);

  Config config_;
  AccessFilter& filter_;
  AccessPlane& access_;
  PermittedSources sources_;
  TunnelEnds tunnels_;
  // What an earlier run has left is there until the LM has told what is right.
  bool snapshot_taken_ = false;
  absl::Status health_;
  AccessFilter::Counters counted_;
  std::uint64_t unreported_ = 0;
  std::optional<SteadyTime> warned_at_;
  boost::asio::steady_timer timer_;
  boost::asio::steady_timer removals_timer_;
  bool removals_due_ = false;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);

  prometheus::Counter& foreign_sources_;
  prometheus::Counter& foreign_tunnels_;
  prometheus::Gauge& permitted_;
};

}  // namespace kedge::speaker
