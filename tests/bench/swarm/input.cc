#include "tests/bench/swarm/input.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <ctime>

#include "tests/bench/swarm/clock.h"

namespace kedge::bench {

void wait_for(std::span<pollfd> waits, std::int64_t due_ns) {
  const std::int64_t left = std::max<std::int64_t>(0, due_ns - now_ns());
  const timespec timeout{left / kSecond, left % kSecond};
  ppoll(waits.data(), waits.size(), &timeout, nullptr);
}

bool InputLines::read(const std::function<void(const std::string&)>& take) {
  std::array<char, 4096> bytes;
  ssize_t size = 0;
  while ((size = ::read(STDIN_FILENO, bytes.data(), bytes.size())) > 0) {
    rest_.append(bytes.data(), static_cast<std::size_t>(size));
  }
  if (size == 0) return false;
  for (std::size_t end = 0; (end = rest_.find('\n')) != std::string::npos;) {
    const std::string line = rest_.substr(0, end);
    rest_.erase(0, end + 1);
    take(line);
  }
  return true;
}

}  // namespace kedge::bench
