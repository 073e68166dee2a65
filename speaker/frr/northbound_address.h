// Where FRR's northbound listens. Pure.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "boost/asio/ip/tcp.hpp"

namespace kedge::speaker {

// "127.0.0.1:50051", "[::1]:50051" or "localhost:50051". InvalidArgument for everything else: FRR's gRPC has no TLS.
absl::StatusOr<boost::asio::ip::tcp::endpoint> parse_northbound(const std::string& address);

}  // namespace kedge::speaker
