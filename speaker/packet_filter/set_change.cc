#include "speaker/packet_filter/set_change.h"

#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>

#include "absl/strings/str_cat.h"
#include "speaker/packet_filter/nftables_state.h"

namespace kedge::speaker {

void SetChange::add(std::string_view set, Bytes key, std::string_view comment) {
  messages_.push_back(element_message(NFT_MSG_NEWSETELEM, NLM_F_CREATE, table_, set, key, comment));
}

void SetChange::remove(std::string_view set, Bytes key) {
  messages_.push_back(element_message(NFT_MSG_DELSETELEM, 0, table_, set, key));
}

absl::Status SetChange::commit(NetlinkSocket& socket) {
  if (messages_.empty()) return absl::OkStatus();
  return kernel_status(socket.transaction(NFNL_SUBSYS_NFTABLES, absl::MakeSpan(messages_)),
                       absl::StrCat("change sets of table inet ", table_));
}

}  // namespace kedge::speaker
