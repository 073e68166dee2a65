#include "lm-server/service/audit_reactor.h"

#include <algorithm>
#include <utility>

#include "common/time.h"

namespace kedge::lm {
namespace {
// `last` is kept in memory.
constexpr std::uint32_t kMostLast = 10'000;
}  // namespace

bool matches(const v1::AuditRequest& request, const v1::AuditRecord& record) {
  const auto has = [](const std::string& text, const std::string& part) {
    return text.find(part) != std::string::npos;
  };
  if (!has(record.who(), request.who()) || !has(record.action(), request.action())) return false;
  if (request.refused() && record.outcome() == "ok") return false;
  if (request.has_since() && from_proto(record.at()) < from_proto(request.since())) return false;
  if (request.has_until() && from_proto(record.at()) > from_proto(request.until())) return false;
  if (request.subject().empty() || has(record.request(), request.subject())) return true;
  return std::any_of(record.changes().begin(), record.changes().end(), [&](const v1::AuditChange& change) {
    return has(change.subject(), request.subject()) || has(change.before(), request.subject()) ||
           has(change.after(), request.subject());
  });
}

AuditReactor::AuditReactor(StalledReaders& readers, const Caller& caller, grpc::CallbackServerContext* context,
                           std::unique_ptr<JournalCursor> journal, v1::AuditRequest request)
    : WriteStream(readers, "kedge.v1.Admin.Audit", caller, context),
      journal_(std::move(journal)),
      request_(std::move(request)) {
  begin();
}

void AuditReactor::begin() {
  if (request_.last() > kMostLast) return finish(absl::InvalidArgumentError("last: at most 10000"));
  if (request_.last() > 0) {
    if (const auto status = collect_last(); !status.ok()) return finish(status);
  }
  send_next();
}

void AuditReactor::on_written(bool ok) {
  if (!ok) return finish(absl::CancelledError("whoever asked for the audit trail has gone"));
  send_next();
}

void AuditReactor::send_next() {
  if (request_.last() > 0) {
    if (last_.empty()) return finish(absl::OkStatus());
    out_ = std::move(last_.front());
    last_.pop_front();
    write(&out_);
    return;
  }
  const auto more = find_next(&out_);
  if (!more.ok()) return finish(more.status());
  if (!*more) return finish(absl::OkStatus());
  write(&out_);
}

absl::StatusOr<bool> AuditReactor::find_next(v1::AuditRecord* record) {
  std::uint64_t id = 0;
  std::string entry;
  while (true) {
    const auto more = journal_->next(&id, &entry);
    if (!more.ok() || !*more) return more;
    if (!record->ParseFromString(entry)) return absl::DataLossError("the journal is damaged; restore a backup");
    record->set_id(id);
    if (matches(request_, *record)) return true;
  }
}

absl::Status AuditReactor::collect_last() {
  while (true) {
    v1::AuditRecord record;
    const auto more = find_next(&record);
    if (!more.ok()) return more.status();
    if (!*more) return absl::OkStatus();
    last_.push_back(std::move(record));
    if (last_.size() > request_.last()) last_.pop_front();
  }
}

}  // namespace kedge::lm
