// "[address]:port", as the daemons' configuration names what they listen on.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "boost/asio/ip/tcp.hpp"

namespace kedge {

// "[::1]:8818" or "192.0.2.1:8818"; port 0 asks for a free one. InvalidArgument for everything else, names included.
absl::StatusOr<boost::asio::ip::tcp::endpoint> parse_endpoint(const std::string& text);

}  // namespace kedge
