// The one mapping between absl::Status (inside) and grpc::Status (outside).
#pragma once

#include "absl/status/status.h"
#include "grpcpp/support/status.h"

namespace kedge {

grpc::Status to_grpc_status(const absl::Status& status);
absl::Status from_grpc_status(const grpc::Status& status);

// `status` with `context` and ": " before its text.
absl::Status annotate(const absl::Status& status, std::string_view context);

}  // namespace kedge
