// ForwardingPlane on the Linux kernel.
//
// Threading: as ForwardingPlane; made, called back and destroyed on the executor, and all of it in one network
// namespace. Performance: one prefix is two to four acknowledged netlink messages; set_all and replace_all send them in
// batches.
// Standards: RFC 8818 (FM-DP), RFC 2473, RFC 8754, RFC 8986, RFC 4861.
//
// What the kernel holds for a prefix P:
//   deliver      neighbour of the MN, permanent; uplink table: blackhole P from P; mobile table: P via the MN;
//                with a reverse tunnel also encapsulation table: ::/0 from P encap to the home AR's uplink SID;
//                uplink table: ::/0 from P via kx0
//   redirect     encapsulation table: P encap to the target's deliver SID; mobile table: P via kx0
//   unreachable  mobile table: unreachable P; prohibit P when it has ended
//   refuse       neighbour of the MN; refusal table: P via the MN; uplink table: prohibit ::/1 and 8000::/1 from P;
//                mobile table: prohibit P
// The route in the mobile table is what decides. What a new one needs is made before it, what the old one needed is
// removed after it.
#pragma once

#include <array>
#include <chrono>
#include <map>
#include <set>

#include "boost/asio/steady_timer.hpp"
#include "speaker/kernel/forwarding_plane.h"
#include "speaker/kernel/links.h"
#include "speaker/kernel/netlink_monitor.h"
#include "speaker/kernel/routes.h"
#include "speaker/kernel/rules.h"

namespace kedge::speaker {

class KernelForwardingPlane final : public ForwardingPlane {
 public:
  KernelForwardingPlane(boost::asio::any_io_executor executor, ForwardingPlaneConfig config, NetlinkSocket socket);

  // Sysctls, pair, rules, access interfaces, and reading what an earlier run has left.
  absl::Status start();

  absl::Status set_identity(const Ipv6Address& locator, const Ipv6Address& deliver_sid,
                            const Ipv6Address& uplink_sid) override;
  absl::Status set(const Ipv6Prefix& prefix, const std::optional<Route>& route) override;
  std::vector<absl::Status> set_all(const std::vector<Change>& changes) override;
  std::optional<Route> held(const Ipv6Prefix& prefix) const override;
  absl::Status replace_all(const std::map<Ipv6Prefix, Route>& routes) override;

 private:
  struct NeighbourKey {
    std::string interface;
    Ipv6Address link_local;
    auto operator<=>(const NeighbourKey&) const = default;
  };
  // What the kernel may hold for a prefix: all that was programmed and not yet removed by us.
  struct Held {
    std::optional<Route::Kind> mobile;
    // Of an unreachable route: prohibit.
    bool ended = false;
    // Of a deliver route, or of the route in the refusal table.
    std::optional<NeighbourKey> neighbour;
    // Of the encapsulation route, which may outlive the redirect for a moment.
    std::optional<Ipv6Address> segment;
    // The blackhole in the uplink table.
    bool own_source = false;
    // Of the reverse tunnel's encapsulation route, which may outlive the next for a moment.
    std::optional<Ipv6Address> uplink_segment;
    // Interface of the default route in the uplink table.
    std::optional<std::uint32_t> uplink_interface;
    // The route in the refusal table.
    bool answers = false;
    // The two in the uplink table that prohibit.
    std::array<bool, 2> prohibits{};

    bool refuses() const { return answers || prohibits[0] || prohibits[1]; }
    bool empty() const {
      return !mobile && !segment && !own_source && !uplink_segment && !uplink_interface && !refuses();
    }
  };
  struct AccessInterface {
    // 0: absent or not prepared.
    std::uint32_t index = 0;
    bool was_prepared = false;
    // As the last notice said.
    bool running = false;
    bool dirty = true;
    // Of the last attempt to prepare it.
    absl::Status status;
  };
  enum class Step {
    kNeighbour,
    kOwnSource,
    kEncapsulation,
    kUplinkEncapsulation,
    kUplink,
    kAnswer,
    kProhibit,
    kMobile,
    kMobileOff,
    kOwnSourceOff,
    kUplinkOff,
    kAnswerOff,
    kProhibitOff
  };
  struct Operation {
    Ipv6Prefix prefix;
    Step step;
    Message message;
    // Of kProhibit and kProhibitOff.
    std::size_t half = 0;
  };
  using Failures = std::map<Ipv6Prefix, absl::Status>;
  // In the encapsulation table: what goes to the prefix, or what comes from it.
  enum class Tunnel { kRedirect, kUplink };
  using RetiredKey = std::pair<Ipv6Prefix, Tunnel>;

  // Drives the kernel to desired_ for each prefix, in stages; what failed, and why.
  Failures program(const std::vector<Ipv6Prefix>& prefixes);
  void program_chunk(absl::Span<const Ipv6Prefix> prefixes, Failures& failures);
  absl::Status prepare_step(const Ipv6Prefix& prefix, const Route& route, std::vector<Operation>& operations);
  absl::Status prepare_way_to_mn(const Ipv6Prefix& prefix, const Route& route, std::vector<Operation>& operations);
  void prepare_refusal(const Ipv6Prefix& prefix, const Route& route, std::vector<Operation>& operations);
  void end_refusal(const Ipv6Prefix& prefix, std::vector<Operation>& operations);
  Operation mobile_step(const Ipv6Prefix& prefix, const std::optional<Route>& route);
  // A deliver route would take the place of a redirect, but its link cannot send yet.
  bool redirects_until_link_runs(const Ipv6Prefix& prefix, const Route& route) const;
  void run(std::vector<Operation>& operations, Failures& failures);
  void record(const Operation& operation);
  void hold_neighbour(Held& held, std::optional<NeighbourKey> neighbour);
  void release_neighbours();
  void retire_encapsulation(const Ipv6Prefix& prefix, Tunnel tunnel);
  void schedule_retired();
  void remove_retired();

  absl::Status ensure_base();
  absl::Status take_up_routes_of_former_protocol();
  absl::Status ensure_access_interfaces();
  absl::Status ensure_access_interface(const std::string& name, AccessInterface& interface);
  absl::Status ensure_identity();
  // Reads the kernel's routes into held_ and marks what differs from desired_.
  absl::Status audit();
  absl::Status read_table(std::uint32_t table, const std::function<void(const KernelRoute&)>& visit);
  bool matches(const Held& held, const Route& route) const;

  void on_message(Bytes message);
  void on_link(const KernelLink& link, bool gone);
  void on_route(const KernelRoute& route, bool gone);
  // The link can send: tells of the deliver routes that waited for it.
  void announce_running(const std::string& name);
  // Marks what stood on the interface.
  void mark_interface(const std::string& name);
  void mark_pair();
  void mark(const Ipv6Prefix& prefix) { pending_.emplace(prefix, false); }
  void schedule_repair(std::chrono::milliseconds delay);
  void repair();
  void report(const absl::Status& status);

  KernelRoute route_template(KernelRoute::Kind kind, std::uint32_t table, const Ipv6Prefix& prefix) const;
  // ::/0 from the prefix.
  KernelRoute uplink_template(KernelRoute::Kind kind, std::uint32_t table, const Ipv6Prefix& prefix) const;
  KernelRoute prohibit_template(const Ipv6Prefix& prefix, std::size_t half) const;

  boost::asio::any_io_executor executor_;
  ForwardingPlaneConfig config_;
  NetlinkSocket socket_;
  std::unique_ptr<NetlinkMonitor> monitor_;

  std::map<Ipv6Prefix, Route> desired_;
  std::map<Ipv6Prefix, Held> held_;
  // To be programmed; true: its set() has failed, so on_programmed is to be called.
  std::map<Ipv6Prefix, bool> pending_;
  // Deliver routes that stand in the kernel, on links that cannot send yet.
  std::set<Ipv6Prefix> awaiting_link_;
  // Redirects that stay until the link of the deliver route that is desired instead can send.
  std::set<Ipv6Prefix> postponed_;
  std::map<NeighbourKey, int> neighbours_;
  std::set<NeighbourKey> unused_neighbours_;
  std::map<std::string, AccessInterface> access_interfaces_;
  std::optional<Identity> identity_;
  std::uint32_t pair_index_ = 0;
  bool base_dirty_ = false;
  bool identity_dirty_ = false;
  bool audit_due_ = false;

  // Encapsulation routes that nothing uses, and when they go: packets already between kx0 and kx1 may still need
  // them.
  std::map<RetiredKey, std::chrono::steady_clock::time_point> retired_;
  boost::asio::steady_timer retired_timer_;

  boost::asio::steady_timer repair_timer_;
  bool repair_due_ = false;
  std::chrono::milliseconds backoff_{0};
  std::string reported_;
  std::shared_ptr<KernelForwardingPlane*> self_;
};

}  // namespace kedge::speaker
