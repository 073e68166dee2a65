#include "speaker/controller/controller.h"

#include <algorithm>
#include <chrono>
#include <iterator>
#include <utility>
#include <vector>

#include "boost/asio/post.hpp"
#include "common/log.h"
#include "common/time.h"

namespace kedge::speaker {
namespace {

using namespace std::chrono_literals;

constexpr auto kFirstRetry = 100ms;
constexpr auto kLastRetry = 2000ms;
// Frames of an MN that the LM does not know, or that it knows to be elsewhere, are not reported again for this long.
constexpr auto kRefusalPause = 2000ms;
// Attachments that wait for the LM, so that invented addresses on an access link cannot fill the memory.
constexpr std::size_t kMostPendingAttaches = 10'000;
// Further ones wait for the answers to these, and tell their age when they are sent: what waits on its way is given up
// and sent anew.
constexpr std::size_t kMostAttachesInFlight = 128;
// So that what waits for its turn meanwhile, such as frames, does not wait long.
constexpr std::size_t kMostCommitsTogether = 256;

std::string generation_text(const v1::Generation& generation) {
  return fmt::format("{}.{}", generation.epoch(), generation.revision());
}

const v1::Holder* own_holder(const v1::Binding& binding, const std::string& self) {
  for (const auto& holder : binding.holders()) {
    if (holder.ar() == self) return &holder;
  }
  return nullptr;
}

// A change of mode or level within the same attachment is a generation, too.
const v1::Generation& attached_since(const v1::Binding& binding) {
  return binding.attachment_generation().revision() == 0 ? binding.generation() : binding.attachment_generation();
}

// Errors of the LM or of the way to it, not of the request.
bool may_pass(const absl::Status& status) {
  return absl::IsUnavailable(status) || absl::IsAborted(status) || absl::IsCancelled(status) ||
         absl::IsDeadlineExceeded(status) || absl::IsUnknown(status) || absl::IsInternal(status);
}

// It needs to know where the MN is on its link.
bool to_mn(const Route& route) { return route.kind == Route::Kind::kDeliver || route.kind == Route::Kind::kRefuse; }

// A route that was seen to win counts for the level that it was seen at, and for lower ones.
bool covers(const Anchoring& seen, const Anchoring& wanted) {
  return seen.kind == wanted.kind && seen.successor == wanted.successor && seen.level >= wanted.level;
}

prometheus::Counter& limited(Metrics& metrics, const std::string& limit) {
  return metrics.counter("kedge_speaker_arrivals_limited_total",
                         "Arrivals that were not told to the LM, by the rate that they were over", {{"limit", limit}});
}

}  // namespace

Controller::Controller(boost::asio::any_io_executor executor, ControllerConfig config, LmClient& lm,
                       ForwardingPlane& forwarding, MakeInjector make_injector, BestPathObserver& observer,
                       AccessPlane& access, Metrics& metrics, SourceGuard* guard, ActivityReporter* activity)
    : executor_(std::move(executor)),
      config_(std::move(config)),
      lm_(lm),
      forwarding_(forwarding),
      make_injector_(std::move(make_injector)),
      observer_(observer),
      access_(access),
      guard_(guard),
      activity_(activity),
      lm_connected_(metrics.gauge("kedge_speaker_lm_connected", "1 while the session with the LM is open")),
      arrivals_(metrics.counter("kedge_speaker_arrivals_total", "Arrivals of MNs seen on the access links")),
      attaches_ok_(metrics.counter("kedge_speaker_attaches_total", "Attach requests by result", {{"result", "ok"}})),
      attaches_failed_(
          metrics.counter("kedge_speaker_attaches_total", "Attach requests by result", {{"result", "failed"}})),
      limited_nodes_(limited(metrics, "node")),
      limited_known_(limited(metrics, "known")),
      limited_strangers_(limited(metrics, "stranger")),
      records_(metrics.counter("kedge_speaker_records_total", "Records received from the LM")),
      acks_(metrics.counter("kedge_speaker_acknowledgements_total", "Acknowledgements sent to the LM")),
      attach_latency_(metrics.latency("kedge_speaker_attach_seconds", "From an arrival to the LM's answer")),
      commit_latency_(metrics.latency("kedge_speaker_frr_commit_seconds", "A round of changes going into FRR")),
      committed_changes_(metrics.counter("kedge_speaker_frr_changes_total", "Changes that FRR has taken")) {
  health_.set_kernel("synced");
  health_.set_access("synced");
  health_.set_frr(injector_state_);

  lm_.on_connection = [this](const absl::Status& status) { on_connection(status); };
  lm_.on_snapshot = [this](const LmClient::Snapshot& snapshot) { on_snapshot(snapshot); };
  lm_.on_record = [this](v1::Record record) { on_record(std::move(record)); };
  forwarding_.on_programmed = [this](const Ipv6Prefix& prefix) { on_programmed(prefix); };
  forwarding_.on_health = [this](const absl::Status& status) {
    kernel_ = status;
    report_health();
  };
  observer_.on_superseded = [this](const Ipv6Prefix& prefix) { on_superseded(prefix); };
  observer_.on_withdrawn = [this](const Ipv6Prefix& prefix) { on_withdrawn(prefix); };
  observer_.on_health = [this](const absl::Status& status) {
    bgpd_ = status;
    report_health();
  };
  access_.on_arrival = [this](const Arrival& arrival) { on_arrival(arrival); };
  access_.on_departure = [this](const Departure& departure) { on_departure(departure); };
  access_.on_limited = [this](ArrivalLimit limit) { on_limited(limit); };
  access_.is_known = [this](const LinkLayerAddress& mn) { return prefixes_of_mn_.contains(mn.to_string()); };
  access_.on_ra_sent = [this](const LinkLayerAddress& mn, const std::vector<AdvertisedPrefix>& prefixes,
                              SystemTime at) { on_ra_sent(mn, prefixes, at); };
  if (guard_ != nullptr) {
    guard_->on_health = [this](const absl::Status& status) {
      guard_health_ = status;
      report_access_health();
    };
  }
  if (activity_ != nullptr) {
    activity_->on_health = [this](const absl::Status& status) {
      activity_health_ = status;
      report_access_health();
    };
  }
}

Controller::~Controller() { *alive_ = false; }

void Controller::on_connection(const absl::Status& status) {
  lm_connected_.Set(status.ok() ? 1 : 0);
  if (status.ok()) {
    log_info("lm_connected");
    connection_error_ = absl::OkStatus();
  } else {
    lm_was_away_ = true;
    // It goes on trying, several times a second.
    if (std::exchange(connection_error_, status) == status) return;
    // The kernel goes on forwarding and FRR announcing what they hold.
    log_warning("lm_disconnected", "reason", status.ToString(), "effect", "bindings stay as they are; retrying");
  }
}

void Controller::on_snapshot(const LmClient::Snapshot& snapshot) {
  const auto& welcome = snapshot.welcome;
  nodes_.clear();
  for (const auto& node : welcome.nodes()) nodes_[node.name()] = node;

  const auto locator = Ipv6Address::parse(welcome.self().locator());
  const auto deliver_sid = Ipv6Address::parse(welcome.self().deliver_sid());
  const auto uplink_sid = Ipv6Address::parse(welcome.self().uplink_sid());
  if (!locator.ok() || !deliver_sid.ok() || !uplink_sid.ok()) {
    log_error("welcome_invalid", "node", welcome.self().name(), "locator", welcome.self().locator(), "deliver_sid",
              welcome.self().deliver_sid(), "uplink_sid", welcome.self().uplink_sid(), "do",
              "correct access_routers in the LM's configuration");
    identity_ = absl::InvalidArgumentError(
        "the LM has no valid addresses for this AR: correct access_routers in its configuration");
    report_health();
    return;
  }
  identity_ = forwarding_.set_identity(*locator, *deliver_sid, *uplink_sid);
  if (!identity_.ok()) log_error("identity_failed", "error", identity_.ToString());
  report_health();
  if (injector_ == nullptr) {
    injector_ = make_injector_(welcome.preference_levels());
    injector_->on_committed = [this](const Ipv6Prefix& prefix, std::uint32_t level) { on_committed(prefix, level); };
    injector_->on_round = [this](std::chrono::duration<double> took, std::size_t changes) {
      commit_latency_.Observe(took.count());
      committed_changes_.Increment(static_cast<double>(changes));
    };
    injector_->on_state = [this](RouteInjector::State, const std::string& text) {
      injector_state_ = text;
      health_.set_frr_version(injector_->frr_version());
      report_health();
    };
  }

  levels_ = std::max(levels_, welcome.preference_levels());
  injector_->raise_levels(welcome.preference_levels());
  if (const auto epoch = std::exchange(epoch_, welcome.revision().epoch()); epoch != 0 && epoch != epoch_) {
    log_warning("lm_restored", "epoch", epoch_, "before", epoch, "effect",
                "what is served here stays, and is told to the LM");
    begin_recovery();
  }

  // What is known of the planes outlives the session, and is acknowledged anew.
  auto previous = std::exchange(entries_, {});
  prefixes_of_mn_.clear();
  withheld_.clear();
  commit_.clear();
  commits_.clear();
  std::set<Ipv6Prefix> known;
  std::set<Ipv6Prefix> told;
  for (const auto& binding : snapshot.bindings) {
    const auto prefix = Ipv6Prefix::parse(binding.prefix());
    if (!prefix.ok()) {
      log_error("record_invalid", "prefix", binding.prefix(), "error", prefix.status().ToString());
      continue;
    }
    if (!told.insert(*prefix).second) {
      log_error("record_invalid", "prefix", binding.prefix(), "error", "the snapshot has it twice", "effect",
                "the first one counts");
      continue;
    }
    if (const auto found = previous.find(*prefix); found != previous.end() && keeps(found->second, &binding)) {
      withheld_[*prefix] = binding;
      continue;
    }
    Entry entry;
    entry.desired = desired(binding, config_.name);
    if (auto node = previous.extract(*prefix); !node.empty()) {
      known.insert(*prefix);
      const bool same_generation = compare(node.mapped().record.generation(), binding.generation()) == 0;
      entry.programmed = node.mapped().programmed;
      entry.level_wanted = node.mapped().level_wanted;
      entry.level_committed = node.mapped().level_committed;
      entry.withdrawn = node.mapped().withdrawn;
      entry.superseded = same_generation && node.mapped().superseded &&
                         covers(node.mapped().desired.anchoring, entry.desired.anchoring);
    } else {
      // An earlier run may have left what has to be kept until something better is safe.
      entry.programmed = forwarding_.held(*prefix);
      const auto mn = LinkLayerAddress::parse(binding.mn_id());
      if (entry.programmed && to_mn(*entry.programmed) && mn.ok()) {
        entry.programmed->link_layer_address = *mn;
      }
    }
    entry.record = binding;
    entries_.emplace(*prefix, std::move(entry));
    prefixes_of_mn_[binding.mn_id()].insert(*prefix);
  }
  for (auto& [prefix, entry] : previous) {
    observer_.unwatch(prefix);
    if (!withheld_.contains(prefix) && !keeps(entry, nullptr)) {
      observer_.forget_withdrawal(prefix);
      if (entry.level_committed != 0U) withdrawing_.insert(prefix);
      continue;
    }
    known.insert(prefix);
    entry.kept = true;
    entry.watched = false;
    prefixes_of_mn_[entry.record.mn_id()].insert(prefix);
    entries_.emplace(prefix, std::move(entry));
  }

  hand_on_snapshot(welcome);
  std::map<Ipv6Prefix, Route> routes;
  for (auto& [prefix, entry] : entries_) {
    const auto* own = own_holder(entry.record, config_.name);
    // What FRR may announce is forwarded until it has withdrawn; an LM that was restored need not know what an earlier
    // run has announced.
    const bool may_announce =
        !known.contains(prefix) || !announces_nothing(entry) || (own != nullptr && own->advertises_preference() > 0);
    auto route = entry.kept ? entry.programmed : route_of(entry);
    if (!route && (may_announce || !releasing(entry))) route = entry.programmed;
    if (route) routes[prefix] = *route;
    // An announcement of which nobody knows must not outlive what it is for.
    if (entry.kept && !(delivering(entry) && entry.record.attached_ar() == config_.name)) entry.level_wanted = 0;
  }

  std::map<Ipv6Prefix, std::uint32_t> levels;
  const auto status = forwarding_.replace_all(routes);
  if (!status.ok()) log_error("forwarding_incomplete", "error", status.ToString(), "effect", "retrying");
  for (auto& [prefix, entry] : entries_) {
    const auto route = routes.find(prefix);
    entry.requested = route == routes.end() ? std::nullopt : std::optional(route->second);
    entry.confirmed = status.ok();
    if (status.ok()) entry.programmed = entry.requested;
    // FRR confirms each that it holds or shall let go, and all of which this run does not know what it holds: the LM
    // may not know either.
    const auto* own = own_holder(entry.record, config_.name);
    const bool announced = entry.level_committed != 0U || (own != nullptr && own->advertises_preference() > 0);
    const bool unknown = !known.contains(prefix) || withdrawing_.contains(prefix);
    if (announced || unknown) doubt_announcement(prefix, entry);
    // Each is set by itself, to learn which one failed.
    if (!entry.kept && !entry.confirmed) reconcile_forwarding(prefix, entry);
    entry.level_wanted = level_of(entry, known.contains(prefix));
    if (entry.level_wanted == 0) continue;
    levels[prefix] = entry.level_wanted;
    doubt_announcement(prefix, entry);
  }
  injector_->replace_all(levels);
  for (const auto& prefix : withdrawing_) {
    if (!levels.contains(prefix)) injector_->set(prefix, 0);
  }
  for (auto& [prefix, entry] : entries_) {
    if (entry.level_wanted == 0 && !entry.level_committed) injector_->set(prefix, 0);
  }

  log_info("snapshot", "revision", generation_text(welcome.revision()), "bindings", entries_.size(), "routes",
           routes.size(), "advertised", levels.size());
  for (auto& [prefix, entry] : entries_) reconcile(prefix, entry);

  std::vector<std::string> mns;
  for (const auto& [mn_id, prefixes] : prefixes_of_mn_) mns.push_back(mn_id);
  for (const auto& mn : served_) mns.push_back(mn.to_string());
  for (const auto& mn_id : mns) refresh_mn(mn_id);
  hold_back_those_elsewhere(known);

  // Moves that happened while the LM was away.
  for (auto& [mn, pending] : pending_attaches_) {
    pending.replay = lm_was_away_;
    pending.retry_after = kFirstRetry;
    if (!pending.in_flight) resend_attach(mn);
  }
  snapshot_taken_ = true;
  lm_was_away_ = false;
  for (auto& [mn, pending] : pending_detaches_) {
    pending.retry_after = kFirstRetry;
    report_departure(mn);
  }
}

std::uint32_t Controller::level_of(const Entry& entry, bool known) const {
  if (entry.kept) return entry.level_wanted;
  const auto* own = own_holder(entry.record, config_.name);
  switch (entry.desired.anchoring.kind) {
    case Anchoring::Kind::kNone:
      break;
    case Anchoring::Kind::kAdvertise:
      // Nothing is announced that is not delivered; what is announced already waits for that.
      return delivering(entry) ? entry.desired.anchoring.level : entry.level_wanted;
    case Anchoring::Kind::kUntilSuperseded:
      if (entry.superseded || own == nullptr) break;
      // In another run of the speaker: what it may have announced, as the LM knows it.
      return known ? entry.level_wanted : own->advertises_preference();
  }
  return 0;
}

void Controller::hand_on_snapshot(const v1::Welcome& welcome) {
  std::map<Ipv6Prefix, const v1::Binding*> records;
  for (const auto& [prefix, entry] : entries_) records[prefix] = entry.kept ? nullptr : &entry.record;
  if (guard_ != nullptr) guard_->take_snapshot(welcome, records);
  if (activity_ != nullptr) activity_->take_snapshot(welcome, records);
}

// Before an MN hears of this AR, and so sends to it. Once one of its prefixes is delivered here, the MN may send here
// from all of them.
void Controller::guard_records(const std::vector<v1::Record>& records) {
  if (guard_ == nullptr) return;
  std::map<Ipv6Prefix, const v1::Binding*> bindings;
  for (const auto& record : records) {
    if (!record.has_binding()) continue;
    const auto& binding = record.binding();
    const auto prefix = Ipv6Prefix::parse(binding.prefix());
    if (!prefix.ok()) continue;
    const auto found = entries_.find(*prefix);
    if (found != entries_.end() && ignores(found->second, binding)) continue;
    bindings[*prefix] = &binding;
  }
  if (!bindings.empty()) guard_->take(bindings);
}

bool Controller::ignores(const Entry& entry, const v1::Binding& binding) const {
  // What is kept is of an earlier epoch: anything is newer.
  return entry.kept ? keeps(entry, &binding) : compare(binding.revision(), entry.record.revision()) < 0;
}

void Controller::hold_back_those_elsewhere(const std::set<Ipv6Prefix>& known) {
  for (const auto& [mn_id, prefixes] : prefixes_of_mn_) {
    const bool new_here =
        std::none_of(prefixes.begin(), prefixes.end(), [&](const auto& p) { return known.contains(p); });
    const bool elsewhere = std::any_of(prefixes.begin(), prefixes.end(), [&](const auto& prefix) {
      const auto& ar = entries_.at(prefix).record.attached_ar();
      return !ar.empty() && ar != config_.name;
    });
    const auto mn = LinkLayerAddress::parse(mn_id);
    if (!new_here || !elsewhere || attached_here(mn_id) || !mn.ok()) continue;
    access_.release_after_restart(*mn);
    // What was heard so far may be no more than the answer to our question who is there, on a link that is about to go.
    const auto pending = pending_attaches_.find(*mn);
    if (pending != pending_attaches_.end() && pending->second.arrival.on_earlier_link &&
        pending->second.arrival.trigger != v1::TRIGGER_ROUTER_SOLICITATION) {
      pending_attaches_.erase(pending);
    }
  }
}

void Controller::on_record(v1::Record record) {
  records_.Increment();
  // The LM's welcome was of no use.
  if (injector_ == nullptr) return;
  const bool more = record.more();
  commit_.push_back(std::move(record));
  if (more) return;
  commits_.push_back(std::exchange(commit_, {}));
  if (commits_.size() > 1) return;
  boost::asio::post(executor_, [this, alive = alive_] {
    if (*alive) take_records();
  });
}

void Controller::take_records() {
  std::vector<v1::Record> together;
  std::size_t taken = 0;
  for (; taken < commits_.size() && taken < kMostCommitsTogether; ++taken) {
    auto& commit = commits_[taken];
    const bool forgets = std::any_of(commit.begin(), commit.end(), [](const auto& r) { return r.has_forget(); });
    // What comes before it, may not undo it.
    if (forgets) take_commits(std::exchange(together, {}));
    std::move(commit.begin(), commit.end(), std::back_inserter(together));
    if (forgets) take_commits(std::exchange(together, {}));
  }
  take_commits(together);
  commits_.erase(commits_.begin(), commits_.begin() + static_cast<std::ptrdiff_t>(taken));
  if (commits_.empty()) return;
  boost::asio::post(executor_, [this, alive = alive_] {
    if (*alive) take_records();
  });
}

void Controller::take_commits(const std::vector<v1::Record>& records) {
  guard_records(records);
  std::set<Ipv6Prefix> taken;
  for (const auto& record : records) {
    const auto prefix = Ipv6Prefix::parse(record.has_forget() ? record.forget().prefix() : record.binding().prefix());
    if (record.has_binding()) {
      if (take(record.binding())) taken.insert(*prefix);
      changed_mns_.insert(record.binding().mn_id());
    } else if (record.has_forget() && prefix.ok()) {
      taken.erase(*prefix);
      drop(*prefix);
    }
  }
  reconcile_all(taken);
  // Packets do not wait for it: what passes until then is behind the last word of the AR that the MN has left.
  if (activity_ != nullptr) {
    std::map<Ipv6Prefix, const v1::Binding*> bindings;
    for (const auto& prefix : taken) bindings[prefix] = &entries_.at(prefix).record;
    activity_->take(bindings);
  }
  for (const auto& mn_id : std::exchange(changed_mns_, {})) refresh_mn(mn_id);
}

bool Controller::take(const v1::Binding& binding) {
  const auto prefix = Ipv6Prefix::parse(binding.prefix());
  if (!prefix.ok()) {
    log_error("record_invalid", "prefix", binding.prefix(), "error", prefix.status().ToString());
    return false;
  }
  auto& entry = entries_[*prefix];
  if (ignores(entry, binding)) {
    if (entry.kept) withheld_[*prefix] = binding;
    return false;
  }
  entry.kept = false;
  withheld_.erase(*prefix);
  if (withdrawing_.contains(*prefix)) doubt_announcement(*prefix, entry);
  if (entry.record.mn_id() != binding.mn_id()) unlist(*prefix, entry.record.mn_id());
  const auto before = std::exchange(entry.desired, desired(binding, config_.name));
  const bool new_generation = compare(binding.generation(), entry.record.generation()) != 0;
  if (new_generation) entry.acknowledged.clear();
  if (new_generation || before.anchoring != entry.desired.anchoring) {
    entry.superseded = entry.superseded && !new_generation && covers(before.anchoring, entry.desired.anchoring);
    entry.watched = false;
    observer_.unwatch(*prefix);
  }
  entry.record = binding;
  prefixes_of_mn_[binding.mn_id()].insert(*prefix);
  return true;
}

void Controller::drop(const Ipv6Prefix& prefix) {
  const auto found = entries_.find(prefix);
  if (found != entries_.end()) {
    unlist(prefix, found->second.record.mn_id());
    if (found->second.level_committed != 0U) withdrawing_.insert(prefix);
    entries_.erase(found);
  }
  withheld_.erase(prefix);
  // Also for a prefix that is not known here: something of an earlier run may be left.
  observer_.unwatch(prefix);
  observer_.forget_withdrawal(prefix);
  injector_->set(prefix, 0);
  if (guard_ != nullptr) guard_->forget(prefix);
  if (activity_ != nullptr) activity_->forget(prefix);
  if (const auto status = forwarding_.set(prefix, std::nullopt); !status.ok()) {
    log_error("clear_failed", "prefix", prefix, "error", status.ToString());
  }
}

void Controller::unlist(const Ipv6Prefix& prefix, const std::string& mn_id) {
  const auto prefixes = prefixes_of_mn_.find(mn_id);
  if (prefixes == prefixes_of_mn_.end()) return;
  prefixes->second.erase(prefix);
  if (prefixes->second.empty()) prefixes_of_mn_.erase(prefixes);
  changed_mns_.insert(mn_id);
}

std::optional<Route> Controller::route_of(const Entry& entry) const {
  Route route;
  switch (entry.desired.forwarding.kind) {
    case Forwarding::Kind::kNone:
      return std::nullopt;
    case Forwarding::Kind::kUnreachable:
      // What is only kept is what the kernel has: the LM may have heard of something older.
      if (entry.record.state() != v1::BINDING_STATE_DETACHED && entry.programmed) return entry.programmed;
      route.kind = Route::Kind::kUnreachable;
      route.ended = entry.desired.forwarding.ended;
      return route;
    case Forwarding::Kind::kRefuse:
      return to_mn_route(entry, Route::Kind::kRefuse);
    case Forwarding::Kind::kDeliver: {
      // The record's attachment describes the AR that the MN is attached to; an old anchor keeps what it has.
      if (!entry.record.attached_ar().empty() && entry.record.attached_ar() != config_.name) return entry.programmed;
      if (entry.record.attached_ar().empty() && (entry.programmed || entry.record.last_ar() != config_.name)) {
        return entry.programmed;
      }
      return to_mn_route(entry, Route::Kind::kDeliver);
    }
    case Forwarding::Kind::kRedirect: {
      if (!config_.redirection) return entry.superseded ? std::nullopt : entry.programmed;
      if (!attached_delivers(entry.record)) return entry.programmed;
      const auto node = nodes_.find(entry.desired.forwarding.redirect_to);
      if (node == nodes_.end()) return entry.programmed;
      const auto segment = Ipv6Address::parse(node->second.deliver_sid());
      if (!segment.ok()) return entry.programmed;
      route.kind = Route::Kind::kRedirect;
      route.segment = *segment;
      return route;
    }
  }
  return std::nullopt;
}

std::optional<Route> Controller::to_mn_route(const Entry& entry, Route::Kind kind) const {
  const auto& attachment = entry.record.attachment();
  const auto link_local = Ipv6Address::parse(attachment.link_local());
  const auto link_layer = LinkLayerAddress::parse(attachment.link_layer_address());
  if (!link_local.ok() || !link_layer.ok()) return entry.programmed;
  Route route;
  route.kind = kind;
  route.interface = attachment.interface();
  route.link_local = *link_local;
  route.link_layer_address = *link_layer;
  route.uplink_segment = uplink_segment_of(entry);
  return route;
}

std::optional<Ipv6Address> Controller::uplink_segment_of(const Entry& entry) const {
  const auto& through = entry.desired.forwarding.uplink_through;
  if (through.empty()) return std::nullopt;
  const auto node = nodes_.find(through);
  if (node == nodes_.end()) return std::nullopt;
  const auto segment = Ipv6Address::parse(node->second.uplink_sid());
  return segment.ok() ? std::optional(*segment) : std::nullopt;
}

bool Controller::releasing(const Entry& entry) const {
  const auto* own = own_holder(entry.record, config_.name);
  return own == nullptr || own->releasing();
}

bool Controller::delivering(const Entry& entry) const {
  return entry.confirmed && entry.programmed && entry.programmed->kind == Route::Kind::kDeliver;
}

void Controller::reconcile(const Ipv6Prefix& prefix, Entry& entry) {
  if (entry.kept) return;
  reconcile_forwarding(prefix, entry);
  reconcile_rest(prefix, entry);
}

void Controller::reconcile_all(const std::set<Ipv6Prefix>& prefixes) {
  std::vector<ForwardingPlane::Change> changes;
  for (const auto& prefix : prefixes) {
    const auto& entry = entries_.at(prefix);
    auto change = entry.kept ? std::nullopt : forwarding_change(prefix, entry);
    if (change) changes.push_back(*std::move(change));
  }
  if (!changes.empty()) {
    const auto statuses = forwarding_.set_all(changes);
    for (std::size_t i = 0; i < changes.size(); ++i) {
      forwarding_changed(changes[i], entries_.at(changes[i].first), statuses[i]);
    }
  }
  for (const auto& prefix : prefixes) {
    auto& entry = entries_.at(prefix);
    if (!entry.kept) reconcile_rest(prefix, entry);
  }
}

void Controller::reconcile_rest(const Ipv6Prefix& prefix, Entry& entry) {
  reconcile_anchoring(prefix, entry);
  // What was withdrawn for good can be cleared now.
  if (releasing(entry)) reconcile_forwarding(prefix, entry);
  acknowledge(prefix, entry);
}

void Controller::reconcile_forwarding(const Ipv6Prefix& prefix, Entry& entry) {
  const auto change = forwarding_change(prefix, entry);
  if (change) forwarding_changed(*change, entry, forwarding_.set(prefix, change->second));
}

std::optional<ForwardingPlane::Change> Controller::forwarding_change(const Ipv6Prefix& prefix,
                                                                     const Entry& entry) const {
  auto route = route_of(entry);
  const bool bgp_only = !config_.redirection && entry.desired.forwarding.kind == Forwarding::Kind::kRedirect;
  if (!route) {
    // An AR that has to let go does so after FRR has withdrawn; one whose acknowledgements the LM has not seen yet
    // keeps what it has until something better is safe.
    const bool clear = (releasing(entry) && announces_nothing(entry)) || (bgp_only && entry.superseded);
    if (!clear || (!entry.programmed && entry.confirmed)) return std::nullopt;
  }
  if (route == entry.programmed && entry.confirmed) return std::nullopt;
  return ForwardingPlane::Change(prefix, std::move(route));
}

void Controller::forwarding_changed(const ForwardingPlane::Change& change, Entry& entry, const absl::Status& status) {
  const auto& [prefix, route] = change;
  entry.requested = route;
  entry.confirmed = status.ok();
  if (!status.ok()) {
    log(absl::IsUnavailable(status) ? LogLevel::kInfo : LogLevel::kError, "forwarding_postponed", "prefix", prefix,
        "generation", generation_text(entry.record.generation()), "reason", status.ToString());
    return;
  }
  entry.programmed = route;
  static constexpr std::string_view kNames[] = {"deliver", "redirect", "unreachable", "refuse"};
  log_info("programmed", "prefix", prefix, "generation", generation_text(entry.record.generation()), "route",
           route ? kNames[static_cast<std::size_t>(route->kind)] : "none", "to",
           route && route->kind == Route::Kind::kRedirect ? entry.desired.forwarding.redirect_to
                                                          : (route ? route->interface : ""),
           "uplink", route && route->uplink_segment ? route->uplink_segment->to_string() : "direct");
  // Better delivered with a direct uplink than not at all.
  const auto& through = entry.desired.forwarding.uplink_through;
  if (route && route->kind == Route::Kind::kDeliver && !through.empty() && !route->uplink_segment) {
    log_warning("uplink_not_tunnelled", "prefix", prefix, "home_ar", through, "do",
                "set uplink_sid of this access router in the LM's configuration");
  }
}

void Controller::reconcile_anchoring(const Ipv6Prefix& prefix, Entry& entry) {
  switch (entry.desired.anchoring.kind) {
    case Anchoring::Kind::kNone:
      observer_.unwatch(prefix);
      set_level(prefix, entry, 0);
      break;
    case Anchoring::Kind::kAdvertise:
      observer_.unwatch(prefix);
      if (delivering(entry)) set_level(prefix, entry, entry.desired.anchoring.level);
      break;
    case Anchoring::Kind::kUntilSuperseded:
      if (entry.superseded) {
        set_level(prefix, entry, 0);
      } else {
        watch(prefix, entry);
      }
      break;
  }
}

void Controller::watch(const Ipv6Prefix& prefix, Entry& entry) {
  if (entry.watched) return;
  const auto node = nodes_.find(entry.desired.anchoring.successor);
  if (node == nodes_.end()) return;
  const auto locator = Ipv6Address::parse(node->second.locator());
  if (!locator.ok()) return;
  entry.watched = true;
  observer_.watch(prefix, *locator, config_.local_preference_base + entry.desired.anchoring.level);
}

void Controller::set_level(const Ipv6Prefix& prefix, Entry& entry, std::uint32_t level) {
  if (entry.level_wanted == level) return;
  entry.level_wanted = level;
  doubt_announcement(prefix, entry);
  // What was said of the level is over, and is said again when it comes back within the same generation.
  std::erase_if(entry.acknowledged, [](const auto& said) {
    const auto stage = std::get<v1::Stage>(said);
    return stage == v1::STAGE_ADVERTISED || stage == v1::STAGE_WITHDRAWN;
  });
  injector_->set(prefix, level);
}

void Controller::doubt_announcement(const Ipv6Prefix& prefix, Entry& entry) {
  entry.level_committed.reset();
  entry.withdrawn = false;
  observer_.forget_withdrawal(prefix);
}

bool Controller::announces_nothing(const Entry& entry) {
  return entry.level_wanted == 0 && entry.level_committed == 0U && entry.withdrawn;
}

void Controller::acknowledge(const Ipv6Prefix& prefix, Entry& entry) {
  const auto* own = own_holder(entry.record, config_.name);
  if (own == nullptr) return;
  if (entry.programmed && entry.confirmed) {
    switch (entry.programmed->kind) {
      case Route::Kind::kDeliver:
        if (entry.record.attached_ar() == config_.name && entry.programmed == route_of(entry)) {
          send_ack(prefix, entry, v1::STAGE_DELIVERING);
        }
        break;
      case Route::Kind::kRedirect:
        // What is only kept until something better is safe is not acknowledged again.
        if (attached_delivers(entry.record) && entry.programmed == route_of(entry)) {
          send_ack(prefix, entry, v1::STAGE_REDIRECTING, entry.desired.forwarding.redirect_to);
        }
        break;
      case Route::Kind::kUnreachable:
        send_ack(prefix, entry, v1::STAGE_UNREACHABLE);
        break;
      case Route::Kind::kRefuse:
        if (entry.desired.forwarding.kind == Forwarding::Kind::kRefuse && entry.programmed == route_of(entry)) {
          send_ack(prefix, entry, v1::STAGE_UNREACHABLE);
        }
        break;
    }
  }
  const auto& anchoring = entry.desired.anchoring;
  if (anchoring.kind == Anchoring::Kind::kAdvertise && entry.record.attached_ar() == config_.name &&
      entry.level_committed == anchoring.level) {
    send_ack(prefix, entry, v1::STAGE_ADVERTISED, {}, anchoring.level);
  }
  // Of which a restored LM does not know: its successor has to announce above it.
  if (anchoring.kind == Anchoring::Kind::kUntilSuperseded && !entry.superseded &&
      entry.level_committed.value_or(0) > own->advertises_preference()) {
    send_ack(prefix, entry, v1::STAGE_ADVERTISED, {}, *entry.level_committed);
  }
  if (anchoring.kind == Anchoring::Kind::kUntilSuperseded && entry.superseded) {
    send_ack(prefix, entry, v1::STAGE_SUPERSEDED, {}, anchoring.level);
  }
  if (own->advertises_preference() > 0 && announces_nothing(entry) &&
      (anchoring.kind == Anchoring::Kind::kNone || entry.superseded)) {
    send_ack(prefix, entry, v1::STAGE_WITHDRAWN);
  }
  const bool empty = !entry.programmed && entry.confirmed && announces_nothing(entry);
  const bool bgp_only = !config_.redirection && entry.superseded;
  if (empty && (own->releasing() || bgp_only)) send_ack(prefix, entry, v1::STAGE_CLEARED);
}

void Controller::send_ack(const Ipv6Prefix& prefix, Entry& entry, v1::Stage stage, const std::string& redirects_to,
                          std::uint32_t level, std::optional<SystemTime> at) {
  // Once more when it has been told to let go: only what is said after that counts as its last word.
  if (!entry.acknowledged.emplace(stage, redirects_to, level, releasing(entry)).second) return;
  v1::Ack ack;
  ack.set_prefix(prefix.to_string());
  *ack.mutable_generation() = entry.record.generation();
  ack.set_stage(stage);
  ack.set_redirects_to(redirects_to);
  ack.set_preference(level);
  *ack.mutable_at() = to_proto(at.value_or(now_system()));
  acks_.Increment();
  lm_.ack(ack);
}

void Controller::on_programmed(const Ipv6Prefix& prefix) {
  const auto found = entries_.find(prefix);
  if (found == entries_.end()) return;
  auto& entry = found->second;
  entry.programmed = entry.requested;
  entry.confirmed = true;
  reconcile(prefix, entry);
  refresh_mn(entry.record.mn_id());
}

void Controller::on_committed(const Ipv6Prefix& prefix, std::uint32_t level) {
  withdrawing_.erase(prefix);
  const auto found = entries_.find(prefix);
  if (found == entries_.end() || found->second.level_wanted != level) return;
  auto& entry = found->second;
  entry.level_committed = level;
  if (level == 0) {
    // bgpd hears of it by zebra, later or, when that has died, not at all.
    entry.withdrawn = false;
    observer_.await_withdrawal(prefix, levels_);
  }
  reconcile(prefix, entry);
}

void Controller::on_superseded(const Ipv6Prefix& prefix) {
  const auto found = entries_.find(prefix);
  if (found == entries_.end() || found->second.desired.anchoring.kind != Anchoring::Kind::kUntilSuperseded) return;
  log_info("superseded", "prefix", prefix, "generation", generation_text(found->second.record.generation()), "by",
           found->second.desired.anchoring.successor);
  found->second.superseded = true;
  reconcile(prefix, found->second);
}

void Controller::on_withdrawn(const Ipv6Prefix& prefix) {
  const auto found = entries_.find(prefix);
  if (found == entries_.end()) return;
  found->second.withdrawn = true;
  reconcile(prefix, found->second);
}

bool Controller::attached_here(const std::string& mn_id) const { return attachment_of(mn_id) != nullptr; }

const v1::Attachment* Controller::attachment_of(const std::string& mn_id) const {
  const auto prefixes = prefixes_of_mn_.find(mn_id);
  if (prefixes == prefixes_of_mn_.end()) return nullptr;
  for (const auto& prefix : prefixes->second) {
    const auto& record = entries_.at(prefix).record;
    if (record.attached_ar() == config_.name) return &record.attachment();
  }
  return nullptr;
}

bool Controller::leaving(const LinkLayerAddress& mn) const {
  const auto pending = pending_detaches_.find(mn);
  const auto prefixes = prefixes_of_mn_.find(mn.to_string());
  if (pending == pending_detaches_.end() || prefixes == prefixes_of_mn_.end()) return false;
  const auto attaching = pending_attaches_.find(mn);
  if (attaching != pending_attaches_.end() && !attaching->second.departed) return false;
  // Whatever attachment the LM knows of.
  if (pending->second.generation.revision() == 0) return true;
  return std::none_of(prefixes->second.begin(), prefixes->second.end(), [&](const Ipv6Prefix& prefix) {
    const auto& record = entries_.at(prefix).record;
    return record.attached_ar() == config_.name && compare(attached_since(record), pending->second.generation) > 0;
  });
}

void Controller::refresh_mn(const std::string& mn_id) {
  const auto mn = LinkLayerAddress::parse(mn_id);
  if (!mn.ok()) return;
  const auto* attachment = attachment_of(mn_id);
  if (attachment == nullptr) {
    if (served_.erase(*mn) > 0) access_.release(*mn);
    return;
  }
  if (leaving(*mn)) return;
  std::vector<AdvertisedPrefix> advertised;
  for (const auto& prefix : prefixes_of_mn_.at(mn_id)) {
    const auto& entry = entries_.at(prefix);
    // It may have an address from it still, and must not take it for anything new.
    if (entry.desired.forwarding.kind == Forwarding::Kind::kRefuse && !entry.record.mobile_network()) {
      advertised.push_back({prefix, true, true});
    }
    if (entry.record.attached_ar() != config_.name) continue;
    // No prefix is advertised to the MN before its packets are delivered; all of them go into one RA.
    if (!delivering(entry)) return;
    // RFC 8818, 2 (MNP): delegated to the MN, a router, for the nodes behind it. Nobody on this link has an address of
    // it.
    if (entry.record.mobile_network()) continue;
    // RFC 8818, 4.2: "The MN obtains a new IP address anchored to the new location and preferably uses it for new
    // communications": the prefixes of other anchors are deprecated.
    advertised.push_back({prefix, entry.record.home_ar() != config_.name, false});
  }
  std::stable_sort(advertised.begin(), advertised.end(),
                   [](const auto& a, const auto& b) { return !a.deprecated && b.deprecated; });
  const auto link_local = Ipv6Address::parse(attachment->link_local());
  if (!link_local.ok()) return;
  served_.insert(*mn);
  if (!pending_attaches_.contains(*mn)) pending_detaches_.erase(*mn);
  access_.serve(*mn, *link_local, attachment->interface(), advertised);
}

void Controller::on_ra_sent(const LinkLayerAddress& mn, const std::vector<AdvertisedPrefix>& prefixes, SystemTime at) {
  log_debug("ra_sent", "mn", mn, "prefixes", prefixes.size());
  for (const auto& advertised : prefixes) {
    const auto found = entries_.find(advertised.prefix);
    if (found == entries_.end() || found->second.kept || advertised.ended) continue;
    send_ack(advertised.prefix, found->second, v1::STAGE_RA_SENT, {}, 0, at);
  }
}

void Controller::on_arrival(const Arrival& arrival) {
  const std::string mn_id = arrival.link_layer_address.to_string();
  const auto* attachment = attachment_of(mn_id);
  if (attachment != nullptr && served_.contains(arrival.link_layer_address)) {
    const bool moved_on_link = attachment->interface() != arrival.interface ||
                               (arrival.link_local_seen && attachment->link_local() != arrival.link_local.to_string());
    if (!moved_on_link) return;
  }
  arrivals_.Increment();
  // It goes on soliciting while it waits.
  if (!pending_attaches_.contains(arrival.link_layer_address)) {
    log_info("arrival", "mn", mn_id, "interface", arrival.interface, "trigger", v1::Trigger_Name(arrival.trigger));
  }
  start_attach(arrival);
}

void Controller::on_limited(ArrivalLimit limit) {
  switch (limit) {
    case ArrivalLimit::kNone:
      break;
    case ArrivalLimit::kNode:
      limited_nodes_.Increment();
      break;
    case ArrivalLimit::kKnown:
      limited_known_.Increment();
      break;
    case ArrivalLimit::kStranger:
      limited_strangers_.Increment();
      break;
  }
}

void Controller::start_attach(const Arrival& arrival) {
  const bool waits = pending_attaches_.contains(arrival.link_layer_address);
  if (!waits && pending_attaches_.size() >= kMostPendingAttaches) {
    access_.refuse(arrival.link_layer_address, kRefusalPause);
    return;
  }
  auto& pending = pending_attaches_[arrival.link_layer_address];
  pending.departed = false;
  if (pending.asked && arrival.trigger == v1::TRIGGER_NEIGHBOUR_DISCOVERY &&
      arrival.interface == pending.arrival.interface) {
    // Nothing but the answer to what it was asked: on_answer() follows.
    if (arrival.link_local_seen) pending.arrival.link_local = arrival.link_local;
    return;
  }
  if (pending.timer == nullptr) {
    pending.timer = std::make_shared<boost::asio::steady_timer>(executor_);
    pending.arrival = arrival;
    pending.retry_after = kFirstRetry;
  } else if (arrival.link_local_seen || pending.arrival.interface != arrival.interface ||
             arrival.trigger == v1::TRIGGER_ROUTER_SOLICITATION) {
    const auto heard_at = pending.arrival.heard_at;
    const bool link_unchanged = pending.arrival.link_unchanged && arrival.link_unchanged;
    pending.changed = pending.changed || pending.arrival.interface != arrival.interface ||
                      pending.arrival.link_local != arrival.link_local;
    pending.arrival = arrival;
    pending.arrival.heard_at = heard_at;
    pending.arrival.link_unchanged = link_unchanged;
  }
  if (pending.in_flight)
    pending.changed = pending.changed || is_authenticated(pending.arrival) != pending.authenticated;
  if (!pending.in_flight && snapshot_taken_) send_attach(arrival.link_layer_address);
}

bool Controller::is_authenticated(const Arrival& arrival) const {
  return access_.authenticated(arrival.link_layer_address, arrival.interface);
}

void Controller::send_attach(const LinkLayerAddress& mn) {
  auto& pending = pending_attaches_.at(mn);
  if (attaches_in_flight_ >= kMostAttachesInFlight) {
    if (!std::exchange(pending.waits, true)) waiting_attaches_.push_back(mn);
    return;
  }
  const auto& arrival = pending.arrival;
  v1::AttachRequest request;
  request.set_ar(config_.name);
  request.set_mn_id(mn.to_string());
  request.mutable_attachment()->set_interface(arrival.interface);
  request.mutable_attachment()->set_link_layer_address(mn.to_string());
  request.mutable_attachment()->set_link_local(arrival.link_local.to_string());
  request.set_trigger(pending.replay && arrival.trigger == v1::TRIGGER_DATA_FRAME ? v1::TRIGGER_REPLAY
                                                                                  : arrival.trigger);
  if (pending.recovery) add_held_prefixes(request);
  const auto age = std::max(std::chrono::steady_clock::now() - heard_by_itself(mn, pending),
                            std::chrono::steady_clock::duration::zero());
  *request.mutable_age() = to_proto(std::chrono::duration_cast<std::chrono::nanoseconds>(age));
  *request.mutable_heard_at() = to_proto(arrival.heard_at);
  request.set_link_unchanged(arrival.link_unchanged);
  request.set_authenticated(is_authenticated(arrival));
  request.set_incarnation(config_.incarnation);
  request.set_sequence(++sequence_);
  pending.in_flight = true;
  pending.changed = false;
  pending.authenticated = request.authenticated();
  pending.sequence = sequence_;
  pending.timer->cancel();
  ++attaches_in_flight_;
  lm_.attach(request, [this, mn, sequence = sequence_, alive = alive_](const absl::Status& status) {
    if (!*alive) return;
    --attaches_in_flight_;
    attach_done(mn, sequence, status);
    send_waiting_attaches();
  });
}

void Controller::send_waiting_attaches() {
  while (!waiting_attaches_.empty() && attaches_in_flight_ < kMostAttachesInFlight) {
    const LinkLayerAddress mn = waiting_attaches_.front();
    waiting_attaches_.pop_front();
    const auto pending = pending_attaches_.find(mn);
    if (pending == pending_attaches_.end() || !std::exchange(pending->second.waits, false)) continue;
    if (!pending->second.in_flight) send_attach(mn);
  }
}

void Controller::attach_done(const LinkLayerAddress& mn, std::uint64_t sequence, const absl::Status& status) {
  const auto found = pending_attaches_.find(mn);
  if (found == pending_attaches_.end() || found->second.sequence != sequence) return;
  auto& pending = found->second;
  pending.in_flight = false;
  if (status.ok()) {
    attaches_ok_.Increment();
    if (!pending.recovery) {
      attach_latency_.Observe(
          std::chrono::duration<double>(std::chrono::steady_clock::now() - pending.arrival.heard_at_steady).count());
    }
    // It is here again, whatever the LM has heard of its departure.
    if (!pending.departed) pending_detaches_.erase(mn);
    if (pending.changed) return send_attach(mn);
    const auto done = std::move(pending);
    pending_attaches_.erase(found);
    if (done.recovery) recovered(mn, done.departed);
    // No record follows when the LM has known of this attachment all the time.
    refresh_mn(mn.to_string());
    return;
  }
  attaches_failed_.Increment();
  if (!may_pass(status)) {
    if (pending.changed) return send_attach(mn);
    log_refusal(mn, status);
    const auto refused = std::move(pending);
    pending_attaches_.erase(found);
    if (refused.departed) pending_detaches_.erase(mn);
    if (refused.recovery) end_recovery(mn.to_string());
    access_.refuse(mn, kRefusalPause);
    report_departure(mn);
    return;
  }
  log_warning("attach_postponed", "mn", mn, "error", status.ToString(), "effect", "retrying");
  wait_to_retry(pending, [this, mn] {
    const auto again = pending_attaches_.find(mn);
    if (again != pending_attaches_.end() && !again->second.in_flight) resend_attach(mn);
  });
}

void Controller::log_refusal(const LinkLayerAddress& mn, const absl::Status& status) {
  if (!logged_refusals_.take(std::chrono::steady_clock::now().time_since_epoch())) {
    ++unlogged_refusals_;
    return;
  }
  log_warning("attach_refused", "mn", mn, "error", status.ToString(), "not_logged_before",
              std::exchange(unlogged_refusals_, 0));
}

void Controller::wait_to_retry(PendingCall& pending, std::function<void()> again) {
  pending.timer->expires_after(pending.retry_after);
  pending.retry_after = std::min<std::chrono::milliseconds>(pending.retry_after * 2, kLastRetry);
  pending.timer->async_wait([again = std::move(again), alive = alive_](boost::system::error_code error) {
    if (!error && *alive) again();
  });
}

void Controller::on_departure(const Departure& departure) {
  const auto& mn = departure.link_layer_address;
  served_.erase(mn);
  if (guard_ != nullptr) guard_->departed(departure);
  if (recovering(mn.to_string())) return recover_departed(departure);
  pending_attaches_.erase(mn);
  const auto prefixes = prefixes_of_mn_.find(mn.to_string());
  if (prefixes == prefixes_of_mn_.end()) return;
  v1::Generation latest;
  for (const auto& prefix : prefixes->second) {
    const auto& record = entries_.at(prefix).record;
    if (record.attached_ar() == config_.name && compare(record.generation(), latest) > 0) latest = record.generation();
  }
  if (latest.revision() == 0) return;
  log_info("departure", "mn", mn, "interface", departure.interface, "reason", v1::DetachReason_Name(departure.reason));
  expect_detach(departure, latest);
  send_detach(mn);
}

void Controller::expect_detach(const Departure& departure, const v1::Generation& generation) {
  auto& pending = pending_detaches_[departure.link_layer_address];
  pending = {};
  pending.departure = departure;
  pending.generation = generation;
  pending.retry_after = kFirstRetry;
  pending.timer = std::make_shared<boost::asio::steady_timer>(executor_);
}

void Controller::report_departure(const LinkLayerAddress& mn) {
  const auto pending = pending_detaches_.find(mn);
  // While it is not known whether it is here again, that goes first.
  if (pending == pending_detaches_.end() || pending->second.in_flight || pending_attaches_.contains(mn)) return;
  send_detach(mn);
}

void Controller::send_detach(const LinkLayerAddress& mn) {
  auto& pending = pending_detaches_.at(mn);
  v1::DetachRequest request;
  request.set_ar(config_.name);
  request.set_mn_id(mn.to_string());
  *request.mutable_generation() = pending.generation;
  request.set_reason(pending.departure.reason);
  request.set_incarnation(config_.incarnation);
  request.set_sequence(++sequence_);
  const auto age = std::chrono::steady_clock::now() - pending.departure.last_heard;
  *request.mutable_age() = to_proto(std::chrono::duration_cast<std::chrono::nanoseconds>(age));
  pending.in_flight = true;
  pending.sequence = sequence_;
  pending.timer->cancel();
  lm_.detach(request, [this, mn, sequence = sequence_, alive = alive_](const absl::Status& status) {
    if (*alive) detach_done(mn, sequence, status);
  });
}

void Controller::detach_done(const LinkLayerAddress& mn, std::uint64_t sequence, const absl::Status& status) {
  const auto found = pending_detaches_.find(mn);
  if (found == pending_detaches_.end() || found->second.sequence != sequence) return;
  auto& pending = found->second;
  pending.in_flight = false;
  if (may_pass(status)) {
    log_warning("detach_postponed", "mn", mn, "error", status.ToString(), "effect", "retrying");
    wait_to_retry(pending, [this, mn] { report_departure(mn); });
    return;
  }
  pending_detaches_.erase(found);
  if (!status.ok()) log_warning("detach_refused", "mn", mn, "error", status.ToString());
}

void Controller::report_access_health() {
  if (!guard_health_.ok()) {
    health_.set_access(std::string(guard_health_.message()));
  } else if (!activity_health_.ok()) {
    health_.set_access(fmt::format("no prefix ends for being idle: {}", std::string(activity_health_.message())));
  } else {
    health_.set_access("synced");
  }
  report_health();
}

void Controller::report_health() {
  const auto& kernel = identity_.ok() ? kernel_ : identity_;
  health_.set_kernel(kernel.ok() ? "synced" : std::string(kernel.message()));
  health_.set_frr(bgpd_.ok() ? injector_state_ : fmt::format("{}; {}", injector_state_, std::string(bgpd_.message())));
  lm_.report_health(health_);
}

}  // namespace kedge::speaker
