#include "common/link_layer_address.h"

#include "common/text.h"
#include "fmt/format.h"

namespace kedge {
namespace {

int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

}  // namespace

absl::StatusOr<LinkLayerAddress> LinkLayerAddress::parse(std::string_view text) {
  Bytes bytes;
  bool valid = text.size() == 17;
  for (std::size_t i = 0; valid && i < 6; ++i) {
    const int high = hex_digit(text[3 * i]);
    const int low = hex_digit(text[3 * i + 1]);
    valid = high >= 0 && low >= 0 && (i == 5 || text[3 * i + 2] == ':');
    bytes[i] = static_cast<std::uint8_t>((high << 4) | low);
  }
  if (!valid) {
    return absl::InvalidArgumentError(
        fmt::format("'{}' is no link-layer address; write it as 02:00:00:00:00:11", shortened(text)));
  }
  return LinkLayerAddress(bytes);
}

std::string LinkLayerAddress::to_string() const {
  return fmt::format("{:02x}:{:02x}:{:02x}:{:02x}:{:02x}:{:02x}", bytes_[0], bytes_[1], bytes_[2], bytes_[3], bytes_[4],
                     bytes_[5]);
}

}  // namespace kedge
