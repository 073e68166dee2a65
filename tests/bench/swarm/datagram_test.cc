#include "tests/bench/swarm/datagram.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace kedge::bench {
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

// The checksums were computed apart from the code under test.
const Bytes kDatagram = hex(R"(
  02 00 5e 00 88 18  02 00 00 01 00 02  86 dd
  60 00 00 00  00 0b  11  40
  20 01 0d b8 10 00 00 01 00 00 00 ff fe 01 00 02
  20 01 0d b8 00 00 00 04 00 00 00 00 00 00 00 02
  23 28 23 29 00 0b 8a a8
  61 62 63)");

Datagram sample(const Bytes& payload) {
  return {.addresses = {.link_source = *LinkLayerAddress::parse("02:00:00:01:00:02"),
                        .link_destination = *LinkLayerAddress::parse("02:00:5e:00:88:18"),
                        .source = *Ipv6Address::parse("2001:db8:1000:1:0:ff:fe01:2"),
                        .destination = *Ipv6Address::parse("2001:db8:0:4::2")},
          .source_port = 9000,
          .destination_port = 9001,
          .payload = payload};
}

TEST(DatagramTest, BuildsWhatAHostSends) {
  const Bytes payload = {'a', 'b', 'c'};
  EXPECT_EQ(build_datagram(sample(payload)), kDatagram);
}

TEST(DatagramTest, ReadsWhatAHostSent) {
  const auto datagram = parse_datagram(kDatagram);
  ASSERT_TRUE(datagram);
  EXPECT_EQ(datagram->addresses, sample({}).addresses);
  EXPECT_EQ(datagram->source_port, 9000);
  EXPECT_EQ(datagram->destination_port, 9001);
  EXPECT_EQ(Bytes(datagram->payload.begin(), datagram->payload.end()), Bytes({'a', 'b', 'c'}));
}

TEST(DatagramTest, TakesPaddingForNoPayload) {
  Bytes frame = kDatagram;
  frame.resize(frame.size() + 9);
  const auto datagram = parse_datagram(frame);
  ASSERT_TRUE(datagram);
  EXPECT_EQ(datagram->payload.size(), 3u);
}

TEST(DatagramTest, RefusesWhatIsCutOffAnywhere) {
  for (std::size_t size = 0; size < kDatagram.size(); ++size) {
    EXPECT_FALSE(parse_datagram(std::span(kDatagram).first(size))) << size;
  }
}

TEST(DatagramTest, RefusesOtherProtocolsAndLengthsThatDiffer) {
  // EtherType, version, next header, length of the payload, UDP's own length.
  for (const std::size_t at : {12u, 14u, 20u, 18u, 59u}) {
    Bytes frame = kDatagram;
    frame[at] ^= 0x20;
    EXPECT_FALSE(parse_datagram(frame)) << at;
  }
}

TEST(DatagramTest, AnswersAnEchoRequestWithItsData) {
  const Bytes request = hex(R"(
    02 00 00 01 00 02  02 00 5e 00 88 18  86 dd
    60 00 00 00  00 0b  3a  40
    20 01 0d b8 00 00 00 04 00 00 00 00 00 00 00 02
    20 01 0d b8 10 00 00 01 00 00 00 ff fe 01 00 02
    80 00 21 9d 12 34 00 07 68 65 79)");
  const Bytes reply = hex(R"(
    02 00 5e 00 88 18  02 00 00 01 00 02  86 dd
    60 00 00 00  00 0b  3a  40
    20 01 0d b8 10 00 00 01 00 00 00 ff fe 01 00 02
    20 01 0d b8 00 00 00 04 00 00 00 00 00 00 00 02
    81 00 20 9d 12 34 00 07 68 65 79)");
  const auto packet = speaker::parse_icmpv6_frame(request);
  ASSERT_TRUE(packet.ok());
  EXPECT_EQ(build_echo_reply(*packet), reply);
}

}  // namespace
}  // namespace kedge::bench
