// The audit trail: one record for each command that has changed anything, and for each refusal (RFC 8818, 5: every
// command and update is authorized; here is who asked for what). A record of a change is written in the change's own
// commit, so that neither is there without the other.
//
// Threading: the engine's thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "common/time.h"
#include "kedge/v1/admin.pb.h"
#include "lm-server/core/machine.h"

namespace kedge::lm {

// Who asks for what. Empty `action`: nothing to be recorded (an acknowledgement, a session).
struct Request {
  std::string who;
  // Of the certificate.
  std::string serial;
  // Address and port.
  std::string peer;
  // "kedge.v1.Admin.SetPolicy"
  std::string action;
  // What was asked for, for people.
  std::string text;
};

// What the LM does because it is due.
Request due_by_time();

class AuditTrail {
 public:
  // Refusals that are recorded in a second; a flood of them must not fill the disk. The rest is counted.
  static constexpr int kRefusalsPerSecond = 20;

  // The journal's entry for the command that `output` is of; absent when there is nothing to tell.
  std::optional<std::string> entry_for(const Request& request, const Output& output, SystemTime now);
  // Of a call that was not let in.
  std::optional<std::string> entry_for_denial(const Request& request, const std::string& reason, SystemTime now);

 private:
  bool may_record_refusal(SystemTime now);
  std::string finish(v1::AuditRecord record);

  SystemTime second_{};
  int refusals_ = 0;
  std::uint64_t suppressed_ = 0;
};

}  // namespace kedge::lm
