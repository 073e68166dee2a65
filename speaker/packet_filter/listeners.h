// Which addresses a TCP port of this host is listened on, as the kernel says.
#pragma once

#include <cstdint>
#include <string>

namespace kedge::speaker {

struct Listeners {
  // Anybody listens.
  bool any = false;
  // Also on an address that is not loopback, or on all.
  bool beyond_loopback = false;
};

// Of the network namespace of the calling thread.
Listeners listeners_of(std::uint16_t port);

// Adds what the text of /proc/net/tcp or tcp6 says. Lines that are none are passed over. Pure.
void add_listeners(const std::string& table, std::uint16_t port, Listeners* listeners);

}  // namespace kedge::speaker
