#include "lm-server/service/engine.h"

#include <algorithm>
#include <ctime>
#include <map>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "boost/asio/post.hpp"
#include "common/alarm.h"
#include "common/log.h"
#include "fmt/format.h"

namespace kedge::lm {
namespace {

constexpr auto kReloadInterval = std::chrono::seconds(1);

double seconds_since(SteadyTime start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// Of CPU time. Clocks: CLOCK_THREAD_CPUTIME_ID, CLOCK_PROCESS_CPUTIME_ID.
double cpu_seconds(clockid_t clock) {
  timespec time{};
  ::clock_gettime(clock, &time);
  return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_nsec) / 1e9;
}

void log_event(const v1::Event& event) {
  std::string name = v1::EventType_Name(event.type());
  name.erase(0, sizeof("EVENT_TYPE_") - 1);
  std::transform(name.begin(), name.end(), name.begin(), [](unsigned char c) { return std::tolower(c); });
  log(is_alarm(event.type()) ? LogLevel::kWarning : LogLevel::kInfo, name, "prefix", event.prefix(), "mn",
      event.mn_id(), "ar", event.ar(), "generation", event.generation().revision(), "detail", event.detail());
}

}  // namespace

Engine::Engine(boost::asio::io_context& io, Settings settings, Store& store, Metrics& metrics)
    : io_(io),
      store_(store),
      metrics_(metrics),
      machine_(std::move(settings), 0),
      timer_(io),
      reload_timer_(io),
      started_at_(now_system()),
      steady_start_(std::chrono::steady_clock::now()),
      attaches_(metrics.counter("kedge_lm_attaches_total", "Attach requests")),
      detaches_(metrics.counter("kedge_lm_detaches_total", "Detach requests")),
      refusals_(metrics.counter("kedge_lm_refusals_total", "Attach and Detach requests answered with an error")),
      acks_(metrics.counter("kedge_lm_acknowledgements_total", "Acknowledgements of speakers")),
      store_failures_(metrics.counter("kedge_lm_store_failures_total", "Commits that the store could not write")),
      flaps_(metrics.counter("kedge_lm_flaps_total", "Mobile nodes that began to move too often to be relocated")),
      pools_exhausted_(metrics.counter("kedge_lm_pools_exhausted_total", "Times that a pool ran out of prefixes")),
      too_many_new_nodes_(metrics.counter("kedge_lm_too_many_new_nodes_total",
                                          "Alarms that an access router had more unknown MNs than it may have")),
      two_access_routers_(metrics.counter("kedge_lm_two_access_routers_total",
                                          "Alarms that one MN-ID was at two access routers at once")),
      prefixes_released_(metrics.counter("kedge_lm_prefixes_released_total", "Prefixes that have ended")),
      bindings_(metrics.gauge("kedge_lm_bindings", "Bindings")),
      moving_(metrics.gauge("kedge_lm_bindings_moving", "Bindings that are moving")),
      sessions_gauge_(metrics.gauge("kedge_lm_sessions", "Speakers that are connected")),
      attach_latency_(metrics.latency("kedge_lm_attach_seconds", "From the request to the answer of an Attach")) {}

absl::Status Engine::start() {
  const auto begun = std::chrono::steady_clock::now();
  const double own = cpu_seconds(CLOCK_THREAD_CPUTIME_ID);
  const double all = cpu_seconds(CLOCK_PROCESS_CPUTIME_ID);
  const auto values = store_.cursor();
  std::vector<std::string> dropped;
  auto output = machine_.load(values->epoch(), values->revision(), *values, now(), &dropped);
  if (!output.ok()) return output.status();
  for (const auto& text : dropped) log_warning("binding_not_configured", "reason", text);
  // Other threads read and check what this one takes over; RocksDB's are among them.
  const double taking_over = cpu_seconds(CLOCK_THREAD_CPUTIME_ID) - own;
  const double reading = std::max(0.0, cpu_seconds(CLOCK_PROCESS_CPUTIME_ID) - all - taking_over);
  log_info("store_loaded", "bindings", machine_.binding_count(), "epoch", values->epoch(), "revision",
           values->revision(), "seconds", fmt::format("{:.3f}", seconds_since(begun)), "cpu_taking_over",
           fmt::format("{:.3f}", taking_over), "cpu_reading", fmt::format("{:.3f}", reading));
  available_ = true;
  submit(std::move(*output), nullptr);
  return absl::OkStatus();
}

void Engine::stop() {
  stopped_ = true;
  available_ = false;
  timer_.cancel();
  reload_timer_.cancel();
  for (auto& [id, channel] : std::exchange(sessions_, {})) {
    channel->close(absl::UnavailableError("the LM is stopping; connect again"));
  }
  events_.close();
}

void Engine::attach(const v1::AttachRequest& request, Request who, AttachDone done) {
  attaches_.Increment();
  if (!available_) return done(unavailable());
  const auto begun = std::chrono::steady_clock::now();
  submit(
      machine_.attach(request, now()),
      [this, begun, done = std::move(done)](const absl::Status& status, const Output& output) {
        attach_latency_.Observe(seconds_since(begun));
        if (!status.ok()) {
          refusals_.Increment();
          return done(status);
        }
        v1::AttachResponse response;
        *response.mutable_generation() = output.generation;
        done(std::move(response));
      },
      who);
}

void Engine::detach(const v1::DetachRequest& request, Request who, DetachDone done) {
  detaches_.Increment();
  if (!available_) return done(unavailable());
  submit(
      machine_.detach(request, now()),
      [this, done = std::move(done)](const absl::Status& status, const Output& output) {
        if (!status.ok()) {
          refusals_.Increment();
          return done(status);
        }
        v1::DetachResponse response;
        response.set_stale(output.stale);
        done(std::move(response));
      },
      who);
}

void Engine::administer(const std::function<Output(Machine&, SystemTime)>& command, Request who, AdminDone done) {
  if (!available_) return done(unavailable(), {});
  submit(command(machine_, now()), std::move(done), who);
}

void Engine::record_denial(const Request& request, const std::string& reason) {
  if (!available_) return;
  auto entry = audit_.entry_for_denial(request, reason, now());
  if (entry) store_.commit({0, 0, Durability::kLazy, {}, {std::move(*entry)}}, nullptr);
}

absl::StatusOr<std::uint64_t> Engine::open_session(const v1::Hello& hello, std::shared_ptr<SessionChannel> channel) {
  if (!available_) return unavailable();
  const std::uint64_t session = next_session_++;
  Output output = machine_.session_up(hello, session, now());
  if (!output.status.ok()) return output.status;
  if (const auto old = sessions_.extract(output.replaced_session)) {
    old.mapped()->close(absl::AbortedError(absl::StrCat("access router ", hello.ar(), " has opened another session")));
  }
  sessions_.emplace(session, std::move(channel));
  submit(std::move(output), nullptr);
  return session;
}

void Engine::close_session(std::uint64_t session) {
  sessions_.erase(session);
  submit(machine_.session_down(session, now()), nullptr);
}

void Engine::close_revoked_sessions() {
  for (const auto& [id, channel] : sessions_) {
    if (channel->revoked()) channel->close(absl::PermissionDeniedError("revoked: the certificate has been revoked"));
  }
}

void Engine::ack(std::uint64_t session, const v1::Ack& ack) {
  acks_.Increment();
  if (!available_) return;
  Output output = machine_.ack(session, ack, now());
  if (!output.status.ok()) {
    log_warning("acknowledgement_ignored", "prefix", ack.prefix(), "reason", std::string(output.status.message()));
  }
  submit(std::move(output), nullptr);
}

void Engine::health(std::uint64_t session, const v1::SpeakerHealth& health) { machine_.health(session, health); }

void Engine::activity(std::uint64_t session, const v1::Activity& activity) {
  if (!available_) return;
  Output output = machine_.activity(session, activity, now());
  if (!output.status.ok()) log_warning("activity_ignored", "reason", std::string(output.status.message()));
  output.status = absl::OkStatus();
  submit(std::move(output), nullptr, due_by_time());
}

std::string Engine::store_health() const {
  std::string health = store_.health();
  return health == "ok" && !available_ ? "not loaded" : health;
}

SystemTime Engine::now() const { return started_at_ + (std::chrono::steady_clock::now() - steady_start_); }

void Engine::submit(Output output, Reply reply, const Request& request) {
  if (auto entry = audit_.entry_for(request, output, now())) {
    if (output.commit) {
      output.commit->journal.push_back(std::move(*entry));
    } else {
      orders_.push_back({{0, 0, Durability::kLazy, {}, {std::move(*entry)}}, nullptr});
    }
  }
  const std::uint64_t number = next_number_++;
  auto commit = std::exchange(output.commit, std::nullopt);
  pending_.push_back({number, commit.has_value(), std::move(output), std::move(reply)});
  if (commit) {
    orders_.push_back({std::move(*commit), [this, number](absl::Status status) { answer(number, std::move(status)); }});
  }
  if (!together_) hand_over();
}

void Engine::together(const std::function<void()>& commands) {
  together_ = true;
  commands();
  together_ = false;
  hand_over();
}

void Engine::hand_over() {
  if (!orders_.empty()) store_.commit_all(std::exchange(orders_, {}));
  release_what_is_done();
  arm_timer();
}

void Engine::answer(std::uint64_t number, absl::Status status) {
  {
    std::lock_guard lock(answers_mutex_);
    answers_.emplace_back(number, std::move(status));
    if (answers_.size() > 1) return;
  }
  boost::asio::post(io_, [this] { take_answers(); });
}

void Engine::take_answers() {
  std::vector<std::pair<std::uint64_t, absl::Status>> answers;
  {
    std::lock_guard lock(answers_mutex_);
    answers.swap(answers_);
  }
  for (const auto& [number, status] : answers) {
    // One of those that were given up when the store failed.
    if (pending_.empty() || number < pending_.front().number) continue;
    if (status.ok()) {
      durable_ = number;
    } else {
      release_what_is_done();
      fail(status);
    }
  }
  release_what_is_done();
}

void Engine::release_what_is_done() {
  std::map<std::uint64_t, std::vector<Message>> outgoing;
  // The store answers in order.
  while (!pending_.empty() && (!pending_.front().commits || pending_.front().number <= durable_)) {
    Pending pending = std::move(pending_.front());
    pending_.pop_front();
    for (auto& message : pending.output.messages) outgoing[message.session].push_back(std::move(message));
    for (auto& event : pending.output.events) {
      log_event(event);
      count(event);
      events_.append(std::move(event));
    }
    if (pending.reply) pending.reply(pending.output.status, pending.output);
  }
  for (auto& [id, messages] : outgoing) {
    if (const auto session = sessions_.find(id); session != sessions_.end()) session->second->send(std::move(messages));
  }
  bindings_.Set(static_cast<double>(machine_.binding_count()));
  moving_.Set(static_cast<double>(machine_.moving_count()));
  sessions_gauge_.Set(static_cast<double>(sessions_.size()));
}

void Engine::count(const v1::Event& event) {
  if (event.type() == v1::EVENT_TYPE_FLAPPING) flaps_.Increment();
  if (event.type() == v1::EVENT_TYPE_POOL_EXHAUSTED) pools_exhausted_.Increment();
  if (event.type() == v1::EVENT_TYPE_TOO_MANY_NEW_NODES) too_many_new_nodes_.Increment();
  if (event.type() == v1::EVENT_TYPE_TWO_ACCESS_ROUTERS) two_access_routers_.Increment();
  if (event.type() == v1::EVENT_TYPE_PREFIX_RELEASED) prefixes_released_.Increment();
}

// The machine is ahead of the store by what could not be written. None of it has left the process; the machine begins
// again with what the store has, and every speaker with a new snapshot.
void Engine::fail(const absl::Status& status) {
  store_failures_.Increment();
  available_ = false;
  const auto answer = absl::UnavailableError(status.message());
  for (auto& pending : std::exchange(pending_, {})) {
    if (pending.reply) pending.reply(pending.output.status.ok() ? answer : pending.output.status, pending.output);
  }
  for (auto& [id, channel] : std::exchange(sessions_, {})) channel->close(answer);
  reload();
}

void Engine::reload() {
  if (stopped_) return;
  const auto status = start();
  if (status.ok()) return;
  log_error("store_cannot_be_read", "reason", std::string(status.message()));
  reload_timer_.expires_after(kReloadInterval);
  reload_timer_.async_wait([this](const boost::system::error_code& error) {
    if (!error) reload();
  });
}

void Engine::arm_timer() {
  const auto deadline = machine_.next_deadline();
  if (!deadline || stopped_) {
    timer_.cancel();
    return;
  }
  timer_.expires_after(std::max<std::chrono::nanoseconds>(*deadline - now(), std::chrono::nanoseconds::zero()));
  timer_.async_wait([this](const boost::system::error_code& error) {
    if (!error && available_) submit(machine_.tick(now()), nullptr, due_by_time());
  });
}

absl::Status Engine::unavailable() const {
  if (stopped_) return absl::UnavailableError("the LM is stopping; try again");
  return absl::UnavailableError(absl::StrCat("the store is not available: ", store_.health()));
}

}  // namespace kedge::lm
