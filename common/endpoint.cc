#include "common/endpoint.h"

#include <cstdint>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace kedge {

absl::StatusOr<boost::asio::ip::tcp::endpoint> parse_endpoint(const std::string& text) {
  const auto colon = text.rfind(':');
  std::uint32_t port = 0;
  boost::system::error_code error = boost::asio::error::invalid_argument;
  boost::asio::ip::address address;
  if (colon != std::string::npos && absl::SimpleAtoi(text.substr(colon + 1), &port) && port <= 65535) {
    std::string host = text.substr(0, colon);
    if (host.size() > 2 && host.front() == '[' && host.back() == ']') host = host.substr(1, host.size() - 2);
    address = boost::asio::ip::make_address(host, error);
  }
  if (error) return absl::InvalidArgumentError(absl::StrCat("\"", text, "\" is not \"[address]:port\""));
  return boost::asio::ip::tcp::endpoint(address, static_cast<std::uint16_t>(port));
}

}  // namespace kedge
