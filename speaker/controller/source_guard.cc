#include "speaker/controller/source_guard.h"

#include <utility>

#include "common/log.h"

namespace kedge::speaker {
namespace {

constexpr std::chrono::seconds kWarningInterval{10};
// A link with thousands of MNs may go down, or all of them may go to another AR: one transaction for many costs a
// fraction of one for each.
constexpr std::chrono::milliseconds kRemovalsTogether{100};

// Who may tunnel to this AR. An AR does not send to itself.
TunnelEnds tunnel_ends(const v1::Welcome& welcome, const std::set<Ipv6Address>& others) {
  TunnelEnds ends;
  ends.peers = others;
  const auto insert = [](std::set<Ipv6Address>& to, const std::string& text) {
    if (const auto address = Ipv6Address::parse(text); address.ok()) to.insert(*address);
  };
  insert(ends.segments, welcome.self().deliver_sid());
  insert(ends.segments, welcome.self().uplink_sid());
  for (const auto& node : welcome.nodes()) {
    if (node.name() != welcome.self().name()) insert(ends.peers, node.locator());
  }
  return ends;
}

}  // namespace

SourceGuard::SourceGuard(boost::asio::any_io_executor executor, Config config, AccessFilter& filter,
                         AccessPlane& access, Metrics& metrics)
    : config_(std::move(config)),
      filter_(filter),
      access_(access),
      sources_(config_.self),
      timer_(executor),
      removals_timer_(std::move(executor)),
      foreign_sources_(metrics.counter("kedge_speaker_foreign_source_packets_total",
                                       "Packets from access links dropped for a source that is not the sender's")),
      foreign_tunnels_(metrics.counter("kedge_speaker_foreign_tunnel_packets_total",
                                       "Packets to segment identifiers dropped since no access router sent them")),
      permitted_(metrics.gauge("kedge_speaker_permitted_sources", "Prefixes that MNs here may send from")) {
  access_.on_link_down = [this](const std::string& interface) { link_down(interface); };
  access_.is_let_in = [this](const LinkLayerAddress& mn, const std::string& interface) {
    return sources_.any_of(mn, interface);
  };
  for (const auto& source : filter_.held()) sources_.adopt(source, std::chrono::steady_clock::now());
  // The kernel has them.
  sources_.take_change();
  permitted_.Set(static_cast<double>(sources_.count()));
  wait();
}

SourceGuard::~SourceGuard() {
  *alive_ = false;
  access_.on_link_down = nullptr;
  access_.is_let_in = nullptr;
}

void SourceGuard::take_snapshot(const v1::Welcome& welcome, const std::map<Ipv6Prefix, const v1::Binding*>& records) {
  const auto now = std::chrono::steady_clock::now();
  for (const auto& prefix : sources_.prefixes()) {
    if (!records.contains(prefix)) sources_.forget(prefix, now);
  }
  for (const auto& [prefix, record] : records) {
    if (record != nullptr) sources_.take(prefix, *record, now);
  }
  auto tunnels = tunnel_ends(welcome, config_.tunnel_sources);
  const bool same = std::exchange(tunnels_, std::move(tunnels)) == tunnels_;
  if (std::exchange(snapshot_taken_, true) && same) return apply();
  replace();
}

void SourceGuard::take(const std::map<Ipv6Prefix, const v1::Binding*>& records) {
  const auto now = std::chrono::steady_clock::now();
  for (const auto& [prefix, record] : records) sources_.take(prefix, *record, now);
  apply();
}

void SourceGuard::forget(const Ipv6Prefix& prefix) {
  sources_.forget(prefix, std::chrono::steady_clock::now());
  apply();
}

void SourceGuard::departed(const Departure& departure) {
  // What an earlier run has left may be where MNs are attached.
  if (!snapshot_taken_) return;
  sources_.departed(departure.link_layer_address, departure.interface);
  apply();
}

void SourceGuard::link_down(const std::string& interface) {
  if (!snapshot_taken_) return;
  sources_.link_down(interface);
  apply();
}

void SourceGuard::apply() {
  if (sources_.has_additions()) return apply_now();
  if (!sources_.has_removals() || std::exchange(removals_due_, true)) return;
  removals_timer_.expires_after(kRemovalsTogether);
  removals_timer_.async_wait([this, alive = alive_](boost::system::error_code error) {
    if (!error && *alive) apply_now();
  });
}

void SourceGuard::apply_now() {
  removals_due_ = false;
  removals_timer_.cancel();
  const auto change = sources_.take_change();
  permitted_.Set(static_cast<double>(sources_.count()));
  if (change.empty()) return;
  if (!health_.ok()) return replace();
  const auto status = filter_.change(change.added, change.removed);
  if (status.ok()) return;
  log_warning("source_guard_changed", "error", status.ToString(), "action", "made anew");
  replace();
}

void SourceGuard::replace() {
  sources_.take_change();
  permitted_.Set(static_cast<double>(sources_.count()));
  report(filter_.replace_all(sources_.all(), tunnels_));
}

void SourceGuard::report(const absl::Status& status) {
  if (std::exchange(health_, status) == status) return;
  if (status.ok()) {
    log_info("source_guard_healthy", "sources", sources_.all().size());
  } else {
    log_error("source_guard_failed", "error", status.ToString(), "effect", "MNs that come are not let in; retrying");
  }
  if (on_health) on_health(status);
}

void SourceGuard::wait() {
  timer_.expires_after(config_.interval);
  timer_.async_wait([this, alive = alive_](boost::system::error_code error) {
    if (error || !*alive) return;
    look_after();
    wait();
  });
}

void SourceGuard::look_after() {
  const auto counters = filter_.counters();
  if (counters.ok()) count(*counters);
  if (!snapshot_taken_) return;
  if (!counters.ok()) {
    log_warning("source_guard_changed", "error", counters.status().ToString(), "action", "made anew");
  }
  if (!counters.ok() || !health_.ok()) replace();
  if (!sources_.has_earlier()) return;
  sources_.expire(std::chrono::steady_clock::now(), config_.silence,
                  [this](const std::string& interface, const LinkLayerAddress& mn) {
                    return access_.last_heard_on(interface, mn);
                  });
  apply();
}

void SourceGuard::count(const AccessFilter::Counters& counters) {
  // A filter that was made anew counts from 0.
  const auto since = [](std::uint64_t now, std::uint64_t before) { return now < before ? now : now - before; };
  const auto sources = since(counters.foreign_sources, counted_.foreign_sources);
  const auto tunnels = since(counters.foreign_tunnels, counted_.foreign_tunnels);
  counted_ = counters;
  foreign_sources_.Increment(static_cast<double>(sources));
  foreign_tunnels_.Increment(static_cast<double>(tunnels));
  unreported_ += sources + tunnels;
  const auto now = std::chrono::steady_clock::now();
  if (unreported_ == 0 || (warned_at_ && now < *warned_at_ + kWarningInterval)) return;
  log_warning("foreign_packets", "count", std::exchange(unreported_, 0), "effect",
              "dropped: from an MN that has no such prefix here, or to a segment identifier from no access router");
  warned_at_ = now;
}

}  // namespace kedge::speaker
