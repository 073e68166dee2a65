// Commands to an FRR daemon over its vty socket (<vty directory>/<daemon>.vty), as vtysh gives them.
//
// Protocol (FRR, lib/vty.c): a command is its text and a NUL; a reply is text without NULs, then three NULs and a
// status.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "boost/asio/any_io_executor.hpp"

namespace kedge::speaker {

struct VtyReply {
  std::string text;
  // 0: success; FRR's lib/command.h has the others.
  std::uint8_t status = 0;
};

// Cuts replies out of the bytes of a vty socket, however they were split. Pure.
class VtyDecoder {
 public:
  explicit VtyDecoder(std::size_t max_bytes) : max_bytes_(max_bytes) {}

  // The replies that `bytes` complete. InvalidArgument when they are no reply, ResourceExhausted when one is too large;
  // the decoder is of no use after an error.
  absl::StatusOr<std::vector<VtyReply>> feed(std::string_view bytes);

 private:
  std::size_t max_bytes_;
  std::string text_;
  int nuls_ = 0;
};

// Threading: all calls and callbacks on the executor (a strand or a single-threaded io_context).
class VtyClient {
 public:
  using Done = std::function<void(absl::StatusOr<VtyReply>)>;

  virtual ~VtyClient() = default;

  // Connects first if need be; the connection is kept. Commands are answered in their order; several may be under way,
  // so that neither side waits for the other's wake-up between two of them. `done` is not called before ask() returns.
  // Errors: NotFound, PermissionDenied, Unavailable, DeadlineExceeded (the daemon does not answer) and those of
  // VtyDecoder; all say what to do, and all that is under way ends with them.
  virtual void ask(std::string command, Done done) = 0;

  // The kept connection has ended while no command was under way.
  std::function<void()> on_closed;
};

std::unique_ptr<VtyClient> make_vty_client(boost::asio::any_io_executor executor, std::string directory,
                                           std::string daemon);

}  // namespace kedge::speaker
