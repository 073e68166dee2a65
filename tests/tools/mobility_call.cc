// Calls a method of the LM's Mobility service with what an access router's certificate allows, and with nothing that a
// speaker would look at first: what somebody can do who has stolen one.
//
//   mobility_call --server ADDRESS --tls FOLDER Attach|Detach|Query|Describe REQUEST
//
// REQUEST and the answer on standard output are JSON. Exit codes: 0 answered, 1 refused (`CODE: text` on standard
// error), 2 wrong arguments.
#include <CLI/CLI.hpp>
#include <chrono>
#include <cstdio>
#include <string>

#include "absl/status/status.h"
#include "common/credentials.h"
#include "google/protobuf/util/json_util.h"
#include "grpcpp/client_context.h"
#include "kedge/v1/mobility.grpc.pb.h"

namespace kedge::tools {
namespace {

constexpr auto kTimeout = std::chrono::seconds(10);
constexpr int kAnswered = 0;
constexpr int kRefused = 1;
constexpr int kWrongArguments = 2;

int wrong(const std::string& text) {
  std::fprintf(stderr, "mobility_call: %s\n", text.c_str());
  return kWrongArguments;
}

template <typename Request, typename Response>
int call(grpc::Status (v1::Mobility::Stub::*method)(grpc::ClientContext*, const Request&, Response*),
         v1::Mobility::Stub& stub, const std::string& json) {
  Request request;
  if (auto s = google::protobuf::util::JsonStringToMessage(json, &request); !s.ok()) {
    return wrong("the request: " + std::string(s.message()));
  }
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + kTimeout);
  Response response;
  if (auto s = (stub.*method)(&context, request, &response); !s.ok()) {
    std::fprintf(stderr, "%s: %s\n", absl::StatusCodeToString(static_cast<absl::StatusCode>(s.error_code())).c_str(),
                 s.error_message().c_str());
    return kRefused;
  }
  std::string text;
  if (!google::protobuf::util::MessageToJsonString(response, &text).ok()) return wrong("the answer is no JSON");
  std::printf("%s\n", text.c_str());
  return kAnswered;
}

int run(const std::string& server, const std::string& tls, const std::string& method, const std::string& request) {
  v1::TlsConfig files;
  files.set_ca(tls + "/ca.pem");
  files.set_certificate(tls + "/certificate.pem");
  files.set_key(tls + "/key.pem");
  const auto channel = make_channel(server, make_transport_security(false, files));
  if (!channel.ok()) return wrong(std::string(channel.status().message()));
  const auto stub = v1::Mobility::NewStub(*channel);
  if (method == "Attach") return call(&v1::Mobility::Stub::Attach, *stub, request);
  if (method == "Detach") return call(&v1::Mobility::Stub::Detach, *stub, request);
  if (method == "Query") return call(&v1::Mobility::Stub::Query, *stub, request);
  if (method == "Describe") return call(&v1::Mobility::Stub::Describe, *stub, request);
  return wrong("no such method: " + method);
}

}  // namespace
}  // namespace kedge::tools

int main(int argc, char** argv) {
  CLI::App app{"Calls a method of the LM's Mobility service."};
  std::string server, tls, method, request;
  app.add_option("--server", server, "[ADDRESS]:PORT")->required();
  app.add_option("--tls", tls, "Folder with ca.pem, certificate.pem and key.pem")->required();
  app.add_option("method", method)->required();
  app.add_option("request", request, "JSON")->required();
  CLI11_PARSE(app, argc, argv);
  return kedge::tools::run(server, tls, method, request);
}
