// Netlink messages in both directions, and whatever else may arrive.
#include <linux/lwtunnel.h>
#include <linux/rtnetlink.h>
#include <linux/seg6_iptunnel.h>
#include <net/if.h>

#include <vector>

#include "gtest/gtest.h"
#include "speaker/kernel/links.h"
#include "speaker/kernel/routes.h"
#include "speaker/kernel/rules.h"

namespace kedge::speaker {
namespace {

Ipv6Address address(const char* text) { return Ipv6Address::parse(text).value(); }
Ipv6Prefix prefix(const char* text) { return Ipv6Prefix::parse(text).value(); }

KernelRoute route(KernelRoute::Kind kind) {
  KernelRoute r;
  r.kind = kind;
  r.table = 8818;
  r.protocol = 88;
  r.destination = prefix("2001:db8:1:1::/64");
  return r;
}

std::vector<KernelRoute> all_kinds() {
  using Kind = KernelRoute::Kind;
  auto deliver = route(Kind::kVia);
  deliver.interface = 7;
  deliver.gateway = address("fe80::11");
  auto redirect = route(Kind::kEncapsulate);
  redirect.table = 8819;
  redirect.interface = 3;
  redirect.segment = address("2001:db8:a2::d");
  auto decapsulate = route(Kind::kDecapsulate);
  decapsulate.table = RT_TABLE_MAIN;
  decapsulate.interface = 3;
  decapsulate.inner_table = 8818;
  auto uplink = route(Kind::kUplink);
  uplink.interface = 3;
  auto own = route(Kind::kBlackhole);
  own.source = own.destination;
  auto prohibit = route(Kind::kProhibit);
  prohibit.source = prohibit.destination;
  prohibit.destination = prefix("8000::/1");
  return {deliver, redirect, decapsulate, uplink, own, prohibit, route(Kind::kUnreachable)};
}

std::vector<KernelRule> all_rules() {
  KernelRule drop;
  drop.priority = 883;
  drop.protocol = 88;
  drop.input_interface = "acc";
  drop.destination = prefix("2001:db8:a1::d/128");
  KernelRule lookup;
  lookup.priority = 881;
  lookup.protocol = 88;
  lookup.input_interface = "kx1";
  lookup.source = prefix("2001:db8:a1::1/128");
  lookup.ip_protocol = 41;
  lookup.table = RT_TABLE_MAIN;
  lookup.suppress_prefix_length = 0;
  KernelRule plain;
  plain.table = 8818;
  return {drop, lookup, plain};
}

std::vector<std::uint8_t> copy(const Message& message) {
  const auto bytes = message.bytes();
  return {bytes.begin(), bytes.end()};
}

TEST(RouteMessage, ComesBackAsItWas) {
  for (const auto& r : all_kinds()) EXPECT_EQ(decode_route(encode_replace(r).bytes()), r);
}

// RFC 8754, 2, and the kernel's struct seg6_iptunnel_encap: what leaves must be right byte by byte, because the kernel
// is not there to tell.
TEST(RouteMessage, CarriesASegmentRoutingHeaderOfOneSegment) {
  const auto message = encode_replace(all_kinds()[1]);
  std::vector<std::uint8_t> found;
  for_each_attribute(message.bytes().subspan(NLMSG_HDRLEN + sizeof(rtmsg)), [&](std::uint16_t type, Bytes value) {
    if (type == RTA_ENCAP) found.assign(value.begin(), value.end());
  });
  const std::vector<std::uint8_t> expected{
      32,
      0,
      SEG6_IPTUNNEL_SRH,
      0,  // attribute: length, type
      SEG6_IPTUN_MODE_ENCAP_RED,
      0,
      0,
      0,  // mode
      0,
      2,
      4,
      0,
      0,
      0,
      0,
      0,  // next header, length, type 4, no segments left
      0x20,
      0x01,
      0x0d,
      0xb8,
      0,
      0xa2,
      0,
      0,
      0,
      0,
      0,
      0,
      0,
      0,
      0,
      0x0d,  // the segment
  };
  EXPECT_EQ(found, expected);
}

TEST(RouteMessage, DeleteNamesTheKeyOnly) {
  const auto r = all_kinds()[0];
  const auto message = encode_delete(r);
  EXPECT_EQ(read_structure<nlmsghdr>(message.bytes())->nlmsg_type, RTM_DELROUTE);
  const auto decoded = decode_route(message.bytes());
  ASSERT_TRUE(decoded);
  EXPECT_EQ(decoded->destination, r.destination);
  EXPECT_EQ(decoded->table, r.table);
  EXPECT_EQ(decoded->protocol, r.protocol);
  EXPECT_EQ(decoded->interface, 0U);
}

TEST(RouteMessage, OfAnotherFamilyOrFromTheCacheIsIgnored) {
  auto bytes = copy(encode_replace(all_kinds()[0]));
  auto other = bytes;
  other[NLMSG_HDRLEN] = AF_INET;
  EXPECT_FALSE(decode_route(other));
  rtmsg header;
  std::memcpy(&header, bytes.data() + NLMSG_HDRLEN, sizeof header);
  header.rtm_flags |= RTM_F_CLONED;
  std::memcpy(bytes.data() + NLMSG_HDRLEN, &header, sizeof header);
  EXPECT_FALSE(decode_route(bytes));
}

TEST(RouteMessage, WithAnEncapsulationThatIsNotOursIsOther) {
  Message message(RTM_NEWROUTE, 0);
  auto& header = message.put_header<rtmsg>();
  header.rtm_family = AF_INET6;
  header.rtm_type = RTN_UNICAST;
  message.put_u16(RTA_ENCAP_TYPE, LWTUNNEL_ENCAP_MPLS);
  auto* nest = message.begin_nest(RTA_ENCAP);
  message.put_u32(1, 100);
  message.end_nest(nest);
  const auto decoded = decode_route(message.bytes());
  ASSERT_TRUE(decoded);
  EXPECT_EQ(decoded->kind, KernelRoute::Kind::kOther);
}

TEST(RuleMessage, ComesBackAsItWas) {
  for (const auto& rule : all_rules()) {
    EXPECT_EQ(decode_rule(encode_rule(rule).bytes()), rule);
    EXPECT_EQ(decode_rule(encode_rule_delete(rule).bytes()), rule);
  }
}

TEST(RuleMessage, WithANameThatNoInterfaceHasIsIgnored) {
  KernelRule rule;
  rule.priority = 881;
  rule.input_interface = std::string(15, 'e');
  EXPECT_EQ(decode_rule(encode_rule(rule).bytes()), rule);
  rule.input_interface = std::string(16, 'e');
  EXPECT_FALSE(decode_rule(encode_rule(rule).bytes()).has_value());
}

TEST(NeighbourMessage, ComesBackAsItWas) {
  const KernelNeighbour neighbour{4, address("fe80::11"), LinkLayerAddress({2, 0, 0, 0, 0, 0x11}), 88};
  EXPECT_EQ(decode_neighbour(encode_neighbour(neighbour).bytes()), neighbour);
}

Message link_message(unsigned flags) {
  Message message(RTM_NEWLINK, 0);
  auto& header = message.put_header<ifinfomsg>();
  header.ifi_index = 9;
  header.ifi_flags = flags;
  message.put_text(IFLA_IFNAME, "kx0");
  message.put_u32(IFLA_MTU, 1460);
  message.put_u32(IFLA_LINK, 10);
  message.put_link_layer_address(IFLA_ADDRESS, kPairInnerLinkLayerAddress);
  auto* nest = message.begin_nest(IFLA_LINKINFO);
  message.put_text(IFLA_INFO_KIND, "veth");
  message.end_nest(nest);
  return message;
}

TEST(LinkMessage, IsRead) {
  EXPECT_EQ(decode_link(link_message(IFF_UP | IFF_RUNNING).bytes()),
            (KernelLink{9, "kx0", true, true, 1460, kPairInnerLinkLayerAddress, "veth", 10}));
}

TEST(LinkMessage, ALinkThatIsUpCannotSendBeforeItRuns) {
  const auto link = decode_link(link_message(IFF_UP).bytes());
  ASSERT_TRUE(link.has_value());
  EXPECT_TRUE(link->up);
  EXPECT_FALSE(link->running);
  EXPECT_FALSE(decode_link(link_message(IFF_RUNNING).bytes())->running);
}

TEST(AddressMessage, IsRead) {
  Message message(RTM_DELADDR, 0);
  auto& header = message.put_header<ifaddrmsg>();
  header.ifa_family = AF_INET6;
  header.ifa_index = 5;
  header.ifa_prefixlen = 64;
  message.put_address(IFA_ADDRESS, address("fe80::a"));
  EXPECT_EQ(decode_address(message.bytes()), (KernelAddress{5, address("fe80::a"), 64}));
}

TEST(Acknowledgement, CarriesTheKernelsOwnWords) {
  std::vector<std::uint8_t> bytes(NLMSG_HDRLEN + sizeof(nlmsgerr));
  const nlmsghdr header{static_cast<std::uint32_t>(bytes.size() + 12), NLMSG_ERROR, NLM_F_ACK_TLVS | NLM_F_CAPPED, 77,
                        0};
  const nlmsgerr error{-EINVAL, {}};
  std::memcpy(bytes.data(), &header, sizeof header);
  std::memcpy(bytes.data() + NLMSG_HDRLEN, &error, sizeof error);
  const char text[] = "bad dev";
  bytes.insert(bytes.end(), {12, 0, NLMSGERR_ATTR_MSG, 0});
  bytes.insert(bytes.end(), text, text + sizeof text);
  const auto acknowledgement = decode_acknowledgement(bytes);
  ASSERT_TRUE(acknowledgement);
  EXPECT_EQ(acknowledgement->sequence, 77U);
  EXPECT_EQ(acknowledgement->error, EINVAL);
  EXPECT_EQ(acknowledgement->text, "bad dev");
  const auto status = kernel_status(*acknowledgement, "replace a route");
  EXPECT_NE(std::string(status.message()).find("replace a route"), std::string::npos);
  EXPECT_NE(std::string(status.message()).find("bad dev"), std::string::npos);
}

TEST(KernelStatus, SaysWhatToDo) {
  const auto status = kernel_status(EPERM, "open it");
  EXPECT_TRUE(absl::IsPermissionDenied(status));
  EXPECT_NE(std::string(status.message()).find("CAP_NET_ADMIN"), std::string::npos);
}

// Every decoder over every message cut at every length, and with every byte changed: run under sanitizers this reads
// nothing past the end.
TEST(Decoders, SurviveTruncationAndDamage) {
  std::vector<std::vector<std::uint8_t>> messages;
  for (const auto& r : all_kinds()) messages.push_back(copy(encode_replace(r)));
  for (const auto& r : all_rules()) messages.push_back(copy(encode_rule(r)));
  messages.push_back(copy(encode_neighbour({4, address("fe80::11"), LinkLayerAddress({2, 0, 0, 0, 0, 1}), 88})));
  const auto decode_all = [](Bytes bytes) {
    decode_route(bytes);
    decode_rule(bytes);
    decode_link(bytes);
    decode_address(bytes);
    decode_neighbour(bytes);
    decode_acknowledgement(bytes);
  };
  for (const auto& message : messages) {
    for (std::size_t size = 0; size < message.size(); ++size) {
      std::vector<std::uint8_t> cut(message.begin(), message.begin() + static_cast<std::ptrdiff_t>(size));
      decode_all(cut);
      EXPECT_FALSE(decode_route(cut));
      EXPECT_FALSE(decode_rule(cut));
    }
    for (std::size_t i = 0; i < message.size(); ++i) {
      for (const int value : {0, 1, 3, 127, 255}) {
        auto damaged = message;
        damaged[i] = static_cast<std::uint8_t>(value);
        decode_all(damaged);
      }
    }
  }
}

}  // namespace
}  // namespace kedge::speaker
