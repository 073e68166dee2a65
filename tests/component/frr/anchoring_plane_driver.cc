// The anchoring plane on a pair of pipes: commands on standard input, events on standard output, logs on standard
// error.
//
//   replace [PREFIX LEVEL]...            set PREFIX LEVEL            burst POOL COUNT LEVEL (the pool's first /64s)
//   watch PREFIX NEXT_HOP PREFERENCE     unwatch PREFIX              await PREFIX LEVELS (the withdrawal)
//
//   MICROSECONDS state NAME TEXT         MICROSECONDS committed PREFIX LEVEL
//   MICROSECONDS superseded PREFIX       MICROSECONDS withdrawn PREFIX       MICROSECONDS health OK|TEXT
//   MICROSECONDS accepted COMMAND
//
// The times are those of CLOCK_MONOTONIC.
#include <unistd.h>

#include <chrono>
#include <iostream>
#include <sstream>
#include <string>

#include "boost/asio/io_context.hpp"
#include "boost/asio/posix/stream_descriptor.hpp"
#include "boost/asio/read_until.hpp"
#include "boost/asio/streambuf.hpp"
#include "speaker/frr/anchoring_plane.h"
#include "speaker/frr/injector_state.h"

namespace kedge::speaker {
namespace {

template <typename... Words>
void say(const Words&... words) {
  const auto now = std::chrono::steady_clock::now().time_since_epoch();
  std::cout << std::chrono::duration_cast<std::chrono::microseconds>(now).count();
  ((std::cout << ' ' << words), ...);
  std::cout << std::endl;
}

class Driver {
 public:
  Driver(boost::asio::io_context& context, std::unique_ptr<RouteInjector> injector,
         const BestPathObserverConfig& observer)
      : context_(context),
        injector_(std::move(injector)),
        observer_(make_bgpd_observer(context.get_executor(), observer)),
        input_(context, ::dup(STDIN_FILENO)) {
    injector_->on_state = [](RouteInjector::State state, const std::string& text) {
      say("state", name_of(state), text);
    };
    injector_->on_committed = [](const Ipv6Prefix& prefix, std::uint32_t level) {
      say("committed", prefix.to_string(), level);
    };
    observer_->on_superseded = [](const Ipv6Prefix& prefix) { say("superseded", prefix.to_string()); };
    observer_->on_withdrawn = [](const Ipv6Prefix& prefix) { say("withdrawn", prefix.to_string()); };
    observer_->on_health = [](const absl::Status& status) {
      say("health", status.ok() ? "OK" : std::string(status.message()));
    };
    read();
  }

 private:
  void read() {
    boost::asio::async_read_until(input_, buffer_, '\n', [this](const boost::system::error_code& error, std::size_t) {
      if (error) {
        context_.stop();
        return;
      }
      std::istream stream(&buffer_);
      std::string line;
      std::getline(stream, line);
      say("accepted", line);
      obey(line);
      read();
    });
  }

  void obey(const std::string& line) {
    std::istringstream words(line);
    std::string command;
    std::string prefix;
    std::string next_hop;
    std::uint32_t number = 0;
    std::uint64_t count = 0;
    words >> command;
    if (command == "replace") {
      std::map<Ipv6Prefix, std::uint32_t> levels;
      while (words >> prefix >> number) levels[Ipv6Prefix::parse(prefix).value()] = number;
      injector_->replace_all(levels);
    } else if (command == "set" && words >> prefix >> number) {
      injector_->set(Ipv6Prefix::parse(prefix).value(), number);
    } else if (command == "burst" && words >> prefix >> count >> number) {
      const Ipv6Prefix pool = Ipv6Prefix::parse(prefix).value();
      for (std::uint64_t i = 0; i < count; ++i) injector_->set(pool.nth(64, i), number);
    } else if (command == "watch" && words >> prefix >> next_hop >> number) {
      observer_->watch(Ipv6Prefix::parse(prefix).value(), Ipv6Address::parse(next_hop).value(), number);
    } else if (command == "unwatch" && words >> prefix) {
      observer_->unwatch(Ipv6Prefix::parse(prefix).value());
    } else if (command == "await" && words >> prefix >> number) {
      observer_->await_withdrawal(Ipv6Prefix::parse(prefix).value(), number);
    } else {
      say("error", "not understood:", line);
    }
  }

  boost::asio::io_context& context_;
  std::unique_ptr<RouteInjector> injector_;
  std::unique_ptr<BestPathObserver> observer_;
  boost::asio::posix::stream_descriptor input_;
  boost::asio::streambuf buffer_;
};

std::unique_ptr<RouteInjector> make_injector(const boost::asio::any_io_executor& executor, const std::string& which) {
  constexpr std::chrono::milliseconds kRepairInterval{200};
  if (which == "kernel") {
    KernelInjectorConfig config;
    config.repair_interval = kRepairInterval;
    return make_kernel_injector(executor, config);
  }
  RouteInjectorConfig config;
  config.repair_interval = kRepairInterval;
  config.northbound = which;
  return make_northbound_injector(executor, config);
}

}  // namespace
}  // namespace kedge::speaker

// Argument: where staticd's northbound listens, or `kernel`.
int main(int count, char** arguments) {
  boost::asio::io_context context;
  const std::string which = count > 1 ? arguments[1] : "127.0.0.1:50051";
  kedge::speaker::Driver driver(context, kedge::speaker::make_injector(context.get_executor(), which), {});
  context.run();
}
