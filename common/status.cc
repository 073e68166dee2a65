#include "common/status.h"

#include <string>

#include "fmt/format.h"

namespace kedge {

// The canonical codes of both have the same numbers.
grpc::Status to_grpc_status(const absl::Status& status) {
  if (status.ok()) return grpc::Status::OK;
  return {static_cast<grpc::StatusCode>(status.code()), std::string(status.message())};
}

absl::Status from_grpc_status(const grpc::Status& status) {
  if (status.ok()) return absl::OkStatus();
  return {static_cast<absl::StatusCode>(status.error_code()), status.error_message()};
}

absl::Status annotate(const absl::Status& status, std::string_view context) {
  if (status.ok()) return status;
  return {status.code(), fmt::format("{}: {}", context, std::string(status.message()))};
}

}  // namespace kedge
