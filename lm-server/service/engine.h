// Brings state machine, store and sessions together: a command's messages, events and answer leave only after its
// commit is as durable as it asks for; those of one kind, and to one session, in the order of the commands.
//
// Threading: everything runs on the one thread that runs `io`.
// Monitoring: kedge_lm_* counters and gauges, see engine.cc.
#pragma once

#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "boost/asio/io_context.hpp"
#include "boost/asio/steady_timer.hpp"
#include "common/metrics.h"
#include "lm-server/core/machine.h"
#include "lm-server/service/audit.h"
#include "lm-server/service/event_log.h"
#include "lm-server/store/store.h"

namespace kedge::lm {

// One speaker's stream, as the engine sees it.
class SessionChannel {
 public:
  virtual ~SessionChannel() = default;
  // Queues them, in their order. The channel ends itself with RESOURCE_EXHAUSTED when its reader falls too far behind.
  virtual void send(std::vector<Message> messages) = 0;
  virtual void close(const absl::Status& status) = 0;
  // Its speaker's certificate has been revoked since it opened the session.
  virtual bool revoked() const { return false; }
};

class Engine {
 public:
  using AttachDone = std::function<void(absl::StatusOr<v1::AttachResponse>)>;
  using DetachDone = std::function<void(absl::StatusOr<v1::DetachResponse>)>;
  // `output.status` has been looked at already.
  using AdminDone = std::function<void(const absl::Status&, const Output& output)>;

  // `store` and `metrics` outlive the engine.
  Engine(boost::asio::io_context& io, Settings settings, Store& store, Metrics& metrics);

  // Takes over what the store has. The store's errors.
  absl::Status start();
  // Ends all sessions; answers nothing new.
  void stop();

  // Runs `commands`, which call what follows here: what they change goes to the store together.
  void together(const std::function<void()>& commands);
  // Each command is recorded in the audit trail as what `who` has asked for.
  void attach(const v1::AttachRequest& request, Request who, AttachDone done);
  void detach(const v1::DetachRequest& request, Request who, DetachDone done);
  // A change that an operator asks for: `command` works on the machine, `done` follows its commit.
  void administer(const std::function<Output(Machine&, SystemTime)>& command, Request who, AdminDone done);
  // A call that was not let in.
  void record_denial(const Request& request, const std::string& reason);
  // The result is the session's id; the snapshot follows by `channel`. NotFound, Unavailable.
  absl::StatusOr<std::uint64_t> open_session(const v1::Hello& hello, std::shared_ptr<SessionChannel> channel);
  void close_session(std::uint64_t session);
  void close_revoked_sessions();
  void ack(std::uint64_t session, const v1::Ack& ack);
  void health(std::uint64_t session, const v1::SpeakerHealth& health);
  void activity(std::uint64_t session, const v1::Activity& activity);

  const Machine& machine() const { return machine_; }
  EventLog& events() { return events_; }
  Metrics& metrics() { return metrics_; }
  std::string store_health() const;
  // May be used on any thread.
  Store& store() { return store_; }
  SystemTime started_at() const { return started_at_; }

 private:
  using Reply = std::function<void(const absl::Status&, const Output&)>;
  struct Pending {
    std::uint64_t number;
    // It waits for the store.
    bool commits;
    Output output;
    Reply reply;
  };

  // Never runs backwards.
  SystemTime now() const;
  void submit(Output output, Reply reply, const Request& request = {});
  // On a thread of the store.
  void answer(std::uint64_t number, absl::Status status);
  void take_answers();
  void hand_over();
  void release_what_is_done();
  void count(const v1::Event& event);
  void fail(const absl::Status& status);
  void reload();
  void arm_timer();
  absl::Status unavailable() const;

  boost::asio::io_context& io_;
  Store& store_;
  Metrics& metrics_;
  Machine machine_;
  EventLog events_;
  AuditTrail audit_;
  boost::asio::steady_timer timer_;
  boost::asio::steady_timer reload_timer_;
  const SystemTime started_at_;
  const SteadyTime steady_start_;
  std::deque<Pending> pending_;
  // The last that the store has answered.
  std::uint64_t durable_ = 0;
  // Commits that wait for the end of together().
  std::vector<Store::Order> orders_;
  bool together_ = false;
  // The store's answers: many come at once, and one wake-up is enough for them.
  std::mutex answers_mutex_;
  std::vector<std::pair<std::uint64_t, absl::Status>> answers_;
  std::uint64_t next_number_ = 1;
  std::uint64_t next_session_ = 1;
  std::unordered_map<std::uint64_t, std::shared_ptr<SessionChannel>> sessions_;
  bool available_ = false;
  bool stopped_ = false;

  prometheus::Counter& attaches_;
  prometheus::Counter& detaches_;
  prometheus::Counter& refusals_;
  prometheus::Counter& acks_;
  prometheus::Counter& store_failures_;
  prometheus::Counter& flaps_;
  prometheus::Counter& pools_exhausted_;
  prometheus::Counter& too_many_new_nodes_;
  prometheus::Counter& two_access_routers_;
  prometheus::Counter& prefixes_released_;
  prometheus::Gauge& bindings_;
  prometheus::Gauge& moving_;
  prometheus::Gauge& sessions_gauge_;
  prometheus::Histogram& attach_latency_;
};

}  // namespace kedge::lm
