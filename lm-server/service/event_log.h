// The last events, for those who watch. Bounded; not thread-safe, used on the core's thread only.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>

#include "kedge/v1/admin.pb.h"

namespace kedge::lm {

class EventLog {
 public:
  static constexpr std::size_t kDefaultCapacity = 65'536;
  explicit EventLog(std::size_t capacity = kDefaultCapacity) : capacity_(capacity) {}

  // Gives it its id and the time of recording.
  void append(v1::Event event);
  // The event after `id` that is kept; null when there is none yet. `id` must be at least first_id() - 1.
  const v1::Event* next(std::uint64_t id) const;
  // Id of the oldest event that is kept, or of the next one.
  std::uint64_t first_id() const { return last_id_ + 1 - events_.size(); }
  std::uint64_t last_id() const { return last_id_; }

  // Called after each event, and once more when the log closes. Returns an id for remove_listener().
  std::uint64_t add_listener(std::function<void()> listener);
  void remove_listener(std::uint64_t id) { listeners_.erase(id); }
  // The server stops; closed() from now on.
  void close();
  bool closed() const { return closed_; }

 private:
  void tell();

  const std::size_t capacity_;
  std::deque<v1::Event> events_;
  std::uint64_t last_id_ = 0;
  std::map<std::uint64_t, std::function<void()>> listeners_;
  std::uint64_t next_listener_ = 1;
  bool closed_ = false;
};

}  // namespace kedge::lm
