// An EUI-48 link-layer address (IEEE 802), the first kind of MN-ID (RFC 8371, 4.3).
#pragma once

#include <array>
#include <compare>
#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace kedge {

class LinkLayerAddress {
 public:
  using Bytes = std::array<std::uint8_t, 6>;

  constexpr LinkLayerAddress() = default;
  constexpr explicit LinkLayerAddress(const Bytes& bytes) : bytes_(bytes) {}

  // "02:00:00:00:00:11", either case. InvalidArgument names the text.
  static absl::StatusOr<LinkLayerAddress> parse(std::string_view text);

  // Lower case, colon separated.
  std::string to_string() const;
  const Bytes& bytes() const { return bytes_; }

  // I/G bit, IEEE 802.
  bool is_multicast() const { return (bytes_[0] & 0x01U) != 0; }
  bool is_zero() const { return bytes_ == Bytes{}; }

  auto operator<=>(const LinkLayerAddress&) const = default;

  template <typename H>
  friend H AbslHashValue(H h, const LinkLayerAddress& a) {
    return H::combine(std::move(h), a.bytes_);
  }

 private:
  Bytes bytes_{};
};

}  // namespace kedge
