// Tells the LM for how long the prefixes have been idle that end for it: those that MNs have here, away from home.
//
// A router that has none, or an LM that does not ask for it, costs nothing: there is neither a timer nor a table. What
// the kernel has seen outlives this object, a restart of the speaker and an outage of the LM; while the kernel cannot
// tell, nothing is told, and the LM ends nothing.
//
// Threading: everything on the speaker's executor.
// Monitoring: kedge_speaker_watched_prefixes, kedge_speaker_activity_failures_total.
#pragma once

#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "boost/asio/any_io_executor.hpp"
#include "boost/asio/steady_timer.hpp"
#include "common/ipv6.h"
#include "common/metrics.h"
#include "speaker/lm_client/lm_client.h"
#include "speaker/packet_filter/activity_meter.h"

namespace kedge::speaker {

class ActivityReporter {
 public:
  struct Config {
    // Name of this AR.
    std::string self;
    // What is not watched any more, and what is told once more of it, waits for more of its kind.
    std::chrono::milliseconds together = std::chrono::milliseconds(100);
    // Between two reports.
    std::chrono::nanoseconds shortest_interval = std::chrono::seconds(1);
  };

  // Meter and LM client outlive it.
  ActivityReporter(boost::asio::any_io_executor executor, Config config, ActivityMeter& meter, LmClient& lm,
                   Metrics& metrics);
  ~ActivityReporter();

  ActivityReporter(const ActivityReporter&) = delete;
  ActivityReporter& operator=(const ActivityReporter&) = delete;

  // Whole state. A null record: the prefix stays as it is.
  void take_snapshot(const v1::Welcome& welcome, const std::map<Ipv6Prefix, const v1::Binding*>& records);
  // Returns when the kernel watches what the records bring here, which takes some milliseconds. What passed before that
  // is not seen; the idle time begins when the kernel begins to look. Many together cost little more than one.
  void take(const std::map<Ipv6Prefix, const v1::Binding*>& records);
  void take(const Ipv6Prefix& prefix, const v1::Binding& record) { take({{prefix, &record}}); }
  void forget(const Ipv6Prefix& prefix);

  // Not OK: it cannot be seen what is idle.
  std::function<void(const absl::Status&)> on_health;

 private:
  bool applies_to(const v1::Binding& record) const;
  void watch(const std::vector<Ipv6Prefix>& prefixes);
  void unwatch(const Ipv6Prefix& prefix);
  void apply_soon();
  void apply();
  void replace();
  // Those that have gone elsewhere, for the last time.
  void tell_last(const std::vector<Ipv6Prefix>& leaving);
  void report();
  void wait();
  void tell(const std::map<Ipv6Prefix, ActivityMeter::Reading>& readings, bool last = false);
  void note(const absl::Status& status);

  const Config config_;
  ActivityMeter& meter_;
  LmClient& lm_;
  // Zero: nobody asks.
  std::chrono::nanoseconds idle_after_{};
  // By the records, and by what the meter was told.
  std::set<Ipv6Prefix> wanted_;
  std::set<Ipv6Prefix> watched_;
  // Watched and not wanted any more.
  std::set<Ipv6Prefix> leaving_;
  // The meter has a table.
  bool made_ = false;
  // All are to be told of.
  bool snapshot_untold_ = false;
  // A timer runs.
  bool due_ = false;
  bool waiting_ = false;
  absl::Status health_;
  boost::asio::steady_timer apply_timer_;
  boost::asio::steady_timer report_timer_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);

  prometheus::Gauge& watched_gauge_;
  prometheus::Counter& failures_;
};

}  // namespace kedge::speaker
