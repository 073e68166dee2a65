#include "tests/model/world.h"

#include <algorithm>
#include <stdexcept>

#include "lm-server/core/generation.h"
#include "lm-server/core/rules.h"
#include "speaker/core/desired.h"
#include "tests/model/speaker.h"
#include "tests/model/surroundings.h"

namespace kedge::model {
namespace {

using namespace std::chrono_literals;
using Kind = speaker::Route::Kind;

constexpr std::size_t kOldCalls = 16;
constexpr std::size_t kRememberedUses = 64;
constexpr int kRoundsOfRest = 30;
constexpr int kStepsOfRest = 20'000;

lm::AccessRouter make_access_router(int number, int pool_length) {
  lm::AccessRouter ar;
  ar.info.set_name(fmt::format("ar{}", number));
  ar.info.set_locator(fmt::format("2001:db8:ffff:{}::1", number));
  ar.info.set_deliver_sid(fmt::format("2001:db8:ffff:{}::d", number));
  ar.info.set_uplink_sid(fmt::format("2001:db8:ffff:{}::e", number));
  const auto pool = fmt::format("2001:db8:{}::/{}", number, pool_length);
  ar.info.add_pools(pool);
  ar.pools.push_back(*Ipv6Prefix::parse(pool));
  return ar;
}

}  // namespace

World::World(std::uint64_t seed) : now_(std::chrono::seconds(1'800'000'000)), steady_now_(1000s) {
  set_steady_clock(&steady_now_);
  Random random(seed);
  const int access_routers = 3 + random.pick(2);
  const int mobiles = 1 + random.pick(3);
  // Now and then there are not enough prefixes for all.
  const int pool_length = random.pick(6) == 0 ? 62 : 48;
  for (int i = 1; i <= access_routers; ++i) {
    settings_.access_routers.push_back(make_access_router(i, pool_length));
    routers_.emplace_back().name = fmt::format("ar{}", i);
  }
  const int mode = random.pick(10);
  settings_.mode = mode == 0 ? v1::MODE_NOMADIC : mode == 1 ? v1::MODE_REDIRECT : v1::MODE_RELOCATE;
  settings_.detach_grace = random.pick(4) == 0 ? 0ms : 2000ms;
  settings_.redirect_hold = 200ms;
  settings_.recovery_time = kRecoveryTime;
  settings_.max_prefixes_per_mn = static_cast<std::uint32_t>(1 + random.pick(3));
  settings_.preference_levels = random.pick(2) == 0 ? 3 : 8;
  settings_.flap_moves = 3;
  settings_.flap_window = std::chrono::milliseconds(1500) * random.pick(3);
  settings_.relocate_after = random.pick(4) == 0 ? 300ms : 0ms;
  settings_.replacement_time = 1s;
  settings_.prefix_quarantine = random.pick(2) == 0 ? 3s : 7200s;
  settings_.idle_after = random.pick(2) == 0 ? 2s : 7200s;
  has_operator_ = random.pick(3) != 0;
  kernel_failures_ = random.pick(2) == 0 ? 0 : 30;
  fault_rate_ = random.pick(4);
  for (int i = 0; i < mobiles; ++i) mobiles_.emplace_back().id = fmt::format("02:00:00:00:00:1{}", i);
  server_ = std::make_unique<Server>(settings_);
  server_->send = [this](const lm::Message& message) { send(message); };
  if (pool_length == 48 && random.pick(2) == 0) make_router(mobiles_.front(), random);
}

// Its network, a /60, has a home and a mode of its own; its other prefixes may wait before they relocate.
void World::make_router(Mobile& mobile, Random& random) {
  const int home = 1 + random.pick(static_cast<int>(routers_.size()));
  v1::SetPolicyRequest request;
  request.mutable_scope()->set_mn_id(mobile.id);
  auto& network = *request.mutable_policy()->add_mobile_network_prefixes();
  network.set_prefix(fmt::format("2001:db8:{}:f00::/60", home));
  network.set_home_ar(fmt::format("ar{}", home));
  static constexpr v1::Mode kModes[] = {v1::MODE_UNSPECIFIED, v1::MODE_REDIRECT, v1::MODE_RELOCATE};
  network.set_mode(kModes[random.pick(3)]);
  if (random.pick(2) == 0) *request.mutable_policy()->mutable_relocate_after() = to_proto(400ms);
  mobile.network = network.prefix();
  auto output = server_->machine().set_policy(request, now_);
  if (!output.status.ok()) throw std::logic_error(output.status.ToString());
  server_->submit(std::move(output));
  server_->complete_one();
}

World::~World() {
  for (auto& router : routers_) router.speaker.reset();
  set_steady_clock(nullptr);
}

std::string World::settings_text() const {
  return fmt::format(
      "{} ARs, {} MNs, {}, {} levels, at most {} prefixes, grace {} ms, flap window {} ms, {}faults {}, kernel "
      "failures "
      "{}",
      routers_.size(), mobiles_.size(), v1::Mode_Name(settings_.mode), settings_.preference_levels,
      settings_.max_prefixes_per_mn, settings_.detach_grace / 1ms, settings_.flap_window / 1ms,
      has_operator_ ? "an operator, " : "", fault_rate_, kernel_failures_);
}

// Small things

std::string World::text(const std::optional<speaker::Route>& route) const {
  if (!route) return "none";
  if (route->kind == Kind::kDeliver) return "deliver";
  if (route->kind == Kind::kUnreachable) return "unreachable";
  if (route->kind == Kind::kRefuse) return "refuse";
  return "redirect to " + routers_[static_cast<std::size_t>(ar_of(route->segment))].name;
}

int World::ar_of(const Ipv6Address& address) const {
  // 2001:db8:ffff:N::
  return address.bytes()[7] - 1;
}

int World::ar_of(const std::string& name) const { return name.empty() ? -1 : name.back() - '1'; }

bool World::linked(int mobile, int ar) const {
  const auto& links = mobiles_[static_cast<std::size_t>(mobile)].links;
  return std::find(links.begin(), links.end(), ar) != links.end();
}

std::uint32_t World::static_of(int ar, const Ipv6Prefix& prefix) const {
  return routers_[static_cast<std::size_t>(ar)].stale.contains(prefix) ? 0 : announced_by(ar, prefix);
}

bool World::holds(int ar, const Ipv6Prefix& prefix) const {
  return kernel_of(ar, prefix) != nullptr || static_of(ar, prefix) > 0;
}

std::uint32_t World::announced_by(int ar, const Ipv6Prefix& prefix) const {
  const auto& statics = routers_[static_cast<std::size_t>(ar)].statics;
  const auto found = statics.find(prefix);
  return found == statics.end() ? 0 : found->second;
}

bool World::originates(int ar, const Ipv6Prefix& prefix) const {
  const auto& router = routers_[static_cast<std::size_t>(ar)];
  return router.originated.contains(prefix) && !router.revived.contains(prefix);
}

std::string World::interface_of(int mobile, int ar) const {
  return fmt::format("access{}", (mobile + ar + mobiles_[static_cast<std::size_t>(mobile)].port) % 2);
}

const KernelRoute* World::kernel_of(int ar, const Ipv6Prefix& prefix) const {
  const auto& kernel = routers_[static_cast<std::size_t>(ar)].kernel;
  const auto found = kernel.find(prefix);
  return found == kernel.end() ? nullptr : &found->second;
}

BgpPath World::best_path(int ar, const Ipv6Prefix& prefix) const {
  const auto& router = routers_[static_cast<std::size_t>(ar)];
  const auto own = router.originated.find(prefix);
  const auto learned = router.learned.find(prefix);
  if (own != router.originated.end() && (learned == router.learned.end() || own->second >= learned->second.level)) {
    return {ar, own->second};
  }
  return learned == router.learned.end() ? BgpPath{} : learned->second;
}

std::string World::picture(const Ipv6Prefix& prefix) const {
  std::string result = prefix.to_string();
  for (std::size_t i = 0; i < routers_.size(); ++i) {
    const auto* kernel = kernel_of(static_cast<int>(i), prefix);
    const BgpPath best = best_path(static_cast<int>(i), prefix);
    result +=
        fmt::format("\n      {}: {} at {}, static {}, best {} {}", routers_[i].name,
                    kernel == nullptr ? "none" : text(kernel->route),
                    kernel == nullptr ? 0 : kernel->generation.revision(), announced_by(static_cast<int>(i), prefix),
                    best.ar < 0 ? "-" : routers_[static_cast<std::size_t>(best.ar)].name, best.level);
  }
  if (server_->up()) {
    if (const auto* binding = server_->machine().find(prefix)) {
      result += "\n      " + binding->ShortDebugString();
    }
  }
  return result;
}

void World::violated(const std::string& invariant, const std::string& detail) const {
  throw Violation(invariant + "\n      " + detail);
}

// Random events

void World::step(std::uint64_t random) {
  random_ = Random(random);
  const auto pick_router = [&]() -> Router& {
    return routers_[static_cast<std::size_t>(random_.pick(static_cast<int>(routers_.size())))];
  };
  const auto any_ar = [&] { return random_.pick(static_cast<int>(routers_.size())); };
  for (int attempt = 0; attempt < 12; ++attempt) {
    const int dice = random_.pick(1000);
    bool done = false;
    if (dice < 20) {
      done = planned_ ? planned_move() : mobile_moves();
    } else if (dice < 30) {
      done = packet_passes(random_.pick(static_cast<int>(mobiles_.size())));
    } else if (dice < 90) {
      done = mobile_sends(random_.pick(static_cast<int>(mobiles_.size())));
    } else if (dice < 100) {
      done = departure_noticed(any_ar());
    } else if (dice < 270) {
      if (!sessions_.empty()) {
        const auto session = sessions_[static_cast<std::size_t>(random_.pick(static_cast<int>(sessions_.size())))];
        done = lm_receives(*session);
      }
    } else if (dice < 440) {
      done = speaker_receives(pick_router());
    } else if (dice < 500) {
      if (!calls_.empty()) done = call_arrives(static_cast<std::size_t>(random_.pick(static_cast<int>(calls_.size()))));
    } else if (dice < 550) {
      if (!calls_.empty()) done = call_ends(static_cast<std::size_t>(random_.pick(static_cast<int>(calls_.size()))));
    } else if (dice < 680) {
      done = server_->complete_one();
      if (done) trace("the store has written a commit");
    } else if (dice < 780) {
      done = frr_works(pick_router());
    } else if (dice < 860) {
      done = bgp_propagates(any_ar(), random_.pick(3));
    } else if (dice < 900) {
      done = bgpd_is_asked(any_ar());
    } else if (dice < 915) {
      done = kernel_is_repaired(pick_router());
    } else if (dice < 930) {
      done = lm_ticks();
    } else if (dice < 950) {
      const int kind = random_.pick(20);
      time_passes(std::chrono::milliseconds(kind == 0 ? random_.pick(5000) : random_.pick(kind < 8 ? 200 : 10)));
      done = true;
    } else if (dice < 965) {
      done = speaker_connects(pick_router());
    } else if (dice < 972) {
      done = speaker_starts(pick_router()) || lm_starts() || question_is_answered(pick_router());
    } else if (dice < 978) {
      done = has_operator_ && operator_acts();
    } else if (!planned_ && random_.pick(3) < fault_rate_) {
      const int fault = random_.pick(100);
      if (fault < 30) {
        done = session_breaks(pick_router());
      } else if (fault < 50) {
        if (!calls_.empty()) {
          done = call_is_lost(static_cast<std::size_t>(random_.pick(static_cast<int>(calls_.size()))));
        }
      } else if (fault < 60) {
        done = call_is_repeated();
      } else if (fault < 80) {
        done = stale_record(pick_router());
      } else if (fault < 86) {
        done = frr_restarts(pick_router());
      } else if (fault < 88) {
        done = uplink_fails(pick_router());
      } else if (fault < 90) {
        done = router_reboots(pick_router());
      } else if (fault < 96) {
        done = speaker_dies(pick_router());
      } else {
        done = lm_dies();
      }
    }
    if (done) break;
  }
  check();
}

bool World::mobile_moves() {
  auto& mobile = mobiles_[static_cast<std::size_t>(random_.pick(static_cast<int>(mobiles_.size())))];
  const int ar = random_.pick(static_cast<int>(routers_.size()));
  const int kind = random_.pick(10);
  if (kind == 0) {
    mobile.links.clear();
    trace("{} is gone", mobile.id);
    return true;
  }
  if (kind == 1) mobile.port ^= 1;
  // Two links at once now and then: the same MN at two ARs.
  if (kind < 8) mobile.links.clear();
  std::erase(mobile.links, ar);
  mobile.links.push_back(ar);
  auto& router = routers_[static_cast<std::size_t>(ar)];
  if (router.speaker != nullptr) router.speaker->link_up(*LinkLayerAddress::parse(mobile.id));
  trace("{} has a link to {}", mobile.id, router.name);
  return true;
}

bool World::planned_move() {
  auto& mobile = mobiles_[static_cast<std::size_t>(random_.pick(static_cast<int>(mobiles_.size())))];
  bool settled = server_->up();
  int bindings = 0;
  if (server_->up()) {
    for (const auto* binding : server_->machine().bindings_of(mobile.id)) {
      const bool ended = binding->released() && binding->state() == v1::BINDING_STATE_DETACHED;
      settled = settled && (ended || (binding->state() == v1::BINDING_STATE_SETTLED && !mobile.links.empty() &&
                                      ar_of(binding->attached_ar()) == mobile.links.back()));
      ++bindings;
    }
  }
  if (settled && bindings > 0 && mobile.links.size() > 1 && calls_.empty()) {
    mobile.links.erase(mobile.links.begin(), mobile.links.end() - 1);
    trace("{} leaves its old links", mobile.id);
    return true;
  }
  // Some moves begin before the last one has settled.
  if (!settled && !mobile.links.empty() && random_.pick(4) != 0) return false;
  const int ar = random_.pick(static_cast<int>(routers_.size()));
  if (!mobile.links.empty() && mobile.links.back() == ar) return false;
  std::erase(mobile.links, ar);
  mobile.links.push_back(ar);
  auto& router = routers_[static_cast<std::size_t>(ar)];
  if (router.speaker != nullptr) router.speaker->link_up(*LinkLayerAddress::parse(mobile.id));
  trace("{} makes a link to {}", mobile.id, router.name);
  return true;
}

bool World::mobile_sends(int index) {
  auto& mobile = mobiles_[static_cast<std::size_t>(index)];
  if (mobile.links.empty()) return false;
  const bool newest = planned_ || resting_ || random_.pick(4) != 0;
  const int ar = newest ? mobile.links.back()
                        : mobile.links[static_cast<std::size_t>(random_.pick(static_cast<int>(mobile.links.size())))];
  auto& router = routers_[static_cast<std::size_t>(ar)];
  if (router.speaker == nullptr) return false;
  static constexpr v1::Trigger kTriggers[] = {v1::TRIGGER_ROUTER_SOLICITATION, v1::TRIGGER_NEIGHBOUR_DISCOVERY,
                                              v1::TRIGGER_DATA_FRAME};
  const auto trigger = resting_ ? kTriggers[0] : kTriggers[random_.pick(3)];
  trace("{} is heard at {} ({})", mobile.id, router.name, v1::Trigger_Name(trigger));
  return router.speaker->hears(*LinkLayerAddress::parse(mobile.id), trigger, trigger == v1::TRIGGER_DATA_FRAME,
                               interface_of(index, ar));
}

bool World::departure_noticed(int ar) {
  auto& router = routers_[static_cast<std::size_t>(ar)];
  if (router.speaker == nullptr) return false;
  for (std::size_t i = 0; i < mobiles_.size(); ++i) {
    const auto mn = *LinkLayerAddress::parse(mobiles_[i].id);
    const auto port = router.speaker->port_of(mn);
    if (!port || (linked(static_cast<int>(i), ar) && *port == interface_of(static_cast<int>(i), ar))) continue;
    trace("{} notices that {} is gone", router.name, mobiles_[i].id);
    return router.speaker->departed(mn, v1::DETACH_REASON_LINK_DOWN);
  }
  return false;
}

// Network

bool World::packet_passes(int index) {
  const auto& mobile = mobiles_[static_cast<std::size_t>(index)];
  if (mobile.links.empty()) return false;
  const int ar = mobile.links[static_cast<std::size_t>(random_.pick(static_cast<int>(mobile.links.size())))];
  auto& router = routers_[static_cast<std::size_t>(ar)];
  std::vector<Ipv6Prefix> usable;
  for (const auto& [prefix, watched] : router.watched) {
    const auto* kernel = kernel_of(ar, prefix);
    const auto known = known_.find(prefix);
    const bool of_mobile = known != known_.end() && known->second.mobile == index;
    if (of_mobile && kernel != nullptr && kernel->route.kind == Kind::kDeliver) usable.push_back(prefix);
  }
  if (usable.empty()) return false;
  const auto& prefix = usable[static_cast<std::size_t>(random_.pick(static_cast<int>(usable.size())))];
  trace("a packet of {} passes {}", prefix.to_string(), router.name);
  router.watched.at(prefix).used = now_;
  auto& uses = known_.at(prefix).uses;
  uses.push_back(now_);
  if (uses.size() > kRememberedUses) uses.pop_front();
  return true;
}

void World::send(const lm::Message& message) {
  const auto found = session_of_id_.find(message.session);
  if (found == session_of_id_.end() || found->second->broken) return;
  const auto content = std::make_shared<const v1::LmMessage>(lm::parsed(message));
  if (content->has_record() && content->record().has_binding()) {
    const auto& binding = content->record().binding();
    if (lm::attached_delivers(binding)) {
      const auto known = known_.find(*Ipv6Prefix::parse(binding.prefix()));
      if (known == known_.end() ||
          !known->second.has_acknowledged(ar_of(binding.attached_ar()), binding.generation())) {
        violated("no AR is told to redirect to one that has not acknowledged", binding.ShortDebugString());
      }
    }
  }
  found->second->to_speaker.push_back(content);
}

bool World::lm_receives(Session& session) {
  if (session.lm_knows) return false;
  const std::string& name = routers_[static_cast<std::size_t>(session.ar)].name;
  if (session.to_lm.empty()) {
    if (!session.broken) return false;
    session.lm_knows = true;
    trace("the LM notices that {}'s session {} is lost", name, session.id);
    if (session.id != 0 && server_->up()) {
      session_of_id_.erase(session.id);
      server_->submit(server_->machine().session_down(session.id, now_));
    }
    std::erase_if(sessions_, [](const auto& s) { return s->lm_knows && s->speaker_knows; });
    return true;
  }
  if (!server_->up()) return false;
  const v1::SpeakerMessage message = std::move(session.to_lm.front());
  session.to_lm.pop_front();
  if (message.has_ack()) {
    lm_ack(session, message.ack());
    return true;
  }
  if (message.has_activity()) {
    lm_activity(session, message.activity());
    return true;
  }
  if (!message.has_hello()) return true;
  session.id = ++last_session_;
  present_runs_[session.ar] = session.incarnation;
  trace("the LM welcomes {} with session {}", name, session.id);
  auto output = server_->machine().session_up(message.hello(), session.id, now_);
  if (const auto old = session_of_id_.extract(output.replaced_session)) old.mapped()->broken = true;
  for (const auto& s : sessions_) {
    if (s.get() == &session) session_of_id_[session.id] = s;
  }
  server_->submit(std::move(output));
  return true;
}

void World::lm_activity(Session& session, const v1::Activity& activity) {
  trace("the LM hears of {}: {}", routers_[static_cast<std::size_t>(session.ar)].name, activity.ShortDebugString());
  const SystemTime sent = session.activities_sent.front();
  session.activities_sent.pop_front();
  auto output = server_->machine().activity(session.id, activity, now_);
  for (const auto& event : output.events) {
    if (event.type() != v1::EVENT_TYPE_PREFIX_RELEASED) continue;
    // It may have got another one.
    learn_bindings(event.mn_id());
    trace("{} ends: {}", event.prefix(), event.detail());
    // At the same time as the report may be behind it. The time that the report took counts as idle.
    for (const auto use : known_.at(*Ipv6Prefix::parse(event.prefix())).uses) {
      if (use < sent && use > now_ - settings_.idle_after) {
        violated("what is used does not end for being idle",
                 fmt::format("{} was used {} ms before\n", event.prefix(), (now_ - use) / 1ms) +
                     picture(*Ipv6Prefix::parse(event.prefix())));
      }
    }
  }
  server_->submit(std::move(output));
}

bool World::speaker_receives(Router& router) {
  if (router.speaker == nullptr || router.speaker->session() == nullptr) return false;
  const auto session = router.speaker->session();
  if (trace_ != nullptr && !session->to_speaker.empty()) {
    trace("{} receives {}", router.name, session->to_speaker.front()->ShortDebugString());
  }
  if (!router.speaker->receive()) return false;
  if (session->speaker_knows) trace("{} notices that its session is lost", router.name);
  std::erase_if(sessions_, [](const auto& s) { return s->lm_knows && s->speaker_knows; });
  return true;
}

bool World::stale_record(Router& router) {
  if (router.speaker == nullptr) return false;
  const auto kernel = router.kernel.size();
  const auto session = router.speaker->session();
  const auto acks = session == nullptr ? 0 : session->to_lm.size();
  std::map<Ipv6Prefix, speaker::Route> before;
  for (const auto& [prefix, held] : router.kernel) before.emplace(prefix, held.route);
  if (!router.speaker->take_stale_record(random_)) return false;
  trace("{} has received an old record once more", router.name);
  bool same = kernel == router.kernel.size() && (session == nullptr || session->to_lm.size() == acks);
  for (const auto& [prefix, held] : router.kernel) {
    same = same && before.contains(prefix) && before.at(prefix) == held.route;
  }
  if (!same) violated("no message with an old generation changes anything", router.name + ": an old record did");
  return true;
}

bool World::session_breaks(Router& router) {
  if (router.speaker == nullptr || router.speaker->session() == nullptr) return false;
  auto& session = *router.speaker->session();
  if (session.broken) return false;
  trace("{}'s session breaks", router.name);
  session.broken = true;
  session.to_lm.resize(static_cast<std::size_t>(random_.pick(static_cast<int>(session.to_lm.size()) + 1)));
  session.to_speaker.resize(static_cast<std::size_t>(random_.pick(static_cast<int>(session.to_speaker.size()) + 1)));
  return true;
}

bool World::speaker_connects(Router& router) {
  if (router.speaker == nullptr || router.speaker->session() != nullptr || !server_->up()) return false;
  auto session = std::make_shared<Session>();
  session->ar = ar_of(router.name);
  session->incarnation = router.incarnation;
  trace("{} opens a session", router.name);
  sessions_.push_back(session);
  router.speaker->connected(std::move(session));
  return true;
}

bool World::call_arrives(std::size_t index) {
  const auto call = calls_[index];
  if (call->delivered) return false;
  call->delivered = true;
  old_calls_.push_back(*call);
  old_calls_.back().done = nullptr;
  if (old_calls_.size() > kOldCalls) old_calls_.pop_front();
  if (!server_->up()) {
    call->answer = absl::UnavailableError("no LM");
    return true;
  }
  const auto reply = [call](const absl::Status& status) { call->answer = status; };
  const auto taken = call->attach ? lm_attach(*call->attach, reply) : lm_detach(*call->detach, reply);
  const auto run = present_runs_.find(call->ar);
  const bool has_session = run != present_runs_.end() && run->second == call->incarnation;
  if (taken.accepted && has_session) old_calls_.back().life = lm_life_;
  return true;
}

bool World::call_ends(std::size_t index) {
  const auto call = calls_[index];
  if (!call->answer) return false;
  calls_.erase(calls_.begin() + static_cast<std::ptrdiff_t>(index));
  const auto& router = routers_[static_cast<std::size_t>(call->ar)];
  trace("{}'s {} is answered: {}", router.name, call->attach ? "attach" : "detach", call->answer->ToString());
  if (call->attach) note_answer(*call);
  if (router.speaker != nullptr && router.incarnation == call->incarnation) call->done(*call->answer);
  return true;
}

void World::note_answer(const Call& call) {
  for (auto& mobile : mobiles_) {
    if (mobile.id != call.attach->mn_id() || mobile.links.empty() || mobile.links.back() != call.ar) continue;
    const auto code = call.answer->code();
    mobile.refused = code == absl::StatusCode::kPermissionDenied || code == absl::StatusCode::kFailedPrecondition ||
                     code == absl::StatusCode::kResourceExhausted;
    if (!planned_ || !mobile.refused || !server_->up()) continue;
    const auto bindings = server_->machine().bindings_of(mobile.id);
    const auto serves = std::find_if(mobile.links.begin(), mobile.links.end(), [&](int ar) {
      return std::any_of(bindings.begin(), bindings.end(),
                         [&](const auto* b) { return ar_of(b->attached_ar()) == ar; });
    });
    if (serves == mobile.links.end() || *serves == call.ar) continue;
    trace("{} goes back to where it is served", mobile.id);
    std::rotate(serves, serves + 1, mobile.links.end());
    mobile.refused = false;
  }
}

bool World::call_is_lost(std::size_t index) {
  const auto call = calls_[index];
  calls_.erase(calls_.begin() + static_cast<std::ptrdiff_t>(index));
  const auto& router = routers_[static_cast<std::size_t>(call->ar)];
  trace("{}'s {} is lost", router.name, call->attach ? "attach" : "detach");
  if (router.speaker != nullptr && router.incarnation == call->incarnation) {
    call->done(absl::UnavailableError("lost"));
  }
  return true;
}

bool World::call_is_repeated() {
  if (old_calls_.empty() || !server_->up()) return false;
  const Call call = old_calls_[static_cast<std::size_t>(random_.pick(static_cast<int>(old_calls_.size())))];
  trace("an old call arrives once more");
  const bool known = !server_->machine().bindings_of(call.attach ? call.attach->mn_id() : call.detach->mn_id()).empty();
  const auto taken = call.attach ? lm_attach(*call.attach, nullptr) : lm_detach(*call.detach, nullptr);
  // One that was started since, or that has forgotten the MN, takes it for a new one.
  if (taken.changes && known && call.life == lm_life_) {
    violated("no message with an old generation changes anything", "a repeated call did");
  }
  return true;
}

// LM

World::Taken World::lm_attach(const v1::AttachRequest& request, Server::Reply reply) {
  auto output = server_->machine().attach(request, now_);
  trace("the LM takes {}'s attach {} of {}: {}, generation {}", request.ar(), request.sequence(), request.mn_id(),
        output.status.ToString(), output.generation.revision());
  if (!output.status.ok() && output.commit) {
    violated("no message with an old generation changes anything",
             "a refused attach did: " + request.ShortDebugString());
  }
  learn_bindings(request.mn_id());
  const Taken taken{output.status.ok(), output.commit.has_value()};
  server_->submit(std::move(output), std::move(reply));
  return taken;
}

void World::learn_bindings(const std::string& mobile) {
  for (const auto* binding : server_->machine().bindings_of(mobile)) {
    auto& known = known_[*Ipv6Prefix::parse(binding->prefix())];
    known.home = ar_of(binding->home_ar());
    known.mobile = mobile.back() - '0';
  }
}

World::Taken World::lm_detach(const v1::DetachRequest& request, Server::Reply reply) {
  std::map<std::string, v1::Binding> before;
  for (const auto* binding : server_->machine().bindings_of(request.mn_id())) before[binding->prefix()] = *binding;
  auto output = server_->machine().detach(request, now_);
  trace("the LM takes {}'s detach {} of {} at {}: {}", request.ar(), request.sequence(), request.mn_id(),
        request.generation().revision(), output.stale ? "stale" : output.status.ToString());
  for (const auto* binding : server_->machine().bindings_of(request.mn_id())) {
    const auto& old = before.at(binding->prefix());
    // An AR that has recovered an MN which has left means all that it has of it.
    if (lm::is_none(request.generation())) continue;
    // What has ended before is no longer refused where its MN was.
    if (lm::is_detached(old)) continue;
    if (!lm::same(binding->generation(), old.generation()) &&
        lm::compare(old.attachment_generation(), request.generation()) > 0) {
      violated("no message with an old generation changes anything", "a detach did: " + request.ShortDebugString());
    }
  }
  const Taken taken{output.status.ok(), output.commit.has_value()};
  server_->submit(std::move(output), std::move(reply));
  return taken;
}

void World::lm_ack(const Session& session, const v1::Ack& ack) {
  trace("the LM takes {}'s {}", routers_[static_cast<std::size_t>(session.ar)].name, ack.ShortDebugString());
  const auto* found = server_->machine().find(*Ipv6Prefix::parse(ack.prefix()));
  std::optional<v1::Binding> before;
  if (found != nullptr && lm::compare(ack.generation(), found->generation()) < 0) before = *found;
  auto output = server_->machine().ack(session.id, ack, now_);
  if (before) {
    const auto& after = *server_->machine().find(*Ipv6Prefix::parse(ack.prefix()));
    bool same = before->holders_size() == after.holders_size();
    for (const auto& holder : before->holders()) {
      const auto* now = lm::find_holder(after, holder.ar());
      same = same && now != nullptr && now->delivers() == holder.delivers() &&
             now->redirects_to() == holder.redirects_to() && now->unreachable() == holder.unreachable() &&
             lm::same(now->generation(), holder.generation()) && now->superseded() <= holder.superseded() &&
             now->advertises_preference() >= holder.advertises_preference();
    }
    if (!same) {
      violated("no message with an old generation changes anything",
               "an acknowledgement did: " + ack.ShortDebugString() + "\n      " + before->ShortDebugString());
    }
  }
  server_->submit(std::move(output));
}

bool World::lm_ticks() {
  if (!server_->up()) return false;
  const auto deadline = server_->machine().next_deadline();
  if (!deadline || *deadline > now_) return false;
  trace("the LM does what is due");
  server_->submit(server_->machine().tick(now_));
  return true;
}

bool World::lm_dies() {
  if (!server_->up()) return false;
  if (random_.pick(3) == 0) {
    trace("the LM's store is backed up");
    server_->back_up();
    return true;
  }
  const bool power_failure = random_.pick(2) == 0;
  trace("the LM dies{}", power_failure ? " by a power failure" : "");
  server_->crash(power_failure, random_);
  // What was not on disk has not been told either.
  for (auto& [prefix, known] : known_) known.generation.Clear();
  session_of_id_.clear();
  for (const auto& session : sessions_) {
    session->broken = true;
    session->lm_knows = true;
    session->to_lm.clear();
  }
  std::erase_if(sessions_, [](const auto& s) { return s->lm_knows && s->speaker_knows; });
  return true;
}

bool World::lm_starts() {
  if (server_->up()) return false;
  if (server_->has_backup() && !resting_ && random_.pick(2) == 0) {
    trace("the LM's store is restored");
    server_->restore();
    restored_ = true;
  }
  trace("the LM starts");
  ++lm_life_;
  present_runs_.clear();
  if (has_operator_ && random_.pick(4) == 0) settings_.preference_levels = std::max(settings_.preference_levels, 8U);
  server_->configure_levels(settings_.preference_levels);
  server_->start(now_);
  return true;
}

// Routers

bool World::question_is_answered(Router& router) {
  return router.speaker != nullptr && router.speaker->question_is_answered(ar_of(router.name));
}

v1::Generation World::check_redirect(Router& router, const Ipv6Prefix& prefix,
                                     const std::optional<speaker::Route>& route, const v1::Binding* record,
                                     bool from_snapshot) {
  const auto* held = kernel_of(ar_of(router.name), prefix);
  const auto confirmed = router.confirmed.find(prefix);
  const bool had = route && confirmed != router.confirmed.end() && confirmed->second.route == *route;
  if (record == nullptr)
    return had ? confirmed->second.generation : held == nullptr ? v1::Generation() : held->generation;
  if (route && route->kind == Kind::kDeliver && record->attached_ar() != router.name) {
    // What an old anchor keeps.
    const bool delivers = held != nullptr && held->route.kind == Kind::kDeliver;
    return delivers ? held->generation : lm::find_holder(*record, router.name)->generation();
  }
  if (!route || route->kind != Kind::kRedirect) return record->generation();
  const int target = ar_of(route->segment);
  const auto& acknowledged = known_[prefix].acknowledged_delivery;
  if (ar_of(record->attached_ar()) == target && known_[prefix].has_acknowledged(target, record->generation())) {
    return record->generation();
  }
  if (held != nullptr && held->route == *route) return held->generation;
  // Back to what it had, from something that was never confirmed and that nobody therefore relies on.
  if (had) return confirmed->second.generation;
  // A speaker that has just started knows only what it has acknowledged in its last life.
  const auto from = acknowledged.lower_bound({target, 0, 0});
  const bool ever = from != acknowledged.end() && std::get<0>(*from) == target;
  const auto* own = lm::find_holder(*record, router.name);
  if (!from_snapshot || !ever || own == nullptr) {
    violated("no AR redirects to one that has not acknowledged",
             router.name + " to " + text(route) + " " + picture(prefix));
  }
  return own->generation();
}

void World::set_kernel(Router& router, const Ipv6Prefix& prefix, const std::optional<speaker::Route>& route,
                       const v1::Binding* record, const v1::Generation& generation) {
  auto& known = known_[prefix];
  const int self = ar_of(router.name);
  const auto* held = kernel_of(self, prefix);
  if (!route && held == nullptr) return;
  trace("      {}'s kernel: {} {}", router.name, prefix.to_string(), text(route));
  if (!route) {
    if (record != nullptr && originates(self, prefix)) {
      violated("an AR lets go only of what its own bgpd does not announce", router.name + " " + picture(prefix));
    }
    if (planned_ && record != nullptr && !record->attached_ar().empty() && record->attached_ar() != router.name) {
      const auto pointed = known.pointed_at.find(self);
      if (pointed != known.pointed_at.end() && now_ - pointed->second < settings_.redirect_hold) {
        violated("an AR lets go only after a hold since another one pointed at it",
                 router.name + " " + picture(prefix));
      }
    }
    router.kernel.erase(prefix);
    return;
  }
  router.kernel[prefix] = {*route, generation};
}

void World::acknowledged(Router& router, const Ipv6Prefix& prefix, const v1::Ack& ack) {
  const int self = ar_of(router.name);
  const auto held = router.kernel.find(prefix);
  const auto is = [&](Kind kind) { return held != router.kernel.end() && held->second.route.kind == kind; };
  const auto level = static_of(self, prefix);
  bool true_now = true;
  switch (ack.stage()) {
    case v1::STAGE_DELIVERING:
      true_now = is(Kind::kDeliver);
      known_[prefix].acknowledged_delivery.insert({self, ack.generation().epoch(), ack.generation().revision()});
      break;
    case v1::STAGE_REDIRECTING:
      true_now = is(Kind::kRedirect) && ar_of(held->second.route.segment) == ar_of(ack.redirects_to());
      break;
    case v1::STAGE_UNREACHABLE:
      true_now = is(Kind::kUnreachable) || is(Kind::kRefuse);
      break;
    case v1::STAGE_ADVERTISED:
      // FRR may have been restarted since it committed.
      true_now = level == ack.preference() || router.frr_starts > 0;
      break;
    case v1::STAGE_WITHDRAWN:
      true_now = level == 0 && !originates(self, prefix);
      break;
    case v1::STAGE_CLEARED:
      true_now = held == router.kernel.end() && level == 0 && !originates(self, prefix);
      break;
    default:
      break;
  }
  trace("      {} acknowledges {}", router.name, ack.ShortDebugString());
  if (!true_now) {
    violated("what is acknowledged is so", router.name + " " + ack.ShortDebugString() + "\n      " + picture(prefix));
  }
  if (is(Kind::kDeliver) || is(Kind::kRedirect)) {
    if (ack.stage() == v1::STAGE_DELIVERING || ack.stage() == v1::STAGE_REDIRECTING) {
      held->second.generation = ack.generation();
      router.confirmed[prefix] = held->second;
    }
  }
}

void World::set_static(Router& router, const Ipv6Prefix& prefix, std::uint32_t level) {
  trace("      {}'s FRR: {} level {}", router.name, prefix.to_string(), level);
  router.stale.erase(prefix);
  if (level == 0) {
    router.statics.erase(prefix);
  } else {
    router.statics[prefix] = level;
    router.revived.erase(prefix);
  }
}

void World::asked_to_withdraw(Router& router, const Ipv6Prefix& prefix, const v1::Binding& record) {
  const int self = ar_of(router.name);
  if (!planned_ || static_of(self, prefix) == 0 || record.attached_ar().empty()) return;
  if (record.attached_ar() != router.name) {
    if (record.preference() > 0 && best_path(self, prefix).ar != ar_of(record.attached_ar())) {
      violated("an old anchor withdraws only when its own bgpd prefers the new one",
               router.name + " " + picture(prefix));
    }
  } else if (record.home_ar() == router.name) {
    home_withdraws(self, prefix, record);
  } else {
    anchor_gives_up(self, prefix, record);
  }
}

void World::home_withdraws(int self, const Ipv6Prefix& prefix, const v1::Binding& record) {
  // All levels are used up: nobody announces, until all have withdrawn.
  if (lm::highest_other_preference(record, record.home_ar()) >= settings_.preference_levels) return;
  for (std::size_t i = 0; i < routers_.size(); ++i) {
    // What is left would beat the aggregate. One that announces above it belongs to a later move.
    const auto level = static_of(static_cast<int>(i), prefix);
    if (static_cast<int>(i) != self && level > 0 && level < static_of(self, prefix)) {
      violated("the home AR withdraws last", picture(prefix));
    }
  }
}

void World::anchor_gives_up(int self, const Ipv6Prefix& prefix, const v1::Binding& record) {
  const bool is_anchor = static_of(self, prefix) > lm::highest_other_preference(record, record.attached_ar());
  if (record.mode() != v1::MODE_REDIRECT || !is_anchor) return;
  const auto* home = kernel_of(ar_of(record.home_ar()), prefix);
  const bool later_move = home != nullptr && lm::compare(home->generation, record.generation()) > 0;
  const bool redirects = home != nullptr && home->route.kind == Kind::kRedirect && ar_of(home->route.segment) == self;
  if (!redirects && !later_move) {
    violated("an anchor gives its prefix up to a home AR that redirects to it", picture(prefix));
  }
}

bool World::frr_works(Router& router) {
  if (router.speaker == nullptr || !router.speaker->write_frr()) return false;
  trace("{}'s FRR has done something", router.name);
  return true;
}

bool World::frr_restarts(Router& router) {
  if (random_.pick(4) == 0) {
    trace("{}'s operator saves FRR's configuration", router.name);
    router.saved = router.statics;
    return true;
  }
  trace("{}'s FRR starts again", router.name);
  ++router.frr_starts;
  router.statics = router.saved;
  router.stale.clear();
  for (const auto& [prefix, level] : router.saved) router.stale.insert(prefix);
  router.revived = router.stale;
  router.originated.clear();
  for (const auto& [prefix, levels] : reflector_) {
    if (levels.contains(ar_of(router.name))) router.preserved.insert(prefix);
  }
  if (random_.pick(2) == 0) uplink_fails(router);
  router.learned.clear();
  if (router.speaker != nullptr) router.speaker->frr_was_restarted();
  return true;
}

bool World::uplink_fails(Router& router) {
  trace("{}'s BGP session starts again", router.name);
  router.learned.clear();
  for (auto& [prefix, levels] : reflector_) levels.erase(ar_of(router.name));
  router.preserved.clear();
  return true;
}

bool World::router_reboots(Router& router) {
  trace("{} reboots", router.name);
  speaker_dies(router);
  for (auto& [prefix, known] : known_) {
    if (router.kernel.contains(prefix)) known.ended = last_generation_;
  }
  router.kernel.clear();
  router.watched.clear();
  frr_restarts(router);
  uplink_fails(router);
  return true;
}

bool World::bgp_has_converged(const Ipv6Prefix& prefix) const {
  const auto reflected = reflector_.find(prefix);
  for (std::size_t i = 0; i < routers_.size(); ++i) {
    const int ar = static_cast<int>(i);
    const std::uint32_t level = announced_by(ar, prefix);
    const auto& [own, learned] = std::tie(routers_[i].originated, routers_[i].learned);
    const std::uint32_t originates = own.contains(prefix) ? own.at(prefix) : 0;
    const bool seen = reflected != reflector_.end() && reflected->second.contains(ar);
    if (originates != level || (seen ? reflected->second.at(ar) : 0) != level) return false;
    if ((learned.contains(prefix) ? learned.at(prefix) : BgpPath{}) != reflected_to(ar, prefix)) return false;
  }
  return true;
}

BgpPath World::reflected_to(int ar, const Ipv6Prefix& prefix) const {
  BgpPath best;
  const auto levels = reflector_.find(prefix);
  if (levels == reflector_.end()) return best;
  for (const auto& [from, level] : levels->second) {
    if (level > best.level) best = {from, level};
  }
  // What came from this AR is not sent back to it.
  return best.ar == ar ? BgpPath{} : best;
}

bool World::bgp_propagates(int ar, int edge) {
  auto& router = routers_[static_cast<std::size_t>(ar)];
  if (known_.empty()) return false;
  auto it = std::next(known_.begin(), random_.pick(static_cast<int>(known_.size())));
  for (std::size_t i = 0; i < known_.size(); ++i, ++it) {
    if (it == known_.end()) it = known_.begin();
    const auto& prefix = it->first;
    if (edge == 0) {
      const auto level = announced_by(ar, prefix);
      const auto own = router.originated.find(prefix);
      if ((own == router.originated.end() ? 0 : own->second) == level) continue;
      if (level == 0) {
        router.originated.erase(own);
        router.revived.erase(prefix);
      } else {
        router.originated[prefix] = level;
      }
    } else if (edge == 1) {
      const auto own = router.originated.find(prefix);
      const auto level = own == router.originated.end() ? 0 : own->second;
      auto& levels = reflector_[prefix];
      const auto seen = levels.find(ar);
      router.preserved.erase(prefix);
      if ((seen == levels.end() ? 0 : seen->second) == level) continue;
      if (level == 0) {
        levels.erase(seen);
      } else {
        levels[ar] = level;
      }
    } else {
      const BgpPath best = reflected_to(ar, prefix);
      const auto learned = router.learned.find(prefix);
      if ((learned == router.learned.end() ? BgpPath{} : learned->second) == best) continue;
      if (best.ar < 0) {
        router.learned.erase(learned);
      } else {
        router.learned[prefix] = best;
      }
    }
    trace("BGP of {}, step {}: {}", router.name, edge, prefix.to_string());
    return true;
  }
  return false;
}

bool World::bgpd_is_asked(int ar) {
  auto& router = routers_[static_cast<std::size_t>(ar)];
  if (router.speaker == nullptr || !router.speaker->ask_bgpd(ar)) return false;
  trace("{}'s bgpd prefers a successor", router.name);
  return true;
}

bool World::kernel_is_repaired(Router& router) {
  if (router.speaker == nullptr || !router.speaker->repair(random_)) return false;
  trace("{}'s kernel has been repaired", router.name);
  return true;
}

bool World::speaker_dies(Router& router) {
  if (router.speaker == nullptr) return false;
  trace("{}'s speaker dies", router.name);
  router.speaker.reset();
  router.confirmed.clear();
  for (const auto& session : sessions_) {
    if (session->ar == ar_of(router.name)) session->broken = true;
  }
  return true;
}

bool World::speaker_starts(Router& router) {
  if (router.speaker != nullptr) return false;
  trace("{}'s speaker starts", router.name);
  router.speaker = std::make_unique<Speaker>(*this, router, ++router.incarnation);
  return true;
}

void World::time_passes(std::chrono::nanoseconds time) {
  // The hold is there for BGP to converge in.
  if (planned_ && (bgp_lag_ += time) > settings_.redirect_hold / 2) {
    for (int edge = 0; edge < 3; ++edge) {
      for (std::size_t i = 0; i < routers_.size(); ++i) {
        while (bgp_propagates(static_cast<int>(i), edge)) {
        }
      }
    }
    bgp_lag_ = {};
  }
  trace("{} ms pass", time / 1ms);
  now_ += time;
  steady_now_ += time;
  run_handlers();
}

void World::run_handlers() {
  io_.restart();
  io_.poll();
}

// Invariants

void World::check() {
  for (auto& [prefix, known] : known_) {
    for (std::size_t i = 0; i < routers_.size(); ++i) {
      const int ar = static_cast<int>(i);
      if (static_of(ar, prefix) > 0 || originates(ar, prefix)) known.pointed_at[static_cast<int>(i)] = now_;
      const auto* kernel = kernel_of(static_cast<int>(i), prefix);
      if (kernel != nullptr && kernel->route.kind == Kind::kRedirect) {
        known.pointed_at[ar_of(kernel->route.segment)] = now_;
      }
    }
    if (server_->up()) {
      last_generation_ = server_->machine().revision();
      check_binding(prefix, known);
    }
    check_chains(prefix, known);
    check_one_top(prefix);
    if (planned_ && known.in_use) check_no_black_hole(prefix, known);
  }
}

void World::check_binding(const Ipv6Prefix& prefix, Known& known) {
  const auto* binding = server_->machine().find(prefix);
  for (const auto& router : routers_) {
    // A restored LM learns of it again, or it is let go.
    if (restored_) break;
    const auto* holder = binding == nullptr ? nullptr : lm::find_holder(*binding, router.name);
    if (holder == nullptr && holds(ar_of(router.name), prefix)) {
      violated("an AR that holds anything is in the holders", router.name + " " + picture(prefix));
    }
    const auto level = static_of(ar_of(router.name), prefix);
    if (holder != nullptr && level > holder->advertises_preference()) {
      violated("what an AR announces is in the holders", router.name + " " + picture(prefix));
    }
  }
  if (binding == nullptr) {
    known.in_use = false;
    known.state = v1::BINDING_STATE_UNSPECIFIED;
    return;
  }
  if (binding->state() == v1::BINDING_STATE_DETACHED && lm::compare(binding->generation(), known.ended) > 0) {
    known.ended = binding->generation();
  }
  if (lm::is_detached(*binding)) known.in_use = false;
  if (binding->mobile_network()) check_network(prefix, *binding);
  check_level(*binding, known);
  if (binding->preference() > 0 && !lm::is_detached(*binding) &&
      binding->preference() <= lm::highest_other_preference(*binding, binding->attached_ar())) {
    violated("the attached AR announces above all others", binding->ShortDebugString());
  }
  const bool settled = binding->state() == v1::BINDING_STATE_SETTLED;
  const bool is_news = std::exchange(known.state, binding->state()) != binding->state();
  if (settled && is_news && planned_) check_settled(prefix, *binding);
  // What BGP still carries of an attachment that has ended is lost.
  known.in_use = known.in_use || (settled && bgp_has_converged(prefix));
}

// What was said of a level cannot be taken for another one, as within a generation it only falls.
void World::check_level(const v1::Binding& binding, Known& known) const {
  if (!lm::same(binding.generation(), known.generation)) {
    known.generation = binding.generation();
    known.had_level = false;
    known.attached[{binding.generation().epoch(), binding.generation().revision()}] =
        ar_of(lm::is_detached(binding) ? binding.last_ar() : binding.attached_ar());
  } else if (binding.preference() > known.level && known.had_level) {
    violated("a level rises by a new generation only", binding.ShortDebugString());
  }
  known.level = binding.preference();
  known.had_level = known.had_level || known.level > 0;
}

// RFC 8818, 2: a mobile router's networks are where it is, by the same change.
void World::check_network(const Ipv6Prefix& prefix, const v1::Binding& network) {
  if (network.released()) return;
  for (const auto* other : server_->machine().bindings_of(network.mn_id())) {
    if (lm::is_detached(*other)) continue;
    if (other->attached_ar() != network.attached_ar()) {
      violated("a mobile network moves with its router", picture(prefix) + "\n      " + other->ShortDebugString());
    }
  }
}

void World::check_settled(const Ipv6Prefix& prefix, const v1::Binding& binding) {
  const int attached = ar_of(binding.attached_ar());
  const int home = ar_of(binding.home_ar());
  const bool anchored_by_bgp = binding.mode() == v1::MODE_RELOCATE && attached != home;
  for (std::size_t i = 0; i < routers_.size(); ++i) {
    const int ar = static_cast<int>(i);
    const auto* kernel = kernel_of(ar, prefix);
    bool right = static_of(ar, prefix) == (anchored_by_bgp && ar == attached ? 1U : 0U);
    if (ar == attached) {
      right = right && kernel != nullptr && kernel->route.kind == Kind::kDeliver;
    } else if (ar == home) {
      right = right && kernel != nullptr && kernel->route.kind == Kind::kRedirect &&
              ar_of(kernel->route.segment) == attached;
    } else {
      right = right && kernel == nullptr;
    }
    if (!right) violated("what the LM calls settled is settled", routers_[i].name + " " + picture(prefix));
  }
}

// Redirects only lead to younger ones, and to an AR that delivers. Packets for an MN that was detached for good since
// then are lost: nothing is promised for them.
void World::check_chains(const Ipv6Prefix& prefix, const Known& known) {
  for (std::size_t i = 0; i < routers_.size(); ++i) {
    const auto* kernel = kernel_of(static_cast<int>(i), prefix);
    if (kernel == nullptr || kernel->route.kind != Kind::kRedirect) continue;
    int at = static_cast<int>(i);
    for (std::size_t hops = 0;; ++hops) {
      if (hops > routers_.size()) violated("redirects form no loop", picture(prefix));
      const auto* here = kernel_of(at, prefix);
      if (here->route.kind != Kind::kRedirect) {
        const auto attached = known.attached.find({here->generation.epoch(), here->generation.revision()});
        if (here->route.kind == Kind::kDeliver && attached != known.attached.end() && attached->second != at) {
          violated("a chain of redirects ends at the attached AR", picture(prefix));
        }
        break;
      }
      const int target = ar_of(here->route.segment);
      const auto* next = kernel_of(target, prefix);
      // What a restored LM does not know of is let go by each AR in its own time.
      if (restored_ && next == nullptr) break;
      if (next == nullptr || next->route.kind == Kind::kUnreachable || next->route.kind == Kind::kRefuse) {
        if (lm::compare(here->generation, known.ended) > 0) {
          violated("a chain of redirects ends where the prefix is delivered",
                   routers_[static_cast<std::size_t>(at)].name + " " + picture(prefix));
        }
        break;
      }
      const auto order = lm::compare(next->generation, here->generation);
      // After a restore, what an AR delivers is known by what it had before, until it is told of it anew.
      if (next->route.kind == Kind::kRedirect ? order <= 0 : order < 0 && !restored_) {
        violated("generations grow along a chain of redirects",
                 routers_[static_cast<std::size_t>(at)].name + " " + picture(prefix));
      }
      at = target;
    }
  }
}

void World::check_one_top(const Ipv6Prefix& prefix) {
  if (restored_) return;
  std::uint32_t top = 0;
  int count = 0;
  for (std::size_t i = 0; i < routers_.size(); ++i) {
    const auto level = static_of(static_cast<int>(i), prefix);
    if (level > top) {
      top = level;
      count = 1;
    } else if (level == top && level > 0) {
      ++count;
    }
  }
  if (count > 1) violated("at most one anchor advertises at the top preference", picture(prefix));
}

// A packet that enters at any AR, or at the home AR by its aggregate, reaches an AR that the MN has a link to.
void World::check_no_black_hole(const Ipv6Prefix& prefix, const Known& known) {
  for (std::size_t start = 0; start < routers_.size(); ++start) {
    int at = static_cast<int>(start);
    bool tunnelled = false;
    std::string path;
    for (std::size_t hops = 0;; ++hops) {
      path += " " + routers_[static_cast<std::size_t>(at)].name;
      const auto lost = [&](const char* why) {
        violated("no packet is lost in a planned move", fmt::format("{} by{}: {}", why, path, picture(prefix)));
      };
      if (hops > 2 * routers_.size()) lost("loop");
      const auto* kernel = kernel_of(at, prefix);
      if (kernel != nullptr && kernel->route.kind == Kind::kDeliver) {
        if (!linked(known.mobile, at)) lost("delivered where the MN is not");
        break;
      }
      if (kernel != nullptr && kernel->route.kind == Kind::kUnreachable) lost("unreachable");
      if (kernel != nullptr) {
        at = ar_of(kernel->route.segment);
        tunnelled = true;
        continue;
      }
      // What comes out of a tunnel finds our own table only.
      if (tunnelled) lost("no route behind the tunnel");
      const BgpPath best = best_path(at, prefix);
      if (best.ar == at) lost("blackhole of its own announcement");
      if (best.ar < 0 && at == known.home) lost("blackhole of the aggregate");
      at = best.ar < 0 ? known.home : best.ar;
    }
  }
}

// Rest

bool World::everything_that_is_under_way() {
  bool any = false;
  const auto note = [&](bool done) {
    if (done) {
      any = true;
      check();
    }
  };
  note(lm_starts());
  for (std::size_t i = 0; i < routers_.size(); ++i) {
    auto& router = routers_[i];
    note(speaker_starts(router));
    note(speaker_connects(router));
    note(speaker_receives(router));
    note(frr_works(router));
    for (int edge = 0; edge < 3; ++edge) note(bgp_propagates(static_cast<int>(i), edge));
    note(bgpd_is_asked(static_cast<int>(i)));
    note(kernel_is_repaired(router));
    note(departure_noticed(static_cast<int>(i)));
    note(question_is_answered(router));
  }
  for (const auto& session : std::vector(sessions_)) note(lm_receives(*session));
  for (std::size_t i = calls_.size(); i-- > 0;) {
    if (i < calls_.size()) note(call_arrives(i));
    if (i < calls_.size()) note(call_ends(i));
  }
  note(server_->complete_one());
  note(lm_ticks());
  return any;
}

void World::come_to_rest() {
  resting_ = true;
  const bool planned = planned_;
  const int kernel_failures = std::exchange(kernel_failures_, 0);
  // What the faults have done to packets is over only when everything is at rest.
  for (auto& mobile : mobiles_) {
    if (mobile.links.size() > 1 && !planned) mobile.links.erase(mobile.links.begin(), mobile.links.end() - 1);
  }
  for (auto& mobile : mobiles_) mobile.refused = false;
  trace("no more events");
  for (int round = 0; round < kRoundsOfRest; ++round) {
    for (std::size_t i = 0; i < mobiles_.size(); ++i) {
      mobile_sends(static_cast<int>(i));
      check();
    }
    int steps = 0;
    while (everything_that_is_under_way()) {
      if (++steps > kStepsOfRest) violated("when events stop, everything comes to rest", "messages go on for ever");
    }
    time_passes(500ms);
  }
  for (auto& mobile : mobiles_) {
    if (mobile.links.size() > 1) mobile.links.erase(mobile.links.begin(), mobile.links.end() - 1);
  }
  restored_ = false;
  check_at_rest();
  kernel_failures_ = kernel_failures;
  resting_ = false;
}

// A rest lasts longer than the short one of the two idle times.
void World::check_idle_at_rest(const v1::Binding& binding) {
  if (settings_.idle_after > 2s || !lm::ends_when_idle(binding)) return;
  const auto node = server_->machine().describe_node(binding.attached_ar());
  const auto bindings = server_->machine().bindings_of(binding.mn_id());
  const bool has_another = std::any_of(bindings.begin(), bindings.end(), [&](const auto* other) {
    return other->prefix() != binding.prefix() && !lm::is_detached(*other) && !other->mobile_network();
  });
  if (!has_another && node->pool_used() == node->pool_size()) return;
  violated("what is idle ends", picture(*Ipv6Prefix::parse(binding.prefix())));
}

void World::check_at_rest() {
  check();
  for (auto& mobile : mobiles_) mobile.refused = mobile.refused && may_refuse(mobile);
  for (const auto& [prefix, known] : known_) {
    const auto* binding = server_->machine().find(prefix);
    const auto& mobile = mobiles_[static_cast<std::size_t>(known.mobile)];
    const bool may_be_detached = mobile.refused || (binding != nullptr && binding->released());
    const bool detached = binding != nullptr && lm::is_detached(*binding);
    const int attached = mobile.links.empty() || (detached && may_be_detached) ? -1 : mobile.links.back();
    const auto left_over = [&](const std::string& what) {
      violated("when events stop, every binding settles and nothing is left over", what + " " + picture(prefix));
    };
    if (binding == nullptr) {
      for (const auto& router : routers_) {
        if (holds(ar_of(router.name), prefix)) left_over(router.name + " holds what nobody knows");
      }
      continue;
    }
    if (ar_of(binding->attached_ar()) != attached) left_over("attached elsewhere than the MN is");
    if (binding->state() != (attached < 0 ? v1::BINDING_STATE_DETACHED : v1::BINDING_STATE_SETTLED)) {
      left_over("not settled");
    }
    // An MN whose prefix has ended is told so where it is served.
    int refuses = -1;
    for (const auto* other : server_->machine().bindings_of(mobile.id)) {
      if (binding->released() && !lm::is_detached(*other)) refuses = ar_of(other->attached_ar());
    }
    for (const auto& holder : binding->holders()) {
      const int ar = ar_of(holder.ar());
      if (ar != attached && ar != known.home && ar != refuses) left_over(holder.ar() + " is a holder still");
    }
    if (attached >= 0) {
      check_settled(prefix, *binding);
      check_follows_policy(*binding);
      check_idle_at_rest(*binding);
      if (kernel_of(attached, prefix)->route.interface != interface_of(known.mobile, attached)) left_over("other port");
    }
    for (std::size_t i = 0; attached < 0 && i < routers_.size(); ++i) {
      const auto* kernel = kernel_of(static_cast<int>(i), prefix);
      const int ar = static_cast<int>(i);
      const bool right = ar == known.home ? kernel != nullptr && kernel->route.kind == Kind::kUnreachable &&
                                                kernel->route.ended == binding->released()
                         : ar == refuses ? kernel != nullptr && kernel->route.kind == Kind::kRefuse
                                         : kernel == nullptr;
      if (!right || static_of(static_cast<int>(i), prefix) > 0) left_over(routers_[i].name);
    }
  }
  for (const auto& mobile : mobiles_) check_mobile_at_rest(mobile);
  check_counts();
}

}  // namespace kedge::model
