// Any bytes as a frame from an access link. Past not crashing: what is taken for a message of a kind says the same when
// it is built again and parsed again, and a router solicitation that is accepted has what RFC 4861, 6.1.1 asks for.
// Each input is tried as it is and with the right checksum, which a fuzzer does not guess.
#include <span>
#include <vector>

#include "speaker/access/icmpv6_codec.h"
#include "tests/fuzz/input.h"

namespace {

using kedge::speaker::build_frame;
using kedge::speaker::FrameAddresses;
using kedge::speaker::Icmpv6Packet;

void require(bool condition) { kedge::fuzz::require(condition, "what the header promises"); }

template <typename Message, typename Parse>
void check_round_trip(const Icmpv6Packet& packet, const Message& message, Parse parse) {
  const std::vector<std::uint8_t> built = build_frame(packet.addresses, message);
  const auto packet_again = kedge::speaker::parse_icmpv6_frame(built);
  require(packet_again.ok());
  require(packet_again->addresses == packet.addresses);
  const auto message_again = parse(*packet_again);
  require(message_again.ok());
  require(*message_again == message);
}

void check(std::span<const std::uint8_t> frame) {
  const auto packet = kedge::speaker::parse_icmpv6_frame(frame);
  if (!packet.ok()) return;
  require(packet->message.size() >= 4);
  require(packet->message.data() >= frame.data());
  require(packet->message.data() + packet->message.size() <= frame.data() + frame.size());

  if (auto rs = kedge::speaker::parse_router_solicitation(*packet); rs.ok()) {
    const auto& source = packet->addresses.source;
    require(packet->hop_limit == 255 && packet->code() == 0 && packet->message.size() >= 8);
    require(source.is_unspecified() || source.is_link_local());
    require(!source.is_unspecified() || !rs->source_link_layer_address);
    check_round_trip(*packet, *rs, kedge::speaker::parse_router_solicitation);
  }
  if (auto ra = kedge::speaker::parse_router_advertisement(*packet); ra.ok()) {
    require(packet->addresses.source.is_link_local());
    check_round_trip(*packet, *ra, kedge::speaker::parse_router_advertisement);
  }
  if (auto ns = kedge::speaker::parse_neighbour_solicitation(*packet); ns.ok()) {
    require(!ns->target.is_multicast());
    check_round_trip(*packet, *ns, kedge::speaker::parse_neighbour_solicitation);
  }
  if (auto na = kedge::speaker::parse_neighbour_advertisement(*packet); na.ok()) {
    require(!na->target.is_multicast());
    check_round_trip(*packet, *na, kedge::speaker::parse_neighbour_advertisement);
  }
  if (kedge::speaker::check_listener_report(*packet).ok()) require(packet->router_alert && packet->hop_limit == 1);
}

// Puts in the right checksum (RFC 4443, 2.3) where an ICMPv6 message stands directly behind the IPv6 header. Written
// apart from the codec's, so that a mistake in that one shows as a valid frame that it refuses.
void fix_checksum(std::vector<std::uint8_t>& frame) {
  constexpr std::size_t kPayloadAt = 54;
  if (frame.size() < kPayloadAt + 4 || frame[20] != 58) return;
  const std::size_t length = (static_cast<std::size_t>(frame[18]) << 8) | frame[19];
  if (kPayloadAt + length > frame.size() || length < 4) return;
  frame[kPayloadAt + 2] = 0;
  frame[kPayloadAt + 3] = 0;
  std::uint64_t sum = length + 58;
  const auto add = [&](std::size_t from, std::size_t size) {
    for (std::size_t i = 0; i < size; ++i) sum += static_cast<std::uint64_t>(frame[from + i]) << (i % 2 == 0 ? 8 : 0);
  };
  add(22, 32);
  add(kPayloadAt, length);
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >> 16);
  frame[kPayloadAt + 2] = static_cast<std::uint8_t>((~sum >> 8) & 0xff);
  frame[kPayloadAt + 3] = static_cast<std::uint8_t>(~sum & 0xff);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  check({data, size});
  std::vector<std::uint8_t> frame(data, data + size);
  fix_checksum(frame);
  check(frame);
  return 0;
}
