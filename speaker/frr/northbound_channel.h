// The way to one FRR daemon's northbound gRPC server: knows at once when the daemon ends and finds it again when it is
// back, and makes the calls, none of which has a deadline: one that expires while FRR executes the call ends FRR's gRPC
// server for good.
//
// A plain TCP connection, kept open beside gRPC's own, ends when the daemon does; gRPC reports that only to the next
// call, and its reconnection waits longer than a repair may take. Each time that the daemon is found there is a new
// gRPC channel.
//
// Threading: all calls and callbacks on the executor (a strand or a single-threaded io_context).
#pragma once

#include <array>
#include <chrono>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "boost/asio/any_io_executor.hpp"
#include "boost/asio/ip/tcp.hpp"
#include "boost/asio/steady_timer.hpp"
#include "frr/frr-northbound.grpc.pb.h"
#include "grpcpp/support/status.h"

namespace kedge::speaker {

class NorthboundChannel {
 public:
  NorthboundChannel(boost::asio::any_io_executor executor, boost::asio::ip::tcp::endpoint endpoint);
  // Cancels a call that is under way and waits until gRPC has let go of it.
  ~NorthboundChannel();
  NorthboundChannel(const NorthboundChannel&) = delete;
  NorthboundChannel& operator=(const NorthboundChannel&) = delete;

  // The daemon is there; calls may be made.
  std::function<void()> on_up;
  // It is not, or not any more; `why` says what to do. Calls under way are not answered any more.
  std::function<void(const std::string& why)> on_down;
  // A call is under way for long.
  std::function<void(const std::string& call, std::chrono::seconds)> on_slow;

  // Starts looking for the daemon. Tries again until it is found, and again each time that it is lost.
  void open();
  // Gives the connection up and looks for the daemon anew after `pause`.
  void reopen(std::chrono::milliseconds pause);

  template <typename Response>
  using Done = std::function<void(const grpc::Status&, const Response&)>;

  // One at a time, only between on_up and on_down.
  void get_capabilities(Done<frr::GetCapabilitiesResponse> done);
  // All answers' data in one text.
  void get(const frr::GetRequest& request, Done<std::string> done);
  void create_candidate(Done<frr::CreateCandidateResponse> done);
  void edit_candidate(const frr::EditCandidateRequest& request, Done<frr::EditCandidateResponse> done);
  void load_to_candidate(const frr::LoadToCandidateRequest& request, Done<frr::LoadToCandidateResponse> done);
  // Phase ALL.
  void commit(std::uint32_t candidate_id, Done<frr::CommitResponse> done);
  void delete_candidate(std::uint32_t candidate_id, Done<frr::DeleteCandidateResponse> done);

 private:
  struct Connection;
  struct Shared;
  using Async = frr::Northbound::StubInterface::async_interface;
  template <typename Request, typename Response>
  using Method = void (Async::*)(grpc::ClientContext*, const Request*, Response*, std::function<void(grpc::Status)>);

  template <typename Request, typename Response>
  void call(const char* name, Method<Request, Response> method, const Request& request, Done<Response> done);
  template <typename Response>
  std::function<void(const grpc::Status&, const Response&)> begin(const char* call, Done<Response> done);
  void connect();
  void connected(std::shared_ptr<Connection> connection);
  void watch(std::shared_ptr<Connection> connection);
  void close();
  void lost(const std::string& why);
  void retry_after(std::chrono::milliseconds pause);
  void watch_call(const char* call, std::chrono::seconds after);

  boost::asio::any_io_executor executor_;
  boost::asio::ip::tcp::endpoint endpoint_;
  std::shared_ptr<Shared> shared_;
  // Null unless the daemon is there.
  std::shared_ptr<Connection> connection_;
  std::shared_ptr<Connection> attempt_;
  boost::asio::steady_timer retry_timer_;
  boost::asio::steady_timer slow_timer_;
  std::chrono::milliseconds retry_pause_;
};

}  // namespace kedge::speaker
