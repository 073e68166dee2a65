// How the services turn away a call that is not authorized.
#pragma once

#include <string_view>

#include "common/status.h"
#include "grpcpp/server_context.h"
#include "grpcpp/support/server_callback.h"
#include "lm-server/service/authorization.h"

namespace kedge::lm {

// False: the call has been answered with the reason.
inline bool admitted(Authorizer& authorizer, grpc::CallbackServerContext& context, std::string_view method,
                     grpc::ServerUnaryReactor* reactor, std::string_view ar = {}) {
  const auto caller = authorizer.authorize(context, method, ar);
  if (!caller.ok()) reactor->Finish(to_grpc_status(caller.status()));
  return caller.ok();
}

// A stream that ends at once.
template <typename Reactor>
class Refusal final : public Reactor {
 public:
  explicit Refusal(const absl::Status& status) { this->Finish(to_grpc_status(status)); }
  void OnDone() override { delete this; }
};

}  // namespace kedge::lm
