#include "tests/tools/flow_file.h"

#include <boost/property_tree/json_parser.hpp>
#include <boost/property_tree/ptree.hpp>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <iterator>
#include <sstream>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "tests/tools/json_writer.h"

namespace kedge::tools {
namespace {

using boost::property_tree::ptree;

constexpr char kEndFormat[] = "kedge-flow-end/1";
constexpr char kReportFormat[] = "kedge-flow-report/1";

// Packets are kept as differences in variable-length integers (7 bits an octet, the lowest first,
// the top bit says that more follow), about 5 octets each, then base64.
class PackedWriter {
 public:
  void put_unsigned(std::uint64_t value) {
    for (; value >= 0x80; value >>= 7) bytes_ += static_cast<char>(0x80 | (value & 0x7f));
    bytes_ += static_cast<char>(value);
  }
  void put_signed(std::int64_t value) {
    put_unsigned((static_cast<std::uint64_t>(value) << 1) ^ static_cast<std::uint64_t>(value >> 63));
  }
  std::string base64() const { return absl::Base64Escape(bytes_); }

 private:
  std::string bytes_;
};

class PackedReader {
 public:
  explicit PackedReader(std::string bytes) : bytes_(std::move(bytes)) {}
  bool at_end() const { return place_ == bytes_.size(); }
  bool failed() const { return failed_; }
  std::uint64_t get_unsigned() {
    std::uint64_t value = 0;
    for (int shift = 0; shift < 64 && place_ < bytes_.size(); shift += 7) {
      const auto octet = static_cast<std::uint8_t>(bytes_[place_++]);
      value |= static_cast<std::uint64_t>(octet & 0x7f) << shift;
      if ((octet & 0x80) == 0) return value;
    }
    failed_ = true;
    place_ = bytes_.size();
    return 0;
  }
  std::int64_t get_signed() {
    const std::uint64_t value = get_unsigned();
    return static_cast<std::int64_t>((value >> 1) ^ (~(value & 1) + 1));
  }

 private:
  std::string bytes_;
  std::size_t place_ = 0;
  bool failed_ = false;
};

std::string pack_sent(const std::vector<SentPacket>& sent) {
  PackedWriter writer;
  std::int64_t previous_ns = 0;
  for (const SentPacket& packet : sent) {
    const auto difference = static_cast<std::uint64_t>(packet.sent_ns - previous_ns);
    writer.put_unsigned(difference << 1 | (packet.error != 0));
    if (packet.error != 0) writer.put_unsigned(static_cast<std::uint64_t>(packet.error));
    previous_ns = packet.sent_ns;
  }
  return writer.base64();
}

bool unpack_sent(PackedReader reader, std::vector<SentPacket>& sent) {
  std::int64_t sent_ns = 0;
  while (!reader.at_end()) {
    const std::uint64_t value = reader.get_unsigned();
    sent_ns += static_cast<std::int64_t>(value >> 1);
    const auto error = (value & 1) != 0 ? static_cast<std::int32_t>(reader.get_unsigned()) : 0;
    sent.push_back({sent_ns, error});
  }
  return !reader.failed();
}

std::string pack_received(const std::vector<ReceivedPacket>& received) {
  PackedWriter writer;
  ReceivedPacket previous;
  for (const ReceivedPacket& packet : received) {
    writer.put_signed(static_cast<std::int64_t>(packet.sequence - previous.sequence));
    writer.put_signed(packet.received_ns - previous.received_ns);
    previous = packet;
  }
  return writer.base64();
}

bool unpack_received(PackedReader reader, std::vector<ReceivedPacket>& received) {
  ReceivedPacket packet;
  while (!reader.at_end()) {
    packet.sequence += static_cast<std::uint64_t>(reader.get_signed());
    packet.received_ns += reader.get_signed();
    received.push_back(packet);
  }
  return !reader.failed();
}

std::string hex(std::uint64_t value) { return absl::StrCat(absl::Hex(value, absl::kZeroPad16)); }

const char* error_name(std::int32_t error) {
  const char* name = strerrorname_np(error);
  return name != nullptr ? name : "unknown";
}

void add_counts(JsonWriter& json, const char* key, const std::map<std::string, std::uint64_t>& counts) {
  json.open_object(key);
  for (const auto& [name, count] : counts) json.add(name, count);
  json.close_object();
}

std::map<std::string, std::uint64_t> send_errors(const std::vector<SentPacket>& sent) {
  std::map<std::string, std::uint64_t> counts;
  for (const SentPacket& packet : sent) {
    if (packet.error != 0) ++counts[error_name(packet.error)];
  }
  return counts;
}

std::int64_t longest_send_gap(const EndRecord& record) {
  return account_direction(record.sent, {}, {}).longest_send_gap_ns;
}

// The part of an end's file that the report repeats.
void add_end_summary(JsonWriter& json, const EndRecord& record) {
  std::uint64_t received = 0;
  for (const ReceivedFlow& flow : record.received) received += flow.packets.size();
  json.add("name", record.name);
  json.add("local", record.local);
  json.add("remote", record.remote);
  json.add("port", record.port);
  json.add("rate_pps", record.rate_pps);
  json.add("size_bytes", record.size_bytes);
  json.add("flow_id", hex(record.flow));
  json.add("clock_id", record.clock_id);
  json.add("receiving_from_ns", record.receiving_from_ns);
  json.add("receiving_until_ns", record.receiving_until_ns);
  json.add("drain_ns", record.drain_ns);
  json.add("packets_sent", record.sent.size());
  json.add("packets_received", received);
  add_counts(json, "send_errors", send_errors(record.sent));
  json.add("skipped_slots", record.skipped_slots);
  json.add("late_sends", record.late_sends);
  json.add_ms("max_send_jitter_ms", record.max_send_jitter_ns);
  json.add_ms("max_send_call_ms", record.max_send_call_ns);
  json.add_ms("longest_send_gap_ms", longest_send_gap(record));
  json.add("local_drops", record.local_drops);
  json.add("timestamp_fallbacks", record.timestamp_fallbacks);
  add_counts(json, "rejected", record.rejected);
  if (record.icmp_errors) {
    add_counts(json, "icmp_errors", *record.icmp_errors);
  } else {
    json.add("icmp_errors", std::optional<bool>());
  }
  json.add("receive_buffer_bytes", record.receive_buffer_bytes);
  json.add("realtime_scheduling", record.realtime_scheduling);
}

std::uint64_t parse_hex(const std::string& text) {
  std::uint64_t value = 0;
  if (!absl::SimpleHexAtoi(text, &value)) throw std::runtime_error("\"" + text + "\" is no hexadecimal number");
  return value;
}

std::int64_t parse_ms(const ptree& tree, const char* key) {
  const auto text = tree.get<std::string>(key);
  const auto point = text.find('.');
  std::int64_t whole = 0;
  std::int64_t fraction = 0;
  if (point == std::string::npos || text.size() - point != 7 || text.front() == '-' ||
      !absl::SimpleAtoi(text.substr(0, point), &whole) || !absl::SimpleAtoi(text.substr(point + 1), &fraction)) {
    throw std::runtime_error(absl::StrCat(key, " is no number of milliseconds with six decimals"));
  }
  return whole * 1'000'000 + fraction;
}

std::map<std::string, std::uint64_t> parse_counts(const ptree& tree) {
  std::map<std::string, std::uint64_t> counts;
  for (const auto& [name, value] : tree) counts[name] = value.get_value<std::uint64_t>();
  return counts;
}

PackedReader unpack(const std::string& base64) {
  std::string bytes;
  if (!absl::Base64Unescape(base64, &bytes)) throw std::runtime_error("the packets are no base64");
  return PackedReader(std::move(bytes));
}

EndRecord parse_end_record(const ptree& tree) {
  if (tree.get<std::string>("format", "") != kEndFormat) {
    throw std::runtime_error(absl::StrCat("\"format\" is not \"", kEndFormat, "\""));
  }
  EndRecord record;
  record.name = tree.get<std::string>("name");
  record.local = tree.get<std::string>("local");
  record.remote = tree.get<std::string>("remote");
  record.port = tree.get<std::uint32_t>("port");
  record.rate_pps = tree.get<std::uint32_t>("rate_pps");
  record.size_bytes = tree.get<std::uint32_t>("size_bytes");
  record.flow = parse_hex(tree.get<std::string>("flow_id"));
  record.clock_id = tree.get<std::string>("clock_id");
  record.receiving_from_ns = tree.get<std::int64_t>("receiving_from_ns");
  record.receiving_until_ns = tree.get<std::int64_t>("receiving_until_ns");
  record.drain_ns = tree.get<std::int64_t>("drain_ns");
  record.skipped_slots = tree.get<std::uint64_t>("skipped_slots");
  record.late_sends = tree.get<std::uint64_t>("late_sends");
  record.max_send_jitter_ns = parse_ms(tree, "max_send_jitter_ms");
  record.max_send_call_ns = parse_ms(tree, "max_send_call_ms");
  record.local_drops = tree.get<std::uint64_t>("local_drops");
  record.timestamp_fallbacks = tree.get<std::uint64_t>("timestamp_fallbacks");
  record.rejected = parse_counts(tree.get_child("rejected"));
  if (tree.get<std::string>("icmp_errors") != "null") record.icmp_errors = parse_counts(tree.get_child("icmp_errors"));
  record.receive_buffer_bytes = tree.get<std::uint64_t>("receive_buffer_bytes");
  record.realtime_scheduling = tree.get<bool>("realtime_scheduling");
  if (!unpack_sent(unpack(tree.get<std::string>("sent_packets")), record.sent)) {
    throw std::runtime_error("sent_packets is cut off");
  }
  for (const auto& [key, flow] : tree.get_child("received_flows")) {
    ReceivedFlow& received = record.received.emplace_back();
    received.flow = parse_hex(flow.get<std::string>("flow_id"));
    if (!unpack_received(unpack(flow.get<std::string>("packets")), received.packets)) {
      throw std::runtime_error("the packets of a received flow are cut off");
    }
  }
  if (record.sent.size() != tree.get<std::uint64_t>("packets_sent")) {
    throw std::runtime_error("packets_sent and sent_packets disagree");
  }
  return record;
}

const std::vector<ReceivedPacket>& packets_of(const EndRecord& receiver, std::uint64_t flow) {
  static const std::vector<ReceivedPacket> kNone;
  for (const ReceivedFlow& received : receiver.received) {
    if (received.flow == flow) return received.packets;
  }
  return kNone;
}

std::uint64_t stray_packets(const EndRecord& receiver, std::uint64_t flow) {
  std::uint64_t strays = 0;
  for (const ReceivedFlow& received : receiver.received) {
    if (received.flow != flow) strays += received.packets.size();
  }
  return strays;
}

bool only_heard_others(const EndRecord& receiver, std::uint64_t flow) {
  return packets_of(receiver, flow).empty() && stray_packets(receiver, flow) > 0;
}

DirectionFigures account(const EndRecord& sender, const EndRecord& receiver, const ReportOptions& options) {
  AccountOptions account_options;
  account_options.from_ns = options.from_ns;
  account_options.to_ns = options.to_ns;
  account_options.shared_clock = sender.clock_id == receiver.clock_id;
  if (account_options.shared_clock) {
    account_options.judged_from_ns = receiver.receiving_from_ns;
    account_options.judged_until_ns = receiver.receiving_until_ns - receiver.drain_ns;
  }
  return account_direction(sender.sent, packets_of(receiver, sender.flow), account_options);
}

void add_gap(JsonWriter& json, const std::optional<Gap>& gap, std::int64_t base_ns) {
  if (!gap) {
    json.add("longest_gap_ms", std::optional<bool>());
    json.add("longest_gap", std::optional<bool>());
    return;
  }
  json.add_ms("longest_gap_ms", gap->length_ns);
  json.open_object("longest_gap");
  json.add("after_sequence", gap->after_sequence);
  json.add("before_sequence", gap->before_sequence);
  json.add_ms("at_ms", gap->at_sent_ns - base_ns);
  json.add_ms("send_gap_ms", gap->send_gap_ns);
  json.close_object();
}

void add_losses(JsonWriter& json, const DirectionFigures& figures, std::int64_t base_ns, std::size_t max_losses) {
  json.add("losses_truncated", figures.losses.size() > max_losses);
  json.open_array("losses");
  for (std::size_t i = 0; i < figures.losses.size() && i < max_losses; ++i) {
    const LossRun& run = figures.losses[i];
    json.open_object();
    json.add("first_sequence", run.first_sequence);
    json.add("last_sequence", run.last_sequence);
    json.add("count", run.count());
    json.add_ms("sent_at_ms", run.first_sent_ns - base_ns);
    json.add_ms("last_sent_at_ms", run.last_sent_ns - base_ns);
    json.close_object();
  }
  json.close_array();
}

void add_direction(JsonWriter& json, const char* key, const EndRecord& sender, const EndRecord& receiver,
                   const DirectionFigures& figures, std::int64_t base_ns, const ReportOptions& options) {
  json.open_object(key);
  json.add("from", sender.name);
  json.add("to", receiver.name);
  json.add("sent", figures.sent);
  json.add("received", figures.received);
  json.add("lost", figures.lost);
  json.add("duplicated", figures.duplicated);
  json.add("reordered", figures.reordered);
  json.add("send_failed", figures.send_failed);
  json.add("not_judged", figures.not_judged);
  json.add("impossible", figures.impossible);
  json.add("stray", stray_packets(receiver, sender.flow));
  json.add("receiver_local_drops", receiver.local_drops);
  add_gap(json, figures.longest_gap, base_ns);
  json.add("longest_loss_run", figures.longest_loss_run);
  json.add_ms("longest_send_gap_ms", figures.longest_send_gap_ns);
  json.add("first_sent_ns", figures.first_sent_ns);
  json.add("last_sent_ns", figures.last_sent_ns);
  if (figures.delay) {
    json.open_object("delay_ms");
    json.add_ms("min", figures.delay->min_ns);
    json.add_ms("median", figures.delay->median_ns);
    json.add_ms("max", figures.delay->max_ns);
    json.close_object();
  } else {
    json.add("delay_ms", std::optional<bool>());
  }
  add_losses(json, figures, base_ns, options.max_losses);
  json.close_object();
}

// The zero of all "at" times. Without a shared clock each direction has a zero of its own.
std::int64_t base_of(const ReportOptions& options, const DirectionFigures& own, const DirectionFigures& other,
                     bool shared_clock) {
  if (options.from_ns) return *options.from_ns;
  std::int64_t base_ns = own.first_sent_ns.value_or(0);
  if (shared_clock && other.first_sent_ns && (!own.first_sent_ns || *other.first_sent_ns < base_ns)) {
    base_ns = *other.first_sent_ns;
  }
  return base_ns;
}

}  // namespace

std::string encode_end_record(const EndRecord& record) {
  JsonWriter json;
  json.open_object();
  json.add("format", kEndFormat);
  add_end_summary(json, record);
  json.add("sent_packets", pack_sent(record.sent));
  json.open_array("received_flows");
  for (const ReceivedFlow& flow : record.received) {
    json.open_object();
    json.add("flow_id", hex(flow.flow));
    json.add("packets_received", flow.packets.size());
    json.add("packets", pack_received(flow.packets));
    json.close_object();
  }
  json.close_array();
  json.close_object();
  return std::move(json).finish();
}

absl::StatusOr<EndRecord> decode_end_record(const std::string& text) {
  try {
    std::istringstream stream(text);
    ptree tree;
    boost::property_tree::read_json(stream, tree);
    return parse_end_record(tree);
  } catch (const std::exception& error) {
    return absl::InvalidArgumentError(absl::StrCat("no file of \"flow_probe run\": ", error.what()));
  }
}

absl::StatusOr<std::string> make_report(const EndRecord& a, const EndRecord& b, const ReportOptions& options) {
  if (a.flow == b.flow) return absl::FailedPreconditionError("both files are of the same end");
  if (only_heard_others(a, b.flow) && only_heard_others(b, a.flow)) {
    return absl::FailedPreconditionError(
        "the files are of different runs: each end received packets, but none of the other's");
  }
  const bool shared_clock = a.clock_id == b.clock_id;
  const DirectionFigures forward = account(a, b, options);
  const DirectionFigures backward = account(b, a, options);
  const std::int64_t forward_base = base_of(options, forward, backward, shared_clock);
  const std::int64_t backward_base = base_of(options, backward, forward, shared_clock);

  JsonWriter json;
  json.open_object();
  json.add("format", kReportFormat);
  json.add("shared_clock", shared_clock);
  json.add("from_ns", options.from_ns);
  json.add("to_ns", options.to_ns);
  json.add("base_ns", shared_clock ? std::optional(forward_base) : std::nullopt);
  add_direction(json, "a_to_b", a, b, forward, forward_base, options);
  add_direction(json, "b_to_a", b, a, backward, backward_base, options);
  json.open_object("a");
  add_end_summary(json, a);
  json.close_object();
  json.open_object("b");
  add_end_summary(json, b);
  json.close_object();
  json.close_object();
  return std::move(json).finish();
}

absl::StatusOr<std::string> read_file(const std::string& path) {
  std::ifstream stream(path, std::ios::binary);
  std::string text{std::istreambuf_iterator<char>(stream), std::istreambuf_iterator<char>()};
  if (!stream.is_open() || stream.bad()) {
    return absl::NotFoundError(absl::StrCat("cannot read ", path, ": ", std::strerror(errno)));
  }
  return text;
}

absl::Status write_file(const std::string& path, const std::string& text) {
  const std::string draft = path + ".part";
  std::ofstream stream(draft, std::ios::binary | std::ios::trunc);
  stream << text;
  stream.close();
  if (!stream || std::rename(draft.c_str(), path.c_str()) != 0) {
    const std::string reason = std::strerror(errno);
    std::remove(draft.c_str());
    return absl::UnavailableError(absl::StrCat("cannot write ", path, ": ", reason));
  }
  return absl::OkStatus();
}

}  // namespace kedge::tools
