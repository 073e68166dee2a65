#include "speaker/kernel/rules.h"

#include <linux/fib_rules.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <netinet/in.h>

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "speaker/kernel/links.h"

namespace kedge::speaker {
namespace {

constexpr std::uint32_t kDrop = 0;

std::string describe(const KernelRule& rule) {
  return absl::StrCat("rule ", rule.priority,
                      rule.input_interface.empty() ? "" : absl::StrCat(" iif ", rule.input_interface),
                      rule.source ? absl::StrCat(" from ", rule.source->to_string()) : "",
                      rule.destination ? absl::StrCat(" to ", rule.destination->to_string()) : "",
                      rule.table == 0 ? std::string(" blackhole") : absl::StrCat(" lookup ", rule.table));
}

void put_rule(Message& message, const KernelRule& rule) {
  auto& header = message.put_header<fib_rule_hdr>();
  header.family = AF_INET6;
  header.src_len = static_cast<std::uint8_t>(rule.source ? rule.source->length() : 0);
  header.dst_len = static_cast<std::uint8_t>(rule.destination ? rule.destination->length() : 0);
  header.table = static_cast<std::uint8_t>(rule.table < 256 ? rule.table : RT_TABLE_COMPAT);
  header.action = rule.table == 0 ? FR_ACT_BLACKHOLE : FR_ACT_TO_TBL;
  if (rule.source) message.put_address(FRA_SRC, rule.source->address());
  if (rule.destination) message.put_address(FRA_DST, rule.destination->address());
  if (!rule.input_interface.empty()) message.put_text(FRA_IIFNAME, rule.input_interface);
  message.put_u32(FRA_PRIORITY, rule.priority);
  if (rule.table != 0) message.put_u32(FRA_TABLE, rule.table);
  if (rule.ip_protocol != 0) message.put_u8(FRA_IP_PROTO, rule.ip_protocol);
  if (rule.suppress_prefix_length) message.put_u32(FRA_SUPPRESS_PREFIXLEN, *rule.suppress_prefix_length);
  message.put_u8(FRA_PROTOCOL, rule.protocol);
}

}  // namespace

Message encode_rule(const KernelRule& rule) {
  Message message(RTM_NEWRULE, NLM_F_CREATE | NLM_F_EXCL);
  put_rule(message, rule);
  return message;
}

Message encode_rule_delete(const KernelRule& rule) {
  Message message(RTM_DELRULE, 0);
  put_rule(message, rule);
  return message;
}

std::optional<KernelRule> decode_rule(Bytes message) {
  const auto header = read_structure<nlmsghdr>(message);
  const auto payload = message_payload(message);
  if (!header || !payload || (header->nlmsg_type != RTM_NEWRULE && header->nlmsg_type != RTM_DELRULE)) {
    return std::nullopt;
  }
  const auto r = read_structure<fib_rule_hdr>(*payload);
  if (!r || r->family != AF_INET6 || r->src_len > 128 || r->dst_len > 128) return std::nullopt;
  KernelRule rule;
  rule.table = r->table;
  Ipv6Address source;
  Ipv6Address destination;
  const bool whole =
      for_each_attribute(payload->subspan(NLMSG_ALIGN(sizeof(fib_rule_hdr))), [&](std::uint16_t type, Bytes value) {
        if (type == FRA_SRC) source = read_address(value).value_or(Ipv6Address());
        if (type == FRA_DST) destination = read_address(value).value_or(Ipv6Address());
        if (type == FRA_IIFNAME) rule.input_interface = read_text(value);
        if (type == FRA_PRIORITY) rule.priority = read_u32(value).value_or(0);
        if (type == FRA_TABLE) rule.table = read_u32(value).value_or(0);
        if (type == FRA_IP_PROTO) rule.ip_protocol = read_structure<std::uint8_t>(value).value_or(0);
        if (type == FRA_PROTOCOL) rule.protocol = read_structure<std::uint8_t>(value).value_or(0);
        if (type == FRA_SUPPRESS_PREFIXLEN) {
          const auto length = read_u32(value).value_or(0xFFFFFFFF);
          if (length != 0xFFFFFFFF) rule.suppress_prefix_length = length;
        }
      });
  // No interface has such a name.
  if (!whole || rule.input_interface.size() >= IFNAMSIZ) return std::nullopt;
  if (r->action != FR_ACT_TO_TBL) rule.table = 0;
  if (r->src_len > 0) rule.source = Ipv6Prefix(source, r->src_len);
  if (r->dst_len > 0) rule.destination = Ipv6Prefix(destination, r->dst_len);
  return rule;
}

std::vector<KernelRule> wanted_rules(const ForwardingPlaneConfig& config, const std::optional<Identity>& identity) {
  std::vector<KernelRule> rules;
  const auto add = [&](std::uint32_t offset, const std::string& input_interface, std::uint32_t table) -> KernelRule& {
    auto& rule = rules.emplace_back();
    rule.priority = config.rule_priority + offset;
    rule.protocol = config.route_protocol;
    rule.input_interface = input_interface;
    rule.table = table;
    return rule;
  };
  add(0, kPairOuter, config.encapsulation_table);
  // The kernel looks up the encapsulated packet with kx1 still as its input interface. Only what this router has
  // encapsulated itself may pass on to `main`; everything else that the encapsulation table does not know would loop.
  if (identity) {
    auto& rule = add(1, kPairOuter, RT_TABLE_MAIN);
    rule.source = Ipv6Prefix(identity->locator, 128);
    rule.ip_protocol = IPPROTO_IPV6;
  }
  add(2, kPairOuter, kDrop);
  for (const auto& interface : config.access_interfaces) {
    // RFC 8754, 5.1: packets that enter the SR domain at its edge must not be addressed to its SIDs.
    if (identity) {
      add(3, interface, kDrop).destination = Ipv6Prefix(identity->deliver_sid, 128);
      add(3, interface, kDrop).destination = Ipv6Prefix(identity->uplink_sid, 128);
    }
    // What an MN sends to its own prefix would be bounced back to it; `blackhole P from P` stands in the uplink table.
    // The default routes there must not count yet: another MN of this AR is reached directly.
    add(4, interface, config.uplink_table).suppress_prefix_length = 0;
  }
  // What this router itself answers to an MN here whose prefix has ended; nobody else is to reach it there.
  add(4, "lo", config.refusal_table);
  add(5, "", config.mobile_table);
  for (const auto& interface : config.access_interfaces) add(6, interface, config.uplink_table);
  return rules;
}

absl::StatusOr<std::vector<KernelRule>> list_rules(NetlinkSocket& socket, std::uint8_t protocol) {
  Message message(RTM_GETRULE, NLM_F_DUMP);
  message.put_header<fib_rule_hdr>().family = AF_INET6;
  std::vector<KernelRule> present;
  const auto acknowledgement = socket.dump(message, [&](Bytes answer) {
    auto rule = decode_rule(answer);
    if (rule && rule->protocol == protocol) present.push_back(*std::move(rule));
  });
  if (!acknowledgement.ok()) return kernel_status(acknowledgement, "list the routing rules");
  return present;
}

absl::Status ensure_rules(NetlinkSocket& socket, const std::vector<KernelRule>& wanted, std::uint8_t protocol,
                          bool remove_others) {
  const auto present = list_rules(socket, protocol);
  if (!present.ok()) return present.status();

  absl::Status result;
  for (const auto& rule : wanted) {
    if (std::find(present->begin(), present->end(), rule) != present->end()) continue;
    auto request = encode_rule(rule);
    const auto answer = socket.request(request);
    if (answer.error != EEXIST) result.Update(kernel_status(answer, absl::StrCat("add ", describe(rule))));
  }
  if (!remove_others) return result;
  for (const auto& rule : *present) {
    if (std::find(wanted.begin(), wanted.end(), rule) != wanted.end()) continue;
    auto request = encode_rule_delete(rule);
    const auto answer = socket.request(request);
    if (answer.error != ENOENT) result.Update(kernel_status(answer, absl::StrCat("delete ", describe(rule))));
  }
  return result;
}

}  // namespace kedge::speaker
