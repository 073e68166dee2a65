#include "speaker/access/arrival_tracker.h"

#include <algorithm>

#include "speaker/access/icmpv6_codec.h"

namespace kedge::speaker {
namespace {

// How much a trigger lets the LM do: data frames never create an MN, a router solicitation asks for an answer.
int rank_of(v1::Trigger trigger) {
  switch (trigger) {
    case v1::TRIGGER_ROUTER_SOLICITATION:
      return 3;
    case v1::TRIGGER_NEIGHBOUR_DISCOVERY:
      return 2;
    default:
      return 1;
  }
}

}  // namespace

ArrivalTracker::Verdict ArrivalTracker::heard(const Frame& frame) {
  Entry& entry = entry_of(frame.station);
  const bool heard_before = entry.last_heard.has_value();
  entry.last_heard = frame.at;
  if (entry.kind == Kind::kHeldBack && !(entry.guarded_until && frame.at < *entry.guarded_until) &&
      !(entry.refused_until && frame.at < *entry.refused_until)) {
    set_kind(frame.station, entry, Kind::kUnknown);
  }
  if (frame.link_local) {
    entry.seen_link_local = frame.link_local;
    if (*frame.link_local == entry.served_link_local) entry.served_link_local_seen = true;
  }

  Verdict verdict;
  verdict.served = entry.kind == Kind::kServed;
  verdict.heard_before = heard_before;
  verdict.link_local = entry.seen_link_local.value_or(eui64_link_local(frame.station.link_layer_address));
  verdict.link_local_seen = entry.seen_link_local.has_value();
  verdict.link_unchanged = entry.link_unchanged;
  verdict.moved_away = entry.moved_away;
  verdict.report = tells_of_arrival(frame, entry);
  if (verdict.report) {
    entry.reported_at = frame.at;
    entry.reported_rank = rank_of(frame.trigger);
    entry.reported_link_local_seen = verdict.link_local_seen;
  }
  verdict.data_unneeded_until = data_unneeded_until(frame.station, frame.at);
  return verdict;
}

void ArrivalTracker::unreported(const Station& station) {
  if (const auto found = entries_.find(station); found != entries_.end()) found->second.reported_at.reset();
}

bool ArrivalTracker::tells_of_arrival(const Frame& frame, const Entry& entry) const {
  const int rank = rank_of(frame.trigger);
  const bool recently = entry.reported_at && frame.at < *entry.reported_at + config_.report_interval;
  if (entry.kind == Kind::kServed) {
    if (recently) return false;
    // The address it is served with was a guess; this is its real one.
    const bool corrects =
        frame.link_local && !entry.served_link_local_seen && *frame.link_local != entry.served_link_local;
    return corrects || frame.trigger == v1::TRIGGER_ROUTER_SOLICITATION;
  }
  if (entry.guarded_until && frame.at < *entry.guarded_until &&
      (entry.guarded_from_solicitations || frame.trigger != v1::TRIGGER_ROUTER_SOLICITATION)) {
    return false;
  }
  // What goes to a group comes on every link that the MN keeps up: it does not say that it wants to be here.
  if (entry.moved_away && frame.to_group && frame.trigger != v1::TRIGGER_ROUTER_SOLICITATION) return false;
  if (entry.refused_until && frame.at < *entry.refused_until && frame.trigger != v1::TRIGGER_ROUTER_SOLICITATION &&
      rank <= entry.refused_rank) {
    return false;
  }
  if (!recently) return true;
  return rank > entry.reported_rank || (frame.link_local && !entry.reported_link_local_seen);
}

void ArrivalTracker::serve(const Station& station, const Ipv6Address& link_local, SteadyTime now) {
  for (const Station& other : stations_of(station.link_layer_address)) {
    const auto found = entries_.find(other);
    if (other == station || found == entries_.end() || found->second.kind != Kind::kServed) continue;
    hold_back(other, found->second, now, true);
  }
  Entry& entry = entry_of(station);
  if (entry.kind != Kind::kServed || entry.served_link_local != link_local) {
    entry.served_link_local = link_local;
    entry.served_link_local_seen = entry.seen_link_local == link_local;
  }
  entry.guarded_until.reset();
  entry.moved_away = false;
  entry.link_unchanged = false;
  entry.refused_until.reset();
  set_kind(station, entry, Kind::kServed);
}

void ArrivalTracker::hold_back(const Station& station, Entry& entry, SteadyTime now, bool from_solicitations) {
  entry.guarded_until = now + config_.overlap_guard;
  entry.guarded_from_solicitations = from_solicitations;
  entry.moved_away = true;
  if (entry.kind == Kind::kServed) entry.link_unchanged = true;
  set_kind(station, entry, Kind::kHeldBack);
}

void ArrivalTracker::forget_past(Entry& entry) {
  entry.guarded_until.reset();
  entry.moved_away = false;
  entry.link_unchanged = false;
  entry.refused_until.reset();
  entry.reported_at.reset();
}

std::vector<Station> ArrivalTracker::release(const LinkLayerAddress& mn, std::size_t ports, SteadyTime now) {
  std::vector<Station> stations = stations_of(mn);
  if (stations.empty()) {
    for (std::size_t port = 0; port < ports; ++port) {
      stations.push_back({.port = port, .link_layer_address = mn});
      entry_of(stations.back());
    }
  }
  for (const Station& station : stations) {
    const auto found = entries_.find(station);
    if (found == entries_.end()) continue;  // forgotten for the sake of the ones before
    found->second.reported_at.reset();
    hold_back(station, found->second, now, true);
  }
  return stations;
}

void ArrivalTracker::release_after_restart(const Station& station, SteadyTime now) {
  Entry& entry = entry_of(station);
  hold_back(station, entry, now, false);
  entry.reported_at.reset();
}

void ArrivalTracker::depart(const Station& station) {
  const auto found = entries_.find(station);
  if (found == entries_.end()) return;
  found->second.reported_at.reset();
  found->second.moved_away = false;
  found->second.link_unchanged = false;
  set_kind(station, found->second, Kind::kUnknown);
}

std::vector<Station> ArrivalTracker::refuse(const LinkLayerAddress& mn, std::chrono::milliseconds pause,
                                            SteadyTime now) {
  std::vector<Station> refused;
  for (const Station& station : stations_of(mn)) {
    const auto found = entries_.find(station);
    if (found == entries_.end() || found->second.kind == Kind::kServed) continue;
    Entry& entry = found->second;
    entry.refused_until = now + pause;
    entry.refused_rank = std::max(entry.reported_rank, rank_of(v1::TRIGGER_DATA_FRAME));
    set_kind(station, entry, Kind::kHeldBack);
    refused.push_back(station);
  }
  return refused;
}

void ArrivalTracker::link_changed(std::size_t port) {
  for (auto& [station, entry] : entries_) {
    if (station.port != port) continue;
    forget_past(entry);
    if (entry.kind != Kind::kUnknown) move_to(Kind::kUnknown, entry);
  }
  std::list<Station>& unknown = list_of(Kind::kUnknown);
  if (!unknown.empty()) trim(Kind::kUnknown, unknown.front());
}

std::vector<Station> ArrivalTracker::end_guards(std::size_t port) {
  std::vector<Station> freed;
  for (auto& [station, entry] : entries_) {
    if (station.port != port || entry.kind == Kind::kServed) continue;
    forget_past(entry);
    freed.push_back(station);
  }
  return freed;
}

std::optional<SteadyTime> ArrivalTracker::data_unneeded_until(const Station& station, SteadyTime now) const {
  const auto found = entries_.find(station);
  if (found == entries_.end()) return std::nullopt;
  const Entry& entry = found->second;
  if (entry.kind == Kind::kServed) return SteadyTime::max();
  SteadyTime until = SteadyTime::min();
  if (entry.guarded_until) until = std::max(until, *entry.guarded_until);
  if (entry.refused_until) until = std::max(until, *entry.refused_until);
  if (entry.reported_at) until = std::max(until, *entry.reported_at + config_.report_interval);
  if (until <= now) return std::nullopt;
  return until;
}

std::optional<SteadyTime> ArrivalTracker::last_heard(const Station& station) const {
  const auto found = entries_.find(station);
  return found == entries_.end() ? std::nullopt : found->second.last_heard;
}

std::optional<SteadyTime> ArrivalTracker::last_heard(const LinkLayerAddress& mn) const {
  std::optional<SteadyTime> latest;
  for (const Station& station : stations_of(mn)) latest = std::max(latest, entries_.at(station).last_heard);
  return latest;
}

ArrivalTracker::Entry& ArrivalTracker::entry_of(const Station& station) {
  ports_ = std::max(ports_, station.port + 1);
  const auto [found, added] = entries_.try_emplace(station);
  Entry& entry = found->second;
  std::list<Station>& list = list_of(entry.kind);
  if (!added) {
    list.splice(list.begin(), list, entry.position);
    return entry;
  }
  list.push_front(station);
  entry.position = list.begin();
  trim(entry.kind, station);
  return entry;
}

void ArrivalTracker::set_kind(const Station& station, Entry& entry, Kind kind) {
  if (entry.kind == kind) return;
  move_to(kind, entry);
  trim(kind, station);
}

void ArrivalTracker::move_to(Kind kind, Entry& entry) {
  std::list<Station>& to = list_of(kind);
  to.splice(to.begin(), list_of(entry.kind), entry.position);
  entry.kind = kind;
}

void ArrivalTracker::trim(Kind kind, const Station& kept) {
  if (kind == Kind::kServed) return;
  std::list<Station>& list = list_of(kind);
  while (list.size() > config_.max_unknown && list.back() != kept) {
    entries_.erase(list.back());
    list.pop_back();
  }
}

std::vector<Station> ArrivalTracker::stations_of(const LinkLayerAddress& mn) const {
  std::vector<Station> stations;
  for (std::size_t port = 0; port < ports_; ++port) {
    const Station station{.port = port, .link_layer_address = mn};
    if (entries_.contains(station)) stations.push_back(station);
  }
  return stations;
}

}  // namespace kedge::speaker
