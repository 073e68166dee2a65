// gRPC's own log lines, in ours.
#pragma once

namespace kedge {

// From now on: failed TLS handshakes as warnings, at most ten in a second; everything else that gRPC says as debug.
// Thread-safe; once is enough.
void adopt_grpc_log();

}  // namespace kedge
