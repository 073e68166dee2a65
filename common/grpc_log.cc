#include "common/grpc_log.h"

#include <chrono>
#include <mutex>
#include <string_view>

#include "common/log.h"
#include "grpc/support/log.h"

namespace kedge {
namespace {

constexpr int kMostPerSecond = 10;

// Anyone who reaches the port can make one.
bool may_tell() {
  static std::mutex mutex;
  static std::chrono::steady_clock::time_point second;
  static int told = 0;
  std::lock_guard lock(mutex);
  const auto now = std::chrono::steady_clock::now();
  if (now - second > std::chrono::seconds(1)) {
    second = now;
    told = 0;
  }
  return ++told <= kMostPerSecond;
}

void write_line(gpr_log_func_args* line) {
  const std::string_view text(line->message);
  if (text.find("Handshake failed") != std::string_view::npos) {
    if (may_tell()) log_warning("tls_handshake_failed", "reason", text);
    return;
  }
  log_debug("grpc", "text", text);
}

}  // namespace

void adopt_grpc_log() {
  static std::once_flag once;
  std::call_once(once, [] { gpr_set_log_function(write_line); });
}

}  // namespace kedge
