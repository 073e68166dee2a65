#include "speaker/lm_client/attach_queue.h"

#include <algorithm>
#include <utility>

#include "common/time.h"

namespace kedge::speaker {
namespace {

// While the LM writes one to its disk it reads the next ones.
constexpr std::size_t kMostCalls = 4;
// Of AttachManyRequest.
constexpr std::size_t kMostTogether = 256;

absl::Status status_of(const v1::AttachManyResponse::Result& result) {
  return {static_cast<absl::StatusCode>(result.code()), result.message()};
}

}  // namespace

void AttachQueue::add(v1::AttachRequest request, Done done) {
  waiting_.push_back({std::move(request), std::move(done), std::chrono::steady_clock::now()});
  send();
}

void AttachQueue::send() {
  // To an LM that takes them one by one only, they all go at once.
  while (!waiting_.empty() && (!many_ || under_way_ < kMostCalls)) {
    const auto count = many_ ? std::min(waiting_.size(), kMostTogether) : 1;
    const auto end = waiting_.begin() + static_cast<std::ptrdiff_t>(count);
    Group group(std::make_move_iterator(waiting_.begin()), std::make_move_iterator(end));
    waiting_.erase(waiting_.begin(), end);
    const auto now = std::chrono::steady_clock::now();
    for (auto& waiting : group) {
      *waiting.request.mutable_age() = to_proto(from_proto(waiting.request.age()) + (now - waiting.since));
    }
    ++under_way_;
    if (group.size() == 1) {
      send_one(std::move(group.front()));
    } else {
      send_together(std::move(group));
    }
  }
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
