// Conversions between std::chrono and Protobuf's well-known types.
#pragma once

#include <chrono>
#include <string>

#include "google/protobuf/duration.pb.h"
#include "google/protobuf/timestamp.pb.h"

namespace kedge {

using SystemTime = std::chrono::sys_time<std::chrono::nanoseconds>;
using SteadyTime = std::chrono::steady_clock::time_point;

SystemTime now_system();
// RFC 3339, UTC, whole seconds: "2026-01-02T03:04:05Z".
std::string to_text(SystemTime time);
google::protobuf::Timestamp to_proto(SystemTime time);
SystemTime from_proto(const google::protobuf::Timestamp& timestamp);
google::protobuf::Duration to_proto(std::chrono::nanoseconds duration);
std::chrono::nanoseconds from_proto(const google::protobuf::Duration& duration);

}  // namespace kedge
