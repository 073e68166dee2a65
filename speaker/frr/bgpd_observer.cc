#include <algorithm>
#include <chrono>
#include <map>
#include <optional>
#include <set>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "boost/asio/post.hpp"
#include "boost/asio/steady_timer.hpp"
#include "common/log.h"
#include "speaker/frr/anchoring_plane.h"
#include "speaker/frr/best_path.h"
#include "speaker/frr/guard.h"
#include "speaker/frr/vty_client.h"
#include "speaker/kernel/route_monitor.h"

namespace kedge::speaker {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

constexpr milliseconds kFirstInterval{5};
constexpr milliseconds kLongestInterval{250};
// Many questions are asked less often each, so that bgpd has time for what is asked about: kernel notices say when an
// answer may have changed.
constexpr std::chrono::microseconds kIntervalPerQuestion{200};
// Under way at one time.
constexpr int kMostAsked = 16;
constexpr milliseconds kFirstReconnect{50};
constexpr milliseconds kLongestReconnect{200};
// Cheap, and answered by every bgpd.
constexpr char kProbe[] = "show bgp vrfs json";

class BgpdObserver : public BestPathObserver {
 public:
  BgpdObserver(boost::asio::any_io_executor executor, const BestPathObserverConfig& config)
      : executor_(executor),
        stale_time_(config.stale_time),
        vty_(make_vty_client(executor, config.vty_directory, "bgpd")),
        timer_(executor) {
    vty_->on_closed = [this] {
      in_doubt_ = true;
      step();
    };
    boost::asio::post(executor_, guarded_([this] { step(); }));
  }

  void watch(const Ipv6Prefix& prefix, const Ipv6Address& successor, std::uint32_t local_preference) override {
    auto& question = questions_[prefix];
    question.successor = Successor{successor, local_preference};
    begin(prefix, question);
    listen();
    wake();
  }

  void unwatch(const Ipv6Prefix& prefix) override {
    const auto question = questions_.find(prefix);
    if (question == questions_.end()) return;
    question->second.successor.reset();
    drop_if_answered(question);
  }

  void await_withdrawal(const Ipv6Prefix& prefix, std::uint32_t levels) override {
    auto& question = questions_[prefix];
    doubt_announcement(prefix, question);
    question.withdrawal = Withdrawal{levels, steady_clock::now(), false, std::nullopt};
    begin(prefix, question);
    listen();
    wake();
  }

  void forget_withdrawal(const Ipv6Prefix& prefix) override {
    const auto question = questions_.find(prefix);
    if (question == questions_.end()) return;
    doubt_announcement(prefix, question->second);
    question->second.withdrawal.reset();
    drop_if_answered(question);
    report_health();
  }

 private:
  struct Successor {
    Ipv6Address next_hop;
    std::uint32_t local_preference = 0;
  };

  struct Withdrawal {
    std::uint32_t levels = 0;
    // Since when bgpd has not been seen to have the path.
    steady_clock::time_point quiet_since;
    // By its last answer it has none. All neighbours have yet to know.
    bool absent = false;
    // When bgpd was first asked and had the path.
    std::optional<steady_clock::time_point> announced_since;
  };

  // What is to be found out about a prefix.
  struct Question {
    std::optional<Successor> successor;
    std::optional<Withdrawal> withdrawal;
    steady_clock::time_point due;
    milliseconds interval = kFirstInterval;
  };
  using Questions = std::map<Ipv6Prefix, Question>;

  void drop_if_answered(Questions::iterator question) {
    if (!question->second.successor && !question->second.withdrawal) {
      due_.erase({question->second.due, question->first});
      questions_.erase(question);
    }
    listen();
  }

  // The kernel's notices wake the process for each route of the router: wanted only while there is a question.
  void listen() {
    if (questions_.empty()) {
      notices_.reset();
      return;
    }
    if (notices_ != nullptr) return;
    auto notices = make_route_notices(executor_);
    if (!notices.ok()) {
      log_warning("route_notices_unavailable", "error", std::string(notices.status().message()), "text",
                  "asking bgpd at intervals only");
      return;
    }
    notices_ = *std::move(notices);
    notices_->on_route = [this](const Ipv6Prefix& prefix) {
      const auto found = questions_.find(prefix);
      if (found == questions_.end()) return;
      hurry(prefix, found->second);
      wake();
    };
    notices_->on_overrun = [this] {
      for (auto& [prefix, question] : questions_) hurry(prefix, question);
      wake();
    };
  }

  milliseconds least_interval() const {
    return std::chrono::duration_cast<milliseconds>(questions_.size() * kIntervalPerQuestion);
  }

  // One of many is not asked at once: its successor has hardly announced it yet, and what this AR forwards goes first.
  void begin(const Ipv6Prefix& prefix, Question& question) {
    hurry(prefix, question);
    set_due(prefix, question, steady_clock::now() + least_interval());
  }

  // bgpd may be about to change its mind: begin with short intervals again.
  void hurry(const Ipv6Prefix& prefix, Question& question) {
    set_due(prefix, question, steady_clock::now());
    question.interval = kFirstInterval;
  }

  void set_due(const Ipv6Prefix& prefix, Question& question, steady_clock::time_point due) {
    due_.erase({question.due, prefix});
    question.due = due;
    due_.emplace(due, prefix);
  }

  // That bgpd goes on announcing it is not known (any more).
  void doubt_announcement(const Ipv6Prefix& prefix, Question& question) {
    if (!question.withdrawal || !question.withdrawal->announced_since) return;
    announced_.erase({*question.withdrawal->announced_since, prefix});
    question.withdrawal->announced_since.reset();
  }

  void wake() {
    if (waking_) return;
    waking_ = true;
    boost::asio::post(executor_, guarded_([this] {
                        waking_ = false;
                        step();
                      }));
  }

  // Does what is due. What may change all answers is asked for alone.
  void step() {
    if (asking_alone_) return;
    if (in_doubt_ || !vty_status_.has_value() || !vty_status_->ok()) {
      if (asked_ > 0) return;
      if (steady_clock::now() >= next_connect_) {
        ask_whether_alive();
      } else {
        step_at(next_connect_);
      }
      return;
    }
    const auto now = steady_clock::now();
    while (!due_.empty() && asked_ < kMostAsked) {
      // One answer about the neighbours does for all prefixes that were due with the first one.
      if (sessions_due_ && *sessions_due_ <= due_.begin()->first) {
        if (asked_ == 0) ask_about_sessions();
        return;
      }
      if (due_.begin()->first > now) return step_at(due_.begin()->first);
      ask_about(Ipv6Prefix(due_.begin()->second));
    }
    if (due_.empty()) timer_.cancel();
  }

  void step_at(steady_clock::time_point time) {
    timer_.expires_at(time);
    timer_.async_wait(guarded_([this](const boost::system::error_code& error) {
      if (!error) step();
    }));
  }

  void ask_whether_alive() {
    asking_alone_ = true;
    vty_->ask(kProbe, [this](const absl::StatusOr<VtyReply>& reply) {
      asking_alone_ = false;
      judge_health(reply.status());
      step();
    });
  }

  void ask_about(const Ipv6Prefix& prefix) {
    ++asked_;
    Question& question = questions_.at(prefix);
    set_due(prefix, question, steady_clock::now() + std::max(question.interval, least_interval()));
    question.interval = std::min(question.interval * 3 / 2, kLongestInterval);
    vty_->ask(paths_command(prefix), [this, prefix](const absl::StatusOr<VtyReply>& reply) {
      --asked_;
      // A connection that ends takes all along that is under way: the last one tells.
      if (!reply.ok() && asked_ > 0) return;
      judge_health(reply.status());
      if (reply.ok()) judge(prefix, *reply);
      step();
    });
  }

  void judge(const Ipv6Prefix& prefix, const VtyReply& reply) {
    const auto paths = parse_paths(prefix, reply.text);
    if (!paths.ok()) {
      log_debug("bgpd_answer_unreadable", "prefix", prefix, "error", std::string(paths.status().message()));
      return conclude_overdue();
    }
    if (const auto found = questions_.find(prefix); found != questions_.end() && found->second.withdrawal) {
      judge_withdrawal(prefix, found->second, *paths);
      report_health();
    }
    // Its callback may ask for anything.
    if (const auto found = questions_.find(prefix); found != questions_.end() && found->second.successor) {
      judge_successor(prefix, *found->second.successor, paths->best);
    }
  }

  void judge_successor(const Ipv6Prefix& prefix, const Successor& successor, const std::optional<BestPath>& best) {
    if (!best || best->next_hop != successor.next_hop || best->local_preference < successor.local_preference) return;
    log_info("best_path_superseded", "prefix", prefix, "next_hop", best->next_hop, "local_preference",
             best->local_preference);
    unwatch(prefix);
    if (on_superseded) on_superseded(prefix);
  }

  void judge_withdrawal(const Ipv6Prefix& prefix, Question& question, const Paths& paths) {
    const auto now = steady_clock::now();
    Withdrawal& withdrawal = *question.withdrawal;
    withdrawal.absent = std::none_of(paths.own_tags.begin(), paths.own_tags.end(),
                                     [&](std::uint32_t tag) { return tag > 0 && tag <= withdrawal.levels; });
    if (withdrawal.absent) {
      doubt_announcement(prefix, question);
      if (!sessions_due_) sessions_due_ = now;
    } else {
      withdrawal.quiet_since = now;
      if (withdrawal.announced_since) return;
      withdrawal.announced_since = now;
      announced_.emplace(now, prefix);
    }
  }

  void ask_about_sessions() {
    asking_alone_ = true;
    sessions_due_.reset();
    vty_->ask(sessions_command(), [this](const absl::StatusOr<VtyReply>& reply) {
      asking_alone_ = false;
      judge_health(reply.status());
      if (reply.ok()) judge_sessions(*reply);
      step();
    });
  }

  void judge_sessions(const VtyReply& reply) {
    const auto running = std::chrono::duration_cast<milliseconds>(steady_clock::now() - answers_since_);
    const auto follow = neighbours_follow(reply.text, running, stale_time_);
    if (!follow.ok()) log_debug("bgpd_answer_unreadable", "error", std::string(follow.status().message()));
    if (follow.ok() && *follow) {
      conclude([](const Withdrawal& withdrawal) { return withdrawal.absent; });
    } else {
      conclude_overdue();
    }
  }

  void conclude_overdue() {
    conclude([this, now = steady_clock::now()](const Withdrawal& withdrawal) {
      return withdrawal.quiet_since + stale_time_ <= now;
    });
  }

  template <typename Condition>
  void conclude(Condition over) {
    std::vector<Ipv6Prefix> withdrawn;
    for (auto& [prefix, question] : questions_) {
      if (question.withdrawal && over(*question.withdrawal)) withdrawn.push_back(prefix);
    }
    for (const auto& prefix : withdrawn) {
      log_debug("bgpd_withdrew", "prefix", prefix);
      forget_withdrawal(prefix);
      if (on_withdrawn) on_withdrawn(prefix);
    }
  }

  void judge_health(const absl::Status& status) {
    const bool doubtful = std::exchange(in_doubt_, false) || !vty_status_.has_value() || !vty_status_->ok();
    if (status.ok()) {
      reconnect_pause_ = kFirstReconnect;
      if (doubtful) begin_anew();
    } else {
      next_connect_ = steady_clock::now() + reconnect_pause_;
      reconnect_pause_ = std::min(reconnect_pause_ * 2, kLongestReconnect);
    }
    if (vty_status_ != status) {
      vty_status_ = status;
      if (status.ok()) {
        log_info("bgpd_vty", "state", "up");
      } else {
        log_warning("bgpd_vty", "state", "down", "text", std::string(status.message()));
      }
    }
    report_health();
    if (!status.ok()) conclude_overdue();
  }

  // It may be another bgpd, which has yet to be told by zebra and to tell its neighbours.
  void begin_anew() {
    answers_since_ = steady_clock::now();
    for (auto& [prefix, question] : questions_) {
      if (question.withdrawal) question.withdrawal->absent = false;
    }
  }

  void report_health() {
    if (!vty_status_.has_value()) return;
    const auto health = vty_status_->ok() ? check_announcements() : *vty_status_;
    if (health_ == health) return;
    health_ = health;
    if (on_health) on_health(health);
  }

  absl::Status check_announcements() const {
    if (announced_.empty() || steady_clock::now() - announced_.begin()->first < stale_time_) return absl::OkStatus();
    return absl::FailedPreconditionError(
        absl::StrCat("bgpd goes on announcing ", announced_.begin()->second.to_string(),
                     ", whose route here is gone: if that lasts, restart all of FRR here"));
  }

  boost::asio::any_io_executor executor_;
  const milliseconds stale_time_;
  Guard guarded_;
  std::unique_ptr<VtyClient> vty_;
  std::unique_ptr<RouteNotices> notices_;
  boost::asio::steady_timer timer_;
  Questions questions_;
  // The same, by when each is to be asked next.
  std::set<std::pair<steady_clock::time_point, Ipv6Prefix>> due_;
  // Those withdrawals whose path bgpd still has, by since when.
  std::set<std::pair<steady_clock::time_point, Ipv6Prefix>> announced_;
  // The neighbours have to be asked for.
  std::optional<steady_clock::time_point> sessions_due_;
  bool waking_ = false;
  // About prefixes.
  int asked_ = 0;
  // About something else: nothing is asked beside it.
  bool asking_alone_ = false;
  // The connection has ended since the last answer.
  bool in_doubt_ = false;
  // None before the first answer.
  std::optional<absl::Status> vty_status_;
  // As it was reported.
  std::optional<absl::Status> health_;
  // For so long it has been the same bgpd.
  steady_clock::time_point answers_since_;
  steady_clock::time_point next_connect_;
  milliseconds reconnect_pause_ = kFirstReconnect;
};

}  // namespace

std::unique_ptr<BestPathObserver> make_bgpd_observer(boost::asio::any_io_executor executor,
                                                     const BestPathObserverConfig& config) {
  return std::make_unique<BgpdObserver>(std::move(executor), config);
}

}  // namespace kedge::speaker
