// The probe's packet: the UDP payload, big-endian, 40 octets and then zeros up to the set size.
//
//   0 magic (4) | 4 type (1) | 5 direction (1) | 6 zero (2) | 8 flow (8) | 16 sequence (8)
//   24 sent_ns (8) | 32 length of the payload (4) | 36 zero (4)
//
// Pure functions, any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

namespace kedge::tools {

inline constexpr std::size_t kPacketHeaderSize = 40;
// 65,535 octets of IPv6 payload less the UDP header.
inline constexpr std::size_t kPacketMaxSize = 65'527;

enum class PacketType : std::uint8_t {
  kHello = 0,  // "my socket is open"; not numbered, never counted
  kData = 1,
};

struct FlowPacket {
  PacketType type = PacketType::kData;
  // 0 from the numerically lower address to the higher one, 1 the other way.
  std::uint8_t direction = 0;
  // Chosen at random by each end for each run.
  std::uint64_t flow = 0;
  std::uint64_t sequence = 0;
  // The sender's CLOCK_MONOTONIC.
  std::int64_t sent_ns = 0;
};

// Writes the header and zeros the rest of `payload`, which must hold kPacketHeaderSize octets.
void write_packet(const FlowPacket& packet, std::span<std::uint8_t> payload);

// `payload` is what the socket gave, at most `length` octets: `length` is the true size on the
// wire. Absent unless every field is what write_packet would have written.
std::optional<FlowPacket> read_packet(std::span<const std::uint8_t> payload, std::size_t length);

}  // namespace kedge::tools
