#include "speaker/authenticator/authenticating_access_plane.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/log.h"

namespace kedge::speaker {

AuthenticatingAccessPlane::AuthenticatingAccessPlane(boost::asio::any_io_executor executor,
                                                     std::vector<std::string> interfaces,
                                                     std::unique_ptr<AccessPlane> inner)
    : interfaces_(interfaces.begin(), interfaces.end()), inner_(std::move(inner)), timer_(std::move(executor)) {
  inner_->on_arrival = [this](const Arrival& arrival) { heard(arrival); };
  inner_->on_departure = [this](const Departure& departure) {
    served_.erase(departure.link_layer_address);
    if (on_departure) on_departure(departure);
  };
  inner_->on_limited = [this](ArrivalLimit limit) {
    if (on_limited) on_limited(limit);
  };
  // An MN that has proved who it is counts among those that are known.
  inner_->is_known = [this](const LinkLayerAddress& mn) {
    return vouched_for_anywhere(mn) || (is_known && is_known(mn));
  };
  inner_->is_let_in = [this](const LinkLayerAddress& mn, const std::string& interface) {
    return is_let_in && is_let_in(mn, interface);
  };
  inner_->on_link_down = [this](const std::string& interface) {
    if (on_link_down) on_link_down(interface);
  };
  inner_->on_ra_sent = [this](const LinkLayerAddress& mn, const std::vector<AdvertisedPrefix>& prefixes,
                              SystemTime at) {
    if (on_ra_sent) on_ra_sent(mn, prefixes, at);
  };
}

AuthenticatingAccessPlane::~AuthenticatingAccessPlane() { *alive_ = false; }

absl::Status AuthenticatingAccessPlane::check_interface(const Station& station) const {
  if (interfaces_.contains(station.interface)) return absl::OkStatus();
  return absl::NotFoundError(absl::StrCat("interface: \"", station.interface, "\" is no access interface; there are ",
                                          absl::StrJoin(interfaces_, ", ")));
}

absl::Status AuthenticatingAccessPlane::authorize(const Station& station, std::string identity,
                                                  std::optional<std::chrono::steady_clock::duration> valid_for) {
  if (auto s = check_interface(station); !s.ok()) return s;
  const auto known = trusted_.find(station);
  if (known == trusted_.end() && trusted_.size() >= kMostVouched) {
    return absl::ResourceExhaustedError(absl::StrCat(kMostVouched, " stations are vouched for already"));
  }
  if (known != trusted_.end() && known->second.until) ends_.erase({*known->second.until, station});
  auto& trust = trusted_[station];
  trust.identity = std::move(identity);
  trust.until.reset();
  if (valid_for) trust.until = std::chrono::steady_clock::now() + *valid_for;
  if (trust.until) ends_.emplace(*trust.until, station);
  arm();
  log_info("authorized", "mn", station.link_layer_address, "interface", station.interface, "identity", trust.identity);
  const auto waits = waiting_by_station_.find(station);
  if (waits == waiting_by_station_.end()) return absl::OkStatus();
  const Arrival arrival = *waits->second;
  forget_waiting(station);
  if (on_arrival) on_arrival(arrival);
  return absl::OkStatus();
}

absl::Status AuthenticatingAccessPlane::revoke(const Station& station) {
  if (auto s = check_interface(station); !s.ok()) return s;
  end(station);
  return absl::OkStatus();
}

void AuthenticatingAccessPlane::end(const Station& station) {
  if (const auto known = trusted_.find(station); known != trusted_.end()) {
    if (known->second.until) ends_.erase({*known->second.until, station});
    trusted_.erase(known);
    arm();
    log_info("revoked", "mn", station.link_layer_address, "interface", station.interface);
  }
  forget_waiting(station);
  const auto served = served_.find(station.link_layer_address);
  if (served == served_.end() || served->second != station.interface) return;
  served_.erase(served);
  Departure departure;
  departure.link_layer_address = station.link_layer_address;
  departure.interface = station.interface;
  departure.reason = v1::DETACH_REASON_UNAUTHENTICATED;
  departure.last_heard = inner_->last_heard(station.link_layer_address).value_or(std::chrono::steady_clock::now());
  inner_->release(station.link_layer_address);
  if (on_departure) on_departure(departure);
}

std::vector<AuthenticatingAccessPlane::Vouched> AuthenticatingAccessPlane::vouched() const {
  std::vector<Vouched> result;
  for (const auto& [station, trust] : trusted_) result.push_back({station, trust.identity, trust.until});
  return result;
}

void AuthenticatingAccessPlane::heard(const Arrival& arrival) {
  const Station station{arrival.interface, arrival.link_layer_address};
  if (!trusted_.contains(station)) {
    forget_waiting(station);
    waiting_.push_front(arrival);
    waiting_by_station_[station] = waiting_.begin();
    if (waiting_.size() > kMostWaiting) {
      waiting_by_station_.erase({waiting_.back().interface, waiting_.back().link_layer_address});
      waiting_.pop_back();
    }
  }
  // Whether it has to be vouched for, the LM knows.
  if (on_arrival) on_arrival(arrival);
}

void AuthenticatingAccessPlane::forget_waiting(const Station& station) {
  const auto found = waiting_by_station_.find(station);
  if (found == waiting_by_station_.end()) return;
  waiting_.erase(found->second);
  waiting_by_station_.erase(found);
}

void AuthenticatingAccessPlane::arm() {
  timer_.cancel();
  if (ends_.empty()) return;
  timer_.expires_at(ends_.begin()->first);
  timer_.async_wait([this, alive = alive_](boost::system::error_code error) {
    if (error || !*alive) return;
    const auto now = std::chrono::steady_clock::now();
    while (!ends_.empty() && ends_.begin()->first <= now) end(Station(ends_.begin()->second));
    arm();
  });
}

bool AuthenticatingAccessPlane::vouched_for_anywhere(const LinkLayerAddress& mn) const {
  return std::any_of(interfaces_.begin(), interfaces_.end(),
                     [&](const std::string& interface) { return authenticated(mn, interface); });
}

bool AuthenticatingAccessPlane::authenticated(const LinkLayerAddress& mn, const std::string& interface) const {
  return trusted_.contains({interface, mn});
}

void AuthenticatingAccessPlane::serve(const LinkLayerAddress& mn, const Ipv6Address& link_local,
                                      const std::string& interface, const std::vector<AdvertisedPrefix>& prefixes) {
  served_[mn] = interface;
  forget_waiting({interface, mn});
  inner_->serve(mn, link_local, interface, prefixes);
}

void AuthenticatingAccessPlane::release(const LinkLayerAddress& mn) {
  served_.erase(mn);
  inner_->release(mn);
}

void AuthenticatingAccessPlane::release_after_restart(const LinkLayerAddress& mn) {
  served_.erase(mn);
  inner_->release_after_restart(mn);
}

void AuthenticatingAccessPlane::refuse(const LinkLayerAddress& mn, std::chrono::milliseconds pause) {
  inner_->refuse(mn, pause);
}

std::optional<SteadyTime> AuthenticatingAccessPlane::last_heard(const LinkLayerAddress& mn) const {
  return inner_->last_heard(mn);
}

std::optional<SteadyTime> AuthenticatingAccessPlane::last_heard_on(const std::string& interface,
                                                                   const LinkLayerAddress& mn) const {
  return inner_->last_heard_on(interface, mn);
}

void AuthenticatingAccessPlane::probe(const LinkLayerAddress& mn, const Ipv6Address& link_local,
                                      const std::string& interface, std::function<void(bool)> answered) {
  inner_->probe(mn, link_local, interface, std::move(answered));
}

AccessCounters AuthenticatingAccessPlane::counters() const { return inner_->counters(); }

}  // namespace kedge::speaker
