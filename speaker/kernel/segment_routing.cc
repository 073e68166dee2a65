#include "speaker/kernel/segment_routing.h"

#include <linux/genetlink.h>
#include <linux/seg6_genl.h>

#include "absl/strings/str_cat.h"
#include "speaker/kernel/netlink_socket.h"

namespace kedge::speaker {
namespace {

// Number of the generic netlink family.
absl::StatusOr<std::uint16_t> find_family(NetlinkSocket& socket) {
  Message lookup(GENL_ID_CTRL, 0);
  auto& lookup_header = lookup.put_header<genlmsghdr>();
  lookup_header.cmd = CTRL_CMD_GETFAMILY;
  lookup_header.version = 1;
  lookup.put_text(CTRL_ATTR_FAMILY_NAME, SEG6_GENL_NAME);
  std::uint16_t family = 0;
  const auto found = socket.get(lookup, [&](Bytes answer) {
    const auto payload = message_payload(answer);
    if (!payload || payload->size() < sizeof(genlmsghdr)) return;
    for_each_attribute(payload->subspan(sizeof(genlmsghdr)), [&](std::uint16_t type, Bytes value) {
      if (type == CTRL_ATTR_FAMILY_ID) family = read_structure<std::uint16_t>(value).value_or(0);
    });
  });
  if (family == 0) {
    return absl::UnimplementedError(absl::StrCat("cannot find the kernel's SEG6 netlink family (errno ", found.error,
                                                 "): needs CONFIG_IPV6_SEG6_LWTUNNEL"));
  }
  return family;
}

}  // namespace

absl::Status check_segment_routing() {
  auto socket = NetlinkSocket::open(NETLINK_GENERIC);
  return socket.ok() ? find_family(*socket).status() : socket.status();
}

absl::Status set_tunnel_source(const Ipv6Address& source) {
  auto socket = NetlinkSocket::open(NETLINK_GENERIC);
  if (!socket.ok()) return socket.status();
  const auto family = find_family(*socket);
  if (!family.ok()) return family.status();

  Message message(*family, 0);
  auto& header = message.put_header<genlmsghdr>();
  header.cmd = SEG6_CMD_SET_TUNSRC;
  header.version = SEG6_GENL_VERSION;
  message.put_address(SEG6_ATTR_DST, source);
  return kernel_status(socket->request(message), absl::StrCat("set the tunnel source to ", source.to_string()));
}

}  // namespace kedge::speaker
