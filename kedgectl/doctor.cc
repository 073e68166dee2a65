#include "kedgectl/doctor.h"

#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <sstream>
#include <utility>
#include <vector>

#include "fmt/format.h"
#include "google/protobuf/util/json_util.h"
#include "kedgectl/format.h"
#include "kedgectl/report.h"
#include "kedgectl/table.h"

extern char** environ;

namespace kedge::kedgectl {
namespace {

// Where daemons are installed, which is not always on an operator's PATH.
constexpr const char* kSystemFolders = "/usr/local/sbin:/usr/sbin:/sbin";

// Empty: it is nowhere.
std::string find_program(const std::string& name) {
  const char* path = std::getenv("PATH");
  std::istringstream folders(fmt::format("{}:{}", path == nullptr ? "" : path, kSystemFolders));
  for (std::string folder; std::getline(folders, folder, ':');) {
    const std::string candidate = folder + "/" + name;
    if (!folder.empty() && ::access(candidate.c_str(), X_OK) == 0) return candidate;
  }
  return {};
}

// Standard output of a program that ended with 0. Internal.
absl::StatusOr<std::string> output_of(const std::vector<std::string>& command) {
  std::array<int, 2> ends{};
  if (::pipe2(ends.data(), O_CLOEXEC) != 0) return absl::InternalError(std::strerror(errno));
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
  std::vector<char*> arguments;
  for (const auto& word : command) arguments.push_back(const_cast<char*>(word.c_str()));
  arguments.push_back(nullptr);
  pid_t child = 0;
  const int error = ::posix_spawn(&child, arguments[0], &actions, nullptr, arguments.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  ::close(ends[1]);
  std::string output;
  std::array<char, 4096> buffer;
  for (ssize_t n = 0; error == 0 && (n = ::read(ends[0], buffer.data(), buffer.size())) > 0;) {
    output.append(buffer.data(), static_cast<std::size_t>(n));
  }
  ::close(ends[0]);
  if (error != 0) return absl::InternalError(std::strerror(error));
  int status = 0;
  ::waitpid(child, &status, 0);
  if (status != 0) return absl::InternalError(fmt::format("{} ended with status {}", command[0], WEXITSTATUS(status)));
  return output;
}

class Rounds {
 public:
  void problem(const std::string& part, const std::string& check, const std::string& text, const std::string& remedy) {
    auto& finding = *report_.add_findings();
    finding.set_result(v1::Finding::RESULT_PROBLEM);
    finding.set_part(part);
    finding.set_check(check);
    finding.set_text(text);
    finding.set_remedy(remedy);
  }

  void visit(const std::string& part, const std::string& configuration, bool named) {
    if (!named && !std::filesystem::exists(configuration)) return;
    const std::string program = find_program(part);
    if (program.empty()) {
      return problem(part, "program", fmt::format("{} is there, and {} is not on the PATH", configuration, part),
                     "install it");
    }
    const auto output = output_of({program, "--config", configuration, "--doctor"});
    const auto report = output.ok() ? parse_report(*output) : absl::StatusOr<v1::DoctorReport>(output.status());
    if (!report.ok()) return problem(part, "program", std::string(report.status().message()), "is it of this version?");
    report_.MergeFrom(*report);
  }

  const v1::DoctorReport& report() const { return report_; }

 private:
  v1::DoctorReport report_;
};

}  // namespace

absl::StatusOr<v1::DoctorReport> parse_report(const std::string& json) {
  v1::DoctorReport report;
  const auto status = google::protobuf::util::JsonStringToMessage(json, &report);
  if (!status.ok()) return absl::InvalidArgumentError("no findings: " + status.ToString());
  return report;
}

std::string render_findings(const v1::DoctorReport& report) {
  Table table({{"RESULT"}, {"PART"}, {"CHECK"}, {"FINDING"}, {"WHAT TO DO"}});
  for (const auto& finding : report.findings()) {
    table.add({short_name(finding.result()), finding.part(), finding.check(), finding.text(), finding.remedy()});
  }
  return table.to_string();
}

ExitCode run_doctor(const Terminal& terminal, const DoctorCommand& command) {
  Rounds rounds;
  rounds.visit("kedge-speaker", command.speaker_config, command.speaker_named);
  rounds.visit("kedge-lm", command.lm_config, command.lm_named);
  if (rounds.report().findings().empty()) {
    rounds.problem(
        "kedgectl", "configuration",
        fmt::format("neither {} nor {} is there", command.speaker_config, command.lm_config),
        "run it on an access router or the LM's host, or name the file with --speaker-config or --lm-config");
  }
  const auto& findings = rounds.report().findings();
  const auto code =
      print(terminal, rounds.report(), JsonStyle::kIndented, [&] { return render_findings(rounds.report()); });
  if (code != ExitCode::kOk) return code;
  const bool problem = std::any_of(findings.begin(), findings.end(),
                                   [](const auto& f) { return f.result() == v1::Finding::RESULT_PROBLEM; });
  return problem ? ExitCode::kFailed : ExitCode::kOk;
}

}  // namespace kedge::kedgectl
