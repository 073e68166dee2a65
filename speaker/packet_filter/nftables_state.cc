#include "speaker/packet_filter/nftables_state.h"

#include <arpa/inet.h>
#include <endian.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>

#include "absl/strings/str_cat.h"

namespace kedge::speaker {
namespace {

Message request(int type) {
  Message message(static_cast<std::uint16_t>(NFNL_SUBSYS_NFTABLES << 8 | type), 0);
  auto& header = message.put_header<nfgenmsg>();
  header.nfgen_family = NFPROTO_INET;
  header.version = NFNETLINK_V0;
  return message;
}

std::optional<Bytes> attributes_of(Bytes answer) {
  const auto payload = message_payload(answer);
  if (!payload || payload->size() < sizeof(nfgenmsg)) return std::nullopt;
  return payload->subspan(NLMSG_ALIGN(sizeof(nfgenmsg)));
}

}  // namespace

absl::StatusOr<std::uint64_t> read_packet_counter(NetlinkSocket& socket, const std::string& table,
                                                  const std::string& name) {
  auto message = request(NFT_MSG_GETOBJ);
  message.put_text(NFTA_OBJ_TABLE, table);
  message.put_text(NFTA_OBJ_NAME, name);
  message.put_u32(NFTA_OBJ_TYPE, htonl(NFT_OBJECT_COUNTER));
  std::uint64_t packets = 0;
  const auto acknowledgement = socket.get(message, [&](Bytes answer) {
    const auto attributes = attributes_of(answer);
    if (!attributes) return;
    for_each_attribute(*attributes, [&](std::uint16_t type, Bytes value) {
      if (type != NFTA_OBJ_DATA) return;
      for_each_attribute(value, [&](std::uint16_t inner, Bytes number) {
        if (inner == NFTA_COUNTER_PACKETS) packets = be64toh(read_structure<std::uint64_t>(number).value_or(0));
      });
    });
  });
  if (acknowledgement.error == ENOENT) {
    return absl::NotFoundError(absl::StrCat("nftables: table inet ", table, " has no counter ", name));
  }
  if (!acknowledgement.ok()) return kernel_status(acknowledgement, absl::StrCat("read the counter ", name));
  return packets;
}

absl::StatusOr<std::size_t> count_rules(NetlinkSocket& socket, const std::string& table) {
  auto message = request(NFT_MSG_GETRULE);
  message.put_text(NFTA_RULE_TABLE, table);
  std::size_t rules = 0;
  const auto acknowledgement = socket.dump(message, [&](Bytes answer) {
    const auto attributes = attributes_of(answer);
    if (!attributes) return;
    for_each_attribute(*attributes, [&](std::uint16_t type, Bytes value) {
      // Older kernels do not filter.
      if (type == NFTA_RULE_TABLE && read_text(value) == table) ++rules;
    });
  });
  if (!acknowledgement.ok() && acknowledgement.error != ENOENT) {
    return kernel_status(acknowledgement, absl::StrCat("list the rules of table inet ", table));
  }
  return rules;
}

}  // namespace kedge::speaker
