#include "speaker/kernel/netlink_listeners.h"

#include <fcntl.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <sstream>
#include <string>

namespace kedge::speaker {
namespace {

// FRR, zebra/kernel_netlink.c: kernel_init().
constexpr std::uint32_t kZebraGroups = RTMGRP_LINK | RTMGRP_IPV4_ROUTE | RTMGRP_IPV6_ROUTE | RTMGRP_IPV4_MROUTE;

}  // namespace

std::optional<ZebraListener> find_zebra(std::string_view table) {
  std::optional<ZebraListener> found;
  std::istringstream lines{std::string(table)};
  for (std::string line; std::getline(lines, line);) {
    // sk Eth Pid Groups Rmem Wmem Dump Locks Drops Inode
    std::istringstream words(line);
    std::string skipped;
    int bus = -1;
    std::uint32_t groups = 0;
    ZebraListener one;
    words >> skipped >> bus >> skipped >> std::hex >> groups >> std::dec >> one.queued;
    words >> skipped >> skipped >> skipped >> one.drops >> one.inode;
    if (!words || bus != NETLINK_ROUTE || (groups & kZebraGroups) != kZebraGroups) continue;
    if (!found) found.emplace();
    found->inode += one.inode;
    found->queued = std::max(found->queued, one.queued);
    found->drops += one.drops;
  }
  return found;
}

std::optional<ZebraListener> find_zebra() {
  const int fd = ::open("/proc/thread-self/net/netlink", O_RDONLY | O_CLOEXEC);
  if (fd < 0) return std::nullopt;
  std::string text;
  std::array<char, 16384> piece;
  for (ssize_t size = 0; (size = ::read(fd, piece.data(), piece.size())) > 0;) {
    text.append(piece.data(), static_cast<std::size_t>(size));
  }
  ::close(fd);
  return find_zebra(text);
}

}  // namespace kedge::speaker
