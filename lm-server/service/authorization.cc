#include "lm-server/service/authorization.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "common/text.h"
#include "fmt/format.h"
#include "grpc/grpc_security_constants.h"
#include "grpcpp/security/auth_context.h"

namespace kedge::lm {
namespace {

constexpr std::size_t kMostKnown = 4096;

std::string first_property(const grpc::AuthContext& context, const char* name) {
  const auto values = context.FindPropertyValues(name);
  return values.empty() ? std::string() : std::string(values.front().data(), values.front().size());
}

// "ipv6:%5B2001:db8::1%5D:4711" is what gRPC says.
std::string readable_peer(std::string peer) {
  if (const auto scheme = peer.find(':'); scheme != std::string::npos) peer.erase(0, scheme + 1);
  return absl::StrReplaceAll(peer, {{"%5B", "["}, {"%5D", "]"}, {"%25", "%"}});
}

const Grant* find_grant(std::string_view method, Role role) {
  const auto& rules = method_rules();
  const auto rule = std::find_if(rules.begin(), rules.end(), [&](const auto& r) { return r.method == method; });
  if (rule == rules.end()) return nullptr;
  const auto grant =
      std::find_if(rule->grants.begin(), rule->grants.end(), [&](const auto& g) { return g.role == role; });
  return grant == rule->grants.end() ? nullptr : &*grant;
}

}  // namespace

const std::vector<MethodRule>& method_rules() {
  static const std::vector<Grant> speaker_for_itself = {{Role::kSpeaker, Limit::kOwnAccessRouter}};
  static const std::vector<Grant> readers = {{Role::kOperator}, {Role::kViewer}};
  static const std::vector<Grant> operators = {{Role::kOperator}};
  static const std::vector<MethodRule> rules = {
      {"kedge.v1.Mobility.Attach", speaker_for_itself},
      {"kedge.v1.Mobility.AttachMany", speaker_for_itself},
      {"kedge.v1.Mobility.Detach", speaker_for_itself},
      {"kedge.v1.Mobility.Session", speaker_for_itself},
      {"kedge.v1.Mobility.Query",
       {{Role::kSpeaker, Limit::kOwnBindings}, {Role::kOperator}, {Role::kViewer}, {Role::kProxy}}},
      {"kedge.v1.Mobility.Describe", {{Role::kSpeaker, Limit::kOwnAccessRouter}, {Role::kOperator}, {Role::kViewer}}},
      {"kedge.v1.Admin.ListBindings", readers},
      {"kedge.v1.Admin.GetBinding", readers},
      {"kedge.v1.Admin.ListNodes", readers},
      {"kedge.v1.Admin.WatchEvents", readers},
      {"kedge.v1.Admin.Status", readers},
      {"kedge.v1.Admin.ListPolicies", readers},
      {"kedge.v1.Admin.GetEffectivePolicy", readers},
      {"kedge.v1.Admin.SetPolicy", operators},
      {"kedge.v1.Admin.DeletePolicy", operators},
      {"kedge.v1.Admin.DrainNode", operators},
      {"kedge.v1.Admin.UndrainNode", operators},
      {"kedge.v1.Admin.Detach", operators},
      {"kedge.v1.Admin.Backup", operators},
      {"kedge.v1.Admin.Audit", readers},
  };
  return rules;
}

std::string Caller::name() const { return identity ? identity->uri() : "anyone (plaintext)"; }

Authorizer::Authorizer(bool plaintext, std::function<void(const Denial&)> on_denial)
    : plaintext_(plaintext), on_denial_(std::move(on_denial)) {}

absl::StatusOr<Caller> Authorizer::authorize(const grpc::ServerContextBase& context, std::string_view method,
                                             std::string_view ar) {
  auto caller = identify(context, method);
  if (!caller.ok()) return caller;
  if (auto s = check(*caller, method, ar); !s.ok()) return s;
  return caller;
}

absl::StatusOr<Caller> Authorizer::authorize_stream(const grpc::ServerContextBase& context, std::string_view method) {
  auto caller = identify(context, method);
  if (!caller.ok()) return caller;
  if (auto s = check_role(*caller, method); !s.ok()) return s;
  return caller;
}

absl::StatusOr<Caller> Authorizer::identify(const grpc::ServerContextBase& context, std::string_view method) {
  Caller caller;
  caller.peer = readable_peer(context.peer());
  if (plaintext_) return caller;
  const auto pem = first_property(*context.auth_context(), GRPC_X509_PEM_CERT_PROPERTY_NAME);
  std::unique_lock lock(mutex_);
  auto known = known_.find(pem);
  if (known == known_.end()) {
    auto certificate = parse_certificate(pem);
    if (!certificate.ok()) {
      lock.unlock();
      std::string text(certificate.status().message());
      deny(caller, method, "no_identity", text).IgnoreError();
      return absl::UnauthenticatedError(absl::StrCat("no_identity: ", text));
    }
    if (known_.size() >= kMostKnown) known_.clear();
    known = known_.emplace(pem, *std::move(certificate)).first;
  }
  caller.identity = known->second.identity;
  caller.serial = known->second.serial;
  return caller;
}

absl::Status Authorizer::check_role(const Caller& caller, std::string_view method) {
  if (!caller.identity) return absl::OkStatus();
  if (is_revoked(caller)) {
    return deny(caller, method, "revoked",
                absl::StrCat("the certificate ", caller.serial, " of ", caller.name(), " has been revoked"));
  }
  if (find_grant(method, caller.identity->role) != nullptr) return absl::OkStatus();
  return deny(caller, method, "role", fmt::format("role {} may not call {}", role_name(caller.identity->role), method));
}

absl::Status Authorizer::check(const Caller& caller, std::string_view method, std::string_view ar) {
  if (!caller.identity) return absl::OkStatus();
  if (auto s = check_role(caller, method); !s.ok()) return s;
  const Grant* grant = find_grant(method, caller.identity->role);
  if (grant->limit != Limit::kOwnAccessRouter || ar == caller.identity->name) return absl::OkStatus();
  return deny(caller, method, "own_access_router",
              fmt::format("{} may not speak for access router \"{}\"", caller.name(), shortened(ar)));
}

std::optional<std::string> Authorizer::sees_only(const Caller& caller, std::string_view method) const {
  if (!caller.identity) return std::nullopt;
  const Grant* grant = find_grant(method, caller.identity->role);
  if (grant == nullptr || grant->limit != Limit::kOwnBindings) return std::nullopt;
  return caller.identity->name;
}

void Authorizer::set_revoked(std::vector<std::string> serials) {
  std::lock_guard lock(mutex_);
  revoked_ = {std::make_move_iterator(serials.begin()), std::make_move_iterator(serials.end())};
}

bool Authorizer::is_revoked(const Caller& caller) const {
  std::lock_guard lock(mutex_);
  return revoked_.contains(caller.serial);
}

absl::Status Authorizer::deny(const Caller& caller, std::string_view method, std::string rule, std::string text) {
  absl::Status status = absl::PermissionDeniedError(absl::StrCat(rule, ": ", text));
  if (on_denial_) on_denial_({caller, std::string(method), std::move(rule), std::move(text)});
  return status;
}

}  // namespace kedge::lm
