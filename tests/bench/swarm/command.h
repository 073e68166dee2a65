// What a swarm is told, one line each:
//
//   arrive PORT COUNT within SECONDS
//   move PORT COUNT within SECONDS [overlap MILLISECONDS | gap MILLISECONDS]
//   flows COUNT rate PACKETS-PER-SECOND
//   stop-flows FOLDER
//   report FILE
//   quit
//
// Pure functions, any thread.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <variant>

#include "absl/status/statusor.h"

namespace kedge::bench {

// The first `count` nodes come to the port, evenly spread over `within`.
struct Travel {
  std::string port;
  std::size_t count = 0;
  std::chrono::milliseconds within{0};
  // Planned: both links are up; the old one goes so long after the advertisement on the new one.
  std::chrono::milliseconds overlap{100};
  // Break before make: the old link goes, the new one comes so much later.
  std::optional<std::chrono::milliseconds> gap;
};

// Evenly picked ones exchange datagrams with the peer.
struct BeginFlows {
  std::size_t count = 0;
  std::uint32_t rate = 0;
};

struct EndFlows {
  std::string folder;
};

struct Report {
  std::string file;
};

struct Quit {};

using Command = std::variant<Travel, BeginFlows, EndFlows, Report, Quit>;

// InvalidArgument says what is wrong and how the command is written.
absl::StatusOr<Command> parse_command(std::string_view line);

}  // namespace kedge::bench
