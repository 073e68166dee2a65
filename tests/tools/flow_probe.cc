// The flow probe's command line. `run` is one end of a flow, `report` merges the files of both
// ends. Exit codes: 0 done, 1 failed, 2 wrong arguments.
#include <netdb.h>
#include <pthread.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <ctime>
#include <stop_token>
#include <string>
#include <thread>

#include "absl/strings/str_cat.h"
#include "tests/tools/flow_end.h"
#include "tests/tools/flow_file.h"
#include "tests/tools/flow_packet.h"

namespace kedge::tools {
namespace {

constexpr int kFailed = 1;
constexpr int kWrongArguments = 2;

// Everything that can be refused before a socket is opened throws CLI::ValidationError.
sockaddr_in6 parse_address(const std::string& option, const std::string& text, std::uint16_t port) {
  addrinfo hints{};
  hints.ai_family = AF_INET6;
  hints.ai_socktype = SOCK_DGRAM;
  hints.ai_flags = AI_NUMERICHOST;
  addrinfo* found = nullptr;
  if (getaddrinfo(text.c_str(), nullptr, &hints, &found) != 0) {
    throw CLI::ValidationError(option, "\"" + text + "\" is no IPv6 address");
  }
  sockaddr_in6 address{};
  std::memcpy(&address, found->ai_addr, sizeof(address));
  freeaddrinfo(found);
  const in6_addr* octets = &address.sin6_addr;
  if (IN6_IS_ADDR_UNSPECIFIED(octets) || IN6_IS_ADDR_MULTICAST(octets) || IN6_IS_ADDR_V4MAPPED(octets)) {
    throw CLI::ValidationError(option, "\"" + text + "\" is no unicast IPv6 address");
  }
  if (IN6_IS_ADDR_LINKLOCAL(octets) && address.sin6_scope_id == 0) {
    throw CLI::ValidationError(option, "\"" + text + "\" needs its interface: " + text + "%eth0");
  }
  address.sin6_port = htons(port);
  return address;
}

struct RunArguments {
  std::string local;
  std::string remote;
  std::string name;
  std::string report;
  std::uint32_t port = 0;
  std::uint32_t rate = 1'000;
  std::uint32_t size = 100;
  double duration_s = 0;
  std::uint32_t drain_ms = 500;
  double wait_address_s = 0;
  double wait_peer_s = 10;
  std::uint32_t receive_buffer = 32 * 1024 * 1024;
};

struct ReportArguments {
  std::string a;
  std::string b;
  std::string output = "-";
  std::optional<std::int64_t> from_ns;
  std::optional<std::int64_t> to_ns;
  std::size_t max_losses = 10'000;
};

CLI::App* add_run(CLI::App& app, RunArguments& arguments) {
  CLI::App* run = app.add_subcommand("run", "Be one end of a flow");
  run->add_option("--local", arguments.local, "Own IPv6 address")->required();
  run->add_option("--remote", arguments.remote, "The other end's IPv6 address")->required();
  run->add_option("--port", arguments.port, "UDP port of both ends")->required()->check(CLI::Range(1, 65'535));
  run->add_option("--rate", arguments.rate, "Packets a second")->required()->check(CLI::Range(1, 100'000));
  run->add_option("--report", arguments.report, "File for what was sent and received")->required();
  run->add_option("--name", arguments.name, "Name of this end in reports (default: the local address)");
  run->add_option("--duration", arguments.duration_s, "Seconds to send (default: until SIGINT or SIGTERM)")
      ->check(CLI::Range(0.001, 86'400.0));
  run->add_option("--size", arguments.size, "Octets of UDP payload")
      ->check(CLI::Range(static_cast<int>(kPacketHeaderSize), static_cast<int>(kPacketMaxSize)))
      ->capture_default_str();
  run->add_option("--drain-ms", arguments.drain_ms, "Milliseconds to receive after the last send")
      ->check(CLI::Range(0, 60'000))
      ->capture_default_str();
  run->add_option("--wait-address", arguments.wait_address_s,
                  "Seconds to wait until the local address exists and is not tentative")
      ->check(CLI::Range(0.0, 3'600.0))
      ->capture_default_str();
  run->add_option("--wait-peer", arguments.wait_peer_s, "Seconds to wait until the other end is heard; 0 sends at once")
      ->check(CLI::Range(0.0, 3'600.0))
      ->capture_default_str();
  run->add_option("--receive-buffer", arguments.receive_buffer, "Octets of socket buffer")
      ->check(CLI::Range(4'096, 1'073'741'824))
      ->capture_default_str();
  return run;
}

CLI::App* add_report(CLI::App& app, ReportArguments& arguments) {
  CLI::App* report = app.add_subcommand("report", "Merge the files of both ends");
  report->add_option("--a", arguments.a, "File of one end")->required()->check(CLI::ExistingFile);
  report->add_option("--b", arguments.b, "File of the other end")->required()->check(CLI::ExistingFile);
  report->add_option("--from", arguments.from_ns, "Only packets sent at or after this CLOCK_MONOTONIC time, ns");
  report->add_option("--to", arguments.to_ns, "Only packets sent before this CLOCK_MONOTONIC time, ns");
  report->add_option("-o,--output", arguments.output, "File for the report, - for standard output")
      ->capture_default_str();
  report->add_option("--max-losses", arguments.max_losses, "Longest list of losses")->capture_default_str();
  return report;
}

EndOptions end_options(const RunArguments& arguments) {
  const auto seconds = [](double value) {
    return std::chrono::round<std::chrono::milliseconds>(std::chrono::duration<double>(value));
  };
  EndOptions options;
  const auto port = static_cast<std::uint16_t>(arguments.port);
  options.local = parse_address("--local", arguments.local, port);
  options.remote = parse_address("--remote", arguments.remote, port);
  if (std::memcmp(&options.local.sin6_addr, &options.remote.sin6_addr, sizeof(in6_addr)) == 0) {
    throw CLI::ValidationError("--remote", "must not be the local address");
  }
  options.name = arguments.name.empty() ? address_text(options.local) : arguments.name;
  options.rate_pps = arguments.rate;
  options.size_bytes = arguments.size;
  options.duration = seconds(arguments.duration_s);
  options.drain = std::chrono::milliseconds(arguments.drain_ms);
  options.wait_address = seconds(arguments.wait_address_s);
  options.wait_peer = seconds(arguments.wait_peer_s);
  options.receive_buffer_bytes = arguments.receive_buffer;
  return options;
}

int fail(const absl::Status& status) {
  std::fprintf(stderr, "flow_probe: %s\n", std::string(status.message()).c_str());
  return kFailed;
}

// Turns SIGINT and SIGTERM into a stop request, in a thread of its own. To be made before any
// other thread, which inherit that the signals are blocked.
class SignalStop {
 public:
  SignalStop() {
    sigemptyset(&signals_);
    sigaddset(&signals_, SIGINT);
    sigaddset(&signals_, SIGTERM);
    pthread_sigmask(SIG_BLOCK, &signals_, nullptr);
    waiting_ = std::jthread([this](const std::stop_token& end) {
      const timespec interval{0, 50'000'000};
      while (!end.stop_requested()) {
        if (sigtimedwait(&signals_, nullptr, &interval) > 0) source_.request_stop();
      }
    });
  }
  std::stop_token token() const { return source_.get_token(); }

 private:
  sigset_t signals_{};
  std::stop_source source_;
  std::jthread waiting_;
};

int run_end(const RunArguments& arguments) {
  const EndOptions options = end_options(arguments);
  const SignalStop signals;
  auto end = FlowEnd::open(options, signals.token());
  if (!end.ok()) return fail(end.status());
  const auto record = (*end)->run(signals.token(), [&options](std::int64_t start_ns) {
    std::printf("flow_started name=%s monotonic_ns=%lld\n", options.name.c_str(), static_cast<long long>(start_ns));
    std::fflush(stdout);
  });
  if (!record.ok()) return fail(record.status());
  const absl::Status written = write_file(arguments.report, encode_end_record(*record));
  return written.ok() ? 0 : fail(written);
}

absl::StatusOr<EndRecord> load(const std::string& path) {
  const auto text = read_file(path);
  if (!text.ok()) return text.status();
  auto record = decode_end_record(*text);
  if (!record.ok()) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": ", std::string(record.status().message())));
  }
  return record;
}

int report(const ReportArguments& arguments) {
  if (arguments.from_ns && arguments.to_ns && *arguments.from_ns >= *arguments.to_ns) {
    throw CLI::ValidationError("--to", "must be later than --from");
  }
  const auto a = load(arguments.a);
  if (!a.ok()) return fail(a.status());
  const auto b = load(arguments.b);
  if (!b.ok()) return fail(b.status());
  const auto text = make_report(*a, *b, {arguments.from_ns, arguments.to_ns, arguments.max_losses});
  if (!text.ok()) return fail(text.status());
  if (arguments.output == "-") {
    return std::fputs(text->c_str(), stdout) >= 0 && std::fflush(stdout) == 0 ? 0 : kFailed;
  }
  const absl::Status written = write_file(arguments.output, *text);
  return written.ok() ? 0 : fail(written);
}

int main_with(int argc, char** argv) {
  CLI::App app("Measures loss, order and gaps of a UDP/IPv6 flow between two ends");
  app.require_subcommand(1);
  RunArguments run_arguments;
  ReportArguments report_arguments;
  const CLI::App* run = add_run(app, run_arguments);
  add_report(app, report_arguments);
  try {
    app.parse(argc, argv);
    return run->parsed() ? run_end(run_arguments) : report(report_arguments);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : kWrongArguments;
  }
}

}  // namespace
}  // namespace kedge::tools

int main(int argc, char** argv) { return kedge::tools::main_with(argc, argv); }
