// IPv6 addresses and prefixes as values. Past the edge of a process (protobuf, YAML, command line) addresses are these
// types, never text.
//
// Standards: RFC 4291 (addressing), RFC 5952 (text form).
#pragma once

#include <endian.h>
#include <netinet/in.h>

#include <array>
#include <compare>
#include <cstdint>
#include <cstring>
#include <functional>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace kedge {

class Ipv6Address {
 public:
  using Bytes = std::array<std::uint8_t, 16>;

  // The unspecified address, "::".
  constexpr Ipv6Address() = default;
  constexpr explicit Ipv6Address(const Bytes& bytes) : bytes_(bytes) {}
  explicit Ipv6Address(const in6_addr& address);

  // Accepts every form of RFC 4291, 2.2, without a zone and without a length. InvalidArgument names the text.
  static absl::StatusOr<Ipv6Address> parse(std::string_view text);

  // RFC 5952, 4.
  std::string to_string() const;
  const Bytes& bytes() const { return bytes_; }
  in6_addr to_in6_addr() const;

  bool is_unspecified() const;
  // fe80::/10, RFC 4291, 2.5.6.
  bool is_link_local() const;
  // ff00::/8.
  bool is_multicast() const;

  // Byte order is address order. As two numbers, not byte by byte: maps of 10,000 prefixes do little else.
  bool operator==(const Ipv6Address& other) const { return half(0) == other.half(0) && half(1) == other.half(1); }
  std::strong_ordering operator<=>(const Ipv6Address& other) const {
    const auto first = half(0) <=> other.half(0);
    return first != 0 ? first : half(1) <=> other.half(1);
  }

 private:
  std::uint64_t half(std::size_t which) const {
    std::uint64_t number = 0;
    std::memcpy(&number, bytes_.data() + which * sizeof(number), sizeof(number));
    return be64toh(number);
  }

  Bytes bytes_{};
};

class Ipv6Prefix {
 public:
  // ::/0
  constexpr Ipv6Prefix() = default;
  // Bits past `length` (0 to 128) are cleared.
  Ipv6Prefix(const Ipv6Address& address, int length);

  // "2001:db8::/32". InvalidArgument when there is no length, it is over 128, or bits past the length are set: the text
  // then says which prefix was probably meant.
  static absl::StatusOr<Ipv6Prefix> parse(std::string_view text);

  std::string to_string() const;
  const Ipv6Address& address() const { return address_; }
  int length() const { return length_; }

  bool contains(const Ipv6Address& address) const;
  // True also for the prefix itself.
  bool contains(const Ipv6Prefix& other) const;
  bool overlaps(const Ipv6Prefix& other) const;

  // Number of prefixes of `length` inside; length() <= length <= length() + 63.
  std::uint64_t count(int length) const;
  // The index-th prefix of `length` inside, index < count(length).
  Ipv6Prefix nth(int length, std::uint64_t index) const;
  // Where `inner` (a prefix inside this one) stands among those of its length.
  std::uint64_t index_of(const Ipv6Prefix& inner) const;

  // By address, then the shorter first.
  auto operator<=>(const Ipv6Prefix&) const = default;

 private:
  Ipv6Address address_;
  int length_ = 0;
};

template <typename H>
H AbslHashValue(H h, const Ipv6Address& a) {
  return H::combine(std::move(h), a.bytes());
}
template <typename H>
H AbslHashValue(H h, const Ipv6Prefix& p) {
  return H::combine(std::move(h), p.address(), p.length());
}

}  // namespace kedge

template <>
struct std::hash<kedge::Ipv6Prefix> {
  std::size_t operator()(const kedge::Ipv6Prefix& prefix) const noexcept;
};
