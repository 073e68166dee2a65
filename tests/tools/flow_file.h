// What one end of a flow leaves behind, and the report made of both ends' files. Both are JSON;
// README.md lists the fields. Any thread; no clock.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "tests/tools/flow_account.h"

namespace kedge::tools {

// Packets that arrived with one flow number.
struct ReceivedFlow {
  std::uint64_t flow = 0;
  std::vector<ReceivedPacket> packets;
};

// Times are nanoseconds of the end's CLOCK_MONOTONIC.
struct EndRecord {
  std::string name;
  std::string local;
  std::string remote;
  std::uint32_t port = 0;
  std::uint32_t rate_pps = 0;
  std::uint32_t size_bytes = 0;
  std::uint64_t flow = 0;
  // The same in two files means that CLOCK_MONOTONIC was the same clock.
  std::string clock_id;

  std::int64_t receiving_from_ns = 0;
  std::int64_t receiving_until_ns = 0;
  std::int64_t drain_ns = 0;

  std::vector<SentPacket> sent;
  std::vector<ReceivedFlow> received;

  // Deadlines that were given up because the sender came far too late.
  std::uint64_t skipped_slots = 0;
  // Sends more than 1 ms after their deadline.
  std::uint64_t late_sends = 0;
  std::int64_t max_send_jitter_ns = 0;
  // The longest time that one send call took.
  std::int64_t max_send_call_ns = 0;

  // Packets that the kernel dropped at this end's own socket.
  std::uint64_t local_drops = 0;
  std::uint64_t timestamp_fallbacks = 0;
  // Reason -> packets that arrived and are none of the peer's.
  std::map<std::string, std::uint64_t> rejected;
  // "type/code" -> ICMPv6 errors about our packets; absent without the right to listen for them.
  std::optional<std::map<std::string, std::uint64_t>> icmp_errors;

  std::uint64_t receive_buffer_bytes = 0;
  bool realtime_scheduling = false;
};

std::string encode_end_record(const EndRecord& record);
// InvalidArgument names what is wrong with the text.
absl::StatusOr<EndRecord> decode_end_record(const std::string& text);

struct ReportOptions {
  // The window [from_ns, to_ns) of send times.
  std::optional<std::int64_t> from_ns;
  std::optional<std::int64_t> to_ns;
  // Longer lists of losses are cut here, and say so.
  std::size_t max_losses = 10'000;
};

// FailedPrecondition when the two files cannot be the two ends of one flow.
absl::StatusOr<std::string> make_report(const EndRecord& a, const EndRecord& b, const ReportOptions& options);

absl::StatusOr<std::string> read_file(const std::string& path);
// Writes beside `path` and renames, so that a reader never sees half a file.
absl::Status write_file(const std::string& path, const std::string& text);

}  // namespace kedge::tools
