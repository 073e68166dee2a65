// Who may call what. Every RPC asks here first; one table decides.
//
// Standards: RFC 8818, 5: "every command and update MUST be authorized".
#pragma once

#include <cstdint>
#include <functional>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/certificate.h"
#include "grpcpp/server_context.h"

namespace kedge::lm {

// Who calls, as its certificate says.
struct Caller {
  // Absent without TLS: then anyone may do anything.
  std::optional<Identity> identity;
  // Of the certificate.
  std::string serial;
  // Address and port.
  std::string peer;

  // "kedge://operator/alice", or "anyone (plaintext)".
  std::string name() const;
};

// How far a role's permission goes.
enum class Limit {
  kNone,
  // What is asked for names the caller's own access router.
  kOwnAccessRouter,
  // Of bindings, those that the caller's access router holds something for.
  kOwnBindings,
};

struct Grant {
  Role role;
  Limit limit = Limit::kNone;
};

struct MethodRule {
  // "kedge.v1.Mobility.Attach"
  std::string_view method;
  std::vector<Grant> grants;
};

// The table. Methods that are not in it are nobody's.
const std::vector<MethodRule>& method_rules();

// Thread-safe.
class Authorizer {
 public:
  // A refusal: `rule` is one of "no_identity", "revoked", "role", "own_access_router".
  struct Denial {
    Caller caller;
    std::string method;
    std::string rule;
    std::string text;
  };

  // Without TLS everyone is admitted. `on_denial` runs on the thread of the call.
  Authorizer(bool plaintext, std::function<void(const Denial&)> on_denial);

  // First line of each RPC. `ar`: the access router that the request speaks for; empty when it speaks for none.
  // Unauthenticated, PermissionDenied: the text names the rule.
  absl::StatusOr<Caller> authorize(const grpc::ServerContextBase& context, std::string_view method,
                                   std::string_view ar = {});
  // The same for a stream whose first message names the access router: what it says has to pass check().
  absl::StatusOr<Caller> authorize_stream(const grpc::ServerContextBase& context, std::string_view method);
  absl::Status check(const Caller& caller, std::string_view method, std::string_view ar);
  // Whether the caller sees bindings of its own access router only; then that one's name.
  std::optional<std::string> sees_only(const Caller& caller, std::string_view method) const;

  // Serial numbers of certificates that are no longer worth anything.
  void set_revoked(std::vector<std::string> serials);
  bool is_revoked(const Caller& caller) const;

 private:
  absl::StatusOr<Caller> identify(const grpc::ServerContextBase& context, std::string_view method);
  absl::Status check_role(const Caller& caller, std::string_view method);
  absl::Status deny(const Caller& caller, std::string_view method, std::string rule, std::string text);

  const bool plaintext_;
  const std::function<void(const Denial&)> on_denial_;
  mutable std::mutex mutex_;
  // Parsing a certificate takes longer than all else; PEM -> what it says.
  std::unordered_map<std::string, Certificate> known_;
  std::unordered_set<std::string> revoked_;
};

}  // namespace kedge::lm
