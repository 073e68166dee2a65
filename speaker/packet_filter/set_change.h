// Elements that go into sets of nftables and out of them, as one transaction by netlink. libnftables would do it too,
// but reads tables, chains and sets of everybody first whenever anything has changed since it last did: some
// milliseconds, while a mobile node waits.
//
// Standards: the kernel's linux/netfilter/nf_tables.h.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "speaker/kernel/netlink_socket.h"

namespace kedge::speaker {

class SetChange {
 public:
  // Of a table of family inet.
  explicit SetChange(std::string table) : table_(std::move(table)) {}

  // `key`: as in the kernel's registers, each part of a concatenation padded to four bytes; at most 64 bytes. One that
  // is there already stays as it is. `comment`: at most 127 bytes.
  void add(std::string_view set, Bytes key, std::string_view comment = {});
  // One that is not there makes the whole change fail.
  void remove(std::string_view set, Bytes key);
  bool empty() const { return messages_.empty(); }

  // All in the order in which they were given, or on error none. NotFound: no such table, set or element.
  // PermissionDenied without CAP_NET_ADMIN. `socket` is of NETLINK_NETFILTER.
  absl::Status commit(NetlinkSocket& socket);

 private:
  std::string table_;
  std::vector<Message> messages_;
};

}  // namespace kedge::speaker
