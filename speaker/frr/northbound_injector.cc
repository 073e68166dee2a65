#include <algorithm>
#include <limits>
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "boost/asio/post.hpp"
#include "boost/asio/steady_timer.hpp"
#include "common/log.h"
#include "speaker/frr/anchoring_plane.h"
#include "speaker/frr/guard.h"
#include "speaker/frr/injector_state.h"
#include "speaker/frr/northbound_address.h"
#include "speaker/frr/northbound_channel.h"
#include "speaker/frr/northbound_request.h"
#include "speaker/frr/route_ledger.h"

namespace kedge::speaker {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

constexpr std::size_t kNoLimit = std::numeric_limits<std::size_t>::max();
constexpr milliseconds kFirstBackoff{20};
constexpr milliseconds kLongestBackoff{1000};
constexpr milliseconds kWrongServerPause{1000};
constexpr milliseconds kFirstAudit{100};
// Reading takes as long as FRR's configuration is long, in staticd and here. While idle, it is done for at most half a
// per cent of the time; while a prefix cannot be had, for 5 per cent.
constexpr int kAuditShare = 200;
constexpr int kRepairShare = 20;
constexpr int kRetriesBeforeReconnect = 5;

bool is_staticd(const frr::GetCapabilitiesResponse& capabilities) {
  return std::any_of(capabilities.supported_modules().begin(), capabilities.supported_modules().end(),
                     [](const frr::ModuleData& module) { return module.name() == "frr-staticd"; });
}

class NorthboundInjector : public RouteInjector {
 public:
  NorthboundInjector(boost::asio::any_io_executor executor, const RouteInjectorConfig& config)
      : executor_(executor), config_(config), ledger_(config.levels), timer_(executor) {
    const auto endpoint = parse_northbound(config.northbound);
    if (!endpoint.ok()) {
      boost::asio::post(executor_, guarded_([this, text = std::string(endpoint.status().message())] {
                          enter(State::kAwaiting, text);
                        }));
      return;
    }
    channel_.emplace(executor, *endpoint);
    channel_->on_up = [this] { identify(); };
    channel_->on_down = [this](const std::string& why) {
      forget_connection();
      enter(State::kAwaiting, why);
    };
    channel_->on_slow = [this](const std::string& call, std::chrono::seconds after) {
      enter(state(), absl::StrCat("FRR's staticd has not answered ", call, " for ", after.count(),
                                  " s: if it does not go on, restart staticd"));
    };
    channel_->open();
  }

  void set(const Ipv6Prefix& prefix, std::uint32_t level) override {
    ledger_.set(prefix, level);
    wake();
  }

  void replace_all(const std::map<Ipv6Prefix, std::uint32_t>& levels) override {
    ledger_.replace_all(levels);
    // FRR may have been read long before this.
    read_first_ = true;
    wake();
  }

  void raise_levels(std::uint32_t levels) override { ledger_.raise_levels(levels); }

  State state() const override { return state_.state(); }
  std::string frr_version() const override { return frr_version_; }

 private:
  void enter(State state, std::string text) { state_.enter(state, std::move(text), on_state); }

  // Runs `next` after a pause, if the connection is still the same.
  void after(milliseconds pause, std::function<void()> next) {
    timer_.expires_after(pause);
    timer_.async_wait(
        guarded_([this, number = connection_number_, next = std::move(next)](const boost::system::error_code& error) {
          if (!error && number == connection_number_) next();
        }));
  }

  // Everything that was asked for in this turn of the executor goes into one round.
  void wake() {
    if (busy_ || !ready_ || waking_) return;
    waking_ = true;
    boost::asio::post(executor_, guarded_([this] {
                        waking_ = false;
                        if (!busy_ && ready_) next_round();
                      }));
  }

  void identify() {
    enter(State::kSyncing, "asking FRR for its version");
    busy_ = true;
    channel_->get_capabilities([this](const grpc::Status& status, const frr::GetCapabilitiesResponse& capabilities) {
      if (!status.ok()) {
        give_up(absl::StrCat("what listens at ", config_.northbound, " does not answer like FRR's northbound (",
                             status.error_message(), "): check frr.northbound and staticd's -M option (docs/frr.md)"));
        return;
      }
      if (!is_staticd(capabilities)) {
        give_up(absl::StrCat("the FRR daemon at ", config_.northbound,
                             " is not staticd: give '-M <path>/grpc.so:<port>' to staticd (docs/frr.md)"));
        return;
      }
      const auto choice = choose_schema(capabilities.frr_version());
      if (!choice.ok()) {
        give_up(std::string(choice.status().message()));
        return;
      }
      frr_version_ = capabilities.frr_version();
      schema_ = choice->schema;
      if (!choice->known) {
        log_warning("frr_version_unknown", "version", frr_version_, "text",
                    "newer than the versions that Kedge knows; using the schema of FRR 10.7");
      }
      batch_limit_ = kNoLimit;
      failures_ = 0;
      retries_ = 0;
      backoff_ = kFirstBackoff;
      identified_at_ = steady_clock::now();
      ready_ = true;
      read(true);
    });
  }

  void forget_connection() {
    busy_ = false;
    ready_ = false;
    round_.clear();
    removals_.clear();
    additions_.clear();
    candidate_.reset();
    ++connection_number_;
    timer_.cancel();
  }

  void give_up(std::string why) {
    forget_connection();
    channel_->reopen(kWrongServerPause);
    enter(State::kAwaiting, std::move(why));
  }

  // Takes over what FRR holds, then goes on with the next round.
  void read(bool answer_all) {
    busy_ = true;
    read_first_ = false;
    if (answer_all) enter(State::kSyncing, "reading FRR's static routes");
    const auto began = steady_clock::now();
    channel_->get(build_get(), [this, answer_all, began](const grpc::Status& status, const std::string& json) {
      // Nothing configured at all.
      const bool empty = status.error_code() == grpc::StatusCode::INVALID_ARGUMENT &&
                         absl::StrContains(status.error_message(), "not found");
      if (!status.ok() && !empty) {
        back_off(absl::StrCat("FRR does not show its configuration: ", status.error_message()),
                 [this, answer_all] { read(answer_all); });
        return;
      }
      std::map<Ipv6Prefix, HeldRoute> held;
      if (!empty) {
        auto parsed = parse_statics(json);
        if (!parsed.ok()) {
          back_off(absl::StrCat("FRR's configuration cannot be read: ", parsed.status().message()),
                   [this, answer_all] { read(answer_all); });
          return;
        }
        held = *std::move(parsed);
      }
      retries_ = 0;
      backoff_ = kFirstBackoff;
      reading_took_ = std::chrono::duration_cast<milliseconds>(steady_clock::now() - began);
      ledger_.take_held(std::move(held), answer_all);
      next_round();
    });
  }

  void next_round() {
    if (read_first_) {
      read(true);
      return;
    }
    round_started_ = steady_clock::now();
    busy_ = false;
    busy_ = !plan().empty();
    if (!busy_) {
      settle();
      return;
    }
    timer_.cancel();
    candidate_.reset();
    channel_->create_candidate([this](const grpc::Status& status, const frr::CreateCandidateResponse& response) {
      if (!status.ok()) {
        back_off(absl::StrCat("CreateCandidate failed: ", status.error_message()), [this] { next_round(); });
        return;
      }
      candidate_ = response.candidate_id();
      choose_removals();
    });
  }

  // Of what is open, as it is now: what is not in this round yet. Answers what is met already.
  RouteChanges plan() {
    // FRR has to be read before anything more is planned.
    if (read_first_) return {};
    auto [changes, met] = ledger_.plan(batch_limit_ - round_.size(), round_);
    for (const auto& [prefix, level] : met) {
      if (on_committed) on_committed(prefix, level);
    }
    return std::move(changes);
  }

  // Each step takes what is asked for when its turn comes: FRR has been copying its configuration until then.
  void choose_removals() {
    for (const auto& [prefix, change] : plan()) {
      if (change.level == 0) round_.emplace(prefix, change);
    }
    removals_ = build_removals(schema_, *candidate_, round_);
    remove(0);
  }

  void remove(std::size_t index) {
    if (index == removals_.size()) {
      removals_.clear();
      choose_additions();
      return;
    }
    channel_->edit_candidate(removals_[index],
                             [this, index](const grpc::Status& status, const frr::EditCandidateResponse&) {
                               if (status.ok()) {
                                 remove(index + 1);
                               } else {
                                 fail("EditCandidate", status);
                               }
                             });
  }

  // Additions come last and by themselves: FRR merges them into the candidate as it is, but edits a copy of it.
  void choose_additions() {
    RouteChanges additions = plan();
    std::erase_if(additions, [](const auto& change) { return change.second.level == 0; });
    additions_ = build_additions(schema_, *candidate_, additions);
    round_.merge(additions);
    if (round_.empty()) {
      // Nothing of what this round was begun for is asked for any more.
      drop_candidate([this] { next_round(); });
      return;
    }
    add(0);
  }

  void add(std::size_t index) {
    if (index == additions_.size()) {
      additions_.clear();
      commit();
      return;
    }
    channel_->load_to_candidate(additions_[index],
                                [this, index](const grpc::Status& status, const frr::LoadToCandidateResponse&) {
                                  if (status.ok()) {
                                    add(index + 1);
                                  } else {
                                    fail("LoadToCandidate", status);
                                  }
                                });
  }

  void commit() {
    channel_->commit(*candidate_, [this](const grpc::Status& status, const frr::CommitResponse&) {
      // FRR says so when there is nothing to change.
      if (!status.ok() && status.error_code() != grpc::StatusCode::ABORTED) {
        fail("Commit", status);
        return;
      }
      const RouteChanges committed = std::exchange(round_, {});
      ledger_.take_committed(committed);
      failures_ = 0;
      retries_ = 0;
      backoff_ = kFirstBackoff;
      if (batch_limit_ <= kNoLimit / 2) batch_limit_ *= 2;
      report(committed);
      if (state() == State::kSyncing && batch_limit_ == kNoLimit) describe_synced();
      drop_candidate([this] { next_round(); });
    });
  }

  void report(const RouteChanges& committed) {
    const auto removed =
        std::count_if(committed.begin(), committed.end(), [](const auto& change) { return change.second.level == 0; });
    const std::chrono::duration<double, std::milli> took = steady_clock::now() - round_started_;
    log_info("frr_committed", "set", committed.size() - static_cast<std::size_t>(removed), "removed", removed, "ms",
             took.count());
    if (on_round) on_round(took, committed.size());
    for (const auto& [prefix, change] : committed) {
      if (on_committed) on_committed(prefix, change.level);
    }
  }

  // A candidate that is left behind keeps a copy of the whole configuration in staticd.
  void drop_candidate(std::function<void()> next) {
    if (!candidate_.has_value()) {
      next();
      return;
    }
    channel_->delete_candidate(
        *std::exchange(candidate_, std::nullopt),
        [next = std::move(next)](const grpc::Status& status, const frr::DeleteCandidateResponse&) {
          if (!status.ok()) {
            log_warning("frr_candidate_left", "error", status.error_message());
          }
          next();
        });
  }

  void fail(const char* call, const grpc::Status& status) {
    const std::string why = absl::StrCat(call, " failed: ", status.error_message());
    log_warning("frr_commit_failed", "changes", round_.size(), "error", why);
    removals_.clear();
    additions_.clear();
    ++failures_;
    if (status.error_code() == grpc::StatusCode::UNAVAILABLE) {
      --failures_;
      const bool locked = absl::StrContains(why, "transaction") || absl::StrContains(why, "lock");
      if (locked) retries_ = 0;
      drop_candidate([this, text = locked
                                       ? absl::StrCat("another client (vtysh in exclusive configuration?) holds FRR's "
                                                      "configuration; trying again: ",
                                                      why)
                                       : why] { back_off(text, [this] { next_round(); }); });
      return;
    }
    // The first time, what FRR was thought to hold may have been wrong. After that one of the changes is not
    // acceptable: halve until it is found, so that it does not keep the others back.
    if (failures_ > 1) {
      if (round_.size() == 1) {
        log_error("frr_route_refused", "prefix", round_.begin()->first, "level", round_.begin()->second.level, "error",
                  why);
        ledger_.reject(round_.begin()->first, why);
        failures_ = 0;
      } else {
        batch_limit_ = round_.size() / 2;
      }
    }
    round_.clear();
    drop_candidate([this] { read(false); });
  }

  void back_off(std::string why, std::function<void()> next) {
    round_.clear();
    if (++retries_ > kRetriesBeforeReconnect) {
      // The way to FRR may be what is broken.
      give_up(std::move(why));
      return;
    }
    enter(State::kSyncing, std::move(why));
    after(backoff_, std::move(next));
    backoff_ = std::min(backoff_ * 2, kLongestBackoff);
  }

  void settle() {
    if (!ledger_.complete()) {
      enter(State::kSyncing, "FRR answers; waiting to be told what is to be announced");
      return;
    }
    batch_limit_ = kNoLimit;
    describe_synced();
    const bool trouble = !ledger_.conflicts().empty() || !ledger_.rejected().empty();
    const milliseconds pause = trouble ? std::max(config_.repair_interval, kRepairShare * reading_took_)
                                       : std::max(config_.audit_interval, kAuditShare * reading_took_);
    after(std::min(pause, since_identified()), [this] {
      if (busy_) return;
      ledger_.retry_rejected();
      read(false);
    });
  }

  // FRR is read again after 0.1 s, 0.2 s, 0.4 s, ...: a staticd that has just started answers before vtysh has given it
  // the saved configuration, in which somebody's `write` may have left statics of ours.
  milliseconds since_identified() const {
    return std::max(kFirstAudit, std::chrono::duration_cast<milliseconds>(steady_clock::now() - identified_at_));
  }

  void describe_synced() {
    enter(State::kSynced,
          absl::StrCat("synced",
                       explain(ledger_.conflicts(), "FRR's configuration has another static route for",
                               "remove it (vtysh: no ipv6 route ...) or it stays without its announcement"),
                       explain(ledger_.rejected(), "FRR refuses", "see the log of staticd")));
  }

  boost::asio::any_io_executor executor_;
  const RouteInjectorConfig config_;
  Guard guarded_;

  InjectorState state_;
  std::string frr_version_;
  StaticSchema schema_ = StaticSchema::kA;

  RouteLedger ledger_;
  // FRR's version is known; rounds may be made.
  bool ready_ = false;
  // A read, a round or a pause after a failure is under way.
  bool busy_ = false;
  bool waking_ = false;
  // All that FRR holds is to be looked at before the next round.
  bool read_first_ = false;
  RouteChanges round_;
  std::vector<frr::EditCandidateRequest> removals_;
  std::vector<frr::LoadToCandidateRequest> additions_;
  std::optional<std::uint32_t> candidate_;
  steady_clock::time_point round_started_;
  steady_clock::time_point identified_at_;
  milliseconds reading_took_{};
  std::size_t batch_limit_ = kNoLimit;
  // Rounds in a row that FRR has refused.
  int failures_ = 0;
  // Pauses in a row without any success.
  int retries_ = 0;
  int connection_number_ = 0;
  milliseconds backoff_ = kFirstBackoff;
  boost::asio::steady_timer timer_;
  // Last, so that it goes first.
  std::optional<NorthboundChannel> channel_;
};

}  // namespace

std::unique_ptr<RouteInjector> make_northbound_injector(boost::asio::any_io_executor executor,
                                                        const RouteInjectorConfig& config) {
  return std::make_unique<NorthboundInjector>(std::move(executor), config);
}

}  // namespace kedge::speaker
