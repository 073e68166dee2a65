#include "kedgectl/report.h"

#include "kedgectl/failure.h"

namespace kedge::kedgectl {

ExitCode write_out(const Terminal& terminal, const std::string& text) {
  terminal.out << text << std::flush;
  if (terminal.out) return ExitCode::kOk;
  tell(terminal.err, "cannot write to standard output");
  return ExitCode::kFailed;
}

ExitCode print(const Terminal& terminal, const google::protobuf::Message& message, JsonStyle style,
               const std::function<std::string()>& table) {
  if (terminal.options.format == OutputFormat::kTable) return write_out(terminal, table());
  const auto json = render_json(message, style);
  if (json.ok()) return write_out(terminal, *json);
  tell(terminal.err, std::string(json.status().message()));
  return ExitCode::kFailed;
}

void tell(std::ostream& err, const std::string& text) { err << "kedgectl: " << text << std::endl; }

ExitCode fail(const Terminal& terminal, const absl::Status& status) {
  tell(terminal.err, std::string(status.message()));
  return absl::IsNotFound(status) ? ExitCode::kNotFound : ExitCode::kFailed;
}

ExitCode fail(const Session& session, const grpc::Status& status) {
  const Failure failure = explain(status, session.options.server);
  tell(session.err, failure.text);
  return failure.code;
}

}  // namespace kedge::kedgectl
