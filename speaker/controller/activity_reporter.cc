#include "speaker/controller/activity_reporter.h"

#include <algorithm>
#include <iterator>
#include <optional>
#include <utility>

#include "common/log.h"
#include "common/time.h"

namespace kedge::speaker {
namespace {

using std::chrono::nanoseconds;

// As the LM's configuration allows.
constexpr nanoseconds kLongestIdleTime = std::chrono::hours(24);
constexpr int kReportsPerIdleTime = 8;
constexpr nanoseconds kLongestInterval = std::chrono::minutes(15);
// While the meter fails.
constexpr nanoseconds kRetryInterval = std::chrono::seconds(10);
constexpr int kMostUses = 256;
// Of so many, all are read at once.
constexpr std::size_t kMostReadSingly = 200;
constexpr int kLength = 64;

}  // namespace

ActivityReporter::ActivityReporter(boost::asio::any_io_executor executor, Config config, ActivityMeter& meter,
                                   LmClient& lm, Metrics& metrics)
    : config_(std::move(config)),
      meter_(meter),
      lm_(lm),
      apply_timer_(executor),
      report_timer_(std::move(executor)),
      watched_gauge_(metrics.gauge("kedge_speaker_watched_prefixes", "Prefixes that end when they are idle for long")),
      failures_(metrics.counter("kedge_speaker_activity_failures_total",
                                "Times that it could not be seen which prefixes are idle")) {}

ActivityReporter::~ActivityReporter() { *alive_ = false; }

bool ActivityReporter::applies_to(const v1::Binding& record) const {
  return idle_after_ > nanoseconds::zero() && record.attached_ar() == config_.self &&
         record.home_ar() != config_.self && record.prefix_type() == v1::PREFIX_TYPE_SESSION_LASTING &&
         !record.mobile_network();
}

void ActivityReporter::take_snapshot(const v1::Welcome& welcome,
                                     const std::map<Ipv6Prefix, const v1::Binding*>& records) {
  idle_after_ = std::clamp(kedge::from_proto(welcome.idle_after()), nanoseconds::zero(), kLongestIdleTime);
  const auto before = std::exchange(wanted_, {});
  for (const auto& [prefix, record] : records) {
    const bool wanted = record == nullptr ? before.contains(prefix) && idle_after_ > nanoseconds::zero()
                                          : applies_to(*record) && prefix.length() == kLength;
    if (wanted) wanted_.insert(prefix);
  }
  std::vector<Ipv6Prefix> left;
  std::set_difference(watched_.begin(), watched_.end(), wanted_.begin(), wanted_.end(), std::back_inserter(left));
  tell_last(left);
  leaving_.clear();
  replace();
  snapshot_untold_ = true;
  apply_soon();
}

void ActivityReporter::take(const std::map<Ipv6Prefix, const v1::Binding*>& records) {
  std::vector<Ipv6Prefix> fresh;
  for (const auto& [prefix, record] : records) {
    if (!applies_to(*record) || prefix.length() != kLength) {
      unwatch(prefix);
      continue;
    }
    leaving_.erase(prefix);
    if (wanted_.insert(prefix).second && !watched_.contains(prefix)) fresh.push_back(prefix);
  }
  if (!fresh.empty()) watch(fresh);
}

void ActivityReporter::forget(const Ipv6Prefix& prefix) { unwatch(prefix); }

void ActivityReporter::watch(const std::vector<Ipv6Prefix>& prefixes) {
  // While it fails, all is tried again together.
  if (!health_.ok()) return;
  // There is no table yet, which takes some milliseconds to make; from then on it stays.
  if (!made_) return replace();
  const auto status = meter_.change(prefixes, {});
  if (!status.ok()) {
    log_warning("activity_meter_changed", "error", status.ToString(), "action", "made anew");
    return replace();
  }
  watched_.insert(prefixes.begin(), prefixes.end());
  watched_gauge_.Set(static_cast<double>(watched_.size()));
  wait();
}

void ActivityReporter::unwatch(const Ipv6Prefix& prefix) {
  wanted_.erase(prefix);
  if (!watched_.contains(prefix)) return;
  leaving_.insert(prefix);
  apply_soon();
}

void ActivityReporter::apply_soon() {
  if (std::exchange(due_, true)) return;
  apply_timer_.expires_after(config_.together);
  apply_timer_.async_wait([this, alive = alive_](boost::system::error_code error) {
    if (!error && *alive) apply();
  });
}

void ActivityReporter::apply() {
  due_ = false;
  if (const auto leaving = std::exchange(leaving_, {}); !leaving.empty()) {
    const std::vector<Ipv6Prefix> removed(leaving.begin(), leaving.end());
    tell_last(removed);
    const auto status = meter_.change({}, removed);
    if (!status.ok()) {
      log_warning("activity_meter_changed", "error", status.ToString(), "action", "made anew");
      replace();
    } else {
      for (const auto& prefix : removed) watched_.erase(prefix);
      watched_gauge_.Set(static_cast<double>(watched_.size()));
    }
  }
  if (std::exchange(snapshot_untold_, false)) report();
}

void ActivityReporter::tell_last(const std::vector<Ipv6Prefix>& leaving) {
  std::map<Ipv6Prefix, ActivityMeter::Reading> readings;
  if (leaving.size() >= kMostReadSingly) {
    const auto all = meter_.read();
    if (!all.ok()) return;
    for (const auto& prefix : leaving) {
      if (const auto reading = all->find(prefix); reading != all->end()) readings.insert(*reading);
    }
    return tell(readings, true);
  }
  for (const auto& prefix : leaving) {
    const auto reading = meter_.read(prefix);
    if (!reading.ok()) return;
    if (*reading) readings[prefix] = **reading;
  }
  tell(readings, true);
}

void ActivityReporter::replace() {
  const auto status = meter_.replace_all(wanted_);
  watched_ = status.ok() ? wanted_ : std::set<Ipv6Prefix>();
  made_ = status.ok() && !wanted_.empty();
  watched_gauge_.Set(static_cast<double>(watched_.size()));
  note(status);
  report_timer_.cancel();
  waiting_ = false;
  wait();
}

void ActivityReporter::report() {
  if (watched_.empty()) return;
  auto readings = meter_.read();
  const auto has_all = [&] {
    return std::all_of(watched_.begin(), watched_.end(), [&](const auto& p) { return readings->contains(p); });
  };
  if (!readings.ok() || !has_all()) {
    log_warning("activity_meter_changed", "error",
                readings.ok() ? "prefixes are missing" : readings.status().ToString(), "action", "made anew");
    return replace();
  }
  std::erase_if(*readings, [this](const auto& reading) { return !watched_.contains(reading.first); });
  tell(*readings);
}

void ActivityReporter::wait() {
  if (wanted_.empty() || std::exchange(waiting_, true)) return;
  auto interval = std::clamp(idle_after_ / kReportsPerIdleTime, config_.shortest_interval, kLongestInterval);
  if (!health_.ok()) interval = std::min(interval, kRetryInterval);
  report_timer_.expires_after(interval);
  report_timer_.async_wait([this, alive = alive_](boost::system::error_code error) {
    if (error || !*alive) return;
    waiting_ = false;
    if (health_.ok()) {
      report();
    } else {
      replace();
    }
    wait();
  });
}

void ActivityReporter::tell(const std::map<Ipv6Prefix, ActivityMeter::Reading>& readings, bool last) {
  v1::Activity activity;
  for (const auto& [prefix, reading] : readings) {
    auto& use = *activity.add_uses();
    use.set_prefix(prefix.to_string());
    *use.mutable_age() = kedge::to_proto(nanoseconds(reading.age));
    use.set_unused(reading.unused);
    use.set_last(last);
    if (activity.uses_size() < kMostUses) continue;
    lm_.report_activity(activity);
    activity.Clear();
  }
  if (!activity.uses().empty()) lm_.report_activity(activity);
}

void ActivityReporter::note(const absl::Status& status) {
  if (!status.ok()) failures_.Increment();
  if (std::exchange(health_, status) == status) return;
  if (status.ok()) {
    log_info("activity_seen", "prefixes", watched_.size());
  } else {
    log_warning("activity_unseen", "error", status.ToString(), "effect", "no prefix ends for being idle; retrying");
  }
  if (on_health) on_health(status);
}

}  // namespace kedge::speaker
