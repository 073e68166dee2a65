// How the services turn away a call that is not authorized.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "common/status.h"
#include "common/text.h"
#include "grpcpp/server_context.h"
#include "grpcpp/support/server_callback.h"
#include "lm-server/service/audit.h"
#include "lm-server/service/authorization.h"

namespace kedge::lm {

// Who calls; absent: the call has been answered with the reason why not.
inline std::optional<Caller> admit(Authorizer& authorizer, grpc::CallbackServerContext& context,
                                   std::string_view method, grpc::ServerUnaryReactor* reactor,
                                   std::string_view ar = {}) {
  auto caller = authorizer.authorize(context, method, ar);
  if (caller.ok()) return *std::move(caller);
  reactor->Finish(to_grpc_status(caller.status()));
  return std::nullopt;
}

// In bytes, of what the audit trail says of a request.
inline constexpr std::size_t kLongestRequest = 4000;

// For the audit trail: who asks for what.
inline Request as_request(const Caller& caller, std::string_view method, std::string_view text) {
  return {caller.name(), caller.serial, caller.peer, std::string(method), shortened(text, kLongestRequest)};
}

// A stream that ends at once.
template <typename Reactor>
class Refusal final : public Reactor {
 public:
  explicit Refusal(const absl::Status& status) { this->Finish(to_grpc_status(status)); }
  void OnDone() override { delete this; }
};

}  // namespace kedge::lm
