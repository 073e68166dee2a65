// Durations as people write them: "250ms", "10s", "30m", "2h".
#pragma once

#include <optional>
#include <string>

#include "google/protobuf/duration.pb.h"

namespace kedge::kedgectl {

// A whole number up to 4294967295 and a unit; nullopt otherwise.
std::optional<google::protobuf::Duration> read_duration(const std::string& text);

// In the largest unit that makes it a whole number.
std::string duration_text(const google::protobuf::Duration& duration);

}  // namespace kedge::kedgectl
