// Attaches on their way to the LM. Each goes at once as long as few calls are under way; what comes while many are,
// waits and goes together in one call. So a move pays nothing for it, and a storm of them is carried by few messages.
//
// Threading: everything on one executor.
#pragma once

#include <chrono>
#include <cstddef>
#include <deque>
#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kedge/v1/mobility.pb.h"

namespace kedge::speaker {

class AttachQueue {
 public:
  using Done = std::function<void(const absl::Status&)>;
  // Mobility.Attach and Mobility.AttachMany; the callbacks run once each, later, on the queue's executor.
  struct Calls {
    std::function<void(v1::AttachRequest, std::function<void(absl::StatusOr<v1::AttachResponse>)>)> attach;
    std::function<void(v1::AttachManyRequest, std::function<void(absl::StatusOr<v1::AttachManyResponse>)>)> attach_many;
  };

  explicit AttachQueue(Calls calls) : calls_(std::move(calls)) {}
  // No callback follows.
  ~AttachQueue() { *alive_ = false; }
  AttachQueue(const AttachQueue&) = delete;
  AttachQueue& operator=(const AttachQueue&) = delete;

  // `done` runs once, with what the LM says of this attach. The time that it waits here is added to its age.
  void add(v1::AttachRequest request, Done done);
  // Those that wait are not sent, nor answered, any more.
  void clear() { waiting_.clear(); }
  // Another LM may answer from now on: whether it knows AttachMany is seen anew.
  void begin_anew() { many_ = true; }

 private:
  struct Waiting {
    v1::AttachRequest request;
    Done done;
    std::chrono::steady_clock::time_point since;
  };
  using Group = std::vector<Waiting>;

  void send();
  Group take_group();
  void send_one(Waiting waiting);
  void send_together(Group group);
  void ended();
  void finish(const Group& group, const absl::StatusOr<v1::AttachManyResponse>& response);

  const Calls calls_;
  std::deque<Waiting> waiting_;
  std::size_t under_way_ = 0;
  bool many_ = true;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace kedge::speaker
