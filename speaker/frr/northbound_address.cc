#include "speaker/frr/northbound_address.h"

#include <cstdint>

#include "absl/status/status.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "boost/asio/ip/address.hpp"

namespace kedge::speaker {

using boost::asio::ip::tcp;

absl::StatusOr<tcp::endpoint> parse_northbound(const std::string& address) {
  const std::size_t colon = address.rfind(':');
  std::uint32_t port = 0;
  if (colon == std::string::npos || !absl::SimpleAtoi(address.substr(colon + 1), &port) || port < 1 || port > 65535) {
    return absl::InvalidArgumentError(
        absl::StrCat("\"", address, "\" is no address of FRR's northbound: write it like 127.0.0.1:50051"));
  }
  std::string host = address.substr(0, colon);
  if (host == "localhost") host = "127.0.0.1";
  if (host.size() > 2 && host.front() == '[' && host.back() == ']') host = host.substr(1, host.size() - 2);
  boost::system::error_code error;
  const boost::asio::ip::address ip = boost::asio::ip::make_address(host, error);
  if (error || !ip.is_loopback()) {
    return absl::InvalidArgumentError(
        absl::StrCat("\"", address,
                     "\" is no loopback address: FRR's northbound has neither encryption nor authentication, so it is "
                     "spoken to on the router itself only; write it like 127.0.0.1:50051"));
  }
  return tcp::endpoint(ip, static_cast<std::uint16_t>(port));
}

}  // namespace kedge::speaker
