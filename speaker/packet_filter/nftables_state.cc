#include "speaker/packet_filter/nftables_state.h"

#include <arpa/inet.h>
#include <endian.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>

#include <algorithm>
#include <cerrno>

#include "absl/strings/str_cat.h"

namespace kedge::speaker {
namespace {

Message request(int type, std::uint16_t flags = 0) {
  Message message(static_cast<std::uint16_t>(NFNL_SUBSYS_NFTABLES << 8 | type), flags);
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

// libnftnl keeps comments of elements in the user data, as type, length, value.
constexpr std::uint8_t kComment = 0;
constexpr std::size_t kLongestComment = 127;
constexpr int kReadings = 20;

std::string comment_in(Bytes data) {
  while (data.size() >= 2 && data[1] <= data.size() - 2) {
    const Bytes value = data.subspan(2, data[1]);
    if (data[0] == kComment) return read_text(value);
    data = data.subspan(2 + value.size());
  }
  return {};
}

SetElement element_in(Bytes attributes) {
  SetElement element;
  for_each_attribute(attributes, [&](std::uint16_t type, Bytes value) {
    if (type == NFTA_SET_ELEM_KEY) {
      for_each_attribute(value, [&](std::uint16_t inner, Bytes key) {
        if (inner == NFTA_DATA_VALUE) element.key.assign(key.begin(), key.end());
      });
    } else if (type == NFTA_SET_ELEM_USERDATA) {
      element.comment = comment_in(value);
    } else if (type == NFTA_SET_ELEM_EXPIRATION) {
      if (const auto left = read_structure<std::uint64_t>(value)) {
        // No timeout is as long as a signed number of milliseconds allows.
        element.expires = std::chrono::milliseconds(be64toh(*left) & INT64_MAX);
      }
    }
  });
  return element;
}

Message set_request(int type, std::uint16_t flags, std::string_view table, std::string_view set) {
  auto message = request(type, flags);
  message.put_text(NFTA_SET_ELEM_LIST_TABLE, table);
  message.put_text(NFTA_SET_ELEM_LIST_SET, set);
  return message;
}

std::vector<std::uint8_t> user_data_of(std::string_view comment) {
  comment = comment.substr(0, kLongestComment);
  std::vector<std::uint8_t> data(2 + comment.size() + 1);
  data[0] = kComment;
  data[1] = static_cast<std::uint8_t>(comment.size() + 1);
  std::copy(comment.begin(), comment.end(), data.begin() + 2);
  return data;
}

}  // namespace

Message element_message(int type, std::uint16_t flags, std::string_view table, std::string_view set, Bytes key,
                        std::string_view comment) {
  auto message = set_request(type, flags, table, set);
  auto* list = message.begin_nest(NFTA_SET_ELEM_LIST_ELEMENTS);
  auto* element = message.begin_nest(NFTA_LIST_ELEM);
  auto* data = message.begin_nest(NFTA_SET_ELEM_KEY);
  message.put(NFTA_DATA_VALUE, key);
  message.end_nest(data);
  if (!comment.empty()) message.put(NFTA_SET_ELEM_USERDATA, user_data_of(comment));
  message.end_nest(element);
  message.end_nest(list);
  return message;
}

void for_each_set_element(Bytes answer, const std::function<void(const SetElement&)>& visit) {
  const auto attributes = attributes_of(answer);
  if (!attributes) return;
  for_each_attribute(*attributes, [&](std::uint16_t type, Bytes list) {
    if (type != NFTA_SET_ELEM_LIST_ELEMENTS) return;
    for_each_attribute(list, [&](std::uint16_t inner, Bytes element) {
      if (inner == NFTA_LIST_ELEM) visit(element_in(element));
    });
  });
}

absl::StatusOr<std::vector<SetElement>> read_set(NetlinkSocket& socket, const std::string& table,
                                                 const std::string& set) {
  const auto by_key = [](const SetElement& a, const SetElement& b) { return a.key < b.key; };
  std::vector<SetElement> before;
  for (int reading = 0; reading < kReadings; ++reading) {
    std::vector<SetElement> elements;
    auto message = set_request(NFT_MSG_GETSETELEM, 0, table, set);
    const auto acknowledgement = socket.dump(message, [&](Bytes answer) {
      for_each_set_element(answer, [&](const SetElement& element) { elements.push_back(element); });
    });
    const auto status = kernel_status(acknowledgement, absl::StrCat("read the set ", set, " of table inet ", table));
    if (!status.ok()) return status;
    // Some come twice.
    std::stable_sort(elements.begin(), elements.end(), by_key);
    const auto same = [](const SetElement& a, const SetElement& b) { return a.key == b.key; };
    elements.erase(std::unique(elements.begin(), elements.end(), same), elements.end());
    const bool complete = std::includes(elements.begin(), elements.end(), before.begin(), before.end(), by_key);
    if (complete && reading > 0) return elements;
    before = std::move(elements);
  }
  return absl::UnavailableError(absl::StrCat("the set ", set, " of table inet ", table, " changes all the time"));
}

absl::Status read_element(NetlinkSocket& socket, const std::string& table, const std::string& set, Bytes key,
                          const std::function<void(const SetElement&)>& visit) {
  auto message = element_message(NFT_MSG_GETSETELEM, 0, table, set, key);
  const auto acknowledgement = socket.get(message, [&](Bytes answer) { for_each_set_element(answer, visit); });
  if (acknowledgement.error == ENOENT) return absl::OkStatus();
  return kernel_status(acknowledgement, absl::StrCat("read an element of the set ", set, " of table inet ", table));
}

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
