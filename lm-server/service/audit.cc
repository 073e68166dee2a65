#include "lm-server/service/audit.h"

#include <chrono>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "lm-server/core/generation.h"

namespace kedge::lm {
namespace {

v1::AuditRecord begin(const Request& request, SystemTime now) {
  v1::AuditRecord record;
  *record.mutable_at() = to_proto(now);
  record.set_who(request.who);
  record.set_serial(request.serial);
  record.set_peer(request.peer);
  record.set_action(request.action);
  record.set_request(request.text);
  return record;
}

std::string outcome_of(const absl::Status& status) {
  if (status.ok()) return "ok";
  return absl::StrCat(absl::StatusCodeToString(status.code()), ": ", status.message());
}

}  // namespace

Request due_by_time() { return {"kedge-lm", {}, {}, "timer", {}}; }

std::optional<std::string> AuditTrail::entry_for(const Request& request, const Output& output, SystemTime now) {
  if (request.action.empty()) return std::nullopt;
  const bool changed = output.commit && !output.changes.empty();
  if (!changed && (output.status.ok() || !may_record_refusal(now))) return std::nullopt;
  auto record = begin(request, now);
  record.set_outcome(outcome_of(output.status));
  for (const auto& change : output.changes) {
    auto& added = *record.add_changes();
    added.set_subject(change.subject);
    added.set_before(change.before);
    added.set_after(change.after);
  }
  if (output.commit) *record.mutable_revision() = make_generation(output.epoch, output.commit->revision);
  return finish(std::move(record));
}

std::optional<std::string> AuditTrail::entry_for_denial(const Request& request, const std::string& reason,
                                                        SystemTime now) {
  if (!may_record_refusal(now)) return std::nullopt;
  auto record = begin(request, now);
  record.set_outcome(absl::StrCat("PERMISSION_DENIED: ", reason));
  return finish(std::move(record));
}

bool AuditTrail::may_record_refusal(SystemTime now) {
  if (now - second_ >= std::chrono::seconds(1)) {
    second_ = now;
    refusals_ = 0;
  }
  if (refusals_ < kRefusalsPerSecond) {
    ++refusals_;
    return true;
  }
  ++suppressed_;
  return false;
}

std::string AuditTrail::finish(v1::AuditRecord record) {
  record.set_suppressed(std::exchange(suppressed_, 0));
  return record.SerializeAsString();
}

}  // namespace kedge::lm
