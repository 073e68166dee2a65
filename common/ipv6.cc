#include "common/ipv6.h"

#include <arpa/inet.h>

#include <array>
#include <charconv>
#include <cstring>

#include "absl/hash/hash.h"
#include "absl/strings/str_cat.h"
#include "common/text.h"
#include "fmt/format.h"

namespace kedge {
namespace {

absl::StatusOr<Ipv6Address> parse_address(std::string_view text, std::string_view what) {
  in6_addr raw;
  const std::string copy(text);
  if (copy.size() != std::strlen(copy.c_str()) || inet_pton(AF_INET6, copy.c_str(), &raw) != 1) {
    return absl::InvalidArgumentError(fmt::format("'{}' is no IPv6 {}", shortened(text), what));
  }
  return Ipv6Address(raw);
}

Ipv6Address::Bytes masked(Ipv6Address::Bytes bytes, int length) {
  for (int i = 0; i < 16; ++i) {
    const int kept = length - i * 8;
    if (kept >= 8) continue;
    bytes[static_cast<std::size_t>(i)] &= kept <= 0 ? 0 : static_cast<std::uint8_t>(0xFF00U >> kept);
  }
  return bytes;
}

struct Zeros {
  std::size_t first = 0;
  std::size_t count = 0;
};

// What "::" stands for, RFC 5952, 4.2: the first of the longest runs of at least two groups of zero; count 0 for none.
Zeros longest_zeros(const std::array<unsigned, 8>& groups) {
  Zeros longest;
  Zeros run;
  for (std::size_t i = 0; i < groups.size(); ++i) {
    if (groups[i] != 0) {
      run.count = 0;
      continue;
    }
    if (run.count++ == 0) run.first = i;
    if (run.count >= 2 && run.count > longest.count) longest = run;
  }
  return longest;
}

}  // namespace

Ipv6Address::Ipv6Address(const in6_addr& address) { std::memcpy(bytes_.data(), address.s6_addr, 16); }

absl::StatusOr<Ipv6Address> Ipv6Address::parse(std::string_view text) { return parse_address(text, "address"); }

std::string Ipv6Address::to_string() const {
  std::array<unsigned, 8> groups{};
  for (std::size_t i = 0; i < groups.size(); ++i)
    groups[i] = static_cast<unsigned>(bytes_[2 * i]) << 8U | bytes_[2 * i + 1];
  // RFC 5952, 5: ::ffff:0:0/96 is known to embed an IPv4 address.
  if (half(0) == 0 && groups[4] == 0 && groups[5] == 0xffff) {
    return fmt::format("::ffff:{}.{}.{}.{}", bytes_[12], bytes_[13], bytes_[14], bytes_[15]);
  }
  const auto zeros = longest_zeros(groups);
  // By hand: inet_ntop prints each group by the format of printf, and this is called several times for each move.
  std::array<char, INET6_ADDRSTRLEN> text;
  char* end = text.data();
  for (std::size_t i = 0; i < groups.size(); ++i) {
    if (i == zeros.first && zeros.count > 0) {
      *end++ = ':';
      i += zeros.count - 1;
      if (i + 1 == groups.size()) *end++ = ':';
      continue;
    }
    if (i > 0) *end++ = ':';
    end = std::to_chars(end, text.data() + text.size(), groups[i], 16).ptr;
  }
  return {text.data(), end};
}

in6_addr Ipv6Address::to_in6_addr() const {
  in6_addr raw;
  std::memcpy(raw.s6_addr, bytes_.data(), 16);
  return raw;
}

bool Ipv6Address::is_unspecified() const { return bytes_ == Bytes{}; }
bool Ipv6Address::is_link_local() const { return bytes_[0] == 0xfe && (bytes_[1] & 0xc0U) == 0x80; }
bool Ipv6Address::is_multicast() const { return bytes_[0] == 0xff; }

Ipv6Prefix::Ipv6Prefix(const Ipv6Address& address, int length)
    : address_(masked(address.bytes(), length)), length_(length) {}

absl::StatusOr<Ipv6Prefix> Ipv6Prefix::parse(std::string_view text) {
  const auto slash = text.find('/');
  if (slash == std::string_view::npos) {
    return absl::InvalidArgumentError(fmt::format("'{}' is no IPv6 prefix: it has no /length", shortened(text)));
  }
  auto address = parse_address(text.substr(0, slash), "prefix");
  if (!address.ok()) return absl::InvalidArgumentError(fmt::format("'{}' is no IPv6 prefix", shortened(text)));
  const auto digits = text.substr(slash + 1);
  int length = 0;
  if (digits.empty() || digits.size() > 3 || digits.find_first_not_of("0123456789") != std::string_view::npos ||
      std::from_chars(digits.data(), digits.data() + digits.size(), length).ec != std::errc{} || length > 128) {
    return absl::InvalidArgumentError(fmt::format("'{}': the length of an IPv6 prefix is 0 to 128", shortened(text)));
  }
  Ipv6Prefix prefix(*address, length);
  if (prefix.address() != *address) {
    return absl::InvalidArgumentError(
        fmt::format("'{}' has bits set past its length; did you mean {}?", text, prefix.to_string()));
  }
  return prefix;
}

std::string Ipv6Prefix::to_string() const { return absl::StrCat(address_.to_string(), "/", length_); }

bool Ipv6Prefix::contains(const Ipv6Address& address) const {
  return masked(address.bytes(), length_) == address_.bytes();
}
bool Ipv6Prefix::contains(const Ipv6Prefix& other) const {
  return other.length_ >= length_ && contains(other.address_);
}
bool Ipv6Prefix::overlaps(const Ipv6Prefix& other) const { return contains(other) || other.contains(*this); }

std::uint64_t Ipv6Prefix::count(int length) const { return std::uint64_t{1} << (length - length_); }

Ipv6Prefix Ipv6Prefix::nth(int length, std::uint64_t index) const {
  auto bytes = address_.bytes();
  for (int bit = length - 1; bit >= length_ && index != 0; --bit, index >>= 1U) {
    if ((index & 1U) != 0) bytes[static_cast<std::size_t>(bit / 8)] |= static_cast<std::uint8_t>(0x80U >> (bit % 8));
  }
  return {Ipv6Address(bytes), length};
}

std::uint64_t Ipv6Prefix::index_of(const Ipv6Prefix& inner) const {
  std::uint64_t index = 0;
  for (int bit = length_; bit < inner.length_; ++bit) {
    const auto byte = inner.address_.bytes()[static_cast<std::size_t>(bit / 8)];
    index = index << 1U | ((byte >> (7 - bit % 8)) & 1U);
  }
  return index;
}

}  // namespace kedge

std::size_t std::hash<kedge::Ipv6Prefix>::operator()(const kedge::Ipv6Prefix& prefix) const noexcept {
  return absl::HashOf(prefix);
}
