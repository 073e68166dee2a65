// The views of the API's messages: pure functions from messages to text.
#pragma once

#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "common/time.h"
#include "google/protobuf/message.h"
#include "kedge/v1/admin.pb.h"

namespace kedge::kedgectl {

enum class OutputFormat { kTable, kJson };
enum class JsonStyle { kIndented, kOneLine };

// Tables. `now` is what ages are counted from.
std::string render_status(const v1::StatusResponse& status, std::string_view server, SystemTime now);
std::string render_nodes(const v1::ListNodesResponse& nodes, SystemTime now);
std::string render_bindings(const v1::ListBindingsResponse& bindings, SystemTime now);
std::string render_policies(const v1::ListPoliciesResponse& policies, SystemTime now);
std::string render_effective_policy(const v1::EffectivePolicy& effective);
std::string render_binding(const v1::Binding& binding, SystemTime now);

// Events come one by one, so their columns have fixed widths.
// Several lines: the record, then each change.
std::string render_audit(const v1::AuditRecord& record);
std::string render_event_header();
std::string render_event(const v1::Event& event);

// Protobuf's JSON mapping with the .proto's field names and all primitive fields (64-bit numbers are strings), ended by
// a newline. Internal when the message cannot be written, say for a time that RFC 3339 does not know.
absl::StatusOr<std::string> render_json(const google::protobuf::Message& message, JsonStyle style);

}  // namespace kedge::kedgectl
