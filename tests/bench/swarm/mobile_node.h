// One mobile node as its access routers see it: discovery, addresses from router advertisements, answers. Without a
// kernel, so that there can be thousands.
//
// What it does as a host does: it solicits a router where it has come to, takes its addresses from the prefixes that
// are advertised to it alone, answers neighbour solicitations and echo requests for all of them, and sends by the
// router that it uses. Unlike one it sends nothing by itself beside that, makes no duplicate address detection, and
// answers nothing that was sent to a group: all nodes of a swarm would at once.
//
// Threading: none of its own. Standards: RFC 4861, RFC 4862, RFC 8273.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "tests/bench/swarm/datagram.h"

namespace kedge::bench {

class MobileNode {
 public:
  static constexpr std::size_t kPorts = 2;

  struct Prefix {
    Ipv6Prefix prefix;
    // Its preferred lifetime is 0.
    bool deprecated = false;
  };

  // What came of a frame.
  struct Reaction {
    std::optional<std::vector<std::uint8_t>> reply;
    // A router advertisement with a prefix for this node was heard.
    bool advertised = false;
    // A datagram to one of its addresses; points into the frame.
    std::optional<Datagram> datagram;
  };

  explicit MobileNode(const LinkLayerAddress& address);

  const LinkLayerAddress& link_layer_address() const { return link_layer_address_; }
  const Ipv6Address& link_local() const { return link_local_; }
  // In the order in which they were first advertised.
  const std::vector<Prefix>& prefixes() const { return prefixes_; }
  // Its address of the first prefix.
  std::optional<Ipv6Address> first_address() const;

  // On a port that is not linked it neither hears nor sends.
  void link(std::size_t port, bool up);
  bool linked(std::size_t port) const { return linked_[port]; }
  // From the next advertisement that it hears there on, it sends by this port.
  void head_for(std::size_t port) { heading_ = port; }
  // By which it sends; none before the first advertisement and while the port is not linked.
  std::optional<std::size_t> uplink() const;

  // RFC 4861, 4.1, with its link-layer address.
  std::vector<std::uint8_t> solicitation() const;
  // A frame that came in by the port and is addressed to it.
  Reaction hear(std::size_t port, std::span<const std::uint8_t> frame);
  // From its first address to the peer, by its router. Nothing without an address, a router or an uplink.
  std::optional<std::vector<std::uint8_t>> datagram(const Ipv6Address& peer, std::uint16_t udp_port,
                                                    std::span<const std::uint8_t> payload) const;

 private:
  bool owns(const Ipv6Address& address) const;
  Ipv6Address address_of(const Ipv6Prefix& prefix) const;
  bool take(std::size_t port, const speaker::RouterAdvertisement& message, const LinkLayerAddress& sender);

  LinkLayerAddress link_layer_address_;
  Ipv6Address link_local_;
  std::vector<Prefix> prefixes_;
  std::array<bool, kPorts> linked_{};
  std::size_t heading_ = 0;
  std::optional<std::size_t> uplink_;
  LinkLayerAddress router_;
};

}  // namespace kedge::bench
