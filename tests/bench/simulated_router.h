// An access router as the LM sees it: a session that acknowledges at once whatever its records ask for, without a
// kernel and without FRR.
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
#include "common/asio_grpc.h"
#include "kedge/v1/mobility.grpc.pb.h"

namespace kedge::bench {

class SimulatedRouter {
 public:
  using Stream = ClientStream<v1::SpeakerMessage, v1::LmMessage>;

  // `on_end` runs once, when the LM has ended the session.
  SimulatedRouter(boost::asio::any_io_executor executor, std::shared_ptr<grpc::Channel> channel, std::string name,
                  std::uint64_t incarnation, std::function<void(const grpc::Status&)> on_end);
  ~SimulatedRouter();
  SimulatedRouter(const SimulatedRouter&) = delete;
  SimulatedRouter& operator=(const SimulatedRouter&) = delete;

  // `on_synced` runs when the snapshot is complete.
  void connect(std::function<void()> on_synced);

  const std::string& name() const { return name_; }
  v1::Mobility::Stub& stub() { return *stub_; }
  // Bindings in the snapshot, and records after it.
  std::uint64_t snapshot_bindings() const { return snapshot_bindings_; }
  std::uint64_t records() const { return records_; }

 private:
  struct Held {
    v1::Generation generation;
    std::uint32_t level = 0;
    std::set<std::tuple<v1::Stage, std::string, std::uint32_t, bool>> acknowledged;
  };

  void receive(const v1::LmMessage& message);
  void act(const v1::Binding& binding);

  boost::asio::any_io_executor executor_;
  const std::string name_;
  const std::uint64_t incarnation_;
  std::unique_ptr<v1::Mobility::Stub> stub_;
  std::function<void(const grpc::Status&)> on_end_;
  std::function<void()> on_synced_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
  std::shared_ptr<Stream> stream_;
  bool synced_ = false;
  std::uint64_t snapshot_bindings_ = 0;
  std::uint64_t records_ = 0;
  std::map<std::string, Held> held_;
};

}  // namespace kedge::bench
