// Two access routers over one core router, a correspondent node, and a mobile node at each access router:
//
//   mn1 -- acc ar1 upl -- core -- upl ar2 acc -- mn2
//                          |
//                          cn
//
// mn1 and mn2 stand for one mobile node before and after its move: same prefix, address, link-local and MAC address.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "speaker/kernel/forwarding_plane.h"
#include "tests/component/kernel/namespaces.h"

namespace kedge::speaker::testing {

Ipv6Address address(const std::string& text);
Ipv6Prefix prefix(const std::string& text);

// A namespace with a forwarding plane in it.
class AccessRouter {
 public:
  explicit AccessRouter(int number);
  ~AccessRouter();

  absl::Status start();
  void stop();
  absl::Status set(const Ipv6Prefix& prefix, const std::optional<Route>& route);
  absl::Status replace_all(const std::map<Ipv6Prefix, Route>& routes);
  std::string mobile_table() { return space.shell("ip -6 route show table 8818"); }
  bool holds(const std::string& table, const std::string& text);

  Ipv6Address locator() const { return address("2001:db8:a" + std::to_string(number_) + "::1"); }
  Ipv6Address deliver_sid() const { return address("2001:db8:a" + std::to_string(number_) + "::d"); }
  Ipv6Address uplink_sid() const { return address("2001:db8:a" + std::to_string(number_) + "::e"); }

  Namespace space;
  ForwardingPlaneConfig config;
  // Written on the namespace's thread; read by `run`.
  std::vector<Ipv6Prefix> programmed;
  std::vector<absl::Status> health;
  std::unique_ptr<ForwardingPlane> plane;

 private:
  int number_;
};

class Topology {
 public:
  // Starts both planes.
  Topology();

  Route deliver() const;
  Route redirect(const AccessRouter& to) const;
  static Route unreachable() { return Route{}; }
  // Plugs a fresh mobile node's interface into the access router's `acc`.
  static void attach(Namespace& node, AccessRouter& router);
  // Echo requests to the mobile node from the correspondent; ping's output.
  std::string ping(const std::string& options = "");

  // Anchored at ar1 by the core's routes.
  const Ipv6Prefix mobile_prefix = prefix("2001:db8:d:1::/64");
  const std::string mobile_address = "2001:db8:d:1::11";

  AccessRouter ar1{1};
  AccessRouter ar2{2};
  Namespace core{"core"};
  Namespace cn{"cn"};
  Namespace mn1{"mn1"};
  Namespace mn2{"mn2"};
};

// What passes an interface, in both directions, from the capture's making on.
class Capture {
 public:
  Capture(Namespace& space, const std::string& interface);
  ~Capture();
  Capture(const Capture&) = delete;
  Capture& operator=(const Capture&) = delete;

  // "source > destination" of each IPv6 packet that came since the last call; of a tunnelled one
  // "source > destination (inner source > inner destination)". Link-local ones are left out.
  std::vector<std::string> take();

 private:
  int fd_;
};

// UDP sockets opened in a namespace, usable from any thread.
int udp_sender(Namespace& space, const std::string& to, std::uint16_t port);
int udp_receiver(Namespace& space, std::uint16_t port);
// Hop limit with which the next packet arrives; -1 when none does.
int receive_hop_limit(int receiver);
// `count` packets IPv6-in-IPv6 to `outer`, with a UDP packet inside.
void send_ip_in_ip(Namespace& space, const std::string& outer, const std::string& inner_source,
                   const std::string& inner_destination, int count, std::uint16_t port = 4000);

}  // namespace kedge::speaker::testing
