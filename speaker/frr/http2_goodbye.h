// Whether an HTTP/2 server is about to close the connection. Pure.
//
// Standards: RFC 9113 (HTTP/2), 4.1 (frames) and 6.8 (GOAWAY).
#pragma once

#include <string>

namespace kedge::speaker {

// `unread`: what was read from the server and not looked at yet. Drops the whole frames at its front; true when one of
// them says that the connection ends.
bool says_goodbye(std::string& unread);

}  // namespace kedge::speaker
