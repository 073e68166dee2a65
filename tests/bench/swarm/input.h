// What a program that is told commands waits for: lines on standard input, its sockets, and time.
#pragma once

#include <poll.h>

#include <cstdint>
#include <functional>
#include <span>
#include <string>

namespace kedge::bench {

// Until one of them is readable or it is `due_ns` (now_ns()).
void wait_for(std::span<pollfd> waits, std::int64_t due_ns);

// Lines from standard input, which must not block.
class InputLines {
 public:
  // Takes the whole lines that are there. False at the end of the input.
  bool read(const std::function<void(const std::string&)>& take);

 private:
  std::string rest_;
};

}  // namespace kedge::bench
