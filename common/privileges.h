// What a process may do: its user and capabilities (capabilities(7)), its own or of another by its id.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <initializer_list>
#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace kedge {

struct Privileges {
  uid_t user = 0;
  // Effective capabilities, bit n is capability n.
  std::uint64_t capabilities = 0;
  // Its groups, the effective one included.
  std::set<gid_t> groups;
};

// `process`: an id, or "self". NotFound: there is no such process.
absl::StatusOr<Privileges> privileges_of(const std::string& process);
// From the text of /proc/<pid>/status. InvalidArgument. Pure.
absl::StatusOr<Privileges> parse_privileges(const std::string& status);

// "user root, 39 capabilities more than needed"; empty: neither is too much. `needed` are numbers of capabilities.
// Pure.
std::string excess(const Privileges& privileges, std::initializer_list<int> needed);

// Logs a warning when this process may do more than it needs.
void warn_of_excess(std::initializer_list<int> needed);

// Gives up capabilities for good, in the calling thread and those that it starts from now on. Errors of capset(2).
absl::Status drop_capabilities(std::initializer_list<int> capabilities);

// Ids of the processes with this name in the network namespace of this one.
std::vector<std::string> processes_named(const std::string& name);

}  // namespace kedge
