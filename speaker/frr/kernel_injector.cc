#include "speaker/frr/kernel_injector.h"

#include <algorithm>
#include <optional>
#include <set>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "boost/asio/post.hpp"
#include "boost/asio/steady_timer.hpp"
#include "common/anchor_level.h"
#include "common/log.h"
#include "speaker/frr/guard.h"
#include "speaker/frr/injector_state.h"
#include "speaker/frr/kernel_holdings.h"
#include "speaker/frr/route_ledger.h"
#include "speaker/frr/zebra_answers.h"

namespace kedge::speaker {
namespace {

using std::chrono::microseconds;
using std::chrono::milliseconds;
using std::chrono::seconds;
using std::chrono::steady_clock;

constexpr milliseconds kFirstReconnect{20};
constexpr milliseconds kLongestReconnect{200};
constexpr milliseconds kOtherPause{1000};
// What a notice takes of zebra's socket buffer (measured: 1280 bytes each, up to 2560).
constexpr std::uint64_t kNoticeBytes = 1280;
// Not more than this waits in zebra's buffer for our sake: enough to keep zebra busy, and a small part of what zebra
// has by default. Less after a loss.
constexpr std::uint64_t kWidestWindow = 200 * kNoticeBytes;
constexpr std::uint64_t kNarrowestWindow = 8 * kNoticeBytes;
constexpr microseconds kFirstWait{500};
constexpr microseconds kLongestWait{20'000};
constexpr seconds kSlow{10};
// zebra is asked for its count again so often, at growing intervals, as long as it does not change.
constexpr int kCountTries = 6;
constexpr milliseconds kFirstCountPause{20};

// How it is known that zebra has every route, without asking for any: the kernel puts a notice into zebra's queue, or
// counts it as dropped, before it acknowledges the change. So after each batch the count of drops says whether all of
// it will be read. What may have been lost is told again. A zebra that starts reads all of the kernel's routes; while
// it does, nothing is changed.
class KernelInjector : public RouteInjector {
 public:
  KernelInjector(boost::asio::any_io_executor executor, const KernelInjectorConfig& config, OpenAnchorRoutes open,
                 std::unique_ptr<VtyClient> zebra)
      : executor_(executor),
        config_(config),
        open_(std::move(open)),
        zebra_(std::move(zebra)),
        ledger_(config.levels),
        holdings_(config.protocol, config.levels),
        connect_timer_(executor),
        wait_timer_(executor),
        count_timer_(executor),
        audit_timer_(executor),
        repair_timer_(executor) {
    zebra_->on_closed = [this] { lose("zebra closed its connection: if it has ended, start it", kFirstReconnect); };
    boost::asio::post(executor_, guarded_([this] { connect(); }));
  }

  void set(const Ipv6Prefix& prefix, std::uint32_t level) override {
    ledger_.set(prefix, level);
    wake();
  }

  void replace_all(const std::map<Ipv6Prefix, std::uint32_t>& levels) override {
    ledger_.replace_all(levels);
    wake();
  }

  void raise_levels(std::uint32_t levels) override {
    ledger_.raise_levels(levels);
    holdings_.raise_levels(levels);
    read_first_ = true;
  }

  State state() const override { return state_.state(); }
  std::string frr_version() const override { return frr_version_; }

 private:
  using OneRoute = std::pair<Ipv6Prefix, std::uint32_t>;  // with its metric

  void enter(State state, std::string text) { state_.enter(state, std::move(text), on_state); }

  void after(boost::asio::steady_timer& timer, steady_clock::duration pause, std::function<void()> next) {
    timer.expires_after(pause);
    timer.async_wait(guarded_([next = std::move(next)](const boost::system::error_code& error) {
      if (!error) next();
    }));
  }

  // Everything that was asked for in this turn of the executor goes into one batch.
  void wake() {
    if (waking_ || waiting_ || !ready_) return;
    waking_ = true;
    boost::asio::post(executor_, guarded_([this] {
                        waking_ = false;
                        if (ready_ && !waiting_) turn();
                      }));
  }

  // The way to zebra

  void connect() {
    if (routes_ == nullptr) {
      auto opened = open_();
      if (!opened.ok()) return lose(std::string(opened.status().message()), kOtherPause);
      routes_ = *std::move(opened);
      routes_->on_change = [this](const KernelRoute& route, bool present) { take_change(route, present); };
      routes_->on_overrun = [this] {
        read_first_ = true;
        wake();
      };
    }
    // It answers when it has read the kernel's routes.
    ask(kVersionCommand, [this](const std::string& answer) {
      connect_pause_ = kFirstReconnect;
      frr_version_ = parse_version(answer);
      const auto listener = routes_->zebra();
      if (!listener) {
        return lose(
            "zebra answers, but does not listen to the kernel's routes of this network namespace: let the speaker and "
            "FRR "
            "run in the same one",
            kOtherPause);
      }
      begin(*listener);
    });
  }

  void begin(const ZebraListener& listener) {
    const bool another = !seen_ || seen_->inode != listener.inode;
    if (another) suspects_.clear();
    // What it has missed before we looked at it may have been ours.
    const bool missed = another ? listener.drops > 0 : listener.drops != seen_->drops;
    seen_ = listener;
    unanswered_.clear();
    count_due_ = true;
    told_again_ = false;
    ready_ = true;
    if (read(true) && missed) suspect_all();
    if (ready_) turn();
  }

  void ask(const char* command, std::function<void(const std::string&)> next) {
    asking_ = true;
    zebra_->ask(command, guarded_([this, next = std::move(next)](const absl::StatusOr<VtyReply>& reply) {
                  asking_ = false;
                  if (!reply.ok()) {
                    lose(std::string(reply.status().message()), connect_pause_);
                    connect_pause_ = std::min(connect_pause_ * 2, kLongestReconnect);
                    return;
                  }
                  next(reply->text);
                }));
  }

  void lose(std::string why, milliseconds pause) {
    ready_ = false;
    waiting_ = false;
    for (auto* timer : {&wait_timer_, &count_timer_, &audit_timer_, &repair_timer_}) timer->cancel();
    audit_scheduled_ = false;
    count_waiting_ = false;
    waiting_since_.reset();
    enter(State::kAwaiting, std::move(why));
    connect_after(pause);
  }

  void connect_after(milliseconds pause) {
    after(connect_timer_, pause, [this] {
      // Its answer comes, or its end.
      if (asking_) return connect_after(kLongestReconnect);
      connect();
    });
  }

  // The kernel

  // With `answer_all`, every prefix is answered again.
  bool read(bool answer_all) {
    read_first_ = false;
    if (state() != State::kSynced) enter(State::kSyncing, "reading the kernel's routes");
    holdings_.clear();
    const auto status = routes_->read([this](const KernelRoute& route) { holdings_.take(route, true); });
    if (!status.ok()) {
      lose(std::string(status.message()), kOtherPause);
      return false;
    }
    ledger_.take_held(holdings_.all_held(), answer_all);
    return true;
  }

  void take_change(const KernelRoute& route, bool present) {
    if (!ready_) return;
    holdings_.take(route, present);
    if (route.protocol == config_.protocol) {
      log_info("kernel_route_changed_by_others", "prefix", route.destination, "present", present);
    }
    ledger_.take_held(route.destination, holdings_.held(route.destination));
    wake();
  }

  // One step: what zebra may have missed first, then what is to be changed, then what is of no use.
  void turn() {
    if (read_first_ && !read(false)) return;
    if (!ledger_.complete()) {
      return enter(State::kSyncing, "zebra answers; waiting to be told what is to be announced");
    }
    if (!look_at_zebra()) return;
    if (!suspects_.empty()) {
      if (seen_->queued > window_ / 4) return wait();
      tell_again(room());
      return wake();
    }
    if (room() == 0 && ledger_.has_open()) return wait();
    // A change of the level takes two notices.
    auto [changes, met] = ledger_.plan(std::max<std::size_t>(1, room() / 2));
    for (const auto& [prefix, level] : met) report(prefix, level);
    if (!changes.empty()) {
      change(changes);
      return wake();
    }
    if (const auto useless = holdings_.surplus(std::max<std::size_t>(1, room() / 2)); !useless.empty()) {
      if (room() == 0) return wait();
      write(useless);
      check({useless.begin(), useless.end()}, {});
      return wake();
    }
    settle();
  }

  std::size_t room() const {
    return seen_->queued < window_ ? static_cast<std::size_t>((window_ - seen_->queued) / kNoticeBytes) : 0;
  }

  // False: it is not the zebra that it was.
  bool look_at_zebra() {
    const auto now = routes_->zebra();
    if (!now || now->inode != seen_->inode) {
      lose("zebra has ended: start it", kFirstReconnect);
      return false;
    }
    if (now->queued < seen_->queued || now->queued == 0) waiting_since_.reset();
    // Drops since the last batch were not of ours.
    seen_ = *now;
    return true;
  }

  // Until zebra has read more.
  void wait() {
    const auto now = steady_clock::now();
    if (!waiting_since_) {
      waiting_since_ = now;
      wait_pause_ = kFirstWait;
    }
    if (now - *waiting_since_ >= kSlow) {
      enter(state(), "zebra does not read the kernel's notices: if it does not go on, restart all of FRR here");
    }
    waiting_ = true;
    after(wait_timer_, wait_pause_, [this] {
      waiting_ = false;
      wait_pause_ = std::min(wait_pause_ * 2, kLongestWait);
      turn();
    });
  }

  // The new route of a prefix before the old one goes: there is always one that zebra can choose.
  void change(const RouteChanges& changes) {
    std::vector<AnchorRouteChange> additions;
    for (const auto& [prefix, change] : changes) {
      if (change.level != 0) additions.push_back({prefix, kernel_metric(change.level), true});
    }
    const auto refused = write(additions);
    std::vector<AnchorRouteChange> removals;
    for (const auto& [prefix, change] : changes) {
      if (refused.contains(prefix)) continue;
      for (const auto metric : holdings_.metrics(prefix)) {
        if (change.level == 0 || metric != kernel_metric(change.level)) removals.push_back({prefix, metric, false});
      }
    }
    const auto kept = write(removals);
    RouteChanges done;
    for (const auto& [prefix, change] : changes) {
      if (!refused.contains(prefix) && !kept.contains(prefix)) done.emplace(prefix, change);
    }
    ledger_.take_committed(done);
    additions.insert(additions.end(), removals.begin(), removals.end());
    check(additions, done);
  }

  // Gives the prefixes for which the kernel refused it.
  std::set<Ipv6Prefix> write(const std::vector<AnchorRouteChange>& changes) {
    std::set<Ipv6Prefix> refused;
    if (changes.empty()) return refused;
    ++writes_;
    const auto results = routes_->write(changes);
    for (std::size_t i = 0; i < changes.size(); ++i) {
      if (results[i].ok()) {
        holdings_.take(changes[i]);
        continue;
      }
      refused.insert(changes[i].prefix);
      if (absl::IsUnavailable(results[i])) {
        // Nobody knows whether it was done.
        read_first_ = true;
        continue;
      }
      log_error("kernel_route_refused", "prefix", changes[i].prefix, "metric", changes[i].metric, "error",
                std::string(results[i].message()));
      ledger_.reject(changes[i].prefix, std::string(results[i].message()));
    }
    return refused;
  }

  // Whether zebra got all that was just written.
  void check(const std::vector<AnchorRouteChange>& written, const RouteChanges& done) {
    const auto before = *seen_;
    if (!look_at_zebra()) return;
    count(done);
    if (seen_->drops == before.drops) {
      window_ = std::min(window_ + kNoticeBytes, kWidestWindow);
      for (const auto& [prefix, change] : done) report(prefix, change.level);
      return;
    }
    log_warning("zebra_missed_notices", "drops", seen_->drops - before.drops, "text",
                "telling it again; a larger buffer helps: zebra -s 90000000");
    window_ = std::max(window_ / 2, kNarrowestWindow);
    for (const auto& change : written) suspects_.emplace(change.prefix, change.metric);
    for (const auto& [prefix, change] : done) unanswered_.emplace_back(prefix, change.level);
  }

  // Routes that are there are added once more; those that are not are added and removed.
  void tell_again(std::size_t limit) {
    std::vector<AnchorRouteChange> changes;
    std::vector<OneRoute> told;
    for (const auto& [prefix, metric] : suspects_) {
      if (!told.empty() && changes.size() + 2 > limit) break;
      changes.push_back({prefix, metric, true});
      if (!holdings_.has(prefix, metric)) changes.push_back({prefix, metric, false});
      told.emplace_back(prefix, metric);
    }
    const auto before = *seen_;
    write(changes);
    if (!look_at_zebra()) return;
    if (seen_->drops != before.drops) {
      window_ = std::max(window_ / 2, kNarrowestWindow);
      return;
    }
    for (const auto& one : told) suspects_.erase(one);
    if (!suspects_.empty()) return;
    for (const auto& [prefix, level] : std::exchange(unanswered_, {})) report(prefix, level);
  }

  void suspect_all() { suspects_ = holdings_.all_of_ours(); }

  void count(const RouteChanges& done) {
    if (done.empty()) return;
    if (set_ + removed_ == 0) round_started_ = steady_clock::now();
    for (const auto& [prefix, change] : done) ++(change.level == 0 ? removed_ : set_);
  }

  void report(const Ipv6Prefix& prefix, std::uint32_t level) {
    if (on_committed) on_committed(prefix, level);
  }

  // Nothing to do

  void settle() {
    if (set_ + removed_ > 0) {
      const std::chrono::duration<double, std::milli> took = steady_clock::now() - round_started_;
      if (on_round) on_round(took, set_ + removed_);
      log_info("frr_committed", "set", std::exchange(set_, 0), "removed", std::exchange(removed_, 0), "ms",
               took.count());
    }
    if (count_due_) ask_for_count();
    if (count_due_ && state() != State::kSynced) {
      return enter(State::kSyncing, "waiting until zebra has read all routes");
    }
    describe_synced();
    if (!ledger_.rejected().empty()) {
      after(repair_timer_, config_.repair_interval, [this] {
        ledger_.retry_rejected();
        wake();
      });
    }
    if (!count_due_ && writes_ != audited_ && !audit_scheduled_) {
      audit_scheduled_ = true;
      after(audit_timer_, config_.audit_interval, [this] {
        audit_scheduled_ = false;
        count_due_ = true;
        wake();
      });
    }
  }

  void describe_synced() {
    enter(State::kSynced,
          absl::StrCat(
              "synced",
              explain(ledger_.conflicts(), "the kernel has another route for",
                      "remove it (ip -6 route, or vtysh: no ipv6 route ...) or it stays without its announcement"),
              explain(ledger_.rejected(), "the kernel refuses", "see the log of the speaker")));
  }

  // zebra's count of routes from the kernel, beside what the kernel has. It walks all of its table for it, so it is
  // asked when there is a reason: it has started, it has missed something, or all has been quiet for a while.
  void ask_for_count() {
    if (asking_ || count_waiting_) return;
    ask(kSummaryCommand, [this, asked_at = writes_](const std::string& answer) {
      if (!ready_) return;
      const auto counted = parse_kernel_route_count(answer);
      if (!counted.ok()) {
        log_warning("zebra_answer_unreadable", "error", std::string(counted.status().message()));
        return counted_all();
      }
      const auto expected = static_cast<std::int64_t>(holdings_.seen_by_zebra()) + unexplained_;
      const auto found = static_cast<std::int64_t>(*counted);
      if (writes_ == asked_at && found == expected) return counted_all();
      if (writes_ != asked_at || found != last_count_) count_tries_ = 0;
      last_count_ = found;
      if (++count_tries_ < kCountTries) return count_later();
      count_tries_ = 0;
      if (!told_again_) {
        log_warning("zebra_count_differs", "zebra", found, "kernel", expected, "text", "telling it all routes again");
        told_again_ = true;
        suspect_all();
        return wake();
      }
      // Every route was put before it. The rest are others', which it counts in another way.
      log_warning("zebra_count_differs", "zebra", found, "kernel", expected);
      unexplained_ += found - expected;
      counted_all();
    });
  }

  void count_later() {
    count_waiting_ = true;
    after(count_timer_, kFirstCountPause * (1 << count_tries_), [this] {
      count_waiting_ = false;
      wake();
    });
  }

  void counted_all() {
    count_due_ = false;
    count_tries_ = 0;
    audited_ = writes_;
    wake();
  }

  boost::asio::any_io_executor executor_;
  const KernelInjectorConfig config_;
  Guard guarded_;
  OpenAnchorRoutes open_;
  std::unique_ptr<AnchorRoutes> routes_;
  std::unique_ptr<VtyClient> zebra_;

  InjectorState state_;
  std::string frr_version_;
  RouteLedger ledger_;
  KernelHoldings holdings_;

  // zebra answers, and the kernel was read.
  bool ready_ = false;
  bool waking_ = false;
  // For zebra to read.
  bool waiting_ = false;
  std::optional<steady_clock::time_point> waiting_since_;
  // A command to zebra is under way.
  bool asking_ = false;
  // All that the kernel holds is to be looked at before the next step.
  bool read_first_ = false;

  std::optional<ZebraListener> seen_;
  // Bytes in zebra's queue beyond which nothing is written.
  std::uint64_t window_ = kWidestWindow;
  // zebra may not know whether they are there.
  std::set<OneRoute> suspects_;
  // Committed when there are no suspects any more.
  std::vector<std::pair<Ipv6Prefix, std::uint32_t>> unanswered_;

  // zebra's count is to be compared.
  bool count_due_ = false;
  bool count_waiting_ = false;
  int count_tries_ = 0;
  std::int64_t last_count_ = -1;
  // Everything was told again since the count was last found to differ.
  bool told_again_ = false;
  // How many more of others' routes zebra counts than we do.
  std::int64_t unexplained_ = 0;
  std::uint64_t writes_ = 0;
  std::uint64_t audited_ = 0;
  bool audit_scheduled_ = false;

  // Since the last log line.
  std::size_t set_ = 0;
  std::size_t removed_ = 0;
  steady_clock::time_point round_started_;

  microseconds wait_pause_ = kFirstWait;
  milliseconds connect_pause_ = kFirstReconnect;
  boost::asio::steady_timer connect_timer_;
  boost::asio::steady_timer wait_timer_;
  boost::asio::steady_timer count_timer_;
  boost::asio::steady_timer audit_timer_;
  boost::asio::steady_timer repair_timer_;
};

}  // namespace

std::unique_ptr<RouteInjector> make_kernel_injector(boost::asio::any_io_executor executor,
                                                    const KernelInjectorConfig& config, OpenAnchorRoutes open,
                                                    std::unique_ptr<VtyClient> zebra) {
  return std::make_unique<KernelInjector>(std::move(executor), config, std::move(open), std::move(zebra));
}

std::unique_ptr<RouteInjector> make_kernel_injector(boost::asio::any_io_executor executor,
                                                    const KernelInjectorConfig& config) {
  return make_kernel_injector(
      executor, config, [executor, protocol = config.protocol] { return make_anchor_routes(executor, protocol); },
      make_vty_client(executor, config.vty_directory, "zebra"));
}

}  // namespace kedge::speaker
