#include "tests/tools/flow_packet.h"

#include <algorithm>

namespace kedge::tools {
namespace {

constexpr std::uint32_t kMagic = 0x4b464c31;  // "KFL1"

template <typename Integer>
void put(std::span<std::uint8_t> payload, std::size_t at, Integer value) {
  for (std::size_t i = sizeof(Integer); i-- > 0;) {
    payload[at + i] = static_cast<std::uint8_t>(value & 0xff);
    if constexpr (sizeof(Integer) > 1) value >>= 8;
  }
}

template <typename Integer>
Integer get(std::span<const std::uint8_t> payload, std::size_t at) {
  std::uint64_t value = 0;
  for (std::size_t i = 0; i < sizeof(Integer); ++i) value = value << 8 | payload[at + i];
  return static_cast<Integer>(value);
}

}  // namespace

void write_packet(const FlowPacket& packet, std::span<std::uint8_t> payload) {
  std::fill(payload.begin(), payload.end(), std::uint8_t{0});
  put<std::uint32_t>(payload, 0, kMagic);
  payload[4] = static_cast<std::uint8_t>(packet.type);
  payload[5] = packet.direction;
  put<std::uint64_t>(payload, 8, packet.flow);
  put<std::uint64_t>(payload, 16, packet.sequence);
  put<std::uint64_t>(payload, 24, static_cast<std::uint64_t>(packet.sent_ns));
  put<std::uint32_t>(payload, 32, static_cast<std::uint32_t>(payload.size()));
}

std::optional<FlowPacket> read_packet(std::span<const std::uint8_t> payload, std::size_t length) {
  if (payload.size() < kPacketHeaderSize || get<std::uint32_t>(payload, 0) != kMagic) return {};
  if (payload[4] > static_cast<std::uint8_t>(PacketType::kData) || payload[5] > 1) return {};
  if (get<std::uint16_t>(payload, 6) != 0 || get<std::uint32_t>(payload, 32) != length) return {};
  const auto rest = payload.subspan(36);
  if (std::any_of(rest.begin(), rest.end(), [](std::uint8_t octet) { return octet != 0; })) {
    return {};
  }
  FlowPacket packet;
  packet.type = static_cast<PacketType>(payload[4]);
  packet.direction = payload[5];
  packet.flow = get<std::uint64_t>(payload, 8);
  packet.sequence = get<std::uint64_t>(payload, 16);
  packet.sent_ns = static_cast<std::int64_t>(get<std::uint64_t>(payload, 24));
  return packet;
}

}  // namespace kedge::tools
