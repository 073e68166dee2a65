#include "speaker/packet_filter/northbound_guard.h"

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <set>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "boost/asio/steady_timer.hpp"
#include "common/log.h"
#include "common/status.h"
#include "fmt/format.h"
#include "speaker/packet_filter/listeners.h"
#include "speaker/packet_filter/nftables.h"

namespace kedge::speaker {
namespace {

constexpr std::chrono::seconds kCheckInterval{1};
constexpr const char* kTable = "inet kedge_northbound";

// A number, a range, or a set of both.
bool includes(const Json& right, std::uint16_t port) {
  if (right.number_or(0) == port) return true;
  if (const auto range = right.at("range").items(); range.size() == 2) {
    return range[0].number_or(65536) <= port && port <= range[1].number_or(0);
  }
  const auto members = right.at("set").items();
  return std::any_of(members.begin(), members.end(), [port](const Json& member) { return includes(member, port); });
}

bool matches_port(const Json& match, std::uint16_t port) {
  const auto payload = match.at("left").at("payload");
  const auto& protocol = payload.at("protocol").text();
  return (protocol == "tcp" || protocol == "th") && payload.at("field").text() == "dport" &&
         match.at("op").text() == "==" && includes(match.at("right"), port);
}

// `iifname != "lo"` and its like.
bool matches_all_but_loopback(const Json& match) {
  const auto& key = match.at("left").at("meta").at("key").text();
  return (key == "iifname" || key == "iif") && match.at("op").text() == "!=" && match.at("right").text() == "lo";
}

struct Rule {
  // Of what comes from other hosts to the port, all of it matches.
  bool whole = true;
  bool names_port = false;
  bool drops = false;
  bool accepts = false;
};

Rule read_rule(const Json& rule, std::uint16_t port) {
  Rule result;
  for (const auto& expression : rule.at("expr").items()) {
    if (expression.has("drop") || expression.has("reject")) result.drops = true;
    if (expression.has("accept")) result.accepts = true;
    if (!expression.has("match")) continue;
    const auto match = expression.at("match");
    if (matches_port(match, port)) {
      result.names_port = true;
    } else if (!matches_all_but_loopback(match)) {
      result.whole = false;
    }
  }
  return result;
}

// Families for which one table's input chains close the port.
void add_closed(const std::vector<Json>& objects, std::uint16_t port, std::set<std::string>* families) {
  // Of each chain at the input hook that refuses what nothing accepts.
  std::set<std::vector<std::string>> refusing, accepting, input;
  const auto name_of = [](const Json& object, const char* key) {
    return std::vector{object.at("family").text(), object.at("table").text(), object.at(key).text()};
  };
  for (const auto& object : objects) {
    const auto chain = object.at("chain");
    if (chain.at("hook").text() != "input") continue;
    input.insert(name_of(chain, "name"));
    if (chain.at("policy").text() == "drop") refusing.insert(name_of(chain, "name"));
  }
  for (const auto& object : objects) {
    if (!object.has("rule")) continue;
    const auto chain = name_of(object.at("rule"), "chain");
    if (!input.contains(chain)) continue;
    const Rule rule = read_rule(object.at("rule"), port);
    if (rule.names_port && rule.accepts) accepting.insert(chain);
    // What was accepted further up in the chain does not come here.
    if (rule.names_port && rule.whole && rule.drops && !accepting.contains(chain)) families->insert(chain.front());
  }
  for (const auto& chain : refusing) {
    if (!accepting.contains(chain)) families->insert(chain.front());
  }
}

absl::StatusOr<std::string> make_table(Nftables& nftables, std::uint16_t port) {
  if (auto s = nftables.run(northbound_table(port, geteuid())); !s.ok()) return s;
  auto made = nftables.list(absl::StrCat("list table ", kTable));
  if (!made.ok()) return made;
  const auto ruleset = JsonDocument::parse(*made);
  if (!ruleset.ok()) return ruleset.status();
  if (!closes_port(ruleset->root(), port)) {
    return absl::InternalError("nftables took the rules that close it, and does not list them");
  }
  return made;
}

absl::Status with_remedy(const absl::Status& status, std::uint16_t port) {
  return {
      status.code(),
      fmt::format("FRR's northbound, TCP port {}, is open to other hosts: {}; mend it, or close the port yourself and "
                  "set frr.close_northbound: false, or accept it with frr.insecure_open_northbound: true",
                  port, std::string(status.message()))};
}

class TableKeeper : public NorthboundGuard {
 public:
  TableKeeper(const boost::asio::any_io_executor& executor, const NorthboundGuardConfig& config, Metrics& metrics)
      : config_(config),
        timer_(executor),
        closed_(metrics.gauge("kedge_speaker_northbound_closed", "1 while FRR's northbound port is closed to others")),
        repairs_(metrics.counter("kedge_speaker_northbound_repairs_total",
                                 "Times that the rules that close FRR's northbound port were made again")) {}

  absl::Status start() {
    const auto status = close();
    closed_.Set(status.ok() ? 1 : 0);
    if (status.ok()) {
      log_info("northbound_closed", "port", config_.port, "by",
               config_.close ? "table inet kedge_northbound" : "others");
    } else if (config_.accept_open) {
      log_warning("northbound_open", "port", config_.port, "text", std::string(status.message()), "effect",
                  "whoever reaches it can configure staticd");
    } else {
      return with_remedy(status, config_.port);
    }
    last_error_ = status;
    if (config_.close) arm();
    return absl::OkStatus();
  }

 private:
  absl::Status close() {
    if (!config_.close) return check_northbound_closed(config_.port);
    auto made = make_table(nftables_, config_.port);
    if (made.ok()) made_ = *std::move(made);
    return made.status();
  }

  void arm() {
    timer_.expires_after(kCheckInterval);
    timer_.async_wait([this](const boost::system::error_code& error) {
      if (error) return;
      check();
      arm();
    });
  }

  void check() {
    // Handles are part of it: what was made anew, or changed and changed back, is not what was made here.
    const auto found = nftables_.list(absl::StrCat("list table ", kTable));
    if (found.ok() && !made_.empty() && *found == made_) return;
    const auto status = close();
    closed_.Set(status.ok() ? 1 : 0);
    if (status.ok()) {
      repairs_.Increment();
      log_warning("northbound_closed_again", "port", config_.port, "text",
                  "somebody had removed or changed table inet kedge_northbound");
    } else if (status != last_error_) {
      log_error("northbound_open", "port", config_.port, "error", std::string(status.message()));
    }
    last_error_ = status;
  }

  const NorthboundGuardConfig config_;
  boost::asio::steady_timer timer_;
  Nftables nftables_;
  // The table as it was listed when it had been made.
  std::string made_;
  absl::Status last_error_;
  prometheus::Gauge& closed_;
  prometheus::Counter& repairs_;
};

}  // namespace

std::string northbound_table(std::uint16_t port, uid_t user) {
  // Made, so that deleting it cannot fail, then made anew, all in one transaction. What staticd answers has the port as
  // its source.
  return fmt::format(R"(add table {0}
delete table {0}
table {0} {{
  chain input {{
    type filter hook input priority filter; policy accept;
    iifname != "lo" tcp dport {1} drop
  }}
  chain output {{
    type filter hook output priority filter; policy accept;
    oifname "lo" tcp dport {1} meta skuid != {{ 0{2} }} reject with tcp reset
  }}
}}
)",
                     kTable, port, user == 0 ? "" : absl::StrCat(", ", user));
}

bool closes_port(const Json& ruleset, std::uint16_t port) {
  std::set<std::string> families;
  add_closed(ruleset.at("nftables").items(), port, &families);
  return families.contains("inet") || (families.contains("ip") && families.contains("ip6"));
}

absl::Status check_northbound_closed(std::uint16_t port) {
  const auto listeners = listeners_of(port);
  if (listeners.any && !listeners.beyond_loopback) return absl::OkStatus();
  const auto listed = Nftables().list("list ruleset");
  if (!listed.ok()) return annotate(listed.status(), "the packet filter cannot be read");
  const auto ruleset = JsonDocument::parse(*listed);
  if (!ruleset.ok()) return ruleset.status();
  if (closes_port(ruleset->root(), port)) return absl::OkStatus();
  return absl::FailedPreconditionError(
      "no rule of the packet filter is seen that closes it (nft list ruleset), neither a drop or reject of the port "
      "nor "
      "an input chain with policy drop");
}

absl::StatusOr<std::unique_ptr<NorthboundGuard>> guard_northbound(boost::asio::any_io_executor executor,
                                                                  const NorthboundGuardConfig& config,
                                                                  Metrics& metrics) {
  auto guard = std::make_unique<TableKeeper>(executor, config, metrics);
  if (auto s = guard->start(); !s.ok()) return s;
  return guard;
}

absl::Status open_northbound(std::uint16_t port) {
  if (listeners_of(port).beyond_loopback) {
    return absl::FailedPreconditionError(fmt::format(
        "table {0} stays: somebody listens at port {1}; end staticd or take '-M' from its options, then: nft "
        "delete table {0}",
        kTable, port));
  }
  return Nftables().run(fmt::format("add table {0}\ndelete table {0}", kTable));
}

}  // namespace kedge::speaker
