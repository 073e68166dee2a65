#include "kedgectl/commands.h"

#include <chrono>

#include "common/time.h"
#include "kedgectl/output.h"

namespace kedge::kedgectl {
namespace {

using Stub = v1::Admin::StubInterface;

// One call; kOk when `answer` is there, else why not has been told.
template <typename Request, typename Answer>
ExitCode ask(const Session& session, grpc::Status (Stub::*method)(grpc::ClientContext*, const Request&, Answer*),
             const Request& request, Answer* answer) {
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + session.options.timeout);
  const std::stop_callback cancel(session.stop, [&context] { context.TryCancel(); });
  const auto status = (session.admin.*method)(&context, request, answer);
  if (status.ok()) return ExitCode::kOk;
  return session.stop.stop_requested() ? ExitCode::kInterrupted : fail(session, status);
}

}  // namespace

ExitCode run_status(const Session& session) {
  v1::StatusResponse answer;
  const auto code = ask(session, &Stub::Status, v1::StatusRequest(), &answer);
  if (code != ExitCode::kOk) return code;
  return print(session, answer, JsonStyle::kIndented,
               [&] { return render_status(answer, session.options.server, now_system()); });
}

ExitCode run_nodes(const Session& session) {
  v1::ListNodesResponse answer;
  const auto code = ask(session, &Stub::ListNodes, v1::ListNodesRequest(), &answer);
  if (code != ExitCode::kOk) return code;
  return print(session, answer, JsonStyle::kIndented, [&] { return render_nodes(answer, now_system()); });
}

ExitCode run_bindings(const Session& session, const BindingsCommand& command) {
  v1::ListBindingsRequest request;
  request.set_ar(command.ar);
  request.set_mn_id(command.mn_id);
  v1::ListBindingsResponse all;
  do {
    v1::ListBindingsResponse page;
    const auto code = ask(session, &Stub::ListBindings, request, &page);
    if (code != ExitCode::kOk) return code;
    if (!page.next_page_token().empty() && page.next_page_token() == request.page_token()) {
      return fail(session, {grpc::StatusCode::INTERNAL, "it gave the same page of bindings twice"});
    }
    request.set_page_token(page.next_page_token());
    *all.mutable_revision() = page.revision();
    all.mutable_bindings()->MergeFrom(page.bindings());
  } while (!request.page_token().empty());
  const auto code = print(session, all, JsonStyle::kIndented, [&] { return render_bindings(all, now_system()); });
  if (code == ExitCode::kOk && all.bindings().empty()) tell(session.err, "no binding matches");
  return code;
}

ExitCode run_binding(const Session& session, const BindingCommand& command) {
  v1::GetBindingRequest request;
  request.set_prefix(command.prefix);
  v1::Binding answer;
  const auto code = ask(session, &Stub::GetBinding, request, &answer);
  if (code != ExitCode::kOk) return code;
  return print(session, answer, JsonStyle::kIndented, [&] { return render_binding(answer, now_system()); });
}

ExitCode run_policy_list(const Session& session) {
  v1::ListPoliciesResponse answer;
  const auto code = ask(session, &Stub::ListPolicies, v1::ListPoliciesRequest(), &answer);
  if (code != ExitCode::kOk) return code;
  return print(session, answer, JsonStyle::kIndented, [&] { return render_policies(answer, now_system()); });
}

ExitCode run_policy_show(const Session& session, const PolicyShowCommand& command) {
  v1::GetEffectivePolicyRequest request;
  request.set_mn_id(command.mn_id);
  request.set_ar(command.ar);
  v1::EffectivePolicy answer;
  const auto code = ask(session, &Stub::GetEffectivePolicy, request, &answer);
  if (code != ExitCode::kOk) return code;
  return print(session, answer, JsonStyle::kIndented, [&] { return render_effective_policy(answer); });
}

ExitCode run_policy_set(const Session& session, const PolicySetCommand& command) {
  v1::PolicyEntry answer;
  const auto code = ask(session, &Stub::SetPolicy, command.request, &answer);
  if (code != ExitCode::kOk) return code;
  return print(session, answer, JsonStyle::kIndented, [&] {
    v1::ListPoliciesResponse one;
    *one.add_policies() = answer;
    return render_policies(one, now_system());
  });
}

ExitCode run_policy_delete(const Session& session, const PolicyDeleteCommand& command) {
  v1::DeletePolicyRequest request;
  *request.mutable_scope() = command.scope;
  v1::DeletePolicyResponse answer;
  const auto code = ask(session, &Stub::DeletePolicy, request, &answer);
  if (code != ExitCode::kOk) return code;
  return print(session, answer, JsonStyle::kIndented, [] { return std::string("deleted\n"); });
}

ExitCode run_drain(const Session& session, const DrainCommand& command) {
  v1::DrainNodeRequest request;
  request.set_ar(command.ar);
  v1::Node answer;
  const auto code = ask(session, command.drain ? &Stub::DrainNode : &Stub::UndrainNode, request, &answer);
  if (code != ExitCode::kOk) return code;
  return print(session, answer, JsonStyle::kIndented, [&] {
    v1::ListNodesResponse one;
    *one.add_nodes() = answer;
    return render_nodes(one, now_system());
  });
}

ExitCode run_detach(const Session& session, const DetachCommand& command) {
  v1::DetachNodeRequest request;
  request.set_mn_id(command.mn_id);
  v1::DetachNodeResponse answer;
  const auto code = ask(session, &Stub::Detach, request, &answer);
  if (code != ExitCode::kOk) return code;
  return print(session, answer, JsonStyle::kIndented,
               [&] { return "detached, prefixes: " + std::to_string(answer.prefixes()) + "\n"; });
}

ExitCode run_audit(const Session& session, const AuditCommand& command) {
  grpc::ClientContext context;
  const std::stop_callback cancel(session.stop, [&context] { context.TryCancel(); });
  auto reader = session.admin.Audit(&context, command.request);
  v1::AuditRecord record;
  bool any = false;
  while (reader->Read(&record)) {
    any = true;
    const auto code = print(session, record, JsonStyle::kOneLine, [&] { return render_audit(record); });
    if (code != ExitCode::kOk) return code;
  }
  const auto status = reader->Finish();
  if (!status.ok()) return session.stop.stop_requested() ? ExitCode::kInterrupted : fail(session, status);
  if (!any) tell(session.err, "no record matches");
  return ExitCode::kOk;
}

}  // namespace kedge::kedgectl
