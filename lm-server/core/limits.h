// What the server bears from its clients; config.proto, LimitsConfig.
#pragma once

#include <chrono>
#include <cstddef>

namespace kedge::lm {

struct ServerLimits {
  std::size_t connections = 4096;
  std::size_t connections_per_address = 64;
  std::chrono::milliseconds handshake_timeout = std::chrono::seconds(10);
  int streams_per_connection = 1000;
  int message_bytes = 4 << 20;
  std::chrono::milliseconds stalled_reader = std::chrono::seconds(30);
  // Changes that may wait for one speaker beyond its snapshot; one more ends its session with RESOURCE_EXHAUSTED. Not
  // configurable.
  std::size_t session_queue = 8'192;
};

}  // namespace kedge::lm
