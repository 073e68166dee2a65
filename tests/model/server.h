// The LM: the real state machine, with a store and an engine (lm-server/service/engine) in memory. A commit waits until
// the model completes it; what leaves the process waits for its commit, in order.
#pragma once

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "lm-server/core/machine.h"
#include "tests/model/random.h"

namespace kedge::model {

class Server {
 public:
  using Reply = std::function<void(const absl::Status&)>;

  explicit Server(lm::Settings settings) : settings_(std::move(settings)) { start({}); }

  // From the next start on.
  void configure_levels(std::uint32_t levels) { settings_.preference_levels = levels; }
  bool up() const { return machine_ != nullptr; }
  lm::Machine& machine() { return *machine_; }
  // What leaves the process.
  std::function<void(const lm::Message&)> send;

  void submit(lm::Output output, Reply reply = nullptr);
  // Writes the oldest commit that waits; false if none does.
  bool complete_one();
  bool is_waiting() const;

  // The process dies; with `power_failure`, so does what the store has not synchronised. `random` says how far it came.
  void crash(bool power_failure, Random& random);
  void start(SystemTime now);

  // What it has written by now.
  void back_up();
  bool has_backup() const { return backup_.has_value(); }
  // While it is down: its store is what the backup has.
  void restore();

 private:
  struct Pending {
    lm::Output output;
    std::optional<lm::Commit> commit;
    Reply reply;
  };
  using Values = std::map<std::string, std::string>;
  static void apply(Values& values, std::uint64_t& revision, const lm::Commit& commit);
  void write(const lm::Commit& commit);
  void release();

  lm::Settings settings_;
  std::unique_ptr<lm::Machine> machine_;
  std::deque<Pending> pending_;
  std::uint64_t epoch_ = 1;
  Values values_;
  std::uint64_t revision_ = 0;
  std::optional<std::pair<Values, v1::Generation>> backup_;
  Values durable_;
  std::uint64_t durable_revision_ = 0;
  // Written and not synchronised.
  std::deque<lm::Commit> tail_;
};

}  // namespace kedge::model
