// Findings of `--doctor`, and the checks that all daemons share.
#pragma once

#include <initializer_list>
#include <string>

#include "common/certificate.h"
#include "common/credentials.h"
#include "kedge/v1/doctor.pb.h"

namespace kedge {

// Collects the findings of one program. Threading: one thread.
class Doctor {
 public:
  // "kedge-speaker"
  explicit Doctor(std::string part) : part_(std::move(part)) {}

  void ok(const std::string& check, const std::string& text) { add(v1::Finding::RESULT_OK, check, text, {}); }
  void warning(const std::string& check, const std::string& text, const std::string& remedy) {
    add(v1::Finding::RESULT_WARNING, check, text, remedy);
  }
  void problem(const std::string& check, const std::string& text, const std::string& remedy) {
    add(v1::Finding::RESULT_PROBLEM, check, text, remedy);
  }

  // The files, their modes, the validity, and whose the certificate is; `name` empty: any.
  void check_certificate(const TransportSecurity& security, Role role, const std::string& name);
  // Whether the daemon runs, and with no more than it needs.
  void check_process(std::initializer_list<int> needed_capabilities);
  // Whether "[address]:port" of the exposition is for this host only; empty: off.
  void check_metrics(const std::string& listen);

  const v1::DoctorReport& report() const { return report_; }
  // The report in Protobuf's JSON form, for kedgectl doctor.
  std::string to_json() const;

 private:
  void add(v1::Finding::Result result, const std::string& check, const std::string& text, const std::string& remedy);

  const std::string part_;
  v1::DoctorReport report_;
};

}  // namespace kedge
