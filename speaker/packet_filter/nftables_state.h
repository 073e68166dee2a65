// Counters, rules and sets of nftables, asked of the kernel itself: libnftables reads every element of every set before
// it answers, 0.2 s with 10,000 of them.
//
// Threading: one thread at a time for each socket.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "speaker/kernel/netlink_socket.h"

namespace kedge::speaker {

// Packets that a named counter of a table of family inet has seen. NotFound: no such counter. `socket` is of
// NETLINK_NETFILTER.
absl::StatusOr<std::uint64_t> read_packet_counter(NetlinkSocket& socket, const std::string& table,
                                                  const std::string& name);

// How many rules the table has; 0 when there is no such table.
absl::StatusOr<std::size_t> count_rules(NetlinkSocket& socket, const std::string& table);

// A message to nftables about one element of a set of a table of family inet. `type` is one of NFT_MSG_*SETELEM. The
// comment is cut at 127 bytes; none when it is empty.
Message element_message(int type, std::uint16_t flags, std::string_view table, std::string_view set, Bytes key,
                        std::string_view comment = {});

struct SetElement {
  std::vector<std::uint8_t> key;
  // nft's `comment`.
  std::string comment;
  // Until its timeout, if it has one.
  std::optional<std::chrono::milliseconds> expires;
};

// All elements of a set of a table of family inet, by key. NotFound: no such set. Unavailable: it never stops changing
// its size. 10,000 elements take about 20 ms: while a set grows or shrinks, the kernel leaves out some and does not say
// so, so that it is read until a reading has all that the one before had.
absl::StatusOr<std::vector<SetElement>> read_set(NetlinkSocket& socket, const std::string& table,
                                                 const std::string& set);

// The one element with the key; `visit` is not called when the set has none, or there is no set.
absl::Status read_element(NetlinkSocket& socket, const std::string& table, const std::string& set, Bytes key,
                          const std::function<void(const SetElement&)>& visit);

// The elements in one answer of the kernel. Pure.
void for_each_set_element(Bytes answer, const std::function<void(const SetElement&)>& visit);

}  // namespace kedge::speaker
