#include "speaker/lm_client/attach_queue.h"

#include <utility>

#include "common/status.h"
#include "common/time.h"

namespace kedge::speaker {
namespace {

// While the LM writes one to its disk it reads the next ones.
constexpr std::size_t kMostCalls = 4;
// Of AttachManyRequest.
constexpr std::size_t kMostTogether = 256;

// An LM may take messages of 64 KiB at most (limits.message_bytes); with this one more of any size still fits.
constexpr std::size_t kMostBytes = 32U << 10U;

absl::Status status_of(const v1::AttachManyResponse::Result& result) {
  return from_grpc_status({static_cast<grpc::StatusCode>(result.code()), result.message()});
}

}  // namespace

void AttachQueue::add(v1::AttachRequest request, Done done) {
  waiting_.push_back({std::move(request), std::move(done), std::chrono::steady_clock::now()});
  send();
}

void AttachQueue::send() {
  // To an LM that takes them one by one only, they all go at once.
  while (!waiting_.empty() && (!many_ || under_way_ < kMostCalls)) {
    Group group = take_group();
    ++under_way_;
    if (group.size() == 1) {
      send_one(std::move(group.front()));
    } else {
      send_together(std::move(group));
    }
  }
}

AttachQueue::Group AttachQueue::take_group() {
  const auto now = std::chrono::steady_clock::now();
  const std::size_t most = many_ ? kMostTogether : 1;
  Group group;
  std::size_t bytes = 0;
  while (!waiting_.empty() && group.size() < most && bytes < kMostBytes) {
    auto& waiting = waiting_.front();
    *waiting.request.mutable_age() = to_proto(from_proto(waiting.request.age()) + (now - waiting.since));
    waiting.since = now;
    bytes += waiting.request.ByteSizeLong();
    group.push_back(std::move(waiting));
    waiting_.pop_front();
  }
  return group;
}

void AttachQueue::send_one(Waiting waiting) {
  calls_.attach(std::move(waiting.request), [this, alive = alive_, done = std::move(waiting.done)](
                                                const absl::StatusOr<v1::AttachResponse>& response) {
    if (!*alive) return;
    done(response.status());
    if (*alive) ended();
  });
}

void AttachQueue::send_together(Group group) {
  v1::AttachManyRequest request;
  request.set_ar(group.front().request.ar());
  for (const auto& waiting : group) *request.add_requests() = waiting.request;
  auto sent = std::make_shared<Group>(std::move(group));
  calls_.attach_many(std::move(request),
                     [this, alive = alive_, sent](const absl::StatusOr<v1::AttachManyResponse>& response) {
                       if (!*alive) return;
                       if (absl::IsUnimplemented(response.status())) {
                         many_ = false;
                         for (auto& waiting : *sent) waiting_.push_back(std::move(waiting));
                       } else {
                         finish(*sent, response);
                       }
                       if (*alive) ended();
                     });
}

// Only now the call makes room: those that the answers have brought go together.
void AttachQueue::ended() {
  --under_way_;
  send();
}

void AttachQueue::finish(const Group& group, const absl::StatusOr<v1::AttachManyResponse>& response) {
  const auto alive = alive_;
  for (std::size_t i = 0; i < group.size() && *alive; ++i) {
    if (!response.ok()) {
      group[i].done(response.status());
    } else if (i < static_cast<std::size_t>(response->results_size())) {
      group[i].done(status_of(response->results(static_cast<int>(i))));
    } else {
      group[i].done(absl::InternalError("the LM has not answered each of the attaches"));
    }
  }
}

}  // namespace kedge::speaker
