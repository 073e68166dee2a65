#include "tests/tools/flow_packet.h"

#include <gtest/gtest.h>

#include <vector>

namespace kedge::tools {
namespace {

std::vector<std::uint8_t> sample(std::size_t size) {
  std::vector<std::uint8_t> payload(size, 0xff);
  write_packet({PacketType::kData, 1, 0x0123456789abcdef, 0x1122334455667788, 987'654'321}, payload);
  return payload;
}

TEST(FlowPacketTest, WritesTheLayoutOfTheHeader) {
  const auto payload = sample(kPacketHeaderSize);
  const std::vector<std::uint8_t> expected = {
      0x4b, 0x46, 0x4c, 0x31, 1, 1, 0, 0, 0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef, 0x11, 0x22, 0x33, 0x44,
      0x55, 0x66, 0x77, 0x88, 0, 0, 0, 0, 0x3a, 0xde, 0x68, 0xb1, 0,    0,    0,    40,   0,    0,    0,    0};
  EXPECT_EQ(payload, expected);
}

TEST(FlowPacketTest, ReadsWhatItWrote) {
  const auto payload = sample(100);
  const auto packet = read_packet(payload, payload.size());
  ASSERT_TRUE(packet);
  EXPECT_EQ(packet->type, PacketType::kData);
  EXPECT_EQ(packet->direction, 1);
  EXPECT_EQ(packet->flow, 0x0123456789abcdefu);
  EXPECT_EQ(packet->sequence, 0x1122334455667788u);
  EXPECT_EQ(packet->sent_ns, 987'654'321);
}

TEST(FlowPacketTest, ReadsTheHeadOfAPacketLongerThanTheBuffer) {
  const auto payload = sample(12'000);
  EXPECT_TRUE(read_packet(std::span(payload).first(9'216), payload.size()));
}

TEST(FlowPacketTest, RefusesEverySizeButItsOwn) {
  const auto payload = sample(100);
  for (std::size_t size = 0; size < payload.size(); ++size) {
    EXPECT_FALSE(read_packet(std::span(payload).first(size), size)) << size;
  }
  EXPECT_FALSE(read_packet(payload, 101));
}

TEST(FlowPacketTest, RefusesEveryFieldThatIsNotAsWritten) {
  for (const std::size_t at : {0, 1, 2, 3, 4, 5, 6, 7, 32, 33, 34, 35, 36, 39, 40, 99}) {
    auto payload = sample(100);
    payload[at] ^= 0x42;
    EXPECT_FALSE(read_packet(payload, payload.size())) << "octet " << at;
  }
}

}  // namespace
}  // namespace kedge::tools
