// Load on a route injector, on an access router with FRR: some routes stand already (resident), one more is added and
// withdrawn (single), many more are (bulk). What the reflector has is seen in its kernel, by this process itself,
// through a socket in the reflector's network namespace; so both ends of a latency are of one clock.
//
// Mobile nodes that come and go at a steady rate: --rate (the number of routes grows, and they stay), or with --mixed,
// where each add goes with the withdrawal of the route that has stood longest (the number stays).
//
// Run in the access router's namespaces. One JSON object a line on standard output, logs on standard error:
//   {"phase":"resident", "routes", "committed_s", "reflector_s", "expected", "at_reflector"}
//   {"phase":"single", "operation":"add"|"withdraw", "resident", "committed_ms":[...], "reflector_ms":[...]}
//   {"phase":"bulk", "operation":"add"|"withdraw"|"mixed", "resident", "routes", "offered_per_s", "commits_ms":[...],
//    "committed_s", "reflector_s", "adds":{"seen", "p50_ms", "p99_ms", "max_ms"}, "withdrawals":{the same}, "expected",
//    "at_reflector"}
// `expected` and `at_reflector` are counts of routes of the pool, once nothing has changed there for a second. Each
// phase is measured from the first call of the injector; p50_ms to max_ms are of one route each, from its own call to
// its arrival at the reflector or its leaving it, and `seen` of them did so. commits_ms: how long the injector took for
// each round of changes that went into FRR together. Exit code 1: something did not happen within --timeout.
//
// With --injector none it only watches the reflector, for other programs that inject. `{"count"}` says that it does.
// Each line "COUNT STILL TIMEOUT" on standard input (routes of the pool; seconds without a change; seconds) is answered
// once that many routes are there and stand still, or when the time is over:
//   {"count", "changes":[[NUMBER, 1 (there) or 0 (gone), nanoseconds of the monotonic clock], ...]}
// with all changes since the answer before; NUMBER is the route's among the pool's /64s.
#include <fcntl.h>
#include <linux/rtnetlink.h>
#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <functional>
#include <iostream>
#include <istream>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "CLI/CLI.hpp"
#include "boost/asio/io_context.hpp"
#include "boost/asio/posix/stream_descriptor.hpp"
#include "boost/asio/read_until.hpp"
#include "boost/asio/streambuf.hpp"
#include "fmt/format.h"
#include "fmt/ranges.h"
#include "speaker/frr/anchoring_plane.h"
#include "speaker/kernel/netlink_monitor.h"
#include "speaker/kernel/netlink_socket.h"
#include "speaker/kernel/routes.h"

namespace kedge::speaker {
namespace {

using Clock = std::chrono::steady_clock;
using Seconds = std::chrono::duration<double>;
using Milliseconds = std::chrono::duration<double, std::milli>;

struct Options {
  std::string injector = "northbound";
  std::string northbound = "127.0.0.1:50051";
  std::string vty_directory = "/var/run/frr";
  std::string reflector;
  std::string pool = "2001:db8:4000::/36";
  std::uint64_t resident = 0;
  std::uint64_t singles = 20;
  std::uint64_t bulk = 0;
  double rate = 0;
  bool mixed = false;
  double timeout = 120;
};

// Opens sockets in another network namespace.
template <typename Open>
auto in_namespace(const std::string& path, Open open) {
  if (path.empty()) return open();
  const int own = ::open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
  const int other = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (own < 0 || other < 0 || ::setns(other, CLONE_NEWNET) != 0) {
    std::cerr << path << ": cannot be entered; needs root\n";
    std::exit(2);
  }
  auto opened = open();
  if (::setns(own, CLONE_NEWNET) != 0) std::abort();
  ::close(own);
  ::close(other);
  return opened;
}

// The pool's routes in the main table of the reflector's kernel.
class Reflector {
 public:
  Reflector(boost::asio::io_context& io, const std::string& path, const Ipv6Prefix& pool) : pool_(pool) {
    monitor_ =
        in_namespace(path, [&] { return NetlinkMonitor::open(io.get_executor(), {RTNLGRP_IPV6_ROUTE}, {}).value(); });
    auto socket = in_namespace(path, [] { return NetlinkSocket::open(NETLINK_ROUTE).value(); });
    auto dump = encode_dump(RT_TABLE_MAIN, 0);
    socket.dump(dump, [this](Bytes message) { take(message); });
    monitor_->on_message = [this](Bytes message) { take(message); };
    monitor_->on_overrun = [this] { overrun_ = true; };
  }

  bool has(const Ipv6Prefix& prefix) const { return present_.contains(prefix); }
  std::size_t count() const { return present_.size(); }
  Clock::time_point last_change() const { return last_change_; }
  // Whether `count` routes have stood there for so long, or since `begin`.
  bool stands_still(std::size_t count, Clock::time_point begin, Seconds still) const {
    return present_.size() == count && Clock::now() - std::max(begin, last_change_) >= still;
  }
  void stop_if_overrun() const {
    if (!overrun_) return;
    std::cerr << "the reflector's notices were lost: the counts are not known\n";
    std::exit(1);
  }

  std::function<void(const Ipv6Prefix&, bool present)> on_change;

 private:
  void take(Bytes message) {
    const auto route = decode_route(message);
    if (!route || route->table != RT_TABLE_MAIN || !pool_.contains(route->destination)) return;
    const bool present = read_structure<nlmsghdr>(message)->nlmsg_type == RTM_NEWROUTE;
    const bool changed = present ? present_.insert(route->destination).second : present_.erase(route->destination) > 0;
    last_change_ = Clock::now();
    if (changed && on_change) on_change(route->destination, present);
  }

  const Ipv6Prefix pool_;
  std::set<Ipv6Prefix> present_;
  Clock::time_point last_change_;
  bool overrun_ = false;
  std::unique_ptr<NetlinkMonitor> monitor_;
};

// For programs that inject by themselves.
class Watch {
 public:
  Watch(const Options& options, boost::asio::io_context& io)
      : io_(io),
        pool_(Ipv6Prefix::parse(options.pool).value()),
        reflector_(io, options.reflector, pool_),
        input_(io, ::dup(STDIN_FILENO)) {
    reflector_.on_change = [this](const Ipv6Prefix& prefix, bool present) {
      changes_.push_back(fmt::format("[{},{},{}]", pool_.index_of(prefix), present ? 1 : 0,
                                     reflector_.last_change().time_since_epoch() / std::chrono::nanoseconds(1)));
    };
  }

  void run() {
    std::cout << fmt::format(R"({{"count":{}}})", reflector_.count()) << std::endl;
    while (std::optional<std::string> line = next_line()) {
      std::istringstream words(*line);
      std::size_t count = 0;
      double still = 0;
      double timeout = 0;
      if (!(words >> count >> still >> timeout)) {
        std::cerr << fmt::format("\"{}\" is not COUNT STILL TIMEOUT\n", *line);
        std::exit(2);
      }
      const auto begin = Clock::now();
      while (!reflector_.stands_still(count, begin, Seconds(still)) && Clock::now() - begin < Seconds(timeout)) turn();
      std::cout << fmt::format(R"({{"count":{},"changes":[{}]}})", reflector_.count(), fmt::join(changes_, ","))
                << std::endl;
      changes_.clear();
    }
  }

 private:
  void turn() {
    io_.restart();
    io_.run_one_for(std::chrono::milliseconds(10));
    reflector_.stop_if_overrun();
  }

  // None at the end of the input.
  std::optional<std::string> next_line() {
    std::optional<bool> ended;
    boost::asio::async_read_until(input_, buffer_, '\n',
                                  [&](const boost::system::error_code& error, std::size_t) { ended = error.failed(); });
    while (!ended) turn();
    if (*ended) return std::nullopt;
    std::string line;
    std::istream stream(&buffer_);
    std::getline(stream, line);
    return line;
  }

  boost::asio::io_context& io_;
  const Ipv6Prefix pool_;
  Reflector reflector_;
  boost::asio::posix::stream_descriptor input_;
  boost::asio::streambuf buffer_;
  std::vector<std::string> changes_;
};

class Load {
 public:
  Load(const Options& options, boost::asio::io_context& io)
      : options_(options),
        io_(io),
        pool_(Ipv6Prefix::parse(options.pool).value()),
        reflector_(io, options.reflector, pool_),
        injector_(make_injector()) {
    injector_->on_state = [this](RouteInjector::State, const std::string& text) { state_ = text; };
    injector_->on_committed = [this](const Ipv6Prefix& prefix, std::uint32_t level) {
      const auto found = awaited_.find(prefix);
      if (found == awaited_.end() || found->second != level) return;
      awaited_.erase(found);
      last_committed_ = Clock::now();
    };
    injector_->on_round = [this](Seconds took, std::size_t) { commits_ms_.push_back(Milliseconds(took).count()); };
    reflector_.on_change = [this](const Ipv6Prefix& prefix, bool present) {
      const auto found = under_way_.find({prefix, present});
      if (found == under_way_.end()) return;
      latencies_[present].push_back(Milliseconds(reflector_.last_change() - found->second).count());
      under_way_.erase(found);
    };
  }

  void run() {
    resident();
    single(1);
    if (options_.bulk == 0) return;
    bulk(options_.mixed ? "mixed" : "add");
    if (!options_.mixed && options_.rate == 0) bulk("withdraw");
  }

 private:
  std::unique_ptr<RouteInjector> make_injector() {
    if (options_.injector == "kernel") return make_kernel_injector(io_.get_executor(), {options_.vty_directory});
    return make_northbound_injector(io_.get_executor(), {options_.northbound, 8});
  }

  Ipv6Prefix nth(std::uint64_t number) const { return pool_.nth(64, number); }

  template <typename Condition>
  void wait(const std::string& what, Condition condition) {
    const auto end = Clock::now() + std::chrono::duration_cast<Clock::duration>(Seconds(options_.timeout));
    while (!condition()) {
      if (Clock::now() > end) {
        std::cerr << fmt::format("{}: not within {} s; the injector says: {}\n", what, options_.timeout, state_);
        std::exit(1);
      }
      turn(std::chrono::milliseconds(10));
    }
  }

  void turn(std::chrono::milliseconds longest) {
    io_.restart();
    io_.run_one_for(longest);
    reflector_.stop_if_overrun();
  }

  void set(std::uint64_t number, std::uint32_t level) {
    const Ipv6Prefix prefix = nth(number);
    awaited_[prefix] = level;
    under_way_[{prefix, level != 0}] = Clock::now();
    injector_->set(prefix, level);
  }

  // Until the count at the reflector is as expected, or has not changed for longer than BGP takes.
  void settle(std::size_t expected) {
    constexpr std::chrono::seconds kStill{10};
    const auto begin = Clock::now();
    wait("the reflector's routes stand still", [&] {
      return reflector_.stands_still(expected, begin, kStill / 10.0) ||
             reflector_.stands_still(reflector_.count(), begin, kStill);
    });
  }

  void resident() {
    std::map<Ipv6Prefix, std::uint32_t> levels;
    for (std::uint64_t i = 0; i < options_.resident; ++i) levels[nth(i)] = 1;
    awaited_ = levels;
    const auto begin = Clock::now();
    last_committed_ = begin;
    injector_->replace_all(levels);
    wait("the resident routes are committed",
         [&] { return awaited_.empty() && injector_->state() == RouteInjector::State::kSynced; });
    settle(options_.resident);
    const double reflected = options_.resident == 0 ? 0 : Seconds(reflector_.last_change() - begin).count();
    std::cout
        << fmt::format(
               R"({{"phase":"resident","routes":{},"committed_s":{:.4f},"reflector_s":{:.4f},"expected":{},"at_reflector":{}}})",
               options_.resident, Seconds(last_committed_ - begin).count(), reflected, options_.resident,
               reflector_.count())
        << std::endl;
  }

  // Beyond the bulk's, so that it is a new one each time.
  void single(std::uint32_t level) {
    std::vector<double> committed[2];
    std::vector<double> reflected[2];
    for (std::uint64_t i = 0; i < options_.singles; ++i) {
      const std::uint64_t number = options_.resident + options_.bulk + i;
      for (const std::uint32_t operation : {level, 0U}) {
        const auto begin = Clock::now();
        set(number, operation);
        wait("a single route is committed and at the reflector",
             [&] { return awaited_.empty() && reflector_.has(nth(number)) == (operation != 0); });
        committed[operation == 0].push_back(Milliseconds(last_committed_ - begin).count());
        reflected[operation == 0].push_back(Milliseconds(reflector_.last_change() - begin).count());
      }
    }
    for (const int withdraw : {0, 1}) {
      std::cout
          << fmt::format(
                 R"({{"phase":"single","operation":"{}","resident":{},"committed_ms":[{:.3f}],"reflector_ms":[{:.3f}]}})",
                 withdraw ? "withdraw" : "add", options_.resident, fmt::join(committed[withdraw], ","),
                 fmt::join(reflected[withdraw], ","))
          << std::endl;
    }
  }

  void bulk(const std::string& operation) {
    const std::size_t expected = options_.resident + (operation == "add" ? options_.bulk : 0);
    commits_ms_.clear();
    for (auto& latencies : latencies_) latencies.clear();
    under_way_.clear();
    const auto begin = Clock::now();
    for (std::uint64_t sent = 0; sent < options_.bulk;) {
      const double due = options_.rate == 0 ? static_cast<double>(options_.bulk)
                                            : Seconds(Clock::now() - begin).count() * options_.rate;
      for (; sent < options_.bulk && static_cast<double>(sent) < due; ++sent) {
        set(options_.resident + sent, operation == "withdraw" ? 0 : 1);
        if (operation == "mixed") set(sent, 0);
      }
      if (sent < options_.bulk) turn(std::chrono::milliseconds(1));
    }
    wait("the bulk is committed", [&] { return awaited_.empty(); });
    settle(expected);
    std::cout
        << fmt::format(
               R"({{"phase":"bulk","operation":"{}","resident":{},"routes":{},"offered_per_s":{:.0f},"commits_ms":[{:.3f}],)"
               R"("committed_s":{:.4f},"reflector_s":{:.4f},"adds":{},"withdrawals":{},"expected":{},"at_reflector":{}}})",
               operation, options_.resident, options_.bulk, options_.rate, fmt::join(commits_ms_, ","),
               Seconds(last_committed_ - begin).count(), Seconds(reflector_.last_change() - begin).count(),
               summary(latencies_[true]), summary(latencies_[false]), expected, reflector_.count())
        << std::endl;
  }

  static std::string summary(std::vector<double>& latencies) {
    std::sort(latencies.begin(), latencies.end());
    // The smallest that at least this share of all does not exceed; 0 when there is none.
    const auto quantile = [&](double share) {
      if (latencies.empty()) return 0.0;
      const double rank = std::ceil(share * static_cast<double>(latencies.size()));
      return latencies[static_cast<std::size_t>(rank) - 1];
    };
    return fmt::format(R"({{"seen":{},"p50_ms":{:.3f},"p99_ms":{:.3f},"max_ms":{:.3f}}})", latencies.size(),
                       quantile(0.5), quantile(0.99), quantile(1));
  }

  const Options& options_;
  boost::asio::io_context& io_;
  const Ipv6Prefix pool_;
  Reflector reflector_;
  std::unique_ptr<RouteInjector> injector_;
  std::string state_;
  // What has yet to be committed.
  std::map<Ipv6Prefix, std::uint32_t> awaited_;
  Clock::time_point last_committed_;
  // What the reflector has yet to get or to lose, and when it was asked for.
  std::map<std::pair<Ipv6Prefix, bool>, Clock::time_point> under_way_;
  // Of the withdrawals, and of the adds.
  std::array<std::vector<double>, 2> latencies_;
  // Of the bulk under way.
  std::vector<double> commits_ms_;
};

}  // namespace
}  // namespace kedge::speaker

int main(int argc, char** argv) {
  kedge::speaker::Options options;
  CLI::App app{"Load on a route injector; run in the namespaces of an access router with FRR"};
  app.add_option("--injector", options.injector, "northbound or kernel; none: only watch")
      ->check(CLI::IsMember({"northbound", "kernel", "none"}));
  app.add_option("--northbound", options.northbound, "Where staticd's northbound listens");
  app.add_option("--vty-directory", options.vty_directory, "Folder of the FRR daemons' sockets");
  app.add_option("--reflector", options.reflector, "Network namespace of the reflector, /proc/PID/ns/net")->required();
  app.add_option("--pool", options.pool, "The routes are this prefix's first /64s");
  app.add_option("--resident", options.resident, "Routes that stand already");
  app.add_option("--singles", options.singles, "So often one more is added and withdrawn");
  app.add_option("--bulk", options.bulk, "Routes that are added and withdrawn; 0: none");
  app.add_option("--rate", options.rate, "Routes of the bulk asked for in a second; 0: all at once");
  app.add_flag("--mixed", options.mixed, "With each route of the bulk the one that has stood longest is withdrawn");
  app.add_option("--timeout", options.timeout, "Longest time for each step, s");
  CLI11_PARSE(app, argc, argv);
  boost::asio::io_context io(1);
  if (options.injector == "none") {
    kedge::speaker::Watch(options, io).run();
  } else {
    kedge::speaker::Load(options, io).run();
  }
}
