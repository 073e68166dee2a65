#include "tests/bench/swarm/swarm.h"

#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <iostream>
#include <map>
#include <optional>
#include <queue>
#include <unordered_map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "tests/bench/swarm/clock.h"
#include "tests/bench/swarm/command.h"
#include "tests/bench/swarm/flow.h"
#include "tests/bench/swarm/input.h"
#include "tests/bench/swarm/packet_port.h"
#include "tests/tools/flow_file.h"
#include "tests/tools/json_writer.h"

namespace kedge::bench {
namespace {

// RFC 4861, 10: MAX_RTR_SOLICITATIONS; a link's first loss must not end a benchmark, so some more.
constexpr int kMostSolicitations = 10;
constexpr std::int64_t kDrain = 500 * kMillisecond;
constexpr int kBatches = 16;

std::int64_t to_ns(std::chrono::milliseconds time) { return std::chrono::nanoseconds(time).count(); }

// One command's journey.
struct Journey {
  std::size_t port = 0;
  Travel travel;
  std::int64_t begun_ns = 0;
  std::vector<std::int64_t> waited_ns;  // from a node's first solicitation to its advertisement
  std::int64_t last_ns = 0;
  std::uint64_t again = 0;  // solicitations beyond the first
  std::uint64_t given_up = 0;
};

struct Traveller {
  explicit Traveller(const LinkLayerAddress& address) : node(address) {}

  MobileNode node;
  // Under way to a port: until an advertisement is heard there.
  bool travelling = false;
  std::size_t target = 0;
  std::int64_t solicited_ns = 0;
  std::int64_t advertised_ns = 0;
  int solicitations = 0;
  // Of this journey: its timers of earlier ones are void.
  std::uint32_t journey = 0;
  std::optional<std::size_t> flow;
};

enum class Step { kLeave, kSolicit, kUnlink };

struct Timer {
  std::int64_t at_ns = 0;
  std::size_t node = 0;
  Step step = Step::kSolicit;
  std::uint32_t journey = 0;

  bool operator>(const Timer& other) const { return at_ns > other.at_ns; }
};

class Swarm {
 public:
  Swarm(const SwarmOptions& options, int stop_descriptor) : options_(options), stop_descriptor_(stop_descriptor) {
    auto bytes = options.first.bytes();
    first_ = tail(options.first);
    for (std::size_t i = 0; i < options.nodes; ++i) {
      const std::uint32_t number = first_ + static_cast<std::uint32_t>(i);
      bytes[3] = static_cast<std::uint8_t>(number >> 16);
      bytes[4] = static_cast<std::uint8_t>(number >> 8);
      bytes[5] = static_cast<std::uint8_t>(number);
      nodes_.emplace_back(LinkLayerAddress(bytes));
    }
  }

  absl::Status open() {
    for (const auto& port : options_.ports) {
      auto opened = PacketPort::open(port.interface);
      if (!opened.ok()) return opened.status();
      ports_.push_back(*std::move(opened));
    }
    fcntl(STDIN_FILENO, F_SETFL, fcntl(STDIN_FILENO, F_GETFL) | O_NONBLOCK);
    return absl::OkStatus();
  }

  void run() {
    say("ready", [](auto&) {});
    while (!ended_) {
      wait();
      if (!read_commands()) return;
      for (std::size_t port = 0; port < ports_.size(); ++port) hear(port);
      run_timers();
      run_flows();
    }
  }

 private:
  // The last three octets.
  static std::uint32_t tail(const LinkLayerAddress& address) {
    const auto& bytes = address.bytes();
    return static_cast<std::uint32_t>(bytes[3] << 16 | bytes[4] << 8 | bytes[5]);
  }

  template <typename Fill>
  void say(const char* event, Fill fill) {
    tools::JsonWriter json;
    json.open_object();
    json.add("event", event);
    json.add("monotonic_ns", now_ns());
    fill(json);
    json.close_object();
    std::string text = std::move(json).finish();
    // A line each.
    std::replace(text.begin(), text.end(), '\n', ' ');
    std::cout << text << std::endl;
  }

  void wait() {
    std::int64_t due = now_ns() + kSecond;
    if (!timers_.empty()) due = std::min(due, timers_.top().at_ns);
    if (!sending_.empty()) due = std::min(due, sending_.top().first);
    if (drained_ns_ != 0) due = std::min(due, drained_ns_);
    std::vector<pollfd> waits{{STDIN_FILENO, POLLIN, 0}, {stop_descriptor_, POLLIN, 0}};
    for (const auto& port : ports_) waits.push_back({port->descriptor(), POLLIN, 0});
    wait_for(waits, due);
    if ((waits[1].revents & POLLIN) != 0) ended_ = true;
  }

  // False at the end of the input.
  bool read_commands() {
    return input_.read([this](const std::string& line) {
      const auto command = parse_command(line);
      absl::Status status = command.status();
      if (command.ok()) status = std::visit([this](const auto& one) { return carry_out(one); }, *command);
      if (!status.ok()) {
        say("refused", [&](auto& json) {
          json.add("command", line);
          json.add("reason", std::string(status.message()));
        });
      }
    });
  }

  // Commands.

  absl::Status carry_out(const Travel& travel) {
    const auto port = std::find_if(options_.ports.begin(), options_.ports.end(),
                                   [&](const auto& p) { return p.name == travel.port; });
    if (port == options_.ports.end()) {
      return absl::NotFoundError(absl::StrCat("there is no port to ", travel.port, "; see --port"));
    }
    if (travel.count > nodes_.size()) {
      return absl::OutOfRangeError(absl::StrCat("there are ", nodes_.size(), " nodes; see --nodes"));
    }
    journey_ = {};
    journey_.port = static_cast<std::size_t>(port - options_.ports.begin());
    journey_.travel = travel;
    journey_.begun_ns = now_ns();
    journey_.waited_ns.reserve(travel.count);
    ++journey_number_;
    arrived_ = 0;
    for (std::size_t i = 0; i < travel.count; ++i) {
      const std::int64_t at =
          journey_.begun_ns + static_cast<std::int64_t>(static_cast<double>(to_ns(travel.within)) *
                                                        static_cast<double>(i) / static_cast<double>(travel.count));
      nodes_[i].journey = journey_number_;
      timers_.push({at, i, travel.gap ? Step::kLeave : Step::kSolicit, journey_number_});
    }
    say("begun", [&](auto& json) { json.add("port", travel.port); });
    return absl::OkStatus();
  }

  absl::Status carry_out(const BeginFlows& wanted) {
    if (!flows_.empty()) return absl::FailedPreconditionError("there are flows already; stop-flows comes first");
    if (wanted.count > nodes_.size()) return absl::OutOfRangeError("there are not so many nodes");
    const std::int64_t now = now_ns();
    for (std::size_t i = 0; i < wanted.count; ++i) {
      const std::size_t index = i * nodes_.size() / wanted.count;
      const auto address = nodes_[index].node.first_address();
      if (!address) return absl::FailedPreconditionError(absl::StrCat("node ", index, " has no address yet"));
      const std::int64_t begin =
          now + kSecond / wanted.rate * static_cast<std::int64_t>(i) / static_cast<std::int64_t>(wanted.count);
      nodes_[index].flow = flows_.size();
      sending_.push({begin, flows_.size()});
      flows_.push_back({Flow(*address, options_.peer, options_.udp_port, wanted.rate, now, begin), index});
    }
    return absl::OkStatus();
  }

  absl::Status carry_out(const EndFlows& end) {
    if (flows_.empty()) return absl::FailedPreconditionError("there are no flows");
    folder_ = end.folder;
    sending_ = {};
    drained_ns_ = now_ns() + kDrain;
    return absl::OkStatus();
  }

  absl::Status carry_out(const Report& report) {
    std::string text;
    for (const auto& traveller : nodes_) {
      const auto& node = traveller.node;
      const auto uplink = node.uplink();
      absl::StrAppend(&text, node.link_layer_address().to_string(), " ", uplink ? options_.ports[*uplink].name : "-");
      for (const auto& prefix : node.prefixes()) {
        absl::StrAppend(&text, " ", prefix.prefix.to_string(), prefix.deprecated ? "!" : "");
      }
      text += '\n';
    }
    if (auto status = tools::write_file(report.file, text); !status.ok()) return status;
    say("report", [&](auto& json) {
      json.add("nodes", nodes_.size());
      json.open_array("ports");
      for (std::size_t i = 0; i < ports_.size(); ++i) {
        const auto counters = ports_[i]->counters();
        json.open_object();
        json.add("name", options_.ports[i].name);
        json.add("received", counters.received);
        json.add("sent", counters.sent);
        json.add("refused", counters.refused);
        json.add("overrun", counters.overrun);
        json.close_object();
      }
      json.close_array();
      json.add("datagrams_to_gone_links", datagrams_to_gone_links_);
      json.add_ms("latest_on_old_link_ms", latest_on_old_link_ns_);
    });
    datagrams_to_gone_links_ = 0;
    latest_on_old_link_ns_ = 0;
    return absl::OkStatus();
  }

  absl::Status carry_out(const Quit&) {
    ended_ = true;
    return absl::OkStatus();
  }

  // Journeys.

  void run_timers() {
    const std::int64_t now = now_ns();
    while (!timers_.empty() && timers_.top().at_ns <= now) {
      const Timer timer = timers_.top();
      timers_.pop();
      Traveller& traveller = nodes_[timer.node];
      if (timer.journey != traveller.journey) continue;
      switch (timer.step) {
        case Step::kLeave:
          for (std::size_t port = 0; port < ports_.size(); ++port) traveller.node.link(port, false);
          timers_.push({now + to_ns(*journey_.travel.gap), timer.node, Step::kSolicit, timer.journey});
          break;
        case Step::kSolicit:
          solicit(timer.node, now);
          break;
        case Step::kUnlink:
          for (std::size_t port = 0; port < ports_.size(); ++port) {
            if (port != traveller.target) traveller.node.link(port, false);
          }
          break;
      }
    }
  }

  void solicit(std::size_t index, std::int64_t now) {
    Traveller& traveller = nodes_[index];
    if (!traveller.travelling) {
      // The first one of this journey, or its advertisement has been heard.
      if (traveller.advertised_ns > journey_.begun_ns) return;
      traveller.travelling = true;
      traveller.target = journey_.port;
      traveller.solicitations = 0;
      traveller.solicited_ns = now;
      traveller.node.link(journey_.port, true);
      traveller.node.head_for(journey_.port);
    }
    if (traveller.solicitations++ == kMostSolicitations) {
      ++journey_.given_up;
      return;
    }
    if (traveller.solicitations > 1) ++journey_.again;
    ports_[traveller.target]->send(traveller.node.solicitation());
    timers_.push({now + to_ns(options_.solicitation_interval), index, Step::kSolicit, traveller.journey});
  }

  void arrived(std::size_t index, std::int64_t at) {
    Traveller& traveller = nodes_[index];
    traveller.travelling = false;
    traveller.advertised_ns = std::max(at, journey_.begun_ns + 1);
    journey_.waited_ns.push_back(at - traveller.solicited_ns);
    journey_.last_ns = std::max(journey_.last_ns, at);
    timers_.push({at + to_ns(journey_.travel.overlap), index, Step::kUnlink, traveller.journey});
    if (++arrived_ != journey_.travel.count) return;
    say("arrived", [&](auto& json) {
      json.add("port", journey_.travel.port);
      json.add("nodes", arrived_);
      json.add("begun_ns", journey_.begun_ns);
      json.add("last_ns", journey_.last_ns);
      json.add("solicited_again", journey_.again);
      json.open_array("waited_ms");
      for (const auto waited : journey_.waited_ns) json.add_ms("", waited);
      json.close_array();
    });
  }

  // Frames.

  void hear(std::size_t port) {
    for (int i = 0; i < kBatches; ++i) {
      const bool more = ports_[port]->receive(
          [&](std::span<const std::uint8_t> frame, std::int64_t at) { on_frame(port, frame, at); });
      if (!more) return;
    }
  }

  std::optional<std::size_t> node_of(std::span<const std::uint8_t> frame) const {
    if (frame.size() < 14) return std::nullopt;
    LinkLayerAddress::Bytes bytes;
    std::copy_n(frame.begin(), bytes.size(), bytes.begin());
    if (!std::equal(bytes.begin(), bytes.begin() + 3, options_.first.bytes().begin())) return std::nullopt;
    const std::uint32_t index = tail(LinkLayerAddress(bytes)) - first_;
    return index < nodes_.size() ? std::optional<std::size_t>(index) : std::nullopt;
  }

  void on_frame(std::size_t port, std::span<const std::uint8_t> frame, std::int64_t at) {
    const auto index = node_of(frame);
    if (!index) return;
    Traveller& traveller = nodes_[*index];
    if (!traveller.node.linked(port)) {
      if (traveller.flow && parse_datagram(frame)) ++datagrams_to_gone_links_;
      return;
    }
    const auto reaction = traveller.node.hear(port, frame);
    if (reaction.reply) ports_[port]->send(*reaction.reply);
    if (reaction.advertised && traveller.travelling && port == traveller.target) arrived(*index, at);
    if (!reaction.datagram || !traveller.flow) return;
    flows_[*traveller.flow].flow.receive(reaction.datagram->payload, at);
    if (!traveller.travelling && port != traveller.target) {
      latest_on_old_link_ns_ = std::max(latest_on_old_link_ns_, at - traveller.advertised_ns);
    }
  }

  // Flows.

  void run_flows() {
    std::int64_t now = now_ns();
    while (!sending_.empty() && sending_.top().first <= now) {
      const std::size_t index = sending_.top().second;
      sending_.pop();
      auto& [flow, node] = flows_[index];
      const auto& traveller = nodes_[node];
      const auto frame = traveller.node.datagram(flow.remote(), options_.udp_port, flow.next(now));
      // A node without a link has nothing to send by: it is the break's own loss.
      flow.sent(now, frame ? ports_[*traveller.node.uplink()]->send(*frame) : ENETDOWN);
      sending_.push({flow.due_ns(), index});
      now = now_ns();
    }
    if (drained_ns_ != 0 && now >= drained_ns_) finish_flows(now);
  }

  void finish_flows(std::int64_t now) {
    drained_ns_ = 0;
    std::uint64_t drops = 0;
    for (const auto& port : ports_) drops += port->counters().overrun;
    absl::Status status;
    for (const auto& [flow, node] : flows_) {
      status.Update(tools::write_file(record_path(folder_, flow.local()),
                                      tools::encode_end_record(flow.record(now, kDrain, drops))));
      nodes_[node].flow.reset();
    }
    flows_.clear();
    say("flows", [&](auto& json) {
      json.add("folder", folder_);
      json.add("error", std::string(status.message()));
    });
  }

  struct NodeFlow {
    Flow flow;
    std::size_t node;
  };
  using Sending = std::pair<std::int64_t, std::size_t>;

  const SwarmOptions options_;
  const int stop_descriptor_;
  std::vector<std::unique_ptr<PacketPort>> ports_;
  std::vector<Traveller> nodes_;
  std::uint32_t first_ = 0;
  InputLines input_;
  bool ended_ = false;

  Journey journey_;
  std::uint32_t journey_number_ = 0;
  std::size_t arrived_ = 0;
  std::priority_queue<Timer, std::vector<Timer>, std::greater<>> timers_;

  std::vector<NodeFlow> flows_;
  std::priority_queue<Sending, std::vector<Sending>, std::greater<>> sending_;
  std::string folder_;
  std::int64_t drained_ns_ = 0;
  std::uint64_t datagrams_to_gone_links_ = 0;
  std::int64_t latest_on_old_link_ns_ = 0;
};

}  // namespace

absl::Status run_swarm(const SwarmOptions& options, int stop_descriptor) {
  Swarm swarm(options, stop_descriptor);
  if (auto status = swarm.open(); !status.ok()) return status;
  swarm.run();
  return absl::OkStatus();
}

}  // namespace kedge::bench
