#include "tests/model/speaker.h"

#include <utility>

namespace kedge::model {
namespace {
constexpr std::uint32_t kLocalPreferenceBase = 100;
constexpr auto kOverlapGuard = std::chrono::seconds(2);

Metrics& metrics() {
  static Metrics instance;
  return instance;
}
}  // namespace

// The ledger is the real one; FRR itself, and the way to it, are the model's.
class Speaker::Injector : public speaker::RouteInjector {
 public:
  Injector(Speaker& speaker, std::uint32_t levels) : speaker_(speaker), ledger_(levels) {}

  void set(const Ipv6Prefix& prefix, std::uint32_t level) override {
    if (level == 0) note_withdrawal(prefix);
    ledger_.set(prefix, level);
  }
  void replace_all(const std::map<Ipv6Prefix, std::uint32_t>& levels) override {
    ledger_.replace_all(levels);
    read_first_ = true;
  }
  void raise_levels(std::uint32_t levels) override { ledger_.raise_levels(levels); }
  State state() const override { return State::kSynced; }
  std::string frr_version() const override { return "8.4.4"; }

  bool work() {
    if (round_.empty()) {
      if (read_first_) {
        read_first_ = false;
        std::map<Ipv6Prefix, speaker::HeldRoute> held;
        for (const auto& [prefix, level] : speaker_.router_.statics) {
          held[prefix].blackhole_tag = level;
          held[prefix].same_keys = true;
        }
        ledger_.take_held(std::move(held), true);
      }
      auto [changes, met] = ledger_.plan(1000);
      round_ = std::move(changes);
      for (const auto& [prefix, level] : met) {
        speaker_.world_.adopted_static(speaker_.router_, prefix);
        on_committed(prefix, level);
      }
      return !round_.empty() || !met.empty();
    }
    if (!committed_) {
      committed_ = true;
      for (const auto& [prefix, change] : round_) speaker_.world_.set_static(speaker_.router_, prefix, change.level);
      return true;
    }
    committed_ = false;
    const auto round = std::exchange(round_, {});
    ledger_.take_committed(round);
    for (const auto& [prefix, change] : round) on_committed(prefix, change.level);
    return true;
  }

  void lost_connection() {
    round_.clear();
    committed_ = false;
    read_first_ = true;
  }

 private:
  void note_withdrawal(const Ipv6Prefix& prefix) {
    if (const auto* record = speaker_.record(prefix)) {
      speaker_.world_.asked_to_withdraw(speaker_.router_, prefix, *record);
    }
  }

  Speaker& speaker_;
  speaker::RouteLedger ledger_;
  bool read_first_ = true;
  bool committed_ = false;
  speaker::RouteChanges round_;
};

// What the kernel keeps in mind outlives the speaker.
class Speaker::Meter : public speaker::ActivityMeter {
 public:
  Meter(World& world, Router& router) : world_(world), watched_(router.watched) {}

  absl::Status replace_all(const std::set<Ipv6Prefix>& prefixes) override {
    std::erase_if(watched_, [&](const auto& watched) { return !prefixes.contains(watched.first); });
    for (const auto& prefix : prefixes) watched_.try_emplace(prefix, Watched{world_.now_, {}});
    return absl::OkStatus();
  }
  absl::Status change(const std::vector<Ipv6Prefix>& added, const std::vector<Ipv6Prefix>& removed) override {
    for (const auto& prefix : removed) watched_.erase(prefix);
    for (const auto& prefix : added) watched_[prefix] = Watched{world_.now_, {}};
    return absl::OkStatus();
  }
  absl::StatusOr<std::map<Ipv6Prefix, Reading>> read() override {
    std::map<Ipv6Prefix, Reading> readings;
    for (const auto& [prefix, watched] : watched_) readings[prefix] = of(watched);
    return readings;
  }
  absl::StatusOr<std::optional<Reading>> read(const Ipv6Prefix& prefix) override {
    const auto found = watched_.find(prefix);
    if (found == watched_.end()) return std::optional<Reading>();
    return std::optional(of(found->second));
  }

 private:
  Reading of(const Watched& watched) const {
    const auto age = world_.now_ - watched.used.value_or(watched.since);
    return {std::chrono::duration_cast<std::chrono::milliseconds>(age), !watched.used};
  }

  World& world_;
  std::map<Ipv6Prefix, Watched>& watched_;
};

Speaker::Speaker(World& world, Router& router, std::uint64_t incarnation)
    : world_(world), router_(router), incarnation_(incarnation) {
  meter_ = std::make_unique<Meter>(world, router);
  activity_ = std::make_unique<speaker::ActivityReporter>(
      world_.io_.get_executor(), speaker::ActivityReporter::Config{.self = router.name}, *meter_, *this, metrics());
  controller_ = std::make_unique<speaker::Controller>(
      world_.io_.get_executor(),
      speaker::ControllerConfig{router.name, incarnation, kLocalPreferenceBase, true, kRecoveryTime}, *this, *this,
      [this](std::uint32_t levels) {
        auto injector = std::make_unique<Injector>(*this, levels);
        injector_ = injector.get();
        return injector;
      },
      *this, *this, metrics(), nullptr, activity_.get());
}

Speaker::~Speaker() {
  controller_.reset();
  if (session_ != nullptr) {
    session_->broken = true;
    session_->speaker_knows = true;
  }
}

// LM

void Speaker::ack(const v1::Ack& ack) {
  const auto prefix = *Ipv6Prefix::parse(ack.prefix());
  world_.acknowledged(router_, prefix, ack);
  if (!synced_ || session_->broken) return;
  *session_->to_lm.emplace_back().mutable_ack() = ack;
}

void Speaker::report_activity(const v1::Activity& activity) {
  if (!synced_ || session_->broken) return;
  *session_->to_lm.emplace_back().mutable_activity() = activity;
  session_->activities_sent.push_back(world_.now_);
}

void Speaker::attach(const v1::AttachRequest& request, std::function<void(const absl::Status&)> done) {
  auto call = std::make_shared<Call>();
  call->ar = world_.ar_of(router_.name);
  call->incarnation = incarnation_;
  call->attach = request;
  call->done = std::move(done);
  world_.calls_.push_back(std::move(call));
}

void Speaker::detach(const v1::DetachRequest& request, std::function<void(const absl::Status&)> done) {
  auto call = std::make_shared<Call>();
  call->ar = world_.ar_of(router_.name);
  call->incarnation = incarnation_;
  call->detach = request;
  call->done = std::move(done);
  world_.calls_.push_back(std::move(call));
}

void Speaker::connected(std::shared_ptr<Session> session) {
  session_ = std::move(session);
  synced_ = false;
  snapshot_ = {};
  auto& hello = *session_->to_lm.emplace_back().mutable_hello();
  hello.set_ar(router_.name);
  hello.set_incarnation(incarnation_);
}

const v1::Binding* Speaker::record(const Ipv6Prefix& prefix) const {
  const auto found = records_.find(prefix);
  return found == records_.end() ? nullptr : &found->second;
}

void Speaker::note_record(const v1::Record& record) {
  if (record.has_binding()) {
    records_[*Ipv6Prefix::parse(record.binding().prefix())] = record.binding();
  } else {
    records_.erase(*Ipv6Prefix::parse(record.forget().prefix()));
  }
}

bool Speaker::receive() {
  if (!receive_one()) return false;
  // What has come meanwhile, it acts on together; but not what is to be forgotten, which is an act of its own.
  const auto goes_along = [this] {
    if (forgets_ || session_ == nullptr || session_->to_speaker.empty()) return false;
    const auto& next = *session_->to_speaker.front();
    return next.has_record() && next.record().has_binding();
  };
  while (goes_along() && world_.random_.chance(300)) receive_one();
  world_.run_handlers();
  return true;
}

bool Speaker::receive_one() {
  forgets_ = false;
  if (session_ == nullptr) return false;
  if (session_->to_speaker.empty()) {
    if (!session_->broken) return false;
    session_->speaker_knows = true;
    session_.reset();
    synced_ = false;
    commit_.clear();
    on_connection(absl::UnavailableError("the session is lost"));
    return true;
  }
  const auto message = session_->to_speaker.front();
  session_->to_speaker.pop_front();
  if (message->has_welcome()) {
    snapshot_.welcome = message->welcome();
  } else if (message->has_record()) {
    if (synced_) {
      commit_.push_back(message->record());
      if (!message->record().more()) take_commit();
    } else if (message->record().has_binding()) {
      snapshot_.bindings.push_back(message->record().binding());
    }
  } else if (message->has_snapshot_end()) {
    synced_ = true;
    earlier_.clear();
    records_.clear();
    for (const auto& binding : snapshot_.bindings) records_[*Ipv6Prefix::parse(binding.prefix())] = binding;
    on_connection(absl::OkStatus());
    on_snapshot(std::exchange(snapshot_, {}));
  }
  return true;
}

// The controller acts on all records of a commit at once.
void Speaker::take_commit() {
  const auto commit = std::exchange(commit_, {});
  for (const auto& record : commit) {
    forgets_ = forgets_ || record.has_forget();
    note_record(record);
    earlier_.push_back(record);
    if (earlier_.size() > 16) earlier_.erase(earlier_.begin());
  }
  for (const auto& record : commit) on_record(record);
}

bool Speaker::take_stale_record(Random& random) {
  if (!synced_ || earlier_.empty() || !commit_.empty()) return false;
  v1::Record old = earlier_[static_cast<std::size_t>(random.pick(static_cast<int>(earlier_.size())))];
  if (!old.has_binding()) return false;
  const auto* now = record(*Ipv6Prefix::parse(old.binding().prefix()));
  if (now == nullptr || speaker::compare(old.binding().revision(), now->revision()) >= 0) return false;
  old.set_more(false);
  on_record(old);
  world_.run_handlers();
  return true;
}

// Kernel

absl::Status Speaker::set(const Ipv6Prefix& prefix, const std::optional<speaker::Route>& route) {
  pending_.erase(prefix);
  const auto generation = world_.check_redirect(router_, prefix, route, record(prefix), false);
  if (world_.kernel_fails()) {
    pending_[prefix] = {route, generation};
    // Programmed all the same: the link cannot send yet.
    if (world_.random_.pick(2) == 0) world_.set_kernel(router_, prefix, route, record(prefix), generation);
    return absl::UnavailableError("the kernel refuses");
  }
  world_.set_kernel(router_, prefix, route, record(prefix), generation);
  if (route) router_.confirmed[prefix] = {*route, generation};
  return absl::OkStatus();
}

std::optional<speaker::Route> Speaker::held(const Ipv6Prefix& prefix) const {
  const auto found = router_.kernel.find(prefix);
  return found == router_.kernel.end() ? std::nullopt : std::optional(found->second.route);
}

absl::Status Speaker::replace_all(const std::map<Ipv6Prefix, speaker::Route>& routes) {
  pending_.clear();
  absl::Status status;
  std::vector<std::pair<Ipv6Prefix, std::optional<speaker::Route>>> all(routes.begin(), routes.end());
  for (const auto& [prefix, held] : router_.kernel) {
    if (!routes.contains(prefix)) all.emplace_back(prefix, std::nullopt);
  }
  for (const auto& [prefix, route] : all) {
    // What is there already is left as it is.
    if (route && held(prefix) == route) {
      router_.confirmed[prefix] = router_.kernel.at(prefix);
      continue;
    }
    const auto generation = world_.check_redirect(router_, prefix, route, record(prefix), true);
    if (world_.kernel_fails()) {
      pending_[prefix] = {route, generation};
      status = absl::UnavailableError("the kernel refuses some");
    } else {
      world_.set_kernel(router_, prefix, route, record(prefix), generation);
    }
  }
  return status;
}

bool Speaker::repair(Random& random) {
  if (pending_.empty()) return false;
  const auto it = std::next(pending_.begin(), random.pick(static_cast<int>(pending_.size())));
  const Ipv6Prefix prefix = it->first;
  const auto [route, generation] = it->second;
  pending_.erase(it);
  world_.set_kernel(router_, prefix, route, record(prefix), generation);
  if (route) router_.confirmed[prefix] = {*route, generation};
  on_programmed(prefix);
  return true;
}

// FRR

void Speaker::watch(const Ipv6Prefix& prefix, const Ipv6Address& successor, std::uint32_t local_preference) {
  watches_[prefix] = {world_.ar_of(successor), local_preference - kLocalPreferenceBase};
}

bool Speaker::ask_bgpd(int self) {
  for (const auto& [prefix, watch] : watches_) {
    const BgpPath best = world_.best_path(self, prefix);
    if (best.ar != watch.successor || best.level < watch.level) continue;
    const Ipv6Prefix superseded = prefix;
    watches_.erase(superseded);
    on_superseded(superseded);
    return true;
  }
  for (const auto& [prefix, levels] : awaited_) {
    const auto own = router_.originated.find(prefix);
    if ((own != router_.originated.end() && own->second <= levels) || router_.preserved.contains(prefix)) continue;
    const Ipv6Prefix withdrawn = prefix;
    awaited_.erase(withdrawn);
    on_withdrawn(withdrawn);
    return true;
  }
  return false;
}

bool Speaker::write_frr() { return injector_ != nullptr && injector_->work(); }

void Speaker::frr_was_restarted() {
  if (injector_ != nullptr) injector_->lost_connection();
}

// Access

void Speaker::serve(const LinkLayerAddress& mn, const Ipv6Address&, const std::string& interface,
                    const std::vector<speaker::AdvertisedPrefix>& prefixes) {
  served_[mn] = interface;
  for (const auto& advertised : prefixes) {
    const auto held = router_.kernel.find(advertised.prefix);
    if (advertised.ended) continue;
    if (held == router_.kernel.end() || held->second.route.kind != speaker::Route::Kind::kDeliver) {
      world_.violated("a prefix is advertised to its MN only where it is delivered",
                      router_.name + " " + advertised.prefix.to_string());
    }
  }
}

void Speaker::release(const LinkLayerAddress& mn) {
  served_.erase(mn);
  released_[mn] = {world_.steady_now_};
}

void Speaker::release_after_restart(const LinkLayerAddress& mn) {
  served_.erase(mn);
  if (!came_up_.contains(mn)) released_[mn] = {world_.steady_now_, true};
}

std::optional<SteadyTime> Speaker::last_heard(const LinkLayerAddress& mn) const {
  const auto found = heard_.find(mn);
  return found == heard_.end() ? std::nullopt : std::optional(found->second);
}

void Speaker::probe(const LinkLayerAddress& mn, const Ipv6Address&, const std::string& interface,
                    std::function<void(bool)> answered) {
  questions_.push_back({mn, interface, std::move(answered)});
}

bool Speaker::question_is_answered(int self) {
  if (questions_.empty()) return false;
  const Question question = std::move(questions_.front());
  questions_.pop_front();
  const bool there = world_.linked(question.mn.to_string().back() - '0', self);
  world_.trace("{} asks whether {} is there: {}", router_.name, question.mn.to_string(), there);
  if (there) heard_[question.mn] = world_.steady_now_;
  if (!there) departed(question.mn, v1::DETACH_REASON_UNREACHABLE);
  question.answered(there);
  return true;
}

bool Speaker::hears(const LinkLayerAddress& mn, v1::Trigger trigger, bool guess, const std::string& interface) {
  heard_[mn] = world_.steady_now_;
  const auto released = released_.find(mn);
  if (!served_.contains(mn) && released != released_.end() &&
      world_.steady_now_ - released->second.at < kOverlapGuard &&
      !(released->second.solicitations_count && trigger == v1::TRIGGER_ROUTER_SOLICITATION)) {
    return false;
  }
  const auto served = served_.find(mn);
  if (served != served_.end() && served->second == interface && trigger != v1::TRIGGER_ROUTER_SOLICITATION) {
    return true;
  }
  speaker::Arrival arrival;
  arrival.link_layer_address = mn;
  arrival.link_local = *Ipv6Address::parse("fe80::11");
  arrival.link_local_seen = !guess;
  arrival.interface = interface;
  arrival.trigger = trigger;
  arrival.on_earlier_link = !came_up_.contains(mn);
  arrival.heard_at = world_.now_;
  arrival.heard_at_steady = world_.steady_now_;
  on_arrival(arrival);
  return true;
}

bool Speaker::departed(const LinkLayerAddress& mn, v1::DetachReason reason) {
  const auto served = served_.find(mn);
  if (served == served_.end()) return false;
  speaker::Departure departure{mn, served->second, reason, last_heard(mn).value_or(world_.steady_now_)};
  served_.erase(served);
  on_departure(departure);
  return true;
}

}  // namespace kedge::model
