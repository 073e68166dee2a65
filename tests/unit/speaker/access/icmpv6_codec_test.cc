#include "speaker/access/icmpv6_codec.h"

#include <algorithm>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace kedge::speaker {
namespace {

using Bytes = std::vector<std::uint8_t>;

Bytes hex(const std::string& text) {
  Bytes out;
  std::string digits;
  for (const char c : text) {
    if (c == ' ' || c == '\n') continue;
    digits.push_back(c);
    if (digits.size() < 2) continue;
    out.push_back(static_cast<std::uint8_t>(std::stoi(digits, nullptr, 16)));
    digits.clear();
  }
  return out;
}

Ipv6Address address(const std::string& text) { return *Ipv6Address::parse(text); }
LinkLayerAddress mac(const std::string& text) { return *LinkLayerAddress::parse(text); }

const LinkLayerAddress kMn = mac("02:00:00:00:00:11");
const LinkLayerAddress kRouter = mac("02:00:00:00:00:01");

const FrameAddresses kMnToRouters = {.link_source = kMn,
                                     .link_destination = mac("33:33:00:00:00:02"),
                                     .source = address("fe80::ff:fe00:11"),
                                     .destination = address("ff02::2")};
const FrameAddresses kRouterToMn = {.link_source = kRouter,
                                    .link_destination = kMn,
                                    .source = address("fe80::1"),
                                    .destination = address("fe80::ff:fe00:11")};

// The checksums below were computed apart from the codec.
const Bytes kSolicitation = hex(R"(
  33 33 00 00 00 02  02 00 00 00 00 11  86 dd
  60 00 00 00  00 10  3a  ff
  fe 80 00 00 00 00 00 00 00 00 00 ff fe 00 00 11
  ff 02 00 00 00 00 00 00 00 00 00 00 00 00 00 02
  85 00 7b 0c  00 00 00 00
  01 01 02 00 00 00 00 11)");

const Bytes kAdvertisement = hex(R"(
  02 00 00 00 00 11  02 00 00 00 00 01  86 dd
  60 00 00 00  00 60  3a  ff
  fe 80 00 00 00 00 00 00 00 00 00 00 00 00 00 01
  fe 80 00 00 00 00 00 00 00 00 00 ff fe 00 00 11
  86 00 07 22  40 00 07 08  00 00 00 00  00 00 00 00
  01 01 02 00 00 00 00 01
  05 01 00 00 00 00 05 dc
  03 04 40 40  00 00 1c 20  00 00 07 08  00 00 00 00
  20 01 0d b8 00 01 00 01 00 00 00 00 00 00 00 00
  03 04 40 40  00 00 1c 20  00 00 00 00  00 00 00 00
  20 01 0d b8 00 02 00 01 00 00 00 00 00 00 00 00)");

const Bytes kNeighbourSolicitation = hex(R"(
  02 00 00 00 00 11  02 00 00 00 00 01  86 dd
  60 00 00 00  00 20  3a  ff
  fe 80 00 00 00 00 00 00 00 00 00 00 00 00 00 01
  fe 80 00 00 00 00 00 00 00 00 00 ff fe 00 00 11
  87 00 7b fd  00 00 00 00
  fe 80 00 00 00 00 00 00 00 00 00 ff fe 00 00 11
  01 01 02 00 00 00 00 01)");

const Bytes kNeighbourAdvertisement = hex(R"(
  02 00 00 00 00 01  02 00 00 00 00 11  86 dd
  60 00 00 00  00 20  3a  ff
  fe 80 00 00 00 00 00 00 00 00 00 ff fe 00 00 11
  fe 80 00 00 00 00 00 00 00 00 00 00 00 00 00 01
  88 00 19 ed  60 00 00 00
  fe 80 00 00 00 00 00 00 00 00 00 ff fe 00 00 11
  02 01 02 00 00 00 00 11)");

const Bytes kGeneralQuery = hex(R"(
  33 33 00 00 00 01  02 00 00 00 00 01  86 dd
  60 00 00 00  00 24  00  01
  fe 80 00 00 00 00 00 00 00 00 00 00 00 00 00 01
  ff 02 00 00 00 00 00 00 00 00 00 00 00 00 00 01
  3a 00 05 02 00 00 01 00
  82 00 7d a5  00 01 00 00
  00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00
  02 7d 00 00)");

const Bytes kListenerReport = hex(R"(
  33 33 00 00 00 16  02 00 00 00 00 11  86 dd
  60 00 00 00  00 24  00  01
  fe 80 00 00 00 00 00 00 00 00 00 ff fe 00 00 11
  ff 02 00 00 00 00 00 00 00 00 00 00 00 00 00 16
  3a 00 05 02 00 00 01 00
  8f 00 71 e7  00 00 00 01
  04 00 00 00 ff 02 00 00 00 00 00 00 00 00 00 01 ff 00 00 11)");

Icmpv6Packet packet_of(const Bytes& frame) {
  absl::StatusOr<Icmpv6Packet> packet = parse_icmpv6_frame(frame);
  EXPECT_TRUE(packet.ok()) << packet.status();
  return packet.value_or(Icmpv6Packet{});
}

// Puts the right checksum in after a test has changed the frame; `at` is where the ICMPv6 message starts.
Bytes with_checksum(Bytes frame, std::size_t at = 54) {
  frame[at + 2] = frame[at + 3] = 0;
  std::uint32_t sum = static_cast<std::uint32_t>(frame.size() - at) + 58;
  const auto add = [&](std::size_t from, std::size_t to) {
    for (std::size_t i = from; i < to; ++i)
      sum += static_cast<std::uint32_t>(frame[i]) << ((i - from) % 2 == 0 ? 8 : 0);
  };
  add(22, 54);
  add(at, frame.size());
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >> 16);
  frame[at + 2] = static_cast<std::uint8_t>((~sum >> 8) & 0xff);
  frame[at + 3] = static_cast<std::uint8_t>(~sum & 0xff);
  return frame;
}

Bytes with_payload(Bytes frame, const Bytes& message) {
  frame.resize(54);
  frame.insert(frame.end(), message.begin(), message.end());
  frame[18] = static_cast<std::uint8_t>(message.size() >> 8);
  frame[19] = static_cast<std::uint8_t>(message.size() & 0xff);
  return with_checksum(frame);
}

Bytes with_source(Bytes frame, const std::string& source, std::size_t at = 54) {
  const Ipv6Address parsed = address(source);
  std::copy(parsed.bytes().begin(), parsed.bytes().end(), frame.begin() + 22);
  return with_checksum(frame, at);
}

Bytes with_byte(Bytes frame, std::size_t at, std::uint8_t value) {
  frame[at] = value;
  return frame;
}

TEST(Icmpv6Codec, RouterSolicitationBothWays) {
  const RouterSolicitation message{.source_link_layer_address = kMn};
  EXPECT_EQ(build_frame(kMnToRouters, message), kSolicitation);
  const Icmpv6Packet packet = packet_of(kSolicitation);
  EXPECT_EQ(packet.addresses, kMnToRouters);
  EXPECT_EQ(packet.hop_limit, 255);
  EXPECT_FALSE(packet.router_alert);
  EXPECT_EQ(*parse_router_solicitation(packet), message);
}

TEST(Icmpv6Codec, RouterAdvertisementBothWays) {
  const RouterAdvertisement message{
      .current_hop_limit = 64,
      .router_lifetime = 1800,
      .source_link_layer_address = kRouter,
      .mtu = 1500,
      .prefixes = {
          {.prefix = *Ipv6Prefix::parse("2001:db8:1:1::/64"), .valid_lifetime = 7200, .preferred_lifetime = 1800},
          {.prefix = *Ipv6Prefix::parse("2001:db8:2:1::/64"), .valid_lifetime = 7200, .preferred_lifetime = 0}}};
  EXPECT_EQ(build_frame(kRouterToMn, message), kAdvertisement);
  EXPECT_EQ(*parse_router_advertisement(packet_of(kAdvertisement)), message);
}

TEST(Icmpv6Codec, RouterAdvertisementKeepsEveryField) {
  const RouterAdvertisement message{.current_hop_limit = 1,
                                    .managed = true,
                                    .other_configuration = true,
                                    .router_lifetime = 9000,
                                    .reachable_time = 0x01020304,
                                    .retransmission_timer = 0x05060708,
                                    .mtu = 1280,
                                    .prefixes = {{.prefix = *Ipv6Prefix::parse("2001:db8::/48"),
                                                  .on_link = true,
                                                  .autonomous = false,
                                                  .valid_lifetime = 0xffffffff,
                                                  .preferred_lifetime = 1}}};
  EXPECT_EQ(*parse_router_advertisement(packet_of(build_frame(kRouterToMn, message))), message);
}

TEST(Icmpv6Codec, NeighbourSolicitationBothWays) {
  const NeighbourSolicitation message{.target = address("fe80::ff:fe00:11"), .source_link_layer_address = kRouter};
  EXPECT_EQ(build_frame(kRouterToMn, message), kNeighbourSolicitation);
  EXPECT_EQ(*parse_neighbour_solicitation(packet_of(kNeighbourSolicitation)), message);
}

TEST(Icmpv6Codec, NeighbourAdvertisementBothWays) {
  const NeighbourAdvertisement message{.target = address("fe80::ff:fe00:11"),
                                       .router = false,
                                       .solicited = true,
                                       .override_flag = true,
                                       .target_link_layer_address = kMn};
  const FrameAddresses to_router{.link_source = kMn,
                                 .link_destination = kRouter,
                                 .source = kRouterToMn.destination,
                                 .destination = kRouterToMn.source};
  EXPECT_EQ(build_frame(to_router, message), kNeighbourAdvertisement);
  EXPECT_EQ(*parse_neighbour_advertisement(packet_of(kNeighbourAdvertisement)), message);
}

TEST(Icmpv6Codec, GeneralQueryAsksForAnswersWithinAMillisecond) {
  EXPECT_EQ(build_general_query({.link_source = kRouter,
                                 .link_destination = mac("33:33:00:00:00:01"),
                                 .source = address("fe80::1"),
                                 .destination = address("ff02::1")}),
            kGeneralQuery);
  EXPECT_TRUE(packet_of(kGeneralQuery).router_alert);
}

TEST(Icmpv6Codec, ListenerReportNamesItsGroups) {
  const Bytes frame = build_listener_report({.link_source = kRouter,
                                             .link_destination = mac("33:33:00:00:00:16"),
                                             .source = address("fe80::1"),
                                             .destination = address("ff02::16")},
                                            {address("ff02::2"), address("ff02::1:ff00:1")});
  const Icmpv6Packet packet = packet_of(frame);
  EXPECT_TRUE(check_listener_report(packet).ok());
  EXPECT_EQ(Bytes(packet.message.begin() + 4, packet.message.end()), hex(R"(
    00 00 00 02
    02 00 00 00  ff 02 00 00 00 00 00 00 00 00 00 00 00 00 00 02
    02 00 00 00  ff 02 00 00 00 00 00 00 00 00 00 01 ff 00 00 01)"));
}

TEST(Icmpv6Codec, EchoRequestIsWellFormed) {
  const Bytes frame = build_echo_request(kRouterToMn, 0x1234, 0x0506);
  const Icmpv6Packet packet = packet_of(frame);
  EXPECT_EQ(packet.type(), Icmpv6Type::kEchoRequest);
  EXPECT_EQ(Bytes(packet.message.begin() + 4, packet.message.end()), hex("12 34 05 06"));
}

TEST(Icmpv6Codec, RecognisesListenerReports) {
  EXPECT_TRUE(check_listener_report(packet_of(kListenerReport)).ok());
  EXPECT_TRUE(check_listener_report(packet_of(with_source(kListenerReport, "::", 62))).ok());
  EXPECT_FALSE(check_listener_report(packet_of(kGeneralQuery)).ok());
}

TEST(Icmpv6Codec, PaddingBehindThePacketIsNoPartOfIt) {
  Bytes frame = kSolicitation;
  frame.resize(frame.size() + 6, 0xff);
  EXPECT_TRUE(parse_router_solicitation(packet_of(frame)).ok());
}

TEST(Icmpv6Codec, UnknownOptionsAreIgnored) {
  const Bytes frame =
      with_payload(kSolicitation, hex("85 00 00 00 00 00 00 00  0e 02 01 02 03 04 05 06 07 08 09 0a 0b 0c 0d 0e"
                                      "01 01 02 00 00 00 00 11"));
  EXPECT_EQ(*parse_router_solicitation(packet_of(frame)), RouterSolicitation{.source_link_layer_address = kMn});
}

TEST(Icmpv6Codec, UnspecifiedSourceWithoutTheOptionIsASolicitation) {
  const Bytes frame = with_source(with_payload(kSolicitation, hex("85 00 00 00 00 00 00 00")), "::");
  EXPECT_EQ(*parse_router_solicitation(packet_of(frame)), RouterSolicitation{});
}

TEST(Icmpv6Codec, DerivedAddresses) {
  EXPECT_EQ(eui64_link_local(mac("02:00:00:00:00:11")), address("fe80::ff:fe00:11"));
  EXPECT_EQ(eui64_link_local(mac("34:56:78:9a:bc:de")), address("fe80::3656:78ff:fe9a:bcde"));
  EXPECT_EQ(solicited_node_address(address("2001:db8::1:2:3456:789a")), address("ff02::1:ff56:789a"));
  EXPECT_EQ(multicast_link_layer_address(address("ff02::1:ff56:789a")), mac("33:33:ff:56:78:9a"));
}

struct Malformed {
  std::string name;
  Bytes frame;
  std::string text;
};

// The first thing that is wrong with a frame, by the parser of its type.
absl::Status judge(const Bytes& frame) {
  const absl::StatusOr<Icmpv6Packet> packet = parse_icmpv6_frame(frame);
  if (!packet.ok()) return packet.status();
  switch (packet->type()) {
    case Icmpv6Type::kRouterSolicitation:
      return parse_router_solicitation(*packet).status();
    case Icmpv6Type::kRouterAdvertisement:
      return parse_router_advertisement(*packet).status();
    case Icmpv6Type::kNeighbourSolicitation:
      return parse_neighbour_solicitation(*packet).status();
    case Icmpv6Type::kNeighbourAdvertisement:
      return parse_neighbour_advertisement(*packet).status();
    default:
      return check_listener_report(*packet);
  }
}

class MalformedFrame : public testing::TestWithParam<Malformed> {};

TEST_P(MalformedFrame, IsRefusedByItsReason) {
  const absl::Status status = judge(GetParam().frame);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(std::string(status.message()), GetParam().text);
}

Bytes head(const Bytes& frame, std::size_t size) {
  return {frame.begin(), frame.begin() + static_cast<std::ptrdiff_t>(size)};
}

INSTANTIATE_TEST_SUITE_P(
    All, MalformedFrame,
    testing::Values(
        Malformed{"Empty", {}, "frame: too short for an IPv6 header"},
        Malformed{"CutInTheHeader", head(kSolicitation, 53), "frame: too short for an IPv6 header"},
        Malformed{"Ipv4", with_byte(kSolicitation, 12, 0x08), "frame: not IPv6"},
        Malformed{"Version", with_byte(kSolicitation, 14, 0x40), "IPv6 header: version is not 6 (RFC 8200, 3)"},
        Malformed{"CutInTheMessage", head(kSolicitation, kSolicitation.size() - 1),
                  "IPv6 header: payload length exceeds the frame (RFC 8200, 3)"},
        Malformed{"Udp", with_byte(kSolicitation, 20, 17), "IPv6 header: next header is not ICMPv6"},
        Malformed{"NoIcmpv6Header", with_byte(head(kSolicitation, 57), 19, 3),
                  "ICMPv6: shorter than its header (RFC 4443, 2.1)"},
        Malformed{"Checksum", with_byte(kSolicitation, 57, static_cast<std::uint8_t>(kSolicitation[57] ^ 1U)),
                  "ICMPv6: wrong checksum (RFC 4443, 2.3)"},
        Malformed{"HopByHopTruncated", with_byte(head(kListenerReport, 60), 19, 6),
                  "hop-by-hop header: truncated (RFC 8200, 4.3)"},
        Malformed{"HopByHopTooLong", with_byte(kListenerReport, 55, 9),
                  "hop-by-hop header: length exceeds the payload (RFC 8200, 4.3)"},
        Malformed{"HopByHopOption", with_byte(kListenerReport, 57, 9),
                  "hop-by-hop header: an option runs past its end (RFC 8200, 4.2)"},
        Malformed{"SolicitationHopLimit", with_byte(kSolicitation, 21, 254),
                  "router solicitation: hop limit is not 255 (RFC 4861, 6.1.1)"},
        Malformed{"SolicitationCode", with_checksum(with_byte(kSolicitation, 55, 1)),
                  "router solicitation: code is not 0 (RFC 4861, 6.1.1)"},
        Malformed{"SolicitationShort", with_payload(kSolicitation, hex("85 00 00 00 00 00 00")),
                  "router solicitation: shorter than 8 bytes (RFC 4861, 6.1.1)"},
        Malformed{"SolicitationOptionZero", with_checksum(with_byte(kSolicitation, 63, 0)),
                  "router solicitation: an option of length 0 (RFC 4861, 6.1.1)"},
        Malformed{"SolicitationOptionLong", with_checksum(with_byte(kSolicitation, 63, 2)),
                  "router solicitation: an option runs past the end (RFC 4861, 6.1.1)"},
        Malformed{"SolicitationOptionHalf", with_payload(kSolicitation, hex("85 00 00 00 00 00 00 00 01")),
                  "router solicitation: an option runs past the end (RFC 4861, 6.1.1)"},
        Malformed{"SolicitationGlobalSource", with_source(kSolicitation, "2001:db8::11"),
                  "router solicitation: source is neither link-local nor unspecified"},
        Malformed{"SolicitationMulticastSource", with_source(kSolicitation, "ff02::11"),
                  "router solicitation: source is neither link-local nor unspecified"},
        Malformed{"SolicitationUnspecifiedWithOption", with_source(kSolicitation, "::"),
                  "router solicitation: a source link-layer address option from the unspecified address (RFC 4861, "
                  "6.1.1)"},
        Malformed{
            "SourceOptionLength",
            with_payload(kSolicitation, hex("85 00 00 00 00 00 00 00 01 02 02 00 00 00 00 11 00 00 00 00 00 00 00 00")),
            "link-layer address option: length is not 1 (RFC 2464, 6)"},
        Malformed{"SourceOptionGroup", with_checksum(with_byte(kSolicitation, 64, 0x03)),
                  "link-layer address option: a group address"},
        Malformed{"SourceOptionZero",
                  with_payload(kSolicitation, hex("85 00 00 00 00 00 00 00 01 01 00 00 00 00 00 00")),
                  "link-layer address option: the zero address"},
        Malformed{"AdvertisementHopLimit", with_byte(kAdvertisement, 21, 1),
                  "router advertisement: hop limit is not 255 (RFC 4861, 6.1.2)"},
        Malformed{"AdvertisementCode", with_checksum(with_byte(kAdvertisement, 55, 1)),
                  "router advertisement: code is not 0 (RFC 4861, 6.1.2)"},
        Malformed{"AdvertisementShort",
                  with_payload(kAdvertisement, hex("86 00 00 00 40 00 07 08 00 00 00 00 00 00 00")),
                  "router advertisement: shorter than 16 bytes (RFC 4861, 6.1.2)"},
        Malformed{"AdvertisementGlobalSource", with_source(kAdvertisement, "2001:db8::1"),
                  "router advertisement: source is not link-local (RFC 4861, 6.1.2)"},
        Malformed{"AdvertisementOptionZero", with_checksum(with_byte(kAdvertisement, 71, 0)),
                  "router advertisement: an option of length 0 (RFC 4861, 6.1.2)"},
        Malformed{"AdvertisementOptionLong", with_checksum(with_byte(kAdvertisement, 71, 12)),
                  "router advertisement: an option runs past the end (RFC 4861, 6.1.2)"},
        Malformed{"MtuLength", with_checksum(with_byte(kAdvertisement, 79, 5)),
                  "MTU option: length is not 1 (RFC 4861, 4.6.4)"},
        Malformed{"PrefixOptionLength", with_checksum(with_byte(kAdvertisement, 87, 8)),
                  "prefix information option: length is not 4 (RFC 4861, 4.6.2)"},
        Malformed{"PrefixLength", with_checksum(with_byte(kAdvertisement, 88, 129)),
                  "prefix information option: prefix length over 128 (RFC 4861, 4.6.2)"},
        Malformed{"NeighbourSolicitationHopLimit", with_byte(kNeighbourSolicitation, 21, 64),
                  "neighbour solicitation: hop limit is not 255 (RFC 4861, 7.1.1)"},
        Malformed{"NeighbourSolicitationTarget", with_checksum(with_byte(kNeighbourSolicitation, 62, 0xff)),
                  "neighbour solicitation: target is multicast (RFC 4861, 7.1.1)"},
        Malformed{"NeighbourSolicitationUnspecified", with_source(kNeighbourSolicitation, "::"),
                  "neighbour solicitation: from the unspecified address, but not to a solicited-node address (RFC "
                  "4861, 7.1.1)"},
        Malformed{"NeighbourSolicitationShort",
                  with_payload(kNeighbourSolicitation, hex("87 00 00 00 00 00 00 00 fe 80")),
                  "neighbour solicitation: shorter than 24 bytes (RFC 4861, 7.1.1)"},
        Malformed{"NeighbourAdvertisementHopLimit", with_byte(kNeighbourAdvertisement, 21, 64),
                  "neighbour advertisement: hop limit is not 255 (RFC 4861, 7.1.2)"},
        Malformed{"NeighbourAdvertisementCode", with_checksum(with_byte(kNeighbourAdvertisement, 55, 2)),
                  "neighbour advertisement: code is not 0 (RFC 4861, 7.1.2)"},
        Malformed{"NeighbourAdvertisementTarget", with_checksum(with_byte(kNeighbourAdvertisement, 62, 0xff)),
                  "neighbour advertisement: target is multicast (RFC 4861, 7.1.2)"},
        Malformed{"NeighbourAdvertisementSolicited", with_checksum(with_byte(kNeighbourAdvertisement, 38, 0xff)),
                  "neighbour advertisement: solicited, but to a multicast address (RFC 4861, 7.1.2)"},
        Malformed{"ReportHopLimit", with_byte(kListenerReport, 21, 255),
                  "multicast listener report: hop limit is not 1 (RFC 3810, 5)"},
        Malformed{"ReportRouterAlert", with_byte(kListenerReport, 56, 0x1e),
                  "multicast listener report: no router alert (RFC 3810, 5)"},
        Malformed{"ReportSource", with_checksum(with_byte(kListenerReport, 22, 0x20), 62),
                  "multicast listener report: source is neither link-local nor unspecified (RFC 3810, 5.2.13)"}),
    [](const testing::TestParamInfo<Malformed>& tested) { return tested.param.name; });

}  // namespace
}  // namespace kedge::speaker
