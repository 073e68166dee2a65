#include "speaker/authenticator/authenticator_socket.h"

#include <sys/un.h>

#include "absl/strings/str_cat.h"

namespace kedge::speaker {

absl::Status check_authenticator_socket(const std::string& path) {
  if (!path.empty() && path.front() == '/' && path.size() < sizeof(sockaddr_un::sun_path)) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("an absolute path of at most ", sizeof(sockaddr_un::sun_path) - 1, " bytes is expected"));
}

}  // namespace kedge::speaker
