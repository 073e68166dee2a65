#include <algorithm>
#include <chrono>
#include <map>
#include <optional>
#include <utility>

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
constexpr milliseconds kFirstReconnect{50};
constexpr milliseconds kLongestReconnect{200};
// Cheap, and answered by every bgpd.
constexpr char kProbe[] = "show bgp vrfs json";

class BgpdObserver : public BestPathObserver {
 public:
  BgpdObserver(boost::asio::any_io_executor executor, const BestPathObserverConfig& config)
      : executor_(executor), vty_(make_vty_client(executor, config.vty_directory, "bgpd")), timer_(executor) {
    vty_->on_closed = [this] {
      in_doubt_ = true;
      step();
    };
    boost::asio::post(executor_, guarded_([this] { step(); }));
  }

  void watch(const Ipv6Prefix& prefix, const Ipv6Address& successor, std::uint32_t local_preference) override {
    watches_[prefix] = Watch{successor, local_preference, steady_clock::now(), kFirstInterval};
    listen();
    wake();
  }

  void unwatch(const Ipv6Prefix& prefix) override {
    watches_.erase(prefix);
    listen();
  }

 private:
  struct Watch {
    Ipv6Address successor;
    std::uint32_t local_preference = 0;
    steady_clock::time_point due;
    milliseconds interval = kFirstInterval;
  };

  // The kernel's notices wake the process for each route of the router: wanted only while something is watched.
  void listen() {
    if (watches_.empty()) {
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
      const auto found = watches_.find(prefix);
      if (found == watches_.end()) return;
      hurry(found->second);
      wake();
    };
    notices_->on_overrun = [this] {
      for (auto& [prefix, watch] : watches_) hurry(watch);
      wake();
    };
  }

  // bgpd may be about to change its mind: begin with short intervals again.
  static void hurry(Watch& watch) {
    watch.due = steady_clock::now();
    watch.interval = kFirstInterval;
  }

  void wake() {
    if (waking_) return;
    waking_ = true;
    boost::asio::post(executor_, guarded_([this] {
                        waking_ = false;
                        step();
                      }));
  }

  // Does the next thing that is due, if nothing is under way.
  void step() {
    if (asking_) return;
    if (in_doubt_ || !healthy_.has_value() || !healthy_->ok()) {
      if (steady_clock::now() >= next_connect_) {
        ask_whether_alive();
      } else {
        step_at(next_connect_);
      }
      return;
    }
    if (watches_.empty()) {
      timer_.cancel();
      return;
    }
    const auto next = std::min_element(watches_.begin(), watches_.end(),
                                       [](const auto& a, const auto& b) { return a.second.due < b.second.due; });
    if (next->second.due <= steady_clock::now()) {
      ask_about(next->first);
    } else {
      step_at(next->second.due);
    }
  }

  void step_at(steady_clock::time_point time) {
    timer_.expires_at(time);
    timer_.async_wait(guarded_([this](const boost::system::error_code& error) {
      if (!error) step();
    }));
  }

  void ask_whether_alive() {
    asking_ = true;
    vty_->ask(kProbe, [this](const absl::StatusOr<VtyReply>& reply) {
      asking_ = false;
      judge_health(reply.status());
      step();
    });
  }

  void ask_about(const Ipv6Prefix& prefix) {
    asking_ = true;
    Watch& watch = watches_[prefix];
    watch.due = steady_clock::now() + watch.interval;
    watch.interval = std::min(watch.interval * 3 / 2, kLongestInterval);
    vty_->ask(best_path_command(prefix), [this, prefix](const absl::StatusOr<VtyReply>& reply) {
      asking_ = false;
      judge_health(reply.status());
      if (reply.ok()) judge(prefix, *reply);
      step();
    });
  }

  void judge(const Ipv6Prefix& prefix, const VtyReply& reply) {
    const auto watch = watches_.find(prefix);
    if (watch == watches_.end()) return;
    const auto best = parse_best_path(prefix, reply.text);
    if (!best.ok()) {
      log_debug("bgpd_answer_unreadable", "prefix", prefix, "error", std::string(best.status().message()));
      return;
    }
    if (!best->has_value() || (*best)->next_hop != watch->second.successor ||
        (*best)->local_preference < watch->second.local_preference) {
      return;
    }
    log_info("best_path_superseded", "prefix", prefix, "next_hop", (*best)->next_hop, "local_preference",
             (*best)->local_preference);
    unwatch(prefix);
    if (on_superseded) on_superseded(prefix);
  }

  void judge_health(const absl::Status& status) {
    in_doubt_ = false;
    if (status.ok()) {
      reconnect_pause_ = kFirstReconnect;
    } else {
      next_connect_ = steady_clock::now() + reconnect_pause_;
      reconnect_pause_ = std::min(reconnect_pause_ * 2, kLongestReconnect);
    }
    if (healthy_.has_value() && *healthy_ == status) return;
    healthy_ = status;
    if (status.ok()) {
      log_info("bgpd_vty", "state", "up");
    } else {
      log_warning("bgpd_vty", "state", "down", "text", std::string(status.message()));
    }
    if (on_health) on_health(status);
  }

  boost::asio::any_io_executor executor_;
  Guard guarded_;
  std::unique_ptr<VtyClient> vty_;
  std::unique_ptr<RouteNotices> notices_;
  boost::asio::steady_timer timer_;
  std::map<Ipv6Prefix, Watch> watches_;
  bool waking_ = false;
  bool asking_ = false;
  // The connection has ended since the last answer.
  bool in_doubt_ = false;
  // None before the first answer.
  std::optional<absl::Status> healthy_;
  steady_clock::time_point next_connect_;
  milliseconds reconnect_pause_ = kFirstReconnect;
};

}  // namespace

std::unique_ptr<BestPathObserver> make_bgpd_observer(boost::asio::any_io_executor executor,
                                                     const BestPathObserverConfig& config) {
  return std::make_unique<BgpdObserver>(std::move(executor), config);
}

}  // namespace kedge::speaker
