// The Authenticator service over a Unix socket.
//
// Threading: made and destroyed by the speaker's thread; calls come on threads of gRPC and are carried out on the
// speaker's executor.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "boost/asio/any_io_executor.hpp"
#include "speaker/authenticator/authenticating_access_plane.h"

namespace kedge::speaker {

class AuthenticatorServer {
 public:
  // Makes the socket at `path`, an absolute one of at most 107 bytes, with mode 0660; its folder has to be there. A
  // socket that an earlier run has left is replaced. InvalidArgument, Unavailable: the text names the path. The plane
  // and the executor's context outlive the server.
  static absl::StatusOr<std::unique_ptr<AuthenticatorServer>> start(boost::asio::any_io_executor executor,
                                                                    AuthenticatingAccessPlane& plane,
                                                                    const std::string& path);
  virtual ~AuthenticatorServer() = default;
};

}  // namespace kedge::speaker
