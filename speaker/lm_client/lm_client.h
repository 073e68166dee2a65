// The speaker's side of the Mobility service (RFC 8818: LMc).
//
// Threading: all calls and callbacks on the speaker's executor; nothing here blocks.
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "boost/asio/any_io_executor.hpp"
#include "grpcpp/channel.h"
#include "kedge/v1/mobility.pb.h"

namespace kedge::speaker {

class LmClient {
 public:
  // Whole state as of one revision: follows each connection.
  struct Snapshot {
    v1::Welcome welcome;
    std::vector<v1::Binding> bindings;
  };

  virtual ~LmClient() = default;

  // Opens the session and keeps it open: after a loss it is tried again within a second.
  virtual void start() = 0;
  // Ends the session; no callback follows.
  virtual void stop() = 0;

  // OK: connected and the snapshot has been given to on_snapshot; else why there is no session.
  std::function<void(const absl::Status&)> on_connection;
  std::function<void(const Snapshot&)> on_snapshot;
  // Changes after the snapshot, in revision order.
  std::function<void(v1::Record)> on_record;

  // Dropped when there is no session: everything is acknowledged anew after each snapshot.
  virtual void ack(const v1::Ack& ack) = 0;
  virtual void report_health(const v1::SpeakerHealth& health) = 0;
  // Dropped when there is no session.
  virtual void report_activity(const v1::Activity& activity) = 0;

  // `done` runs once. Unavailable: the LM could not be reached or could not write. DeadlineExceeded: an Attach was not
  // answered within 2 s from when it was sent: some wait, to go together (attach_queue.h).
  virtual void attach(const v1::AttachRequest& request, std::function<void(const absl::Status&)> done) = 0;
  virtual void detach(const v1::DetachRequest& request, std::function<void(const absl::Status&)> done) = 0;
};

struct LmClientOptions {
  std::string ar;
  std::uint64_t incarnation = 0;
  std::string version;
};

std::unique_ptr<LmClient> make_lm_client(boost::asio::any_io_executor executor, std::shared_ptr<grpc::Channel> channel,
                                         LmClientOptions options);

}  // namespace kedge::speaker
