// AccessFilter as the table inet kedge_access:
//
//   prerouting  segment identifiers goto segments; access interfaces goto access
//   segments    not from access interfaces; only from other ARs' locators
//   access      "::" to groups of the link (duplicate address detection); jump discovery; no link-local destination but
//               the AR's own; jump sources
//   discovery   nothing of routers, and solicitations of neighbours from link-local sources only
//   output      no listener reports of the kernel to access interfaces: the access plane sends them
//   sources     for each prefix length in use: interface . link-layer address . prefix, in a set of that length
//
// It stands before routing, and before connection tracking (priority raw). What the speaker hears by its packet sockets
// has been there before.
#include <net/if.h>

#include <algorithm>
#include <array>
#include <map>
#include <optional>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/json.h"
#include "speaker/packet_filter/access_filter.h"
#include "speaker/packet_filter/nftables.h"
#include "speaker/packet_filter/nftables_state.h"
#include "speaker/packet_filter/set_change.h"

namespace kedge::speaker {
namespace {

constexpr char kTableName[] = "kedge_access";
constexpr char kTable[] = "inet kedge_access";
constexpr char kRemove[] = "add table inet kedge_access\ndelete table inet kedge_access\n";
constexpr char kSourcesSet[] = "sources_";
// Every MN has its prefix and its link-local address. Others are of networks behind mobile routers.
constexpr std::array<int, 2> kUsualLengths = {64, 128};

constexpr char kSkeleton[] = R"(add table inet kedge_access
add counter inet kedge_access foreign_sources
add counter inet kedge_access foreign_tunnels
add set inet kedge_access interfaces { type ifname; }
add set inet kedge_access segments { type ipv6_addr; }
add set inet kedge_access peers { type ipv6_addr; }
add chain inet kedge_access sources
add chain inet kedge_access discovery
add chain inet kedge_access access
add chain inet kedge_access segments
add chain inet kedge_access prerouting { type filter hook prerouting priority raw; policy accept; }
add chain inet kedge_access output { type filter hook output priority raw; policy accept; }
add rule inet kedge_access segments iifname @interfaces counter name foreign_tunnels drop
add rule inet kedge_access segments ip6 saddr @peers accept
add rule inet kedge_access segments counter name foreign_tunnels drop
add rule inet kedge_access discovery icmpv6 type { nd-router-solicit, nd-router-advert, nd-redirect } drop
add rule inet kedge_access discovery icmpv6 type nd-neighbor-solicit ip6 saddr != fe80::/10 drop
add rule inet kedge_access access ip6 saddr :: ip6 daddr ff02::/16 accept
add rule inet kedge_access access meta l4proto icmpv6 jump discovery
add rule inet kedge_access access ip6 daddr fe80::/10 fib daddr . iif type != local drop
add rule inet kedge_access access jump sources
add rule inet kedge_access access ip6 saddr fe80::/10 drop
add rule inet kedge_access access counter name foreign_sources drop
add rule inet kedge_access prerouting ip6 daddr @segments goto segments
add rule inet kedge_access prerouting iifname @interfaces goto access
add rule inet kedge_access output oifname @interfaces icmpv6 type { mld-listener-report, mld2-listener-report } drop
)";

constexpr std::size_t kSkeletonRules = 14;

std::string set_of(int length) { return absl::StrCat(kSourcesSet, length); }

std::string mask_of(int length) {
  Ipv6Address::Bytes ones;
  ones.fill(0xFF);
  return Ipv6Prefix(Ipv6Address(ones), length).address().to_string();
}

std::string element_of(const PermittedSource& source) {
  return absl::StrCat(quoted(source.interface), " . ", source.mn.to_string(), " . ",
                      source.prefix.address().to_string());
}

// As in the kernel's registers: each part of a concatenation takes a multiple of four bytes.
std::vector<std::uint8_t> key_of(const PermittedSource& source) {
  constexpr std::size_t kLinkLayerAt = IFNAMSIZ, kPrefixAt = kLinkLayerAt + 8;
  const auto& mn = source.mn.bytes();
  const auto& prefix = source.prefix.address().bytes();
  std::vector<std::uint8_t> key(kPrefixAt + prefix.size());
  std::copy_n(source.interface.begin(), std::min<std::size_t>(source.interface.size(), IFNAMSIZ - 1), key.begin());
  std::copy(mn.begin(), mn.end(), key.begin() + kLinkLayerAt);
  std::copy(prefix.begin(), prefix.end(), key.begin() + kPrefixAt);
  return key;
}

std::string make_length(int length) {
  return absl::StrCat("add set ", kTable, " ", set_of(length), " { type ifname . ether_addr . ipv6_addr; }\n",
                      "add rule ", kTable, " sources iifname . ether saddr . ip6 saddr and ", mask_of(length), " @",
                      set_of(length), " accept\n");
}

std::string elements(const char* verb, const std::string& set, const std::vector<std::string>& members) {
  if (members.empty()) return "";
  return absl::StrCat(verb, " element ", kTable, " ", set, " { ", absl::StrJoin(members, ", "), " }\n");
}

std::vector<std::string> texts(const std::set<Ipv6Address>& addresses) {
  std::vector<std::string> result;
  for (const auto& address : addresses) result.push_back(address.to_string());
  return result;
}

class NftablesAccessFilter final : public AccessFilter {
 public:
  NftablesAccessFilter(AccessFilterConfig config, NetlinkSocket socket)
      : config_(std::move(config)), socket_(std::move(socket)) {}

  absl::Status start() {
    auto tunnels = read();
    if (!tunnels.ok()) return tunnels.status();
    return replace_all(held_, *tunnels);
  }

  const std::set<PermittedSource>& held() const override { return held_; }

  absl::Status replace_all(const std::set<PermittedSource>& sources, const TunnelEnds& tunnels) override {
    std::string commands = absl::StrCat(kRemove, kSkeleton);
    std::vector<std::string> interfaces;
    for (const auto& name : config_.interfaces) interfaces.push_back(quoted(name));
    absl::StrAppend(&commands, elements("add", "interfaces", interfaces),
                    elements("add", "segments", texts(tunnels.segments)),
                    elements("add", "peers", texts(tunnels.peers)));
    auto by_length = group(sources);
    for (const int length : kUsualLengths) by_length.try_emplace(length);
    std::set<int> lengths;
    for (const auto& [length, members] : by_length) {
      lengths.insert(length);
      absl::StrAppend(&commands, make_length(length), elements("add", set_of(length), members));
    }
    const auto status = nftables_.run(commands);
    if (!status.ok()) return status;
    lengths_ = std::move(lengths);
    return status;
  }

  absl::Status change(const std::vector<PermittedSource>& added, const std::vector<PermittedSource>& removed) override {
    SetChange change(kTableName);
    for (const auto& source : added) {
      if (!is_filtered(source)) continue;
      // An empty one does no harm when the rest cannot be done.
      if (auto status = make_length_once(source.prefix.length()); !status.ok()) return status;
      change.add(set_of(source.prefix.length()), key_of(source));
    }
    for (const auto& source : removed) {
      if (is_filtered(source)) change.remove(set_of(source.prefix.length()), key_of(source));
    }
    return change.commit(socket_);
  }

  absl::StatusOr<Counters> counters() override {
    const auto rules = count_rules(socket_, kTableName);
    if (!rules.ok()) return rules.status();
    if (*rules != kSkeletonRules + lengths_.size()) {
      return absl::NotFoundError(
          absl::StrCat("nftables: ", kTable, " has ", *rules, " rules instead of ", kSkeletonRules + lengths_.size()));
    }
    const auto sources = read_packet_counter(socket_, kTableName, "foreign_sources");
    if (!sources.ok()) return sources.status();
    const auto tunnels = read_packet_counter(socket_, kTableName, "foreign_tunnels");
    if (!tunnels.ok()) return tunnels.status();
    return Counters{*sources, *tunnels};
  }

 private:
  // What an earlier run has left into held_; the rest is returned.
  absl::StatusOr<TunnelEnds> read() {
    TunnelEnds tunnels;
    const auto text = nftables_.list(absl::StrCat("list table ", kTable));
    if (absl::IsNotFound(text.status())) return tunnels;
    if (!text.ok()) return text.status();
    const auto document = JsonDocument::parse(*text);
    if (!document.ok()) return document.status();
    for (const auto& item : document->root().at("nftables").items()) {
      const auto set = item.at("set");
      const auto& name = set.at("name").text();
      int length = 0;
      for (const auto& element : set.at("elem").items()) {
        if (name == "segments" || name == "peers") {
          const auto address = Ipv6Address::parse(element.text());
          if (address.ok()) (name == "peers" ? tunnels.peers : tunnels.segments).insert(*address);
        } else if (absl::StartsWith(name, kSourcesSet) &&
                   absl::SimpleAtoi(name.substr(sizeof(kSourcesSet) - 1), &length)) {
          auto source = source_of(element.at("concat").items(), length);
          if (source) held_.insert(*std::move(source));
        }
      }
    }
    return tunnels;
  }

  static std::optional<PermittedSource> source_of(const std::vector<Json>& parts, int length) {
    if (parts.size() != 3 || length < 0 || length > 128) return std::nullopt;
    const auto mn = LinkLayerAddress::parse(parts[1].text());
    const auto address = Ipv6Address::parse(parts[2].text());
    if (!mn.ok() || !address.ok()) return std::nullopt;
    return PermittedSource{parts[0].text(), *mn, Ipv6Prefix(*address, length)};
  }

  // Only on access interfaces: on all others nothing is dropped.
  bool is_filtered(const PermittedSource& source) const {
    return std::find(config_.interfaces.begin(), config_.interfaces.end(), source.interface) !=
           config_.interfaces.end();
  }

  std::map<int, std::vector<std::string>> group(const std::set<PermittedSource>& sources) const {
    std::map<int, std::vector<std::string>> by_length;
    for (const auto& source : sources) {
      if (is_filtered(source)) by_length[source.prefix.length()].push_back(element_of(source));
    }
    return by_length;
  }

  absl::Status make_length_once(int length) {
    if (lengths_.contains(length)) return absl::OkStatus();
    const auto status = nftables_.run(make_length(length));
    if (status.ok()) lengths_.insert(length);
    return status;
  }

  AccessFilterConfig config_;
  Nftables nftables_;
  NetlinkSocket socket_;
  std::set<PermittedSource> held_;
  // There is a set of each.
  std::set<int> lengths_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<AccessFilter>> make_access_filter(const AccessFilterConfig& config) {
  if (auto status = check_interface_names(config.interfaces); !status.ok()) return status;
  auto socket = NetlinkSocket::open(NETLINK_NETFILTER);
  if (!socket.ok()) return socket.status();
  auto filter = std::make_unique<NftablesAccessFilter>(config, *std::move(socket));
  if (auto status = filter->start(); !status.ok()) return status;
  return filter;
}

absl::Status remove_access_filter() { return Nftables().run(kRemove); }

}  // namespace kedge::speaker
