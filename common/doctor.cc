#include "common/doctor.h"

#include <unistd.h>

#include "absl/strings/str_cat.h"
#include "common/endpoint.h"
#include "common/privileges.h"
#include "common/time.h"
#include "fmt/format.h"
#include "google/protobuf/util/json_util.h"

namespace kedge {

void Doctor::add(v1::Finding::Result result, const std::string& check, const std::string& text,
                 const std::string& remedy) {
  auto& finding = *report_.add_findings();
  finding.set_result(result);
  finding.set_check(check);
  finding.set_text(text);
  finding.set_remedy(remedy);
  finding.set_part(part_);
}

void Doctor::check_certificate(const TransportSecurity& security, Role role, const std::string& name) {
  constexpr const char* kCheck = "certificate";
  if (security.insecure_plaintext) {
    return warning(kCheck, "insecure_plaintext: anyone on the path can read and forge",
                   "kedgectl pki issue, then take insecure_plaintext out of the configuration");
  }
  const auto certificate = check_tls_files(security.tls);
  if (!certificate.ok()) {
    return problem(kCheck, std::string(certificate.status().message()), "kedgectl pki issue or renew");
  }
  const std::string is = certificate->identity.uri();
  if (certificate->identity.role != role || (!name.empty() && certificate->identity.name != name)) {
    const std::string wanted = Identity{role, name.empty() ? "<name>" : name}.uri();
    return problem(kCheck, absl::StrCat(security.tls.certificate, " is of ", is, " and not of ", wanted),
                   fmt::format("kedgectl pki issue {}/{}", role_name(role), name.empty() ? "NAME" : name));
  }
  const auto now = now_system();
  const std::string until = to_text(certificate->not_after);
  if (certificate->not_before > now) {
    return problem(kCheck, absl::StrCat(is, " is valid from ", to_text(certificate->not_before), " on only"),
                   "set the clock, or issue a new one");
  }
  if (certificate->not_after <= now) {
    return problem(kCheck, absl::StrCat(is, " has ended at ", until), "kedgectl pki renew");
  }
  if (certificate->not_after - now < (certificate->not_after - certificate->not_before) / 10) {
    return warning(kCheck, absl::StrCat(is, " ends at ", until), "kedgectl pki renew");
  }
  ok(kCheck, absl::StrCat(is, ", until ", until));
}

void Doctor::check_process(std::initializer_list<int> needed_capabilities) {
  constexpr const char* kCheck = "process";
  const std::string own = std::to_string(getpid());
  std::string running;
  for (const auto& process : processes_named(part_)) {
    if (process != own) running = process;
  }
  if (running.empty())
    return problem(kCheck, absl::StrCat(part_, " does not run"), absl::StrCat("systemctl start ", part_));
  const auto privileges = privileges_of(running);
  if (!privileges.ok()) return warning(kCheck, std::string(privileges.status().message()), "look again");
  if (const auto more = excess(*privileges, needed_capabilities); !more.empty()) {
    return warning(kCheck, absl::StrCat("process ", running, ": ", more),
                   "run it as user kedge, as its systemd unit does");
  }
  ok(kCheck, absl::StrCat("process ", running, ", user ", privileges->user));
}

void Doctor::check_metrics(const std::string& listen) {
  if (listen.empty()) return ok("metrics", "off");
  const auto endpoint = parse_endpoint(listen);
  if (endpoint.ok() && endpoint->address().is_loopback()) return ok("metrics", absl::StrCat("at ", listen));
  warning("metrics", absl::StrCat(listen, " is open to other hosts, without TLS"),
          "listen on [::1], or in the management network only");
}

std::string Doctor::to_json() const {
  std::string text;
  google::protobuf::util::JsonPrintOptions options;
  options.preserve_proto_field_names = true;
  // Texts are UTF-8 by construction; what is not comes out as an error of the reader.
  if (!google::protobuf::util::MessageToJsonString(report_, &text, options).ok()) return "{}";
  return text;
}

}  // namespace kedge
