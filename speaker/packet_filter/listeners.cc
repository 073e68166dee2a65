#include "speaker/packet_filter/listeners.h"

#include <fstream>
#include <sstream>
#include <string_view>

namespace kedge::speaker {
namespace {

constexpr std::string_view kListening = "0A";

// Words of 32 bits, each as this machine's byte order has it: on little-endian machines "0100007F" is 127.0.0.1.
bool is_loopback(std::string_view address) {
  if (address.size() == 8) return address.substr(6) == "7F";
  constexpr std::string_view kIpv6 = "00000000000000000000000001000000";
  constexpr std::string_view kMapped = "0000000000000000FFFF0000";
  return address == kIpv6 || (address.starts_with(kMapped) && address.ends_with("7F"));
}

}  // namespace

void add_listeners(const std::string& table, std::uint16_t port, Listeners* listeners) {
  std::istringstream lines(table);
  for (std::string line; std::getline(lines, line);) {
    // "sl local_address rem_address st ...", addresses as "hexadecimal:port".
    std::istringstream fields(line);
    std::string slot, local, remote, state;
    fields >> slot >> local >> remote >> state;
    const auto colon = local.find(':');
    if (state != kListening || colon == std::string::npos) continue;
    std::uint32_t number = 0;
    if (!(std::istringstream(local.substr(colon + 1)) >> std::hex >> number) || number != port) continue;
    listeners->any = true;
    if (!is_loopback(local.substr(0, colon))) listeners->beyond_loopback = true;
  }
}

Listeners listeners_of(std::uint16_t port) {
  Listeners listeners;
  for (const char* path : {"/proc/thread-self/net/tcp", "/proc/thread-self/net/tcp6"}) {
    std::ifstream file(path);
    std::ostringstream text;
    text << file.rdbuf();
    add_listeners(text.str(), port, &listeners);
  }
  return listeners;
}

}  // namespace kedge::speaker
