#include "speaker/access/link_monitor.h"

#include <linux/rtnetlink.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <optional>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/component/kernel/namespaces.h"

namespace kedge::speaker {
namespace {

using testing::eventually;
using testing::Namespace;

// Of the socket of this process that listens for link notices.
std::optional<sockaddr_nl> listening_port() {
  for (int fd = 0; fd < 1024; ++fd) {
    sockaddr_nl address{};
    socklen_t size = sizeof(address);
    if (getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size) != 0) continue;
    if (address.nl_family == AF_NETLINK && address.nl_groups == RTMGRP_LINK) return address;
  }
  return std::nullopt;
}

TEST(LinkMonitor, ListensToTheKernelOnly) {
  if (!testing::can_make_namespaces()) GTEST_SKIP() << "needs root: makes network namespaces";
  Namespace space("links");
  std::unique_ptr<LinkMonitor> monitor;
  std::vector<std::string> seen;
  space.run([&] {
    monitor = LinkMonitor::open(space.context().get_executor(), [&](const LinkState& link) {
                seen.push_back(link.name.empty() ? "nameless" : link.name);
              }).value();
  });
  const bool sent = space.run([&] {
    const auto port = listening_port();
    if (!port) return false;
    struct {
      nlmsghdr header;
      ifinfomsg info;
    } forged{};
    forged.header.nlmsg_len = sizeof(forged);
    forged.header.nlmsg_type = RTM_NEWLINK;
    forged.info.ifi_index = 4242;
    sockaddr_nl to{};
    to.nl_family = AF_NETLINK;
    to.nl_pid = port->nl_pid;
    const int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
    const auto size = sendto(fd, &forged, sizeof(forged), 0, reinterpret_cast<const sockaddr*>(&to), sizeof(to));
    close(fd);
    return size == sizeof(forged);
  });
  EXPECT_TRUE(sent);
  // Comes behind the forged one.
  space.shell("ip link add real0 type veth peer name real1");
  EXPECT_TRUE(eventually(
      [&] { return space.run([&] { return std::find(seen.begin(), seen.end(), "real0") != seen.end(); }); }));
  space.run([&] {
    EXPECT_THAT(seen, ::testing::Contains("lo"));
    EXPECT_THAT(seen, ::testing::Not(::testing::Contains("nameless")));
    monitor.reset();
  });
}

}  // namespace
}  // namespace kedge::speaker
