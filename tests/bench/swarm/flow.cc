#include "tests/bench/swarm/flow.h"

#include <algorithm>
#include <random>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "tests/bench/swarm/clock.h"
#include "tests/tools/flow_end.h"
#include "tests/tools/flow_packet.h"

namespace kedge::bench {
namespace {

constexpr std::size_t kPayload = 100;
constexpr std::int64_t kGreetings = 100 * kMillisecond;
// As the flow probe: who was held up makes good for so much, and gives up what was due before.
constexpr std::int64_t kCatchUp = 20 * kMillisecond;

std::uint64_t random_flow() {
  std::random_device device;
  return static_cast<std::uint64_t>(device()) << 32U | device();
}

}  // namespace

Flow::Flow(const Ipv6Address& local, const Ipv6Address& remote, std::uint16_t udp_port, std::uint32_t rate,
           std::int64_t opened_ns, std::int64_t begin_ns)
    : local_(local),
      remote_(remote),
      direction_(local < remote ? 0 : 1),
      interval_ns_(kSecond / std::clamp<std::int64_t>(rate, 1, 100'000)),
      due_ns_(begin_ns),
      payload_(kPayload) {
  record_.name = record_.local = local.to_string();
  record_.remote = remote.to_string();
  record_.port = udp_port;
  record_.rate_pps = rate;
  record_.size_bytes = kPayload;
  record_.flow = random_flow();
  record_.clock_id = tools::clock_id();
  record_.receiving_from_ns = opened_ns;
}

std::span<const std::uint8_t> Flow::next(std::int64_t now_ns) {
  greeting_ = !heard_;
  tools::FlowPacket packet;
  packet.type = greeting_ ? tools::PacketType::kHello : tools::PacketType::kData;
  packet.direction = direction_;
  packet.flow = record_.flow;
  packet.sequence = greeting_ ? 0 : record_.sent.size();
  packet.sent_ns = now_ns;
  tools::write_packet(packet, payload_);
  return payload_;
}

void Flow::sent(std::int64_t now_ns, int error) {
  if (greeting_) {
    due_ns_ = now_ns + kGreetings;
    return;
  }
  record_.sent.push_back({now_ns, error});
  const std::int64_t late = now_ns - due_ns_;
  record_.late_sends += late > kMillisecond ? 1 : 0;
  record_.max_send_jitter_ns = std::max(record_.max_send_jitter_ns, late);
  due_ns_ += interval_ns_;
  if (now_ns - due_ns_ <= kCatchUp) return;
  const std::int64_t skipped = (now_ns - due_ns_) / interval_ns_;
  record_.skipped_slots += static_cast<std::uint64_t>(skipped);
  due_ns_ += skipped * interval_ns_;
}

bool Flow::receive(std::span<const std::uint8_t> payload, std::int64_t at_ns) {
  const auto packet = tools::read_packet(payload, payload.size());
  if (!packet || packet->direction == direction_) {
    ++record_.rejected["malformed"];
    return false;
  }
  if (!heard_) {
    heard_ = true;
    due_ns_ = std::min(due_ns_, at_ns + interval_ns_);
  }
  if (packet->type != tools::PacketType::kData) return true;
  const auto known = std::find_if(record_.received.begin(), record_.received.end(),
                                  [&](const auto& received) { return received.flow == packet->flow; });
  auto& flow = known != record_.received.end() ? *known : record_.received.emplace_back();
  flow.flow = packet->flow;
  flow.packets.push_back({packet->sequence, at_ns});
  return true;
}

tools::EndRecord Flow::record(std::int64_t until_ns, std::int64_t drain_ns, std::uint64_t local_drops) const {
  auto record = record_;
  record.receiving_until_ns = until_ns;
  record.drain_ns = drain_ns;
  record.local_drops = local_drops;
  return record;
}

std::string record_path(const std::string& folder, const Ipv6Address& mobile_node) {
  return absl::StrCat(folder, "/", absl::StrReplaceAll(mobile_node.to_string(), {{":", "-"}}), ".json");
}

}  // namespace kedge::bench
