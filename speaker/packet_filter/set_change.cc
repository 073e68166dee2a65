#include "speaker/packet_filter/set_change.h"

#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>

#include "absl/strings/str_cat.h"
#include "speaker/packet_filter/nftables_state.h"

namespace kedge::speaker {

void SetChange::put(int type, std::string_view set, Bytes key, std::string_view comment) {
  auto message = nftables_request(type, NLM_F_CREATE);
  message.put_text(NFTA_SET_ELEM_LIST_TABLE, table_);
  message.put_text(NFTA_SET_ELEM_LIST_SET, set);
  auto* list = message.begin_nest(NFTA_SET_ELEM_LIST_ELEMENTS);
  auto* element = message.begin_nest(NFTA_LIST_ELEM);
  put_element_key(message, key);
  if (!comment.empty()) message.put(NFTA_SET_ELEM_USERDATA, user_data_of(comment));
  message.end_nest(element);
  message.end_nest(list);
  messages_.push_back(message);
}

void SetChange::add(std::string_view set, Bytes key, std::string_view comment) {
  put(NFT_MSG_NEWSETELEM, set, key, comment);
}

void SetChange::remove(std::string_view set, Bytes key) { put(NFT_MSG_DELSETELEM, set, key, {}); }

absl::Status SetChange::commit(NetlinkSocket& socket) {
  if (messages_.empty()) return absl::OkStatus();
  return kernel_status(socket.transaction(NFNL_SUBSYS_NFTABLES, absl::MakeSpan(messages_)),
                       absl::StrCat("change sets of table inet ", table_));
}

}  // namespace kedge::speaker
