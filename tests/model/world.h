// A network of one LM and a few ARs: the real state machine and the real speaker controllers, with everything around
// them in memory and under the control of random events. After each event the invariants of docs/model.md are checked.
//
// Deterministic: the same seed and the same events give the same run.
#pragma once

#include <chrono>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <stdexcept>
#include <string>
#include <tuple>
#include <vector>

#include "boost/asio/io_context.hpp"
#include "common/metrics.h"
#include "fmt/format.h"
#include "kedge/v1/mobility.pb.h"
#include "speaker/frr/anchoring_plane.h"
#include "speaker/kernel/forwarding_plane.h"
#include "tests/model/random.h"
#include "tests/model/server.h"

namespace kedge::model {

// An invariant does not hold; the text says which.
class Violation : public std::runtime_error {
  using std::runtime_error::runtime_error;
};

class Speaker;

// Of the LM after a restore, and of speakers.
constexpr std::chrono::milliseconds kRecoveryTime{3000};

struct KernelRoute {
  speaker::Route route;
  // Of the record that it was last programmed, or acknowledged, for.
  v1::Generation generation;
};

struct BgpPath {
  int ar = -1;
  std::uint32_t level = 0;
  bool operator==(const BgpPath&) const = default;
};

// A session's stream, in order in each direction.
struct Session {
  int ar = 0;
  std::uint64_t incarnation = 0;
  // Given by the LM; 0 before.
  std::uint64_t id = 0;
  std::deque<v1::SpeakerMessage> to_lm;
  // When each Activity among them was sent.
  std::deque<SystemTime> activities_sent;
  std::deque<std::shared_ptr<const v1::LmMessage>> to_speaker;
  // Nothing more goes in; each side notices when it has taken what was under way.
  bool broken = false;
  bool lm_knows = false;
  bool speaker_knows = false;
};

// A unary call.
struct Call {
  int ar = 0;
  // The life of the LM in which it was accepted in a session; 0: in none.
  std::uint64_t life = 0;
  std::uint64_t incarnation = 0;
  std::optional<v1::AttachRequest> attach;
  std::optional<v1::DetachRequest> detach;
  std::function<void(const absl::Status&)> done;
  bool delivered = false;
  std::optional<absl::Status> answer;
};

// A prefix whose use the kernel keeps in mind.
struct Watched {
  SystemTime since;
  std::optional<SystemTime> used;
};

// An AR: the kernel and FRR, which outlive the speaker, and the speaker while it runs.
struct Router {
  std::string name;
  std::map<Ipv6Prefix, KernelRoute> kernel;
  // Of it, what the speaker was told of; gone with the speaker.
  std::map<Ipv6Prefix, KernelRoute> confirmed;
  std::map<Ipv6Prefix, Watched> watched;
  // FRR's configuration, what its bgpd makes of it, and what it hears from the reflector.
  std::map<Ipv6Prefix, std::uint32_t> statics;
  std::map<Ipv6Prefix, std::uint32_t> originated;
  std::map<Ipv6Prefix, BgpPath> learned;
  // What the reflector has kept over bgpd's restart, until it hears otherwise.
  std::set<Ipv6Prefix> preserved;
  std::uint64_t frr_starts = 0;
  // What an operator's `write` has saved, and what of it came back with FRR's start and has not been corrected yet.
  std::map<Ipv6Prefix, std::uint32_t> saved;
  std::set<Ipv6Prefix> stale;
  // Of it, what bgpd has still.
  std::set<Ipv6Prefix> revived;
  std::unique_ptr<Speaker> speaker;
  std::uint64_t incarnation = 0;
};

class World {
 public:
  explicit World(std::uint64_t seed);
  ~World();

  // Each throws Violation.
  // One random event; with faults or, in planned operation, without.
  void step(std::uint64_t random);
  // No more faults and no more moves: everything comes to rest, and nothing is left over.
  void come_to_rest();
  // After come_to_rest(): from now on moves are planned (make-before-break) and nothing fails.
  void begin_planned_operation() { planned_ = true; }
  void begin_faults() { planned_ = false; }

  // Lines that say what happens are added; null: none.
  void trace_to(std::vector<std::string>* lines) { trace_ = lines; }
  std::string settings_text() const;

 private:
  friend class Speaker;
  struct Mobile {
    std::string id;
    // Prefix of the network behind it, if it is a mobile router.
    std::string network;
    // Radio links; the last one is where it sends.
    std::vector<int> links;
    // One of the two that each AR has.
    int port = 0;
    // At the AR where it sends.
    bool refused = false;
  };
  struct Known {
    int home = 0;
    int mobile = 0;
    // Last generation at which the binding was detached for good.
    v1::Generation ended;
    // Delivered since then: from now on no packet may be lost in a planned move.
    bool in_use = false;
    std::map<int, SystemTime> pointed_at;
    // AR, epoch, revision.
    std::set<std::tuple<int, std::uint64_t, std::uint64_t>> acknowledged_delivery;
    bool has_acknowledged(int ar, const v1::Generation& g) const {
      return acknowledged_delivery.contains({ar, g.epoch(), g.revision()});
    }
    // By the generation's epoch and revision.
    std::map<std::pair<std::uint64_t, std::uint64_t>, int> attached;
    // The generation that was seen last, its level, and whether it has had one.
    v1::Generation generation;
    std::uint32_t level = 0;
    bool had_level = false;
    v1::BindingState state = v1::BINDING_STATE_UNSPECIFIED;
    // When a packet has passed where the prefix was watched.
    std::deque<SystemTime> uses;
  };

  template <typename... Args>
  void trace(const char* format, const Args&... args) {
    if (trace_ != nullptr) trace_->push_back(fmt::format(fmt::runtime(format), args...));
  }
  [[noreturn]] void violated(const std::string& invariant, const std::string& detail) const;

  // Events; false when there is nothing to do for it now.
  bool operator_acts();
  bool mobile_moves();
  bool planned_move();
  bool mobile_sends(int mobile);
  bool packet_passes(int mobile);
  bool departure_noticed(int ar);
  bool lm_receives(Session& session);
  bool speaker_receives(Router& router);
  bool stale_record(Router& router);
  bool session_breaks(Router& router);
  bool speaker_connects(Router& router);
  bool call_arrives(std::size_t index);
  bool call_ends(std::size_t index);
  bool call_is_lost(std::size_t index);
  void note_answer(const Call& call);
  bool call_is_repeated();
  bool frr_works(Router& router);
  bool frr_restarts(Router& router);
  bool uplink_fails(Router& router);
  bool router_reboots(Router& router);
  bool bgp_propagates(int ar, int edge);
  bool bgpd_is_asked(int ar);
  bool kernel_is_repaired(Router& router);
  bool speaker_dies(Router& router);
  bool speaker_starts(Router& router);
  bool lm_dies();
  bool lm_starts();
  bool lm_ticks();
  bool question_is_answered(Router& router);
  void time_passes(std::chrono::nanoseconds time);
  // What controllers have posted, and timers that are due.
  void run_handlers();
  bool everything_that_is_under_way();

  void make_router(Mobile& mobile, Random& random);
  struct Taken {
    bool accepted = false;
    bool changes = false;
  };
  Taken lm_attach(const v1::AttachRequest& request, Server::Reply reply);
  Taken lm_detach(const v1::DetachRequest& request, Server::Reply reply);
  void learn_bindings(const std::string& mobile);
  v1::PolicyScope any_scope();
  v1::Policy any_policy(const v1::PolicyScope& scope);
  lm::Output any_order();
  void lm_ack(const Session& session, const v1::Ack& ack);
  void lm_activity(Session& session, const v1::Activity& activity);
  void send(const lm::Message& message);

  // What the speakers do to their surroundings.
  bool kernel_fails() { return !planned_ && random_.chance(kernel_failures_); }
  void set_kernel(Router& router, const Ipv6Prefix& prefix, const std::optional<speaker::Route>& route,
                  const v1::Binding* record, const v1::Generation& generation);
  // `kept`: the record does not say where to redirect to now.
  v1::Generation check_redirect(Router& router, const Ipv6Prefix& prefix, const std::optional<speaker::Route>& route,
                                const v1::Binding* record, bool from_snapshot);
  void acknowledged(Router& router, const Ipv6Prefix& prefix, const v1::Ack& ack);
  void set_static(Router& router, const Ipv6Prefix& prefix, std::uint32_t level);
  // It was there from before, and shall be.
  void adopted_static(Router& router, const Ipv6Prefix& prefix) {
    router.stale.erase(prefix);
    router.revived.erase(prefix);
  }
  void asked_to_withdraw(Router& router, const Ipv6Prefix& prefix, const v1::Binding& record);
  void home_withdraws(int self, const Ipv6Prefix& prefix, const v1::Binding& record);
  void anchor_gives_up(int self, const Ipv6Prefix& prefix, const v1::Binding& record);

  void check();
  void check_binding(const Ipv6Prefix& prefix, Known& known);
  void check_chains(const Ipv6Prefix& prefix, const Known& known);
  void check_one_top(const Ipv6Prefix& prefix);
  void check_network(const Ipv6Prefix& prefix, const v1::Binding& network);
  void check_settled(const Ipv6Prefix& prefix, const v1::Binding& binding);
  void check_no_black_hole(const Ipv6Prefix& prefix, const Known& known);
  void check_level(const v1::Binding& binding, Known& known) const;
  void check_at_rest();
  void check_mobile_at_rest(const Mobile& mobile);
  void check_idle_at_rest(const v1::Binding& binding);
  void check_follows_policy(const v1::Binding& binding);
  void check_counts();
  // By what the operator has decided, or as the pool is used up.
  bool may_refuse(const Mobile& mobile) const;

  // What the reflector sends to it.
  BgpPath reflected_to(int ar, const Ipv6Prefix& prefix) const;
  bool bgp_has_converged(const Ipv6Prefix& prefix) const;
  BgpPath best_path(int ar, const Ipv6Prefix& prefix) const;
  // Without what has come back with FRR's start and is not corrected yet.
  std::uint32_t static_of(int ar, const Ipv6Prefix& prefix) const;
  bool holds(int ar, const Ipv6Prefix& prefix) const;
  std::uint32_t announced_by(int ar, const Ipv6Prefix& prefix) const;
  // Its bgpd leads to it, and by what the speaker had written.
  bool originates(int ar, const Ipv6Prefix& prefix) const;
  std::string interface_of(int mobile, int ar) const;
  const KernelRoute* kernel_of(int ar, const Ipv6Prefix& prefix) const;
  int ar_of(const Ipv6Address& segment) const;
  int ar_of(const std::string& name) const;
  std::string text(const std::optional<speaker::Route>& route) const;
  std::string picture(const Ipv6Prefix& prefix) const;
  bool linked(int mobile, int ar) const;

  boost::asio::io_context io_;
  Random random_{0};
  std::vector<std::string>* trace_ = nullptr;
  SystemTime now_;
  std::chrono::steady_clock::time_point steady_now_;
  lm::Settings settings_;
  int kernel_failures_ = 0;
  int fault_rate_ = 0;
  bool has_operator_ = false;
  bool planned_ = false;
  bool resting_ = false;
  std::unique_ptr<Server> server_;
  std::vector<Router> routers_;
  std::vector<Mobile> mobiles_;
  std::vector<std::shared_ptr<Session>> sessions_;
  // Since the last rest.
  bool restored_ = false;
  std::uint64_t lm_life_ = 1;
  // Incarnations, as the present LM has heard of them.
  std::map<int, std::uint64_t> present_runs_;
  v1::Generation last_generation_;
  // Since BGP was last seen to have converged, in planned operation.
  std::chrono::nanoseconds bgp_lag_{};
  std::map<std::uint64_t, std::shared_ptr<Session>> session_of_id_;
  std::uint64_t last_session_ = 0;
  std::vector<std::shared_ptr<Call>> calls_;
  std::deque<Call> old_calls_;
  std::map<Ipv6Prefix, Known> known_;
  // The route reflector's view: level by AR.
  std::map<Ipv6Prefix, std::map<int, std::uint32_t>> reflector_;
};

}  // namespace kedge::model
