#include "speaker/doctor/doctor.h"

#include <linux/capability.h>
#include <net/if.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <fstream>
#include <optional>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "boost/asio/io_context.hpp"
#include "common/json.h"
#include "common/privileges.h"
#include "common/status.h"
#include "kedge/v1/mobility.grpc.pb.h"
#include "speaker/doctor/route_map.h"
#include "speaker/frr/vty_client.h"
#include "speaker/kernel/netlink_listeners.h"
#include "speaker/kernel/netlink_socket.h"
#include "speaker/kernel/rules.h"
#include "speaker/kernel/segment_routing.h"
#include "speaker/packet_filter/listeners.h"
#include "speaker/packet_filter/northbound_guard.h"

namespace kedge::speaker {
namespace {

constexpr std::chrono::seconds kPatience{5};

// Bounded: the client gives up by itself.
absl::StatusOr<VtyReply> ask_once(boost::asio::io_context& io, VtyClient& client, const std::string& command) {
  std::optional<absl::StatusOr<VtyReply>> answer;
  client.ask(command, [&answer](absl::StatusOr<VtyReply> reply) { answer = std::move(reply); });
  while (!answer) io.run_one();
  return *std::move(answer);
}

absl::StatusOr<std::string> ask(const Settings& settings, const std::string& daemon, const std::string& command) {
  boost::asio::io_context io;
  const auto client = make_vty_client(io.get_executor(), settings.best_path.vty_directory, daemon);
  // Some commands are for privileged terminals only; over this socket each is one that asks for it.
  if (const auto enabled = ask_once(io, *client, "enable"); !enabled.ok()) return enabled.status();
  const auto reply = ask_once(io, *client, command);
  if (!reply.ok()) return reply.status();
  if (reply->status != 0) return absl::UnavailableError(absl::StrCat(daemon, " does not know: ", command));
  return reply->text;
}

// What the LM says of this access router; nothing when it cannot be asked.
std::optional<v1::DescribeResponse> check_lm(const Settings& settings, Doctor& doctor) {
  constexpr const char* kCheck = "LM";
  const auto& lm = settings.config.lm();
  const auto channel = make_channel(lm.address(), make_transport_security(lm.insecure_plaintext(), lm.tls()));
  // The certificate has a check of its own.
  if (!channel.ok()) return std::nullopt;
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + kPatience);
  v1::DescribeRequest request;
  request.set_ar(settings.config.name());
  v1::DescribeResponse answer;
  const auto status = from_grpc_status(v1::Mobility::NewStub(*channel)->Describe(&context, request, &answer));
  const std::string text = absl::StrCat(lm.address(), ": ", status.message());
  if (absl::IsPermissionDenied(status) || absl::IsUnauthenticated(status)) {
    doctor.problem(kCheck, text, absl::StrCat("use a certificate of kedge://speaker/", settings.config.name()));
  } else if (absl::IsNotFound(status)) {
    doctor.problem(kCheck, text, "give this access router the name that it has in the LM's access_routers");
  } else if (absl::IsUnimplemented(status)) {
    doctor.warning(kCheck, absl::StrCat(lm.address(), " is an older LM: it does not say what it expects"), "update it");
  } else if (!status.ok()) {
    doctor.problem(kCheck, text,
                   "is kedge-lm running there, is the route to it and TCP port open, has one authority signed both?");
  } else {
    doctor.ok(kCheck, absl::StrCat(lm.address(), ", version ", answer.version()));
    return answer;
  }
  return std::nullopt;
}

void check_session(const std::optional<v1::DescribeResponse>& lm, Doctor& doctor) {
  if (!lm) return;
  if (lm->connected()) return doctor.ok("session with the LM", "open");
  doctor.problem("session with the LM", "the LM has none with this access router", "see lm_disconnected in the log");
}

void check_zebra_listens(Doctor& doctor) {
  constexpr const char* kCheck = "zebra and the kernel's routes";
  const auto zebra = find_zebra();
  if (!zebra) {
    return doctor.problem(kCheck, "no zebra listens to them in this network namespace",
                          "let the speaker and FRR run in the same one");
  }
  if (zebra->drops == 0) return doctor.ok(kCheck, "it has missed no notice");
  doctor.warning(kCheck, absl::StrCat("it has missed ", zebra->drops, " notices since it was started"),
                 "give it a larger buffer: zebra -s 90000000 (/etc/frr/daemons)");
}

void check_northbound(const Settings& settings, Doctor& doctor) {
  constexpr const char* kCheck = "northbound port";
  const auto port = settings.northbound.port;
  const auto listeners = listeners_of(port);
  if (!listeners.any) {
    doctor.problem(kCheck, absl::StrCat("nobody listens at TCP port ", port),
                   "start staticd with '-M /usr/local/lib/kedge/grpc.so:PORT' (docs/frr.md)");
  }
  const auto closed = check_northbound_closed(port);
  if (closed.ok()) return doctor.ok(kCheck, absl::StrCat("TCP port ", port, " is closed to other hosts"));
  const std::string text = absl::StrCat("TCP port ", port, ": ", closed.message());
  if (absl::IsPermissionDenied(closed)) return doctor.warning(kCheck, text, "run this as root");
  if (settings.northbound.accept_open) {
    return doctor.warning(kCheck, absl::StrCat(text, "; accepted by frr.insecure_open_northbound"), "close it");
  }
  doctor.problem(kCheck, text,
                 settings.northbound.close
                     ? "start kedge-speaker: it makes table inet kedge_northbound, and again when it is removed"
                     : "close the port, or set frr.close_northbound: true");
}

void check_frr_daemons(const Settings& settings, Doctor& doctor) {
  std::vector<std::string> daemons = {"zebra", "bgpd"};
  if (settings.injector == InjectorKind::kNorthbound) daemons.insert(daemons.begin() + 1, "staticd");
  for (const auto& daemon : daemons) {
    const auto answer = ask(settings, daemon, "show modules");
    if (!answer.ok()) {
      doctor.problem(daemon, std::string(answer.status().message()), "systemctl status frr; /etc/frr/daemons");
    } else if (daemon == "staticd" && !absl::StrContains(*answer, "frr_grpc")) {
      doctor.problem(daemon, "runs without the gRPC module",
                     "add '-M /usr/local/lib/kedge/grpc.so:PORT' to staticd_options in /etc/frr/daemons (docs/frr.md)");
    } else {
      doctor.ok(daemon, daemon == "staticd" ? "runs, with the gRPC module" : "runs");
    }
  }
}

// Root may open them whatever their modes; the speaker is not root.
void check_vty_sockets(const Settings& settings, Doctor& doctor) {
  constexpr const char* kCheck = "FRR's sockets";
  const std::string path = settings.best_path.vty_directory + "/bgpd.vty";
  struct stat socket {};
  const auto speakers = processes_named("kedge-speaker");
  // Each has a check of its own.
  if (::stat(path.c_str(), &socket) != 0) return;
  for (const auto& process : speakers) {
    const auto privileges = privileges_of(process);
    if (!privileges.ok() || process == std::to_string(::getpid())) continue;
    const bool may = privileges->user == 0 || privileges->user == socket.st_uid ||
                     (privileges->groups.contains(socket.st_gid) && (socket.st_mode & S_IWGRP) != 0);
    if (!may) {
      return doctor.problem(kCheck, absl::StrCat("the speaker, user ", privileges->user, ", may not open ", path),
                            "put its user into the group frrvty and restart it");
    }
    return doctor.ok(kCheck, absl::StrCat("the speaker may open ", path));
  }
}

void check_route_map(const Settings& settings, const std::optional<v1::DescribeResponse>& lm, Doctor& doctor) {
  constexpr const char* kCheck = "route-map KEDGE";
  const auto answer = ask(settings, "bgpd", "show route-map KEDGE");
  // bgpd has a check of its own.
  if (!answer.ok()) return;
  const bool kernel = settings.injector == InjectorKind::kKernel;
  const std::string remedy = absl::StrCat("kedgectl frr-config --ar ", settings.config.name(), " --injector ",
                                          settings.config.frr().injector(), " makes it (docs/frr.md)");
  const auto levels = parse_levels(*answer, settings.config.frr().local_preference_base(),
                                   kernel ? LevelMatch::kMetric : LevelMatch::kTag);
  if (!levels.ok()) return doctor.problem(kCheck, std::string(levels.status().message()), remedy);
  std::uint32_t whole = 0;
  while (levels->contains(whole + 1)) ++whole;
  const std::string text = absl::StrCat("levels 1 to ", whole, " become local preference ",
                                        settings.config.frr().local_preference_base(), " + level, weight 0");
  if (!lm) return doctor.warning(kCheck, text, "could not be compared with the LM's mobility.preference_levels");
  if (whole < lm->preference_levels()) {
    return doctor.problem(kCheck, absl::StrCat(text, "; the LM uses ", lm->preference_levels()), remedy);
  }
  doctor.ok(kCheck, absl::StrCat(text, "; the LM uses ", lm->preference_levels()));
}

void check_bgp_sessions(const Settings& settings, Doctor& doctor) {
  constexpr const char* kCheck = "BGP sessions";
  const auto answer = ask(settings, "bgpd", "show bgp ipv6 unicast summary json");
  if (!answer.ok()) return;
  const auto summary = JsonDocument::parse(*answer);
  if (!summary.ok())
    return doctor.warning(kCheck, std::string(summary.status().message()), "vtysh -c 'show bgp summary'");
  const auto root = summary->root();
  const auto total = root.at("totalPeers").number_or(0);
  const auto failed = root.at("failedPeers").number_or(0);
  if (total == 0) {
    return doctor.problem(kCheck, "bgpd has no neighbour for IPv6 unicast",
                          absl::StrCat("kedgectl frr-config --ar ", settings.config.name(), " (docs/frr.md)"));
  }
  const std::string text = absl::StrCat(total - std::min(failed, total), " of ", total, " are up");
  if (failed == 0) return doctor.ok(kCheck, text);
  const std::string remedy = "vtysh -c 'show bgp ipv6 unicast summary' says which, and why";
  failed == total ? doctor.problem(kCheck, text, remedy) : doctor.warning(kCheck, text, remedy);
}

std::optional<Identity> identity_of(const std::optional<v1::DescribeResponse>& lm) {
  if (!lm) return std::nullopt;
  const auto locator = Ipv6Address::parse(lm->self().locator());
  const auto deliver = Ipv6Address::parse(lm->self().deliver_sid());
  if (!locator.ok() || !deliver.ok()) return std::nullopt;
  const auto uplink = Ipv6Address::parse(lm->self().uplink_sid());
  return Identity{*locator, *deliver, uplink.ok() ? *uplink : Ipv6Address()};
}

void check_kernel(const Settings& settings, const std::optional<v1::DescribeResponse>& lm, Doctor& doctor) {
  if (const auto status = check_segment_routing(); !status.ok()) {
    doctor.problem("segment routing", std::string(status.message()), "boot a kernel that has it");
  } else {
    doctor.ok("segment routing", "the kernel has it");
  }
  std::string forwarding;
  std::ifstream("/proc/sys/net/ipv6/conf/all/forwarding") >> forwarding;
  if (forwarding == "1") {
    doctor.ok("forwarding", "IPv6 forwarding is on");
  } else {
    doctor.problem("forwarding", "IPv6 forwarding is off", "sysctl -w net.ipv6.conf.all.forwarding=1");
  }
  auto socket = NetlinkSocket::open(NETLINK_ROUTE);
  if (!socket.ok()) return doctor.warning("routing rules", std::string(socket.status().message()), "run this as root");
  const auto present = list_rules(*socket, settings.forwarding.route_protocol);
  if (!present.ok())
    return doctor.warning("routing rules", std::string(present.status().message()), "run this as root");
  const auto wanted = wanted_rules(settings.forwarding, identity_of(lm));
  const auto missing = std::count_if(wanted.begin(), wanted.end(), [&](const KernelRule& rule) {
    return std::find(present->begin(), present->end(), rule) == present->end();
  });
  if (missing == 0) return doctor.ok("routing rules", absl::StrCat(wanted.size(), " are there"));
  doctor.problem("routing rules", absl::StrCat(missing, " of ", wanted.size(), " are missing"),
                 "start kedge-speaker: it makes them, and again when they are removed");
}

void check_access_interfaces(const Settings& settings, Doctor& doctor) {
  const int fd = ::socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  for (const auto& name : settings.access.interfaces) {
    const std::string check = absl::StrCat("access interface ", name);
    ifreq request{};
    std::strncpy(request.ifr_name, name.c_str(), IFNAMSIZ - 1);
    if (ioctl(fd, SIOCGIFFLAGS, &request) != 0) {
      doctor.warning(check, "is not there", "make it, or take it out of access.interfaces");
    } else if ((request.ifr_flags & IFF_UP) == 0) {
      doctor.problem(check, "is down", absl::StrCat("ip link set ", name, " up"));
    } else {
      doctor.ok(check, (request.ifr_flags & IFF_RUNNING) != 0 ? "up" : "up, without a carrier");
    }
  }
  ::close(fd);
}

}  // namespace

void examine(const Settings& settings, Doctor& doctor) {
  const auto& config = settings.config;
  doctor.check_process({CAP_NET_ADMIN, CAP_NET_RAW});
  doctor.check_certificate(make_transport_security(config.lm().insecure_plaintext(), config.lm().tls()), Role::kSpeaker,
                           config.name());
  const auto lm = check_lm(settings, doctor);
  check_session(lm, doctor);
  if (settings.injector == InjectorKind::kNorthbound) {
    check_northbound(settings, doctor);
  } else {
    check_zebra_listens(doctor);
  }
  check_frr_daemons(settings, doctor);
  check_vty_sockets(settings, doctor);
  check_route_map(settings, lm, doctor);
  check_bgp_sessions(settings, doctor);
  check_kernel(settings, lm, doctor);
  check_access_interfaces(settings, doctor);
  doctor.check_metrics(config.metrics().listen());
}

}  // namespace kedge::speaker
