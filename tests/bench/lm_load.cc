// lm_load: many attaches at the LM, or puts at etcd by a client of the same kind, with a fixed number in flight. Prints
// one line of JSON for each round, with what client, server and disk were used for it.
//
// A round of attaches takes each mobile node of the range to the next access router (the first round: to its home).
// What the LM then asks of the access routers is acknowledged at once, by sessions in this process; sessions and
// attaches are the speaker's own client. A round begins when what the last one has left undone is done.
//
// Two targets show what the rest costs without bindings and disk: a query at the LM that finds nothing, and attaches
// that it refuses.
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "CLI/CLI.hpp"
#include "absl/strings/str_format.h"
#include "boost/asio/executor_work_guard.hpp"
#include "boost/asio/io_context.hpp"
#include "boost/asio/steady_timer.hpp"
#include "common/asio_grpc.h"
#include "common/status.h"
#include "etcd_kv.grpc.pb.h"
#include "grpcpp/create_channel.h"
#include "grpcpp/security/credentials.h"
#include "kedge/v1/mobility.grpc.pb.h"
#include "tests/bench/simulated_router.h"
#include "tests/bench/usage.h"

namespace kedge::bench {
namespace {

using Clock = std::chrono::steady_clock;
using Done = std::function<void(const absl::Status&)>;

constexpr auto kQuiet = std::chrono::milliseconds(300);

struct Options {
  std::string server;
  std::string target = "kedge";
  int channels = 8;
  int routers = 0;
  std::uint64_t first = 0;
  std::uint64_t nodes = 1000;
  int rounds = 1;
  int first_round = 0;
  int in_flight = 64;
  int value_bytes = 300;
  // What they use is printed; "" and "": not known.
  std::string server_pid;
  std::string disk;
};

std::vector<std::shared_ptr<grpc::Channel>> open_channels(const Options& options) {
  std::vector<std::shared_ptr<grpc::Channel>> channels;
  for (int i = 0; i < options.channels; ++i) {
    grpc::ChannelArguments arguments;
    // Otherwise they share one connection.
    arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
    channels.push_back(grpc::CreateCustomChannel(options.server, grpc::InsecureChannelCredentials(), arguments));
  }
  return channels;
}

class Target {
 public:
  virtual ~Target() = default;
  virtual void start(std::uint64_t node, int round, Done done) = 0;
};

// What puts at etcd have in common, one by one or together.
class EtcdClient : public Target {
 public:
  EtcdClient(boost::asio::any_io_executor executor, const Options& options)
      : executor_(executor), value_(static_cast<std::size_t>(options.value_bytes), 'x') {
    for (const auto& channel : open_channels(options)) stubs_.push_back(etcdserverpb::KV::NewStub(channel));
  }

 protected:
  void fill(etcdserverpb::PutRequest& put, std::uint64_t node) const {
    put.set_key(absl::StrFormat("/kedge/bindings/%012x", node));
    put.set_value(value_);
  }
  etcdserverpb::KV::Stub& stub(std::uint64_t number) const { return *stubs_[number % stubs_.size()]; }

  const boost::asio::any_io_executor executor_;

 private:
  std::vector<std::unique_ptr<etcdserverpb::KV::Stub>> stubs_;
  const std::string value_;
};

class Etcd : public EtcdClient {
 public:
  using EtcdClient::EtcdClient;

  void start(std::uint64_t node, int, Done done) override {
    etcdserverpb::PutRequest request;
    fill(request, node);
    async_unary<etcdserverpb::PutRequest, etcdserverpb::PutResponse>(
        executor_, std::move(request),
        [this, node](auto* context, const auto* in, auto* out, auto callback) {
          stub(node).async()->Put(context, in, out, std::move(callback));
        },
        [done = std::move(done)](const grpc::Status& status, const etcdserverpb::PutResponse&) {
          done(from_grpc_status(status));
        });
  }
};

// What goes on while few calls are under way waits, and goes together, as the speaker's client does it with attaches.
class EtcdTogether : public EtcdClient {
 public:
  using EtcdClient::EtcdClient;

  void start(std::uint64_t node, int, Done done) override {
    waiting_.emplace_back(node, std::move(done));
    send();
  }

 private:
  static constexpr int kMostCalls = 4;
  // As etcd takes it unless it is told otherwise.
  static constexpr std::size_t kMostTogether = 128;

  void send() {
    while (!waiting_.empty() && under_way_ < kMostCalls) {
      etcdserverpb::TxnRequest request;
      auto done = std::make_shared<std::vector<Done>>();
      for (; !waiting_.empty() && done->size() < kMostTogether; waiting_.pop_front()) {
        fill(*request.add_success()->mutable_request_put(), waiting_.front().first);
        done->push_back(std::move(waiting_.front().second));
      }
      ++under_way_;
      async_unary<etcdserverpb::TxnRequest, etcdserverpb::TxnResponse>(
          executor_, std::move(request),
          [this](auto* context, const auto* in, auto* out, auto callback) {
            stub(++calls_).async()->Txn(context, in, out, std::move(callback));
          },
          [this, done](const grpc::Status& status, const etcdserverpb::TxnResponse& response) {
            const auto all = status.ok() && !response.succeeded() ? absl::AbortedError("the transaction has failed")
                                                                  : from_grpc_status(status);
            for (const auto& one : *done) one(all);
            --under_way_;
            send();
          });
    }
  }

  std::deque<std::pair<std::uint64_t, Done>> waiting_;
  int under_way_ = 0;
  std::uint64_t calls_ = 0;
};

absl::Status expect_not_found(const absl::Status& status) {
  if (absl::IsNotFound(status)) return absl::OkStatus();
  return status.ok() ? absl::InternalError("was not refused") : status;
}

// A call for which the LM has hardly anything to do: where is a mobile node that it does not know?
class Query : public Target {
 public:
  Query(boost::asio::any_io_executor executor, const Options& options) : executor_(std::move(executor)) {
    for (const auto& channel : open_channels(options)) stubs_.push_back(v1::Mobility::NewStub(channel));
  }

  void start(std::uint64_t node, int, Done done) override {
    v1::QueryRequest request;
    request.set_mn_id("02:ff:ff:ff:ff:ff");
    async_unary<v1::QueryRequest, v1::QueryResponse>(
        executor_, std::move(request),
        [this, node](auto* context, const auto* in, auto* out, auto callback) {
          stubs_[node % stubs_.size()]->async()->Query(context, in, out, std::move(callback));
        },
        [done = std::move(done)](const grpc::Status& status, const v1::QueryResponse&) {
          done(expect_not_found(from_grpc_status(status)));
        });
  }

 private:
  const boost::asio::any_io_executor executor_;
  std::vector<std::unique_ptr<v1::Mobility::Stub>> stubs_;
};

class Lm : public Target {
 public:
  Lm(boost::asio::any_io_executor executor, const Options& options)
      : executor_(executor),
        refused_(options.target == "kedge-refused"),
        incarnation_(static_cast<std::uint64_t>(Clock::now().time_since_epoch().count())) {
    const auto channels = open_channels(options);
    for (int i = 0; i < options.routers; ++i) {
      routers_.push_back(std::make_unique<SimulatedRouter>(
          executor, channels[static_cast<std::size_t>(i) % channels.size()], absl::StrFormat("ar%d", i + 1),
          incarnation_, [](const absl::Status& status) {
            std::fprintf(stderr, "lm_load: a session has ended: %s\n", status.ToString().c_str());
          }));
    }
  }

  void connect(std::function<void()> all_synced) {
    auto left = std::make_shared<std::size_t>(routers_.size());
    for (auto& router : routers_) {
      router->connect([left, all_synced] {
        if (--*left == 0) all_synced();
      });
    }
  }

  void start(std::uint64_t node, int round, Done done) override {
    auto& router = *routers_[(node + static_cast<std::uint64_t>(round)) % routers_.size()];
    const std::string mac = absl::StrFormat("02:%02x:%02x:%02x:%02x:%02x", node >> 32U & 0xffU, node >> 24U & 0xffU,
                                            node >> 16U & 0xffU, node >> 8U & 0xffU, node & 0xffU);
    v1::AttachRequest request;
    request.set_ar(router.name());
    request.set_mn_id(mac);
    request.mutable_attachment()->set_interface("eth2");
    request.mutable_attachment()->set_link_layer_address(mac);
    // No group of it is zero, so that this is its form in RFC 5952.
    request.mutable_attachment()->set_link_local(
        absl::StrFormat("fe80::1:%x:%x", (node >> 15U & 0x7fffU) + 1, (node & 0x7fffU) + 1));
    // An MN that the LM does not know is not let in for a data frame.
    request.set_trigger(refused_ ? v1::TRIGGER_DATA_FRAME : v1::TRIGGER_ROUTER_SOLICITATION);
    request.set_incarnation(incarnation_);
    request.set_sequence(++sequence_);
    if (!refused_) return router.lm().attach(request, std::move(done));
    router.lm().attach(request,
                       [done = std::move(done)](const absl::Status& status) { done(expect_not_found(status)); });
  }

  const std::vector<std::unique_ptr<SimulatedRouter>>& routers() const { return routers_; }

  std::uint64_t records() const {
    std::uint64_t sum = 0;
    for (const auto& router : routers_) sum += router->records();
    return sum;
  }

  // Runs `done` when no access router has been told anything for kQuiet.
  void when_quiet(std::function<void()> done, std::uint64_t before = ~std::uint64_t{0}) {
    if (const auto now = records(); now == before) {
      done();
    } else {
      timer_.expires_after(kQuiet);
      timer_.async_wait([this, done = std::move(done), now](const auto&) { when_quiet(done, now); });
    }
  }

 private:
  boost::asio::any_io_executor executor_;
  const bool refused_;
  const std::uint64_t incarnation_;
  std::uint64_t sequence_ = 0;
  boost::asio::steady_timer timer_{executor_};
  std::vector<std::unique_ptr<SimulatedRouter>> routers_;
};

double milliseconds(Clock::duration time) { return std::chrono::duration<double, std::milli>(time).count(); }

// What has been used so far of CPUs and disk.
struct Usage {
  explicit Usage(const Options& options)
      : client(cpu_time("self")), machine(machine_time()), flushes(disk_flushes(options.disk)) {
    if (!options.server_pid.empty()) server = cpu_time(options.server_pid);
  }

  CpuTime client;
  CpuTime server;
  MachineTime machine;
  std::uint64_t flushes;
};

// As fields of a JSON object. Threads, machine and disk: from the first request to the last answer; processes also with
// what was left to do then.
std::string describe(const Usage& begin, const Usage& answered, const Usage& done) {
  return absl::StrFormat(
      "\"client_cpu\": %.2f, \"client_thread\": %.2f, \"server_cpu\": %.2f, \"server_thread\": %.2f, \"idle\": %.2f, "
      "\"iowait\": %.2f, \"steal\": %.2f, \"flushes\": %d",
      done.client.process - begin.client.process, busiest_thread(begin.client, answered.client),
      done.server.process - begin.server.process, busiest_thread(begin.server, answered.server),
      answered.machine.idle - begin.machine.idle, answered.machine.iowait - begin.machine.iowait,
      answered.machine.steal - begin.machine.steal, answered.flushes - begin.flushes);
}

// All nodes once, with a fixed number of requests in flight. On the executor's thread.
class Round {
 public:
  Round(Target& target, const Options& options, int number, std::function<void()> finished)
      : target_(target), options_(options), number_(number), finished_(std::move(finished)) {}

  void begin() {
    latencies_.reserve(options_.nodes);
    usage_.emplace_back(options_);
    begin_ = Clock::now();
    const auto first = std::min<std::uint64_t>(static_cast<std::uint64_t>(options_.in_flight), options_.nodes);
    for (std::uint64_t i = 0; i < first; ++i) next();
  }

  // Once nothing is left to do.
  void print() {
    usage_.emplace_back(options_);
    std::sort(latencies_.begin(), latencies_.end());
    const double seconds = std::chrono::duration<double>(end_ - begin_).count();
    const auto at = [this](double share) {
      if (latencies_.empty()) return 0.0;
      const auto index = static_cast<std::size_t>(share * static_cast<double>(latencies_.size() - 1));
      return milliseconds(latencies_[index]);
    };
    std::printf(
        "{\"round\": %d, \"target\": \"%s\", \"in_flight\": %d, \"done\": %zu, \"failed\": %llu, \"seconds\": %.6f, "
        "\"per_second\": %.1f, \"p50_ms\": %.3f, \"p99_ms\": %.3f, \"max_ms\": %.3f, %s}\n",
        number_, options_.target.c_str(), options_.in_flight, latencies_.size(),
        static_cast<unsigned long long>(failed_), seconds, static_cast<double>(latencies_.size()) / seconds, at(0.5),
        at(0.99), at(1), describe(usage_[0], usage_[1], usage_[2]).c_str());
    std::fflush(stdout);
  }

 private:
  void next() {
    const auto node = options_.first + started_++;
    const auto begun = Clock::now();
    target_.start(node, number_, [this, begun](const absl::Status& status) {
      if (status.ok()) {
        latencies_.push_back(Clock::now() - begun);
      } else if (failed_++ == 0) {
        std::fprintf(stderr, "lm_load: %s\n", status.ToString().c_str());
      }
      if (started_ < options_.nodes) {
        next();
      } else if (latencies_.size() + failed_ == options_.nodes) {
        end_ = Clock::now();
        usage_.emplace_back(options_);
        finished_();
      }
    });
  }

  Target& target_;
  const Options& options_;
  const int number_;
  std::function<void()> finished_;
  std::vector<Clock::duration> latencies_;
  std::uint64_t started_ = 0;
  std::uint64_t failed_ = 0;
  Clock::time_point begin_;
  Clock::time_point end_;
  // At the beginning, at the last answer, when nothing is left to do.
  std::vector<Usage> usage_;
};

// How many of the access routers were told anything, and how much, beyond what they had been told before.
void print_fan_out(const Lm& lm, const std::vector<std::uint64_t>& before) {
  std::uint64_t told = 0;
  std::uint64_t most = 0;
  std::uint64_t routers = 0;
  for (std::size_t i = 0; i < before.size(); ++i) {
    const auto records = lm.routers()[i]->records() - before[i];
    told += records;
    most = std::max(most, records);
    routers += records > 0 ? 1 : 0;
  }
  std::printf("{\"records\": %llu, \"access_routers_told\": %llu, \"most_to_one\": %llu}\n",
              static_cast<unsigned long long>(told), static_cast<unsigned long long>(routers),
              static_cast<unsigned long long>(most));
}

[[noreturn]] void run(const Options& options) {
  boost::asio::io_context io(1);
  auto work = boost::asio::make_work_guard(io);
  std::unique_ptr<Target> target;
  Lm* lm = nullptr;
  if (options.target == "etcd") {
    target = std::make_unique<Etcd>(io.get_executor(), options);
  } else if (options.target == "etcd-together") {
    target = std::make_unique<EtcdTogether>(io.get_executor(), options);
  } else if (options.target == "kedge-query") {
    target = std::make_unique<Query>(io.get_executor(), options);
  } else {
    auto made = std::make_unique<Lm>(io.get_executor(), options);
    lm = made.get();
    target = std::move(made);
  }
  std::unique_ptr<Round> round;
  int number = 0;
  std::vector<std::uint64_t> before;
  std::function<void()> next = [&] {
    if (round) round->print();
    if (number == options.rounds) {
      if (lm != nullptr && number > 0) print_fan_out(*lm, before);
      return io.stop();
    }
    round = std::make_unique<Round>(*target, options, options.first_round + number++, [&] {
      boost::asio::post(io, [&] { return lm == nullptr ? next() : lm->when_quiet(next); });
    });
    round->begin();
  };
  const auto begun = Clock::now();
  if (lm != nullptr) {
    lm->connect([&] {
      std::uint64_t bindings = 0;
      for (const auto& router : lm->routers()) bindings += router->snapshot_bindings();
      std::printf("{\"sessions\": %zu, \"snapshot_bindings\": %llu, \"synced_ms\": %.3f}\n", lm->routers().size(),
                  static_cast<unsigned long long>(bindings), milliseconds(Clock::now() - begun));
      std::fflush(stdout);
      if (options.rounds == 0) return next();
      // What an earlier run has left undone is done first.
      lm->when_quiet([&] {
        for (const auto& router : lm->routers()) before.push_back(router->records());
        next();
      });
    });
  } else {
    next();
  }
  io.run();
  // Sessions that are still open would post into what is being destroyed.
  std::fflush(nullptr);
  std::_Exit(0);
}

}  // namespace
}  // namespace kedge::bench

int main(int argc, char** argv) {
  kedge::bench::Options options;
  CLI::App app("Attaches at the LM, or puts at etcd, with a fixed number in flight; without TLS.");
  app.add_option("--server", options.server, "\"[address]:port\"")->required();
  app.add_option("--target", options.target,
                 "kedge; kedge-refused: attaches that are refused; kedge-query: a call that is hardly more than a "
                 "call; etcd; or "
                 "etcd-together: puts that wait go in one transaction")
      ->check(CLI::IsMember({"kedge", "kedge-refused", "kedge-query", "etcd", "etcd-together"}));
  app.add_option("--channels", options.channels, "connections")->check(CLI::Range(1, 1000));
  app.add_option("--routers", options.routers, "sessions: access routers ar1 to arN")->check(CLI::Range(0, 100000));
  app.add_option("--first", options.first, "number of the first mobile node");
  app.add_option("--nodes", options.nodes, "mobile nodes; each is attached once in a round");
  app.add_option("--rounds", options.rounds, "0: only connect");
  app.add_option("--first-round", options.first_round, "number of the first round: how far from home");
  app.add_option("--in-flight", options.in_flight, "requests at a time")->check(CLI::Range(1, 100000));
  app.add_option("--value-bytes", options.value_bytes, "etcd: size of a value");
  app.add_option("--server-pid", options.server_pid, "process whose CPU time is told");
  app.add_option("--disk", options.disk, "block device, as \"vda\", whose flushes are told");
  CLI11_PARSE(app, argc, argv);
  kedge::bench::run(options);
}
