// Strict YAML into a Protobuf message. Every error names file, line, column and key:
// "speaker.yaml:12:3: access.interface: unknown key; did you mean 'interfaces'?".
#pragma once

#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "google/protobuf/message.h"

namespace kedge {

// Fills `message` from a file. NotFound/PermissionDenied when it cannot be read, InvalidArgument when it is no YAML,
// has an unknown or repeated key, or a value of a wrong type or out of its type's range. Durations are "250ms", "10s",
// "30m", "2h"; enum values are written without their prefix in lower case; an absent key leaves the field unset.
absl::Status load_config(const std::string& path, google::protobuf::Message* message);

// The same for text; `name` stands for the file in errors.
absl::Status parse_config(std::string_view text, std::string_view name, google::protobuf::Message* message);

}  // namespace kedge
