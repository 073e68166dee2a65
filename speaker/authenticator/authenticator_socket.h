// Where the Authenticator service can be.
#pragma once

#include <string>

#include "absl/status/status.h"

namespace kedge::speaker {

// An absolute path that fits into a socket address. InvalidArgument.
absl::Status check_authenticator_socket(const std::string& path);

}  // namespace kedge::speaker
