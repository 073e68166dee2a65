#include "kedgectl/station.h"

#include <chrono>

#include "common/time.h"
#include "fmt/format.h"
#include "grpcpp/create_channel.h"
#include "kedge/v1/authenticator.grpc.pb.h"
#include "kedgectl/duration.h"
#include "kedgectl/report.h"
#include "kedgectl/table.h"

namespace kedge::kedgectl {
namespace {

std::string render(const v1::ListStationsResponse& response) {
  Table table({{"INTERFACE"}, {"LINK-LAYER ADDRESS"}, {"IDENTITY"}, {"FOR"}});
  for (const auto& station : response.stations()) {
    const auto left = std::chrono::duration_cast<std::chrono::seconds>(from_proto(station.valid_for()));
    table.add({station.interface(), station.link_layer_address(), station.identity(),
               station.has_valid_for() ? duration_text(to_proto(left)) : ""});
  }
  return table.to_string();
}

ExitCode refused(const Terminal& terminal, const StationCommand& command, const grpc::Status& status) {
  if (status.error_code() == grpc::StatusCode::UNAVAILABLE) {
    tell(terminal.err,
         fmt::format("no speaker listens at {}\nSet access.authenticator_socket in its configuration; another path is "
                     "set by --socket or KEDGECTL_AUTHENTICATOR.",
                     command.socket));
    return ExitCode::kUnreachable;
  }
  tell(terminal.err, printable(status.error_message()));
  return status.error_code() == grpc::StatusCode::NOT_FOUND ? ExitCode::kNotFound : ExitCode::kFailed;
}

}  // namespace

ExitCode run_station(const Terminal& terminal, const StationCommand& command) {
  // The socket's mode says who may open it.
  const auto stub = v1::Authenticator::NewStub(
      grpc::CreateChannel(fmt::format("unix:{}", command.socket), grpc::InsecureChannelCredentials()));
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + terminal.options.timeout);
  grpc::Status status;
  v1::ListStationsResponse stations;
  if (command.action == StationCommand::Action::kAuthorize) {
    v1::AuthorizeRequest request;
    request.set_interface(command.interface);
    request.set_link_layer_address(command.link_layer_address);
    request.set_identity(command.identity);
    if (command.valid_for) *request.mutable_valid_for() = *command.valid_for;
    v1::AuthorizeResponse response;
    status = stub->Authorize(&context, request, &response);
  } else if (command.action == StationCommand::Action::kRevoke) {
    v1::RevokeRequest request;
    request.set_interface(command.interface);
    request.set_link_layer_address(command.link_layer_address);
    v1::RevokeResponse response;
    status = stub->Revoke(&context, request, &response);
  } else {
    status = stub->ListStations(&context, {}, &stations);
  }
  if (!status.ok()) return refused(terminal, command, status);
  if (command.action != StationCommand::Action::kList) return ExitCode::kOk;
  return print(terminal, stations, JsonStyle::kIndented, [&] { return render(stations); });
}

}  // namespace kedge::kedgectl
