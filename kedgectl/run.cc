#include "kedgectl/run.h"

#include "common/credentials.h"
#include "common/log.h"
#include "fmt/format.h"
#include "kedgectl/backup.h"
#include "kedgectl/command_line.h"
#include "kedgectl/commands.h"
#include "kedgectl/pki/commands.h"
#include "kedgectl/report.h"
#include "kedgectl/watch.h"

namespace kedge::kedgectl {
namespace {

struct Runner {
  Session session;

  ExitCode operator()(const StatusCommand&) const { return run_status(session); }
  ExitCode operator()(const NodesCommand&) const { return run_nodes(session); }
  ExitCode operator()(const BindingsCommand& command) const { return run_bindings(session, command); }
  ExitCode operator()(const BindingCommand& command) const { return run_binding(session, command); }
  ExitCode operator()(const WatchCommand& command) const { return run_watch(session, command); }
  ExitCode operator()(const PolicyListCommand&) const { return run_policy_list(session); }
  ExitCode operator()(const PolicyShowCommand& command) const { return run_policy_show(session, command); }
  ExitCode operator()(const PolicySetCommand& command) const { return run_policy_set(session, command); }
  ExitCode operator()(const PolicyDeleteCommand& command) const { return run_policy_delete(session, command); }
  ExitCode operator()(const DrainCommand& command) const { return run_drain(session, command); }
  ExitCode operator()(const DetachCommand& command) const { return run_detach(session, command); }
  ExitCode operator()(const AuditCommand& command) const { return run_audit(session, command); }
  ExitCode operator()(const PkiCommand& command) const { return run_pki(session, command); }
  ExitCode operator()(const FrrConfigCommand& command) const { return run_frr_config(session, command); }
  ExitCode operator()(const IpsecConfigCommand& command) const { return run_ipsec_config(session, command); }
  ExitCode operator()(const StationCommand& command) const { return run_station(session, command); }
  ExitCode operator()(const DoctorCommand& command) const { return run_doctor(session, command); }
  ExitCode operator()(const BackupCommand& command) const { return run_backup(session, command); }
};

}  // namespace

ExitCode run(std::vector<std::string> arguments, std::ostream& out, std::ostream& err, std::stop_token stop) {
  const auto parsed = parse_command_line(std::move(arguments));
  if (const auto* message = std::get_if<Message>(&parsed)) {
    (message->code == ExitCode::kOk ? out : err) << message->text << std::flush;
    return message->code;
  }
  const auto& line = std::get<CommandLine>(parsed);
  const auto& options = line.global;
  const Terminal terminal{options, out, err};
  // Warnings with each command would only hide the real messages.
  set_log_level(options.verbose ? LogLevel::kDebug : LogLevel::kError);
  if (const auto* pki = std::get_if<PkiCommand>(&line.command)) return run_pki(terminal, *pki);
  if (const auto* frr = std::get_if<FrrConfigCommand>(&line.command)) return run_frr_config(terminal, *frr);
  if (const auto* station = std::get_if<StationCommand>(&line.command)) return run_station(terminal, *station);
  if (const auto* ipsec = std::get_if<IpsecConfigCommand>(&line.command)) return run_ipsec_config(terminal, *ipsec);
  if (const auto* doctor = std::get_if<DoctorCommand>(&line.command)) return run_doctor(terminal, *doctor);

  const auto channel = make_channel(options.server, {options.insecure_plaintext,
                                                     {options.tls + "/ca.pem", options.tls + "/certificate.pem",
                                                      options.tls + "/key.pem", std::string()}});
  if (!channel.ok()) {
    tell(err,
         fmt::format("{}\nname a folder of your own with --tls or KEDGECTL_TLS; or pass --insecure-plaintext, if the "
                     "server does without TLS",
                     std::string(channel.status().message())));
    return ExitCode::kUsage;
  }
  const auto admin = v1::Admin::NewStub(*channel);
  return std::visit(Runner{Session(*admin, terminal, std::move(stop))}, line.command);
}

}  // namespace kedge::kedgectl
