// `kedgectl doctor`: what is wrong on this host, with its speaker, its LM, or both. Each daemon's program looks at its
// own part (`kedge-speaker --doctor`, `kedge-lm --doctor`); this runs them and shows what they found.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "kedge/v1/doctor.pb.h"
#include "kedgectl/exit_code.h"

namespace kedge::kedgectl {

struct Terminal;

struct DoctorCommand {
  // A program whose configuration is not there is not of this host, unless the file was named.
  std::string speaker_config = "/etc/kedge/speaker.yaml";
  bool speaker_named = false;
  std::string lm_config = "/etc/kedge/lm.yaml";
  bool lm_named = false;
};

// kFailed: there is a problem.
ExitCode run_doctor(const Terminal& terminal, const DoctorCommand& command);

// A table: one line a finding. Pure.
std::string render_findings(const v1::DoctorReport& report);

// What a program printed, JSON of a DoctorReport. InvalidArgument. Pure.
absl::StatusOr<v1::DoctorReport> parse_report(const std::string& json);

}  // namespace kedge::kedgectl
