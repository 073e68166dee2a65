#include "common/privileges.h"

#include <sys/capability.h>
#include <sys/stat.h>

#include <algorithm>
#include <bit>
#include <cctype>
#include <cerrno>
#include <filesystem>
#include <fstream>
#include <memory>
#include <sstream>
#include <type_traits>

#include "absl/strings/str_cat.h"
#include "common/log.h"

namespace kedge {
namespace {

std::string read_all(const std::string& path) {
  std::ifstream file(path);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

ino_t network_of(const std::string& process) {
  struct stat status {};
  return stat(("/proc/" + process + "/ns/net").c_str(), &status) == 0 ? status.st_ino : 0;
}

}  // namespace

absl::StatusOr<Privileges> parse_privileges(const std::string& status) {
  Privileges privileges;
  bool user = false;
  bool capabilities = false;
  std::istringstream lines(status);
  for (std::string line; std::getline(lines, line);) {
    std::istringstream fields(line);
    std::string key;
    fields >> key;
    // Real, effective, saved, of the file system.
    if (uid_t real = 0; key == "Uid:") user = static_cast<bool>(fields >> real >> privileges.user);
    if (gid_t real = 0, effective = 0; key == "Gid:" && fields >> real >> effective)
      privileges.groups.insert(effective);
    for (gid_t group = 0; key == "Groups:" && fields >> group;) privileges.groups.insert(group);
    if (key == "CapEff:") capabilities = static_cast<bool>(fields >> std::hex >> privileges.capabilities);
  }
  if (!user || !capabilities) return absl::InvalidArgumentError("no user and capabilities of a process");
  return privileges;
}

absl::StatusOr<Privileges> privileges_of(const std::string& process) {
  const std::string text = read_all("/proc/" + process + "/status");
  if (text.empty()) return absl::NotFoundError("no process " + process);
  return parse_privileges(text);
}

std::string excess(const Privileges& privileges, std::initializer_list<int> needed) {
  std::uint64_t more = privileges.capabilities;
  for (const int capability : needed) more &= ~(std::uint64_t{1} << capability);
  std::string text = privileges.user == 0 ? "user root" : "";
  if (more != 0) {
    absl::StrAppend(&text, text.empty() ? "" : ", ", std::popcount(more), " capabilities more than needed");
  }
  return text;
}

void warn_of_excess(std::initializer_list<int> needed) {
  const auto own = privileges_of("self");
  const std::string text = own.ok() ? excess(*own, needed) : std::string();
  if (text.empty()) return;
  log_warning("more_privileges_than_needed", "has", text, "do", "run it as user kedge, as its systemd unit does");
}

absl::Status drop_capabilities(std::initializer_list<int> capabilities) {
  const std::unique_ptr<std::remove_pointer_t<cap_t>, int (*)(void*)> state(cap_get_proc(), &cap_free);
  const std::vector<cap_value_t> values(capabilities);
  const int count = static_cast<int>(values.size());
  for (const auto set : {CAP_EFFECTIVE, CAP_PERMITTED, CAP_INHERITABLE}) {
    if (state == nullptr || cap_set_flag(state.get(), set, count, values.data(), CAP_CLEAR) != 0) {
      return absl::ErrnoToStatus(errno, "cannot give up capabilities");
    }
  }
  if (cap_set_proc(state.get()) != 0) return absl::ErrnoToStatus(errno, "cannot give up capabilities");
  return absl::OkStatus();
}

std::vector<std::string> processes_named(const std::string& name) {
  std::vector<std::string> found;
  const auto own = network_of("self");
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator("/proc", error)) {
    const std::string process = entry.path().filename();
    if (!std::all_of(process.begin(), process.end(), [](unsigned char c) { return std::isdigit(c) != 0; })) continue;
    // The kernel keeps 15 characters of a name.
    if (read_all("/proc/" + process + "/comm") != name.substr(0, 15) + "\n") continue;
    const auto network = network_of(process);
    if (network == 0 || network == own) found.push_back(process);
  }
  return found;
}

}  // namespace kedge
