// ActivityMeter as the table inet kedge_activity:
//
//   watched  prefixes; each with a comment that says since when
//   used     those of them that have been used; each use sets the timeout anew, so that what is left of it tells when
//   the
//            last one was
//   forward  what comes from access interfaces, by source, and what goes to them, by destination, from `watched` into
//            `used`
//
// Behind the priorities at which rules of others drop, so that only what passes counts. The `last` statement would tell
// the same in one set; nft 1.0.6 knows nothing of it and dies when it lists such a set.
#include <algorithm>
#include <iterator>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "speaker/packet_filter/activity_meter.h"
#include "speaker/packet_filter/nftables.h"
#include "speaker/packet_filter/nftables_state.h"
#include "speaker/packet_filter/set_change.h"

namespace kedge::speaker {
namespace {

using std::chrono::milliseconds;

constexpr char kTableName[] = "kedge_activity";
constexpr char kTable[] = "inet kedge_activity";
constexpr char kWatched[] = "watched";
constexpr char kUsed[] = "used";
constexpr char kRemove[] = "add table inet kedge_activity\ndelete table inet kedge_activity\n";
constexpr int kLength = 64;
constexpr std::size_t kRules = 2;
// Longer than anything that anybody asks for.
constexpr milliseconds kTimeout = std::chrono::days(30);

// Sets that are there keep their elements. The rules follow.
constexpr char kSkeleton[] = R"(add table inet kedge_activity
add set inet kedge_activity watched { type ipv6_addr; }
add set inet kedge_activity used { type ipv6_addr; size 1048576; flags dynamic,timeout; timeout 30d; }
add chain inet kedge_activity forward { type filter hook forward priority 100; policy accept; }
flush chain inet kedge_activity forward
)";

std::string rule(const char* way, const std::string& interfaces, const char* field) {
  const std::string prefix = absl::StrCat("ip6 ", field, " and ffff:ffff:ffff:ffff::");
  return absl::StrCat("add rule ", kTable, " forward ", way, " { ", interfaces, " } ", prefix, " @", kWatched,
                      " update @", kUsed, " { ", prefix, " }\n");
}

// Added first, since what is not there cannot be deleted.
void forget(SetChange& change, const char* set, const std::vector<Ipv6Prefix>& prefixes) {
  for (const auto& prefix : prefixes) {
    change.add(set, prefix.address().bytes());
    change.remove(set, prefix.address().bytes());
  }
}

// Of the clock that goes on over restarts of the speaker.
milliseconds now() {
  return std::chrono::duration_cast<milliseconds>(std::chrono::steady_clock::now().time_since_epoch());
}

std::optional<Ipv6Prefix> prefix_of(const SetElement& element) {
  const auto address = read_address(element.key);
  return address ? std::optional(Ipv6Prefix(*address, kLength)) : std::nullopt;
}

ActivityMeter::Reading watched_since(const SetElement& element) {
  std::int64_t since = 0;
  // Not of our making: nothing is known but that it is watched now.
  if (!absl::SimpleAtoi(element.comment, &since)) return {milliseconds(0), true};
  return {std::max(now() - milliseconds(since), milliseconds(0)), true};
}

std::optional<ActivityMeter::Reading> last_use(const SetElement& element) {
  if (!element.expires) return std::nullopt;
  return ActivityMeter::Reading{std::max(kTimeout - *element.expires, milliseconds(0)), false};
}

class NftablesActivityMeter final : public ActivityMeter {
 public:
  NftablesActivityMeter(const ActivityMeterConfig& config, NetlinkSocket socket) : socket_(std::move(socket)) {
    std::vector<std::string> names;
    for (const auto& name : config.interfaces) names.push_back(quoted(name));
    const std::string interfaces = absl::StrJoin(names, ", ");
    skeleton_ = absl::StrCat(kSkeleton, rule("iifname", interfaces, "saddr"), rule("oifname", interfaces, "daddr"));
  }

  absl::Status replace_all(const std::set<Ipv6Prefix>& prefixes) override {
    if (prefixes.empty()) return nftables_.run(kRemove);
    // What was there without its rules has missed something.
    auto status = check_rules();
    if (status.ok()) status = nftables_.run(skeleton_);
    if (!status.ok()) status = nftables_.run(kRemove + skeleton_);
    if (!status.ok()) return status;
    const auto watched = read_set(socket_, kTableName, kWatched);
    if (!watched.ok()) return watched.status();
    std::set<Ipv6Prefix> present;
    for (const auto& element : *watched) {
      if (const auto prefix = prefix_of(element)) present.insert(*prefix);
    }
    std::vector<Ipv6Prefix> added;
    std::vector<Ipv6Prefix> removed;
    std::set_difference(prefixes.begin(), prefixes.end(), present.begin(), present.end(), std::back_inserter(added));
    std::set_difference(present.begin(), present.end(), prefixes.begin(), prefixes.end(), std::back_inserter(removed));
    return change(added, removed);
  }

  absl::Status change(const std::vector<Ipv6Prefix>& added, const std::vector<Ipv6Prefix>& removed) override {
    SetChange change(kTableName);
    forget(change, kWatched, removed);
    forget(change, kUsed, removed);
    forget(change, kUsed, added);
    const std::string since = absl::StrCat(now().count());
    for (const auto& prefix : added) change.add(kWatched, prefix.address().bytes(), since);
    return change.commit(socket_);
  }

  absl::StatusOr<std::map<Ipv6Prefix, Reading>> read() override {
    if (auto status = check_rules(); !status.ok()) return status;
    const auto watched = read_set(socket_, kTableName, kWatched);
    if (!watched.ok()) return watched.status();
    const auto used = read_set(socket_, kTableName, kUsed);
    if (!used.ok()) return used.status();
    std::map<Ipv6Prefix, Reading> readings;
    for (const auto& element : *watched) {
      if (const auto prefix = prefix_of(element)) readings[*prefix] = watched_since(element);
    }
    for (const auto& element : *used) {
      const auto prefix = prefix_of(element);
      const auto found = prefix ? readings.find(*prefix) : readings.end();
      const auto use = last_use(element);
      if (found != readings.end() && use) found->second = *use;
    }
    return readings;
  }

  absl::StatusOr<std::optional<Reading>> read(const Ipv6Prefix& prefix) override {
    if (auto status = check_rules(); !status.ok()) return status;
    std::optional<Reading> reading;
    const auto& key = prefix.address().bytes();
    auto status = read_element(socket_, kTableName, kWatched, key,
                               [&](const SetElement& element) { reading = watched_since(element); });
    if (!status.ok() || !reading) return reading;
    status = read_element(socket_, kTableName, kUsed, key, [&](const SetElement& element) {
      if (const auto use = last_use(element)) reading = use;
    });
    if (!status.ok()) return status;
    return reading;
  }

 private:
  // Without them, all that is watched would look idle.
  absl::Status check_rules() {
    const auto rules = count_rules(socket_, kTableName);
    if (!rules.ok()) return rules.status();
    if (*rules == kRules) return absl::OkStatus();
    return absl::NotFoundError(absl::StrCat("nftables: ", kTable, " has ", *rules, " rules instead of ", kRules));
  }

  Nftables nftables_;
  NetlinkSocket socket_;
  std::string skeleton_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<ActivityMeter>> make_activity_meter(const ActivityMeterConfig& config) {
  if (auto status = check_interface_names(config.interfaces); !status.ok()) return status;
  auto socket = NetlinkSocket::open(NETLINK_NETFILTER);
  if (!socket.ok()) return socket.status();
  return std::make_unique<NftablesActivityMeter>(config, *std::move(socket));
}

absl::Status remove_activity_meter() { return Nftables().run(kRemove); }

}  // namespace kedge::speaker
