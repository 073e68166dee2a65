// Load on a route injector, on an access router with FRR: some routes stand already (resident), one more is added and
// withdrawn (single), many more are (bulk). What the reflector has is seen in its kernel, by this process itself,
// through a socket in the reflector's network namespace; so both ends of a latency are of one clock.
//
// Run in the access router's namespaces. One JSON object a line on standard output, logs on standard error:
//   {"phase":"resident", "routes", "committed_s", "reflector_s", "expected", "at_reflector"}
//   {"phase":"single", "operation":"add"|"withdraw", "resident", "committed_ms":[...], "reflector_ms":[...]}
//   {"phase":"bulk", "operation", "resident", "routes", "offered_per_s", "committed_s", "reflector_s", "expected",
//    "at_reflector"}
// `expected` and `at_reflector` are counts of routes of the pool, once nothing has changed there for a second. Each
// phase is measured from the first call of the injector. Exit code 1: something did not happen within --timeout.
#include <fcntl.h>
#include <linux/rtnetlink.h>
#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <iostream>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "CLI/CLI.hpp"
#include "boost/asio/io_context.hpp"
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
  bool overrun() const { return overrun_; }

 private:
  void take(Bytes message) {
    const auto route = decode_route(message);
    if (!route || route->table != RT_TABLE_MAIN || !pool_.contains(route->destination)) return;
    if (read_structure<nlmsghdr>(message)->nlmsg_type == RTM_NEWROUTE) {
      present_.insert(route->destination);
    } else {
      present_.erase(route->destination);
    }
    last_change_ = Clock::now();
  }

  const Ipv6Prefix pool_;
  std::set<Ipv6Prefix> present_;
  Clock::time_point last_change_;
  bool overrun_ = false;
  std::unique_ptr<NetlinkMonitor> monitor_;
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
      if (level == awaited_level_ && awaited_.erase(prefix) > 0) last_committed_ = Clock::now();
    };
  }

  void run() {
    resident();
    single(1);
    if (options_.bulk > 0) {
      bulk("add", 1);
      bulk("withdraw", 0);
    }
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
      io_.restart();
      io_.run_one_for(std::chrono::milliseconds(10));
    }
    if (reflector_.overrun()) {
      std::cerr << "the reflector's notices were lost: the counts are not known\n";
      std::exit(1);
    }
  }

  void await(std::uint64_t first, std::uint64_t count, std::uint32_t level) {
    awaited_.clear();
    for (std::uint64_t i = 0; i < count; ++i) awaited_.insert(nth(first + i));
    awaited_level_ = level;
  }

  // Until the count at the reflector is as expected, or has not changed for longer than BGP takes.
  void settle(std::size_t expected) {
    constexpr std::chrono::seconds kStill{10};
    const auto begin = Clock::now();
    wait("the reflector's routes stand still", [&] {
      return Clock::now() - std::max(begin, reflector_.last_change()) >
             (reflector_.count() == expected ? kStill / 10 : kStill);
    });
  }

  void resident() {
    std::map<Ipv6Prefix, std::uint32_t> levels;
    for (std::uint64_t i = 0; i < options_.resident; ++i) levels[nth(i)] = 1;
    await(0, options_.resident, 1);
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
        await(number, 1, operation);
        const auto begin = Clock::now();
        injector_->set(nth(number), operation);
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

  void bulk(const char* operation, std::uint32_t level) {
    const std::size_t expected = options_.resident + (level == 0 ? 0 : options_.bulk);
    await(options_.resident, options_.bulk, level);
    const auto begin = Clock::now();
    for (std::uint64_t sent = 0; sent < options_.bulk;) {
      const double due = options_.rate == 0 ? static_cast<double>(options_.bulk)
                                            : Seconds(Clock::now() - begin).count() * options_.rate;
      for (; sent < options_.bulk && static_cast<double>(sent) < due; ++sent) {
        injector_->set(nth(options_.resident + sent), level);
      }
      if (sent == options_.bulk) break;
      io_.restart();
      io_.run_one_for(std::chrono::milliseconds(1));
    }
    wait("the bulk is committed", [&] { return awaited_.empty(); });
    settle(expected);
    std::cout << fmt::format(R"({{"phase":"bulk","operation":"{}","resident":{},"routes":{},"offered_per_s":{:.0f},)"
                             R"("committed_s":{:.4f},"reflector_s":{:.4f},"expected":{},"at_reflector":{}}})",
                             operation, options_.resident, options_.bulk, options_.rate,
                             Seconds(last_committed_ - begin).count(),
                             Seconds(reflector_.last_change() - begin).count(), expected, reflector_.count())
              << std::endl;
  }

  const Options& options_;
  boost::asio::io_context& io_;
  const Ipv6Prefix pool_;
  Reflector reflector_;
  std::unique_ptr<RouteInjector> injector_;
  std::string state_;
  std::set<Ipv6Prefix> awaited_;
  std::uint32_t awaited_level_ = 0;
  Clock::time_point last_committed_;
};

}  // namespace
}  // namespace kedge::speaker

int main(int argc, char** argv) {
  kedge::speaker::Options options;
  CLI::App app{"Load on a route injector; run in the namespaces of an access router with FRR"};
  app.add_option("--injector", options.injector, "northbound or kernel")
      ->check(CLI::IsMember({"northbound", "kernel"}));
  app.add_option("--northbound", options.northbound, "Where staticd's northbound listens");
  app.add_option("--vty-directory", options.vty_directory, "Folder of the FRR daemons' sockets");
  app.add_option("--reflector", options.reflector, "Network namespace of the reflector, /proc/PID/ns/net")->required();
  app.add_option("--pool", options.pool, "The routes are this prefix's first /64s");
  app.add_option("--resident", options.resident, "Routes that stand already");
  app.add_option("--singles", options.singles, "So often one more is added and withdrawn");
  app.add_option("--bulk", options.bulk, "Routes that are added and withdrawn; 0: none");
  app.add_option("--rate", options.rate, "Routes of the bulk asked for in a second; 0: all at once");
  app.add_option("--timeout", options.timeout, "Longest time for each step, s");
  CLI11_PARSE(app, argc, argv);
  boost::asio::io_context io(1);
  kedge::speaker::Load(options, io).run();
}
