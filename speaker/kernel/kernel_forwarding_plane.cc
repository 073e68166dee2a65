#include "speaker/kernel/kernel_forwarding_plane.h"

#include <linux/rtnetlink.h>
#include <net/if.h>

#include <algorithm>
#include <array>
#include <utility>

#include "absl/strings/str_cat.h"
#include "boost/asio/post.hpp"
#include "common/log.h"
#include "speaker/kernel/segment_routing.h"
#include "speaker/kernel/sysctl.h"

namespace kedge::speaker {
namespace {

using std::chrono::milliseconds;
using Kind = Route::Kind;
using KernelKind = KernelRoute::Kind;

constexpr std::size_t kPrefixesPerChunk = 512;
constexpr milliseconds kRetiredFor{200};
constexpr milliseconds kFirstBackoff{20};
constexpr milliseconds kLastBackoff{5000};
constexpr std::uint32_t kLeastMtu = 1280;

// All destinations, by routes that are longer than ::/0: the rule in front of the mobile table leaves default routes
// out.
const std::array<Ipv6Prefix, 2>& halves() {
  static const std::array<Ipv6Prefix, 2> kHalves{*Ipv6Prefix::parse("::/1"), *Ipv6Prefix::parse("8000::/1")};
  return kHalves;
}

std::string describe(const Ipv6Prefix& prefix, const std::optional<Route>& route) {
  if (!route) return absl::StrCat("remove ", prefix.to_string());
  switch (route->kind) {
    case Kind::kDeliver:
      return absl::StrCat(
          "deliver ", prefix.to_string(), " to ", route->link_local.to_string(), " on ", route->interface,
          route->uplink_segment ? absl::StrCat(" with its uplink through ", route->uplink_segment->to_string()) : "");
    case Kind::kRedirect:
      return absl::StrCat("redirect ", prefix.to_string(), " to ", route->segment.to_string());
    case Kind::kRefuse:
      return absl::StrCat("refuse what comes from ", prefix.to_string(), " on ", route->interface);
    case Kind::kUnreachable:
      break;
  }
  return absl::StrCat("make ", prefix.to_string(), " unreachable");
}

// ::/0 from a mobile prefix, in the encapsulation or the uplink table.
bool is_uplink(const KernelRoute& route) { return route.source && route.destination.length() == 0; }

// One of those that make the uplink of a prefix that has ended prohibited; which half.
std::optional<std::size_t> prohibited_half(const KernelRoute& route) {
  if (!route.source || route.destination.length() != 1) return std::nullopt;
  return route.destination == halves()[0] ? 0 : 1;
}

bool uses_access(const Route& route) { return route.kind == Kind::kDeliver || route.kind == Kind::kRefuse; }

// What arrives for the prefix: BGP may still lead here when it has ended.
bool is_prohibit(const Route& route) { return route.ended || route.kind == Kind::kRefuse; }

bool uses_pair(const Route& route) { return route.kind == Kind::kRedirect || route.uplink_segment.has_value(); }

absl::Status validate(const ForwardingPlaneConfig& config) {
  const auto tables = {config.mobile_table, config.encapsulation_table, config.uplink_table, config.refusal_table};
  for (const auto table : tables) {
    if (table == 0 || (table >= RT_TABLE_DEFAULT && table <= RT_TABLE_LOCAL) ||
        std::count(tables.begin(), tables.end(), table) != 1) {
      return absl::InvalidArgumentError(
          absl::StrCat("routing table ", table, ": the four tables must differ and none be 0 or 253 to 255"));
    }
  }
  const auto protocol = config.route_protocol;
  if (protocol < 17 || (protocol >= RTPROT_BGP && protocol <= 198)) {
    return absl::InvalidArgumentError(
        absl::StrCat("route protocol ", int{protocol},
                     " belongs to the kernel or to FRR, which would remove our routes; choose 88"));
  }
  if (config.access_mtu < kLeastMtu + kTunnelOverhead) {
    // RFC 8200, 5: "IPv6 requires that every link in the Internet have an MTU of 1280 octets or greater."
    return absl::InvalidArgumentError(absl::StrCat("access MTU ", config.access_mtu, " leaves less than ", kLeastMtu,
                                                   " to the tunnel; at least ", kLeastMtu + kTunnelOverhead));
  }
  if (!config.access_interfaces.empty() && !config.access_link_local.is_link_local()) {
    return absl::InvalidArgumentError(
        absl::StrCat("access link-local address ", config.access_link_local.to_string(), " is not in fe80::/10"));
  }
  if (!config.access_interfaces.empty() &&
      (config.access_link_layer_address.is_zero() || config.access_link_layer_address.is_multicast())) {
    return absl::InvalidArgumentError(absl::StrCat(
        "access link-layer address ", config.access_link_layer_address.to_string(), " is no unicast address"));
  }
  return absl::OkStatus();
}

// rtm_protocol of all routes in the tables of our own: to others they are the kernel's. zebra takes up
// any other route of any table, and compares a new one's next hop with those of all others: 10,000 mobile nodes that
// return cost it 10 s of CPU. systemd-networkd removes routes of others from links that it manages, but none of the
// kernel's.
constexpr std::uint8_t kOwnTablesProtocol = RTPROT_KERNEL;

// Read and removed in this order: without its rule, a packet out of kx1 would be looked up in `mobile` again, and what
// leads into the pair goes before what leads out of it.
std::array<std::uint32_t, 4> own_tables(const ForwardingPlaneConfig& config) {
  return {config.uplink_table, config.refusal_table, config.mobile_table, config.encapsulation_table};
}

// In the table main, those with the kernel's number are the kernel's.
std::uint8_t protocol_in(const ForwardingPlaneConfig& config, std::uint32_t table) {
  return table == RT_TABLE_MAIN ? config.route_protocol : kOwnTablesProtocol;
}

absl::Status visit_routes(NetlinkSocket& socket, std::uint32_t table, std::uint8_t protocol,
                          const std::function<void(const KernelRoute&)>& visit) {
  auto message = encode_dump(table, protocol);
  const auto acknowledgement = socket.dump(message, [&](Bytes answer) {
    const auto route = decode_route(answer);
    // A kernel without strict checking answers with more than was asked for.
    if (route && route->table == table && route->protocol == protocol) visit(*route);
  });
  // The kernel makes a table when its first route comes.
  if (acknowledgement.error == ENOENT) return absl::OkStatus();
  return kernel_status(acknowledgement, absl::StrCat("read routing table ", table));
}

absl::Status remove_routes(NetlinkSocket& socket, std::uint32_t table, std::uint8_t protocol) {
  std::vector<Message> deletes;
  auto result =
      visit_routes(socket, table, protocol, [&](const KernelRoute& route) { deletes.push_back(encode_delete(route)); });
  for (const auto& a : socket.batch(absl::MakeSpan(deletes))) {
    if (a.error != ESRCH) result.Update(kernel_status(a, absl::StrCat("delete a route of table ", table)));
  }
  return result;
}

}  // namespace

KernelForwardingPlane::KernelForwardingPlane(boost::asio::any_io_executor executor, ForwardingPlaneConfig config,
                                             NetlinkSocket socket)
    : executor_(executor),
      config_(std::move(config)),
      socket_(std::move(socket)),
      retired_timer_(executor),
      repair_timer_(executor),
      self_(std::make_shared<KernelForwardingPlane*>(this)) {
  for (const auto& name : config_.access_interfaces) access_interfaces_[name];
}

absl::Status KernelForwardingPlane::start() {
  // Own changes come back as notices too; the filter drops them, and all routes that are neither ours nor in our
  // tables: a router with a full BGP table has many. Tables over 255 show as RT_TABLE_COMPAT in the header.
  constexpr std::uint32_t kType = offsetof(nlmsghdr, nlmsg_type);
  constexpr std::uint32_t kSender = offsetof(nlmsghdr, nlmsg_pid);
  constexpr std::uint32_t kTable = NLMSG_HDRLEN + offsetof(rtmsg, rtm_table);
  constexpr std::uint32_t kProtocol = NLMSG_HDRLEN + offsetof(rtmsg, rtm_protocol);
  constexpr std::uint32_t kAll = 0xFFFFFFFF;
  auto monitor =
      NetlinkMonitor::open(executor_, {RTNLGRP_LINK, RTNLGRP_IPV6_ROUTE, RTNLGRP_IPV6_RULE, RTNLGRP_IPV6_IFADDR},
                           {
                               BPF_STMT(BPF_LD | BPF_H | BPF_ABS, kType),
                               BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, htons(RTM_NEWROUTE), 1, 0),
                               BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, htons(RTM_DELROUTE), 0, 6),
                               BPF_STMT(BPF_LD | BPF_W | BPF_ABS, kSender),
                               BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, htonl(socket_.port_id()), 5, 0),
                               BPF_STMT(BPF_LD | BPF_B | BPF_ABS, kProtocol),
                               BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, config_.route_protocol, 2, 0),
                               BPF_STMT(BPF_LD | BPF_B | BPF_ABS, kTable),
                               BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, RT_TABLE_MAIN, 1, 0),
                               BPF_STMT(BPF_RET | BPF_K, kAll),
                               BPF_STMT(BPF_RET | BPF_K, 0),
                           });
  if (!monitor.ok()) return monitor.status();
  monitor_ = *std::move(monitor);
  monitor_->on_message = [this](Bytes message) { on_message(message); };
  monitor_->on_overrun = [this] {
    log_warning("kernel_notices_lost", "action", "audit");
    audit_due_ = true;
    base_dirty_ = true;
    identity_dirty_ = identity_.has_value();
    for (auto& [name, interface] : access_interfaces_) interface.dirty = true;
    schedule_repair(milliseconds(0));
  };

  if (auto status = set_sysctl("net/ipv6/conf/all/forwarding", "1"); !status.ok()) return status;
  if (auto status = ensure_base(); !status.ok()) return status;
  if (auto status = take_up_routes_of_former_protocol(); !status.ok()) return status;
  if (auto status = audit(); !status.ok()) return status;
  for (auto& [name, interface] : access_interfaces_) {
    const auto status = ensure_access_interface(name, interface);
    if (absl::IsNotFound(status)) {
      log_warning("access_interface_absent", "interface", name);
    } else if (!status.ok()) {
      return status;
    }
  }
  return absl::OkStatus();
}

absl::Status KernelForwardingPlane::ensure_base() {
  const auto pair = ensure_pair(socket_, config_.access_mtu, config_.route_protocol);
  if (!pair.ok()) return pair.status();
  if (pair->index != pair_index_ && pair_index_ != 0) mark_pair();
  pair_index_ = pair->index;
  // Without the identity, rules of an earlier run that need it are left: they carry its traffic.
  auto status = ensure_rules(socket_, wanted_rules(config_, identity_), config_.route_protocol, identity_.has_value());
  if (status.ok()) base_dirty_ = false;
  return status;
}

// An earlier version gave them `route_protocol`.
absl::Status KernelForwardingPlane::take_up_routes_of_former_protocol() {
  std::vector<Message> replacements;
  for (const auto table : own_tables(config_)) {
    const auto status = visit_routes(socket_, table, config_.route_protocol, [&](KernelRoute route) {
      route.protocol = kOwnTablesProtocol;
      if (route.kind != KernelKind::kOther) replacements.push_back(encode_replace(route));
    });
    if (!status.ok()) return status;
  }
  for (const auto& acknowledgement : socket_.batch(absl::MakeSpan(replacements))) {
    if (auto status = kernel_status(acknowledgement, "take up a route of an earlier version"); !status.ok()) {
      return status;
    }
  }
  return absl::OkStatus();
}

absl::Status KernelForwardingPlane::ensure_access_interfaces() {
  absl::Status result;
  for (auto& [name, interface] : access_interfaces_) {
    if (interface.dirty) ensure_access_interface(name, interface).IgnoreError();
    // One that was never there is told by those who want to use it.
    if (interface.was_prepared) result.Update(interface.status);
  }
  return result;
}

absl::Status KernelForwardingPlane::ensure_access_interface(const std::string& name, AccessInterface& interface) {
  const auto link = get_link(socket_, name);
  if (!link.ok()) {
    // Its appearance will be noticed.
    interface.dirty = !absl::IsNotFound(link.status());
    interface.index = 0;
    return interface.status = link.status();
  }
  if (link->index != interface.index) interface.running = link->running;
  // The notice of it was lost.
  if (audit_due_ && link->running && !std::exchange(interface.running, true)) announce_running(name);
  // Set down by somebody on purpose: not for us to set up again.
  if (!link->up && interface.index == link->index) {
    interface.dirty = false;
    return interface.status =
               absl::FailedPreconditionError(absl::StrCat("access interface ", name, " is down; set it up"));
  }
  interface.status =
      prepare_access_interface(socket_, *link, config_.access_link_local, config_.access_link_layer_address);
  if (!interface.status.ok()) return interface.status;
  if (link->index != interface.index) {
    mark_interface(name);
    log_info("access_interface_prepared", "interface", name, "link_local", config_.access_link_local,
             "link_layer_address", config_.access_link_layer_address);
  }
  interface.index = link->index;
  interface.was_prepared = true;
  interface.dirty = false;
  return absl::OkStatus();
}

absl::Status KernelForwardingPlane::set_identity(const Ipv6Address& locator, const Ipv6Address& deliver_sid,
                                                 const Ipv6Address& uplink_sid) {
  identity_ = Identity{locator, deliver_sid, uplink_sid};
  identity_dirty_ = true;
  auto status = ensure_identity();
  if (!status.ok()) schedule_repair(kFirstBackoff);
  return status;
}

absl::Status KernelForwardingPlane::ensure_identity() {
  if (auto status = set_tunnel_source(identity_->locator); !status.ok()) return status;
  auto deliver = route_template(KernelKind::kDecapsulate, RT_TABLE_MAIN, Ipv6Prefix(identity_->deliver_sid, 128));
  deliver.inner_table = config_.mobile_table;
  deliver.interface = pair_index_;
  auto uplink = route_template(KernelKind::kUplink, RT_TABLE_MAIN, Ipv6Prefix(identity_->uplink_sid, 128));
  uplink.interface = pair_index_;
  for (const auto& route : {deliver, uplink}) {
    auto message = encode_replace(route);
    auto status = kernel_status(socket_.request(message),
                                absl::StrCat("make the segment identifier ", route.destination.address().to_string()));
    if (!status.ok()) return status;
  }
  if (auto status = ensure_base(); !status.ok()) return status;

  std::vector<Message> leftovers;
  auto status = read_table(RT_TABLE_MAIN, [&](const KernelRoute& route) {
    if (route.destination != deliver.destination && route.destination != uplink.destination) {
      leftovers.push_back(encode_delete(route));
    }
  });
  for (const auto& a : socket_.batch(absl::MakeSpan(leftovers))) {
    if (a.error != ESRCH) status.Update(kernel_status(a, "delete a segment identifier of an earlier identity"));
  }
  if (status.ok()) identity_dirty_ = false;
  return status;
}

absl::Status KernelForwardingPlane::set(const Ipv6Prefix& prefix, const std::optional<Route>& route) {
  return set_all({{prefix, route}}).front();
}

std::vector<absl::Status> KernelForwardingPlane::set_all(const std::vector<Change>& changes) {
  std::vector<Ipv6Prefix> prefixes;
  for (const auto& [prefix, route] : changes) {
    prefixes.push_back(prefix);
    if (route) {
      desired_[prefix] = *route;
    } else {
      desired_.erase(prefix);
    }
  }
  const auto failures = program(prefixes);
  std::vector<absl::Status> statuses;
  for (const auto& [prefix, route] : changes) {
    awaiting_link_.erase(prefix);
    if (const auto failed = failures.find(prefix); failed != failures.end()) {
      pending_[prefix] = true;
      statuses.push_back(failed->second);
      continue;
    }
    pending_.erase(prefix);
    if (route && route->kind == Kind::kDeliver && !access_interfaces_[route->interface].running) {
      awaiting_link_.insert(prefix);
      statuses.push_back(absl::UnavailableError(
          absl::StrCat("the route is programmed, but ", route->interface, " cannot send yet: its link is coming up")));
      continue;
    }
    statuses.emplace_back();
  }
  if (!failures.empty()) schedule_repair(kFirstBackoff);
  return statuses;
}

std::optional<Route> KernelForwardingPlane::held(const Ipv6Prefix& prefix) const {
  const auto found = held_.find(prefix);
  if (found == held_.end() || (!found->second.mobile && !found->second.answers)) return std::nullopt;
  const Held& held = found->second;
  Route route;
  route.kind = held.answers && held.mobile != Kind::kDeliver ? Kind::kRefuse : *held.mobile;
  route.ended = held.ended && route.kind == Kind::kUnreachable;
  if (uses_access(route)) {
    if (!held.neighbour || held.neighbour->interface.empty()) return std::nullopt;
    route.interface = held.neighbour->interface;
    route.link_local = held.neighbour->link_local;
    if (held.uplink_interface) route.uplink_segment = held.uplink_segment;
  }
  if (route.kind == Kind::kRedirect) {
    if (!held.segment) return std::nullopt;
    route.segment = *held.segment;
  }
  return route;
}

absl::Status KernelForwardingPlane::replace_all(const std::map<Ipv6Prefix, Route>& routes) {
  desired_ = routes;
  pending_.clear();
  if (auto status = audit(); !status.ok()) {
    audit_due_ = true;
    schedule_repair(kFirstBackoff);
    return status;
  }
  std::vector<Ipv6Prefix> prefixes;
  for (const auto& [prefix, route] : routes) prefixes.push_back(prefix);
  for (const auto& [prefix, held] : held_) {
    if (!routes.contains(prefix)) prefixes.push_back(prefix);
  }
  pending_.clear();
  const auto failures = program(prefixes);
  for (const auto& [prefix, status] : failures) pending_[prefix] = true;
  log_info("forwarding_replaced", "desired", routes.size(), "removed", prefixes.size() - routes.size(), "failed",
           failures.size());
  if (failures.empty() && !postponed_.empty()) {
    return absl::UnavailableError(absl::StrCat(postponed_.size(), " prefixes are still redirected, first ",
                                               postponed_.begin()->to_string(), ": their links are coming up"));
  }
  if (failures.empty()) return absl::OkStatus();
  schedule_repair(kFirstBackoff);
  const auto& first = failures.begin()->second;
  return absl::Status(first.code(), absl::StrCat(failures.size(), " of ", prefixes.size(),
                                                 " prefixes failed, first: ", std::string(first.message())));
}

KernelForwardingPlane::Failures KernelForwardingPlane::program(const std::vector<Ipv6Prefix>& prefixes) {
  Failures failures;
  for (std::size_t at = 0; at < prefixes.size(); at += kPrefixesPerChunk) {
    program_chunk(absl::MakeConstSpan(prefixes).subspan(at, kPrefixesPerChunk), failures);
  }
  release_neighbours();
  return failures;
}

void KernelForwardingPlane::program_chunk(absl::Span<const Ipv6Prefix> prefixes, Failures& failures) {
  const auto wanted = [&](const Ipv6Prefix& prefix) -> std::optional<Route> {
    const auto it = desired_.find(prefix);
    return it == desired_.end() ? std::nullopt : std::optional<Route>(it->second);
  };
  std::vector<Operation> operations;
  for (const auto& prefix : prefixes) {
    const auto route = wanted(prefix);
    if (!route) continue;
    if (auto status = prepare_step(prefix, *route, operations); !status.ok()) failures.emplace(prefix, status);
  }
  run(operations, failures);

  operations.clear();
  for (const auto& prefix : prefixes) {
    if (failures.contains(prefix)) continue;
    const auto route = wanted(prefix);
    postponed_.erase(prefix);
    if (route && redirects_until_link_runs(prefix, *route)) {
      postponed_.insert(prefix);
      continue;
    }
    if (route && route->uplink_segment) {
      auto uplink = uplink_template(KernelKind::kVia, config_.uplink_table, prefix);
      uplink.interface = pair_index_;
      uplink.gateway = kPairGateway;
      operations.push_back({prefix, Step::kUplink, encode_replace(uplink)});
    }
    operations.push_back(mobile_step(prefix, route));
  }
  run(operations, failures);

  operations.clear();
  for (const auto& prefix : prefixes) {
    if (failures.contains(prefix) || postponed_.contains(prefix)) continue;
    const auto route = wanted(prefix);
    const auto& held = held_[prefix];
    if (held.own_source && !(route && route->kind == Kind::kDeliver)) {
      auto own = route_template(KernelKind::kBlackhole, config_.uplink_table, prefix);
      own.source = prefix;
      operations.push_back({prefix, Step::kOwnSourceOff, encode_delete(own)});
    }
    if (held.refuses() && !(route && route->kind == Kind::kRefuse)) end_refusal(prefix, operations);
    if (held.segment && !(route && route->kind == Kind::kRedirect)) retire_encapsulation(prefix, Tunnel::kRedirect);
    if (route && route->uplink_segment) continue;
    if (held.uplink_interface) {
      operations.push_back(
          {prefix, Step::kUplinkOff, encode_delete(uplink_template(KernelKind::kVia, config_.uplink_table, prefix))});
    }
    if (held.uplink_segment) retire_encapsulation(prefix, Tunnel::kUplink);
  }
  run(operations, failures);
  for (const auto& prefix : prefixes) {
    const auto it = held_.find(prefix);
    if (it != held_.end() && it->second.empty()) held_.erase(it);
  }
}

absl::Status KernelForwardingPlane::prepare_step(const Ipv6Prefix& prefix, const Route& route,
                                                 std::vector<Operation>& operations) {
  if ((route.kind == Kind::kRedirect || route.uplink_segment) && pair_index_ == 0) {
    return absl::UnavailableError(absl::StrCat("cannot ", describe(prefix, route), ": ", kPairInner, " is missing"));
  }
  if (route.uplink_segment && route.kind != Kind::kDeliver) {
    return absl::InvalidArgumentError(
        absl::StrCat("cannot ", describe(prefix, route), ": only a prefix that is delivered has an uplink"));
  }
  if (route.kind == Kind::kRedirect) {
    auto encapsulation = route_template(KernelKind::kEncapsulate, config_.encapsulation_table, prefix);
    encapsulation.interface = pair_index_;
    encapsulation.segment = route.segment;
    operations.push_back({prefix, Step::kEncapsulation, encode_replace(encapsulation)});
  }
  if (uses_access(route)) {
    if (auto status = prepare_way_to_mn(prefix, route, operations); !status.ok()) return status;
  }
  if (route.kind == Kind::kRefuse) prepare_refusal(prefix, route, operations);
  if (route.kind == Kind::kDeliver) {
    auto own = route_template(KernelKind::kBlackhole, config_.uplink_table, prefix);
    own.source = prefix;
    operations.push_back({prefix, Step::kOwnSource, encode_replace(own)});
    if (route.uplink_segment) {
      auto encapsulation = uplink_template(KernelKind::kEncapsulate, config_.encapsulation_table, prefix);
      encapsulation.interface = pair_index_;
      encapsulation.segment = *route.uplink_segment;
      operations.push_back({prefix, Step::kUplinkEncapsulation, encode_replace(encapsulation)});
    }
  }
  return absl::OkStatus();
}

absl::Status KernelForwardingPlane::prepare_way_to_mn(const Ipv6Prefix& prefix, const Route& route,
                                                      std::vector<Operation>& operations) {
  const auto it = access_interfaces_.find(route.interface);
  if (it == access_interfaces_.end()) {
    return absl::InvalidArgumentError(absl::StrCat("cannot ", describe(prefix, route), ": ", route.interface,
                                                   " is not among the configured access interfaces"));
  }
  if (it->second.index == 0 || it->second.dirty) {
    // Its notice may still be on its way.
    if (auto status = ensure_access_interface(it->first, it->second); !status.ok()) {
      return absl::Status(status.code(),
                          absl::StrCat("cannot ", describe(prefix, route), ": ", std::string(status.message())));
    }
  }
  operations.push_back(
      {prefix, Step::kNeighbour,
       encode_neighbour({it->second.index, route.link_local, route.link_layer_address, config_.route_protocol})});
  return absl::OkStatus();
}

// RFC 4443, 3.1: code 1, "Communication with destination administratively prohibited"; the kernel's routes have no code
// 5 ("Source address failed ingress/egress policy"). "Codes 5 and 6 are more informative subsets of code 1."
void KernelForwardingPlane::prepare_refusal(const Ipv6Prefix& prefix, const Route& route,
                                            std::vector<Operation>& operations) {
  auto answer = route_template(KernelKind::kVia, config_.refusal_table, prefix);
  answer.interface = access_interfaces_.at(route.interface).index;
  answer.gateway = route.link_local;
  operations.push_back({prefix, Step::kAnswer, encode_replace(answer)});
  for (std::size_t half = 0; half < halves().size(); ++half) {
    operations.push_back({prefix, Step::kProhibit, encode_replace(prohibit_template(prefix, half)), half});
  }
}

void KernelForwardingPlane::end_refusal(const Ipv6Prefix& prefix, std::vector<Operation>& operations) {
  for (std::size_t half = 0; half < halves().size(); ++half) {
    operations.push_back({prefix, Step::kProhibitOff, encode_delete(prohibit_template(prefix, half)), half});
  }
  operations.push_back(
      {prefix, Step::kAnswerOff, encode_delete(route_template(KernelKind::kVia, config_.refusal_table, prefix))});
}

KernelForwardingPlane::Operation KernelForwardingPlane::mobile_step(const Ipv6Prefix& prefix,
                                                                    const std::optional<Route>& route) {
  auto mobile = route_template(KernelKind::kUnreachable, config_.mobile_table, prefix);
  if (!route) return {prefix, Step::kMobileOff, encode_delete(mobile)};
  if (is_prohibit(*route)) {
    mobile.kind = KernelKind::kProhibit;
  } else if (route->kind != Kind::kUnreachable) {
    const bool deliver = route->kind == Kind::kDeliver;
    mobile.kind = KernelKind::kVia;
    mobile.interface = deliver ? access_interfaces_.at(route->interface).index : pair_index_;
    mobile.gateway = deliver ? route->link_local : kPairGateway;
  }
  return {prefix, Step::kMobile, encode_replace(mobile)};
}

bool KernelForwardingPlane::redirects_until_link_runs(const Ipv6Prefix& prefix, const Route& route) const {
  if (route.kind != Kind::kDeliver) return false;
  const auto held = held_.find(prefix);
  if (held == held_.end() || held->second.mobile != Kind::kRedirect) return false;
  const auto interface = access_interfaces_.find(route.interface);
  return interface != access_interfaces_.end() && !interface->second.running;
}

void KernelForwardingPlane::run(std::vector<Operation>& operations, Failures& failures) {
  std::vector<Message> messages;
  messages.reserve(operations.size());
  for (const auto& operation : operations) messages.push_back(operation.message);
  const auto answers = socket_.batch(absl::MakeSpan(messages));
  for (std::size_t i = 0; i < answers.size(); ++i) {
    const auto& operation = operations[i];
    const bool removal = operation.step >= Step::kMobileOff;
    if (answers[i].ok() || (removal && (answers[i].error == ESRCH || answers[i].error == ENOENT))) {
      record(operation);
      continue;
    }
    const auto it = desired_.find(operation.prefix);
    failures.emplace(
        operation.prefix,
        kernel_status(answers[i], describe(operation.prefix,
                                           it == desired_.end() ? std::nullopt : std::optional<Route>(it->second))));
    // The interface went away under us, or its notice is still on its way.
    if (it != desired_.end() && uses_access(it->second)) access_interfaces_[it->second.interface].dirty = true;
    if (it != desired_.end() && uses_pair(it->second)) base_dirty_ = true;
  }
}

void KernelForwardingPlane::record(const Operation& operation) {
  auto& held = held_[operation.prefix];
  switch (operation.step) {
    case Step::kNeighbour:
      return;
    case Step::kOwnSource:
      held.own_source = true;
      return;
    case Step::kOwnSourceOff:
      held.own_source = false;
      return;
    case Step::kEncapsulation:
      held.segment = desired_.at(operation.prefix).segment;
      retired_.erase({operation.prefix, Tunnel::kRedirect});
      return;
    case Step::kUplinkEncapsulation:
      held.uplink_segment = desired_.at(operation.prefix).uplink_segment;
      retired_.erase({operation.prefix, Tunnel::kUplink});
      return;
    case Step::kUplink:
      held.uplink_interface = pair_index_;
      return;
    case Step::kUplinkOff:
      held.uplink_interface.reset();
      return;
    case Step::kAnswer: {
      const auto& route = desired_.at(operation.prefix);
      held.answers = true;
      return hold_neighbour(held, NeighbourKey{route.interface, route.link_local});
    }
    case Step::kAnswerOff:
      held.answers = false;
      if (held.mobile != Kind::kDeliver) hold_neighbour(held, std::nullopt);
      return;
    case Step::kProhibit:
    case Step::kProhibitOff:
      held.prohibits[operation.half] = operation.step == Step::kProhibit;
      return;
    case Step::kMobileOff:
      held.mobile.reset();
      held.ended = false;
      if (!held.answers) hold_neighbour(held, std::nullopt);
      return;
    case Step::kMobile: {
      const auto& route = desired_.at(operation.prefix);
      held.mobile = route.kind == Kind::kRefuse ? Kind::kUnreachable : route.kind;
      held.ended = is_prohibit(route);
      return hold_neighbour(
          held, uses_access(route) ? std::optional<NeighbourKey>({route.interface, route.link_local}) : std::nullopt);
    }
  }
}

void KernelForwardingPlane::hold_neighbour(Held& held, std::optional<NeighbourKey> neighbour) {
  if (held.neighbour == neighbour) return;
  if (held.neighbour && --neighbours_[*held.neighbour] <= 0) {
    neighbours_.erase(*held.neighbour);
    unused_neighbours_.insert(*held.neighbour);
  }
  if (neighbour) {
    ++neighbours_[*neighbour];
    unused_neighbours_.erase(*neighbour);
  }
  held.neighbour = std::move(neighbour);
}

void KernelForwardingPlane::release_neighbours() {
  std::vector<Message> messages;
  for (const auto& key : unused_neighbours_) {
    const auto index = ::if_nametoindex(key.interface.c_str());
    if (index != 0) messages.push_back(encode_neighbour_delete({index, key.link_local, {}, 0}));
  }
  unused_neighbours_.clear();
  for (const auto& a : socket_.batch(absl::MakeSpan(messages))) {
    if (!a.ok() && a.error != ENOENT) log_warning("neighbour_not_removed", "error", kernel_status(a, "remove it"));
  }
}

void KernelForwardingPlane::retire_encapsulation(const Ipv6Prefix& prefix, Tunnel tunnel) {
  retired_.emplace(RetiredKey{prefix, tunnel}, std::chrono::steady_clock::now() + kRetiredFor);
  if (retired_.size() == 1) schedule_retired();
}

void KernelForwardingPlane::schedule_retired() {
  retired_timer_.expires_after(kRetiredFor);
  retired_timer_.async_wait([weak = std::weak_ptr(self_)](const boost::system::error_code& error) {
    const auto self = weak.lock();
    if (!error && self) (*self)->remove_retired();
  });
}

void KernelForwardingPlane::remove_retired() {
  const auto now = std::chrono::steady_clock::now();
  std::vector<Message> messages;
  std::vector<RetiredKey> keys;
  for (const auto& [key, at] : retired_) {
    if (at > now) continue;
    const auto& [prefix, tunnel] = key;
    messages.push_back(encode_delete(
        tunnel == Tunnel::kRedirect ? route_template(KernelKind::kEncapsulate, config_.encapsulation_table, prefix)
                                    : uplink_template(KernelKind::kEncapsulate, config_.encapsulation_table, prefix)));
    keys.push_back(key);
  }
  for (const auto& key : keys) retired_.erase(key);
  if (!retired_.empty()) schedule_retired();
  const auto answers = socket_.batch(absl::MakeSpan(messages));
  for (std::size_t i = 0; i < answers.size(); ++i) {
    if (!answers[i].ok() && answers[i].error != ESRCH) {
      mark(keys[i].first);
      schedule_repair(kFirstBackoff);
      continue;
    }
    const auto it = held_.find(keys[i].first);
    if (it == held_.end()) continue;
    (keys[i].second == Tunnel::kRedirect ? it->second.segment : it->second.uplink_segment).reset();
    if (it->second.empty()) held_.erase(it);
  }
}

absl::Status KernelForwardingPlane::read_table(std::uint32_t table,
                                               const std::function<void(const KernelRoute&)>& visit) {
  return visit_routes(socket_, table, protocol_in(config_, table), visit);
}

absl::Status KernelForwardingPlane::audit() {
  std::map<Ipv6Prefix, Held> found;
  const auto neighbour_of = [](const KernelRoute& route) {
    char name[IF_NAMESIZE] = {};
    ::if_indextoname(route.interface, name);
    return NeighbourKey{name, route.gateway};
  };
  auto status = read_table(config_.mobile_table, [&](const KernelRoute& route) {
    auto& held = found[route.destination];
    if (route.kind != KernelKind::kVia) {
      held.mobile = Kind::kUnreachable;
      held.ended = route.kind == KernelKind::kProhibit;
    } else if (route.interface == pair_index_) {
      held.mobile = Kind::kRedirect;
    } else {
      held.mobile = Kind::kDeliver;
      held.neighbour = neighbour_of(route);
    }
  });
  status.Update(read_table(config_.refusal_table, [&](const KernelRoute& route) {
    auto& held = found[route.destination];
    held.answers = true;
    if (!held.neighbour) held.neighbour = neighbour_of(route);
  }));
  status.Update(read_table(config_.encapsulation_table, [&](const KernelRoute& route) {
    if (is_uplink(route)) {
      found[*route.source].uplink_segment = route.segment;
    } else {
      found[route.destination].segment = route.segment;
    }
  }));
  status.Update(read_table(config_.uplink_table, [&](const KernelRoute& route) {
    if (is_uplink(route)) found[*route.source].uplink_interface = route.interface;
    if (route.source == route.destination) found[route.destination].own_source = true;
    if (const auto half = prohibited_half(route)) found[*route.source].prohibits[*half] = true;
  }));
  if (!status.ok()) return status;

  held_ = std::move(found);
  neighbours_.clear();
  for (const auto& [prefix, held] : held_) {
    if (held.neighbour) ++neighbours_[*held.neighbour];
  }
  for (const auto& [prefix, route] : desired_) {
    const auto it = held_.find(prefix);
    if (it == held_.end() || !matches(it->second, route)) mark(prefix);
  }
  audit_due_ = false;
  return absl::OkStatus();
}

bool KernelForwardingPlane::matches(const Held& held, const Route& route) const {
  if (route.kind == Kind::kRefuse) {
    return held.mobile == Kind::kUnreachable && held.ended &&
           held.neighbour == NeighbourKey{route.interface, route.link_local} && held.answers && held.prohibits[0] &&
           held.prohibits[1];
  }
  if (held.mobile != route.kind || held.refuses()) return false;
  if (held.uplink_interface.has_value() != route.uplink_segment.has_value()) return false;
  if (route.uplink_segment && (held.uplink_segment != route.uplink_segment || held.uplink_interface != pair_index_)) {
    return false;
  }
  switch (route.kind) {
    case Kind::kDeliver:
      return held.neighbour == NeighbourKey{route.interface, route.link_local} && held.own_source;
    case Kind::kRedirect:
      return held.segment == route.segment;
    case Kind::kUnreachable:
      return held.ended == route.ended;
    case Kind::kRefuse:
      break;
  }
  return false;
}

void KernelForwardingPlane::on_message(Bytes message) {
  const auto header = read_structure<nlmsghdr>(message);
  switch (header->nlmsg_type) {
    case RTM_NEWLINK:
    case RTM_DELLINK:
      if (const auto link = decode_link(message)) on_link(*link, header->nlmsg_type == RTM_DELLINK);
      return;
    case RTM_NEWROUTE:
    case RTM_DELROUTE:
      if (const auto route = decode_route(message)) on_route(*route, header->nlmsg_type == RTM_DELROUTE);
      return;
    case RTM_DELRULE:
      if (const auto rule = decode_rule(message);
          rule && rule->protocol == config_.route_protocol && header->nlmsg_pid != socket_.port_id()) {
        base_dirty_ = true;
        schedule_repair(milliseconds(0));
      }
      return;
    case RTM_NEWADDR:
    case RTM_DELADDR: {
      const auto address = decode_address(message);
      if (!address || !address->address.is_link_local()) return;
      const bool ours = address->address == config_.access_link_local;
      if (ours != (header->nlmsg_type == RTM_DELADDR)) return;
      for (auto& [name, interface] : access_interfaces_) {
        if (interface.index != address->interface) continue;
        interface.dirty = true;
        schedule_repair(milliseconds(0));
      }
      return;
    }
    default:
      return;
  }
}

void KernelForwardingPlane::on_link(const KernelLink& link, bool gone) {
  if (link.name == kPairInner || link.name == kPairOuter) {
    const bool inner = link.name == kPairInner;
    const auto& address = inner ? kPairInnerLinkLayerAddress : kPairOuterLinkLayerAddress;
    if (inner && (gone || !link.up)) mark_pair();
    if (gone || !link.up || link.mtu != config_.access_mtu - kTunnelOverhead || link.address != address) {
      base_dirty_ = true;
      schedule_repair(milliseconds(0));
    }
  }
  for (auto& [name, interface] : access_interfaces_) {
    const bool renamed = interface.index == link.index && name != link.name;
    if (name != link.name && !renamed) continue;
    const bool lost = gone || renamed || !link.up;
    const bool was_running = std::exchange(interface.running, !lost && link.running);
    if (interface.running && !was_running) announce_running(name);
    if (lost) mark_interface(name);
    if (lost || !interface.status.ok() || interface.index != link.index ||
        link.address != config_.access_link_layer_address) {
      interface.dirty = true;
      schedule_repair(milliseconds(0));
    }
  }
}

void KernelForwardingPlane::on_route(const KernelRoute& route, bool gone) {
  const bool uplink = route.table != RT_TABLE_MAIN && is_uplink(route);
  const bool prohibits = route.table == config_.uplink_table && prohibited_half(route).has_value();
  const auto& prefix = uplink || prohibits ? *route.source : route.destination;
  if (route.table == RT_TABLE_MAIN) {
    if (gone && identity_ && prefix.length() == 128 &&
        (prefix.address() == identity_->deliver_sid || prefix.address() == identity_->uplink_sid)) {
      identity_dirty_ = true;
      schedule_repair(milliseconds(0));
    }
    return;
  }
  const auto desired = desired_.find(prefix);
  if (desired == desired_.end()) return;
  const auto kind = desired->second.kind;
  const bool needed =
      prohibits || route.table == config_.refusal_table ? kind == Kind::kRefuse
      : uplink                                          ? desired->second.uplink_segment.has_value()
                                                        : route.table == config_.mobile_table ||
                     (route.table == config_.encapsulation_table && kind == Kind::kRedirect) ||
                     (route.table == config_.uplink_table && kind == Kind::kDeliver && route.source == prefix);
  if (!needed) return;
  log_debug("route_changed_by_another", "prefix", prefix, "table", route.table, "protocol", int{route.protocol},
            "deleted", gone);
  mark(prefix);
  schedule_repair(milliseconds(0));
}

void KernelForwardingPlane::announce_running(const std::string& name) {
  std::vector<Ipv6Prefix> postponed;
  for (const auto& prefix : postponed_) {
    if (const auto desired = desired_.find(prefix); desired != desired_.end() && desired->second.interface == name) {
      postponed.push_back(prefix);
    }
  }
  for (const auto& [prefix, status] : program(postponed)) {
    pending_[prefix] = awaiting_link_.contains(prefix);
    schedule_repair(kFirstBackoff);
  }
  std::vector<Ipv6Prefix> ready;
  for (const auto& prefix : awaiting_link_) {
    if (const auto desired = desired_.find(prefix); desired != desired_.end() && desired->second.interface == name) {
      ready.push_back(prefix);
    }
  }
  for (const auto& prefix : ready) awaiting_link_.erase(prefix);
  // Callbacks may call back, and may even end this object.
  boost::asio::post(executor_, [this, alive = std::weak_ptr<KernelForwardingPlane*>(self_), ready] {
    for (const auto& prefix : ready) {
      if (alive.expired()) return;
      if (on_programmed && !pending_.contains(prefix)) on_programmed(prefix);
    }
  });
}

void KernelForwardingPlane::mark_interface(const std::string& name) {
  for (const auto& [prefix, route] : desired_) {
    if (uses_access(route) && route.interface == name) mark(prefix);
  }
}

void KernelForwardingPlane::mark_pair() {
  base_dirty_ = true;
  identity_dirty_ = identity_.has_value();
  for (const auto& [prefix, route] : desired_) {
    if (uses_pair(route)) mark(prefix);
  }
}

void KernelForwardingPlane::schedule_repair(milliseconds delay) {
  const auto at = std::chrono::steady_clock::now() + delay;
  if (repair_due_ && repair_timer_.expiry() <= at) return;
  repair_due_ = true;
  repair_timer_.expires_at(at);
  repair_timer_.async_wait([weak = std::weak_ptr(self_)](const boost::system::error_code& error) {
    const auto self = weak.lock();
    if (error || !self) return;
    (*self)->repair_due_ = false;
    (*self)->repair();
  });
}

void KernelForwardingPlane::repair() {
  absl::Status health;
  bool all_done = true;
  const auto take = [&](const absl::Status& status) {
    health.Update(status);
    all_done &= status.ok();
  };
  if (base_dirty_) take(ensure_base());
  take(ensure_access_interfaces());
  if (identity_dirty_ && identity_) take(ensure_identity());
  if (audit_due_) take(audit());

  std::vector<Ipv6Prefix> prefixes;
  for (const auto& [prefix, announce] : pending_) prefixes.push_back(prefix);
  const auto failures = program(prefixes);
  std::vector<Ipv6Prefix> announced;
  for (const auto& prefix : prefixes) {
    const auto it = pending_.find(prefix);
    const auto failure = failures.find(prefix);
    if (failure != failures.end()) {
      all_done = false;
      if (!it->second) health.Update(failure->second);
      continue;
    }
    if (it->second && postponed_.contains(prefix)) {
      awaiting_link_.insert(prefix);
    } else if (it->second) {
      announced.push_back(prefix);
    }
    pending_.erase(it);
  }
  if (prefixes.size() > failures.size()) {
    log_warning("forwarding_repaired", "programmed", prefixes.size() - failures.size(), "failed", failures.size());
  }

  if (all_done) {
    backoff_ = milliseconds(0);
  } else {
    // While some succeed, the rest is not what cannot be, but what comes too fast: the kernel lends memory for
    // thousands of tunnels in a burst only bit by bit.
    const bool progress = prefixes.size() > failures.size();
    backoff_ = progress ? kFirstBackoff : std::min(kLastBackoff, std::max(kFirstBackoff, backoff_ * 2));
    schedule_repair(backoff_);
  }
  // Callbacks may call back, and may even end this object.
  const std::weak_ptr<KernelForwardingPlane*> alive = self_;
  report(health);
  for (const auto& prefix : announced) {
    if (alive.expired()) return;
    if (on_programmed) on_programmed(prefix);
  }
}

void KernelForwardingPlane::report(const absl::Status& status) {
  const std::string text = status.ok() ? "" : status.ToString();
  if (text == reported_) return;
  reported_ = text;
  if (status.ok()) {
    log_info("forwarding_healthy");
  } else {
    log_error("forwarding_unhealthy", "error", text);
  }
  if (on_health) on_health(status);
}

KernelRoute KernelForwardingPlane::route_template(KernelRoute::Kind kind, std::uint32_t table,
                                                  const Ipv6Prefix& prefix) const {
  KernelRoute route;
  route.kind = kind;
  route.table = table;
  route.protocol = protocol_in(config_, table);
  route.destination = prefix;
  return route;
}

KernelRoute KernelForwardingPlane::uplink_template(KernelRoute::Kind kind, std::uint32_t table,
                                                   const Ipv6Prefix& prefix) const {
  auto route = route_template(kind, table, Ipv6Prefix());
  route.source = prefix;
  return route;
}

KernelRoute KernelForwardingPlane::prohibit_template(const Ipv6Prefix& prefix, std::size_t half) const {
  auto route = route_template(KernelKind::kProhibit, config_.uplink_table, halves()[half]);
  route.source = prefix;
  return route;
}

absl::StatusOr<std::unique_ptr<ForwardingPlane>> make_kernel_forwarding_plane(boost::asio::any_io_executor executor,
                                                                              const ForwardingPlaneConfig& config) {
  if (auto status = validate(config); !status.ok()) return status;
  auto socket = NetlinkSocket::open(NETLINK_ROUTE);
  if (!socket.ok()) return socket.status();
  auto plane = std::make_unique<KernelForwardingPlane>(std::move(executor), config, *std::move(socket));
  if (auto status = plane->start(); !status.ok()) return status;
  return plane;
}

absl::Status remove_all(const ForwardingPlaneConfig& config) {
  if (auto status = validate(config); !status.ok()) return status;
  auto socket = NetlinkSocket::open(NETLINK_ROUTE);
  if (!socket.ok()) return socket.status();
  absl::Status result;
  for (const auto table : own_tables(config)) {
    for (const auto protocol : {kOwnTablesProtocol, config.route_protocol}) {
      result.Update(remove_routes(*socket, table, protocol));
    }
  }
  result.Update(remove_routes(*socket, RT_TABLE_MAIN, config.route_protocol));
  result.Update(ensure_rules(*socket, {}, config.route_protocol, true));
  result.Update(remove_neighbours(*socket, config.route_protocol));
  result.Update(remove_pair(*socket));
  result.Update(set_tunnel_source(Ipv6Address()));
  return result;
}

}  // namespace kedge::speaker
