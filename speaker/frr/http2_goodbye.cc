#include "speaker/frr/http2_goodbye.h"

#include <cstddef>

namespace kedge::speaker {
namespace {

// RFC 9113, 4.1: length (24 bits), type, flags, stream identifier (32 bits).
constexpr std::size_t kFrameHeader = 9;
// RFC 9113, 6.8.
constexpr char kGoAway = 7;

}  // namespace

bool says_goodbye(std::string& unread) {
  while (unread.size() >= kFrameHeader) {
    if (unread[3] == kGoAway) return true;
    const auto byte = [&](std::size_t i) { return static_cast<std::size_t>(static_cast<unsigned char>(unread[i])); };
    const std::size_t frame = kFrameHeader + (byte(0) << 16U | byte(1) << 8U | byte(2));
    if (unread.size() < frame) return false;
    unread.erase(0, frame);
  }
  return false;
}

}  // namespace kedge::speaker
