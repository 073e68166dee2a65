// The arithmetic behind every figure of the flow probe: what one end sent and what the other
// received go in, the figures of one direction come out. Pure: no clock, no I/O, any thread.
//
// Times are nanoseconds of CLOCK_MONOTONIC: send times by the sender's clock, receive times by the
// receiver's. README.md defines each figure.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

namespace kedge::tools {

// The packet's sequence number is its place in the list of what was sent.
struct SentPacket {
  std::int64_t sent_ns = 0;
  // errno with which the kernel refused the packet, 0 when it took it.
  std::int32_t error = 0;
};

// In the order in which the receiver's socket delivered them, copies included.
struct ReceivedPacket {
  std::uint64_t sequence = 0;
  std::int64_t received_ns = 0;
};

struct AccountOptions {
  // The window [from_ns, to_ns) of send times; an absent bound leaves that side open.
  std::optional<std::int64_t> from_ns;
  std::optional<std::int64_t> to_ns;

  // Send times [judged_from_ns, judged_until_ns] during which the receiver was certainly there.
  // Packets sent outside are counted in `not_judged` and in nothing else.
  std::optional<std::int64_t> judged_from_ns;
  std::optional<std::int64_t> judged_until_ns;

  // Both clocks are one, so that differences between them are delays.
  bool shared_clock = false;
};

// Consecutive sequence numbers of which not one copy arrived.
struct LossRun {
  std::uint64_t first_sequence = 0;
  std::uint64_t last_sequence = 0;
  std::int64_t first_sent_ns = 0;
  std::int64_t last_sent_ns = 0;

  std::uint64_t count() const { return last_sequence - first_sequence + 1; }
};

struct Gap {
  std::int64_t length_ns = 0;
  // The packets at both sides; absent where the gap touches an end of the window.
  std::optional<std::uint64_t> after_sequence;
  std::optional<std::uint64_t> before_sequence;
  // When the packet after which it began was sent.
  std::int64_t at_sent_ns = 0;
  // The longest pause of the sender itself between the packets at both sides.
  std::int64_t send_gap_ns = 0;
};

struct Delay {
  std::int64_t min_ns = 0;
  std::int64_t median_ns = 0;
  std::int64_t max_ns = 0;
};

struct DirectionFigures {
  std::uint64_t sent = 0;
  std::uint64_t send_failed = 0;  // also counted in sent and, unless received, in lost
  std::uint64_t received = 0;     // distinct packets
  std::uint64_t lost = 0;         // sent - received
  std::uint64_t duplicated = 0;   // copies beyond the first
  std::uint64_t reordered = 0;    // RFC 4737, 3.3
  std::uint64_t not_judged = 0;
  // Sequence numbers that were never sent, over the whole flow. Not 0 means a broken record.
  std::uint64_t impossible = 0;

  std::optional<std::int64_t> first_sent_ns;
  std::optional<std::int64_t> last_sent_ns;
  std::int64_t longest_send_gap_ns = 0;
  std::optional<Gap> longest_gap;  // absent when fewer than two packets were sent
  std::uint64_t longest_loss_run = 0;
  std::vector<LossRun> losses;
  std::optional<Delay> delay;  // absent without a shared clock or without a packet
};

// `sent` must be ordered by time, which the sender guarantees.
DirectionFigures account_direction(const std::vector<SentPacket>& sent, const std::vector<ReceivedPacket>& received,
                                   const AccountOptions& options);

}  // namespace kedge::tools
