#include "speaker/kernel/sysctl.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "speaker/kernel/netlink_socket.h"

namespace kedge::speaker {

absl::Status set_sysctl(const std::string& key, const std::string& value) {
  const std::string path = absl::StrCat("/proc/sys/", key);
  const auto failed = [&] {
    auto status = kernel_status(errno, absl::StrCat("set ", path, " to ", value));
    return absl::Status(status.code(), absl::StrCat(std::string(status.message()),
                                                    "; set it before the speaker starts if /proc/sys is read-only"));
  };
  const int reader = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (reader < 0) return failed();
  char buffer[64];
  const auto n = ::read(reader, buffer, sizeof buffer);
  ::close(reader);
  if (n > 0 && absl::StripAsciiWhitespace(std::string(buffer, static_cast<std::size_t>(n))) == value) {
    return absl::OkStatus();
  }

  const int writer = ::open(path.c_str(), O_WRONLY | O_CLOEXEC);
  if (writer < 0) return failed();
  const bool written = ::write(writer, value.data(), value.size()) == static_cast<ssize_t>(value.size());
  const auto status = written ? absl::OkStatus() : failed();
  ::close(writer);
  return status;
}

absl::Status set_interface_sysctl(const std::string& interface, const std::string& key, const std::string& value) {
  return set_sysctl(absl::StrCat("net/ipv6/conf/", interface, "/", key), value);
}

}  // namespace kedge::speaker
