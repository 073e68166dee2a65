#include "lm-server/service/event_log.h"

#include <utility>
#include <vector>

#include "common/time.h"

namespace kedge::lm {

void EventLog::append(v1::Event event) {
  event.set_id(++last_id_);
  *event.mutable_recorded_at() = to_proto(now_system());
  events_.push_back(std::move(event));
  if (events_.size() > capacity_) events_.pop_front();
  tell();
}

const v1::Event* EventLog::next(std::uint64_t id) const {
  return id >= last_id_ ? nullptr : &events_[id + 1 - first_id()];
}

std::uint64_t EventLog::add_listener(std::function<void()> listener) {
  listeners_.emplace(next_listener_, std::move(listener));
  return next_listener_++;
}

void EventLog::close() {
  closed_ = true;
  tell();
}

void EventLog::tell() {
  // A listener may remove itself.
  std::vector<std::function<void()>> listeners;
  listeners.reserve(listeners_.size());
  for (const auto& [id, listener] : listeners_) listeners.push_back(listener);
  for (const auto& listener : listeners) listener();
}

}  // namespace kedge::lm
