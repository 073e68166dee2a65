// An access router as the LM sees it: the speaker's own client, which acknowledges at once whatever its records ask
// for, without a kernel and without FRR.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <tuple>
#include <utility>

#include "boost/asio/any_io_executor.hpp"
#include "speaker/lm_client/lm_client.h"

namespace kedge::bench {

class SimulatedRouter {
 public:
  // `on_end` runs when a session that had its snapshot has ended.
  SimulatedRouter(boost::asio::any_io_executor executor, std::shared_ptr<grpc::Channel> channel, std::string name,
                  std::uint64_t incarnation, std::function<void(const absl::Status&)> on_end);
  SimulatedRouter(const SimulatedRouter&) = delete;
  SimulatedRouter& operator=(const SimulatedRouter&) = delete;

  // `on_synced` runs when the snapshot is complete.
  void connect(std::function<void()> on_synced);

  const std::string& name() const { return name_; }
  speaker::LmClient& lm() { return *lm_; }
  // Bindings in the snapshot, and records after it.
  std::uint64_t snapshot_bindings() const { return snapshot_bindings_; }
  std::uint64_t records() const { return records_; }

 private:
  struct Held {
    v1::Generation generation;
    std::uint32_t level = 0;
    std::set<std::tuple<v1::Stage, std::string, std::uint32_t, bool>> acknowledged;
  };

  void act(const v1::Binding& binding);

  const std::string name_;
  std::unique_ptr<speaker::LmClient> lm_;
  std::uint64_t snapshot_bindings_ = 0;
  std::uint64_t records_ = 0;
  std::map<std::string, Held> held_;
};

}  // namespace kedge::bench
