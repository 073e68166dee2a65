#include "common/status.h"

#include <gtest/gtest.h>

namespace kedge {
namespace {

TEST(StatusMapping, KeepsEachCodeAndTextBothWays) {
  const std::pair<absl::StatusCode, grpc::StatusCode> codes[] = {
      {absl::StatusCode::kCancelled, grpc::StatusCode::CANCELLED},
      {absl::StatusCode::kUnknown, grpc::StatusCode::UNKNOWN},
      {absl::StatusCode::kInvalidArgument, grpc::StatusCode::INVALID_ARGUMENT},
      {absl::StatusCode::kDeadlineExceeded, grpc::StatusCode::DEADLINE_EXCEEDED},
      {absl::StatusCode::kNotFound, grpc::StatusCode::NOT_FOUND},
      {absl::StatusCode::kAlreadyExists, grpc::StatusCode::ALREADY_EXISTS},
      {absl::StatusCode::kPermissionDenied, grpc::StatusCode::PERMISSION_DENIED},
      {absl::StatusCode::kResourceExhausted, grpc::StatusCode::RESOURCE_EXHAUSTED},
      {absl::StatusCode::kFailedPrecondition, grpc::StatusCode::FAILED_PRECONDITION},
      {absl::StatusCode::kAborted, grpc::StatusCode::ABORTED},
      {absl::StatusCode::kOutOfRange, grpc::StatusCode::OUT_OF_RANGE},
      {absl::StatusCode::kUnimplemented, grpc::StatusCode::UNIMPLEMENTED},
      {absl::StatusCode::kInternal, grpc::StatusCode::INTERNAL},
      {absl::StatusCode::kUnavailable, grpc::StatusCode::UNAVAILABLE},
      {absl::StatusCode::kDataLoss, grpc::StatusCode::DATA_LOSS},
      {absl::StatusCode::kUnauthenticated, grpc::StatusCode::UNAUTHENTICATED},
  };
  for (const auto& [inside, outside] : codes) {
    const auto to = to_grpc_status(absl::Status(inside, "why"));
    EXPECT_EQ(to.error_code(), outside);
    EXPECT_EQ(to.error_message(), "why");
    EXPECT_EQ(from_grpc_status(to), absl::Status(inside, "why"));
  }
  EXPECT_TRUE(to_grpc_status(absl::OkStatus()).ok());
  EXPECT_TRUE(from_grpc_status(grpc::Status::OK).ok());
}

TEST(Annotate, PutsTheContextFirstAndLeavesOkAlone) {
  EXPECT_EQ(annotate(absl::NotFoundError("no such key"), "store"), absl::NotFoundError("store: no such key"));
  EXPECT_TRUE(annotate(absl::OkStatus(), "store").ok());
}

}  // namespace
}  // namespace kedge
