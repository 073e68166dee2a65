// Walking netlink attributes that came from outside: every length is checked before a byte is read.
//
// Standards: RFC 3549, 2.2 (netlink message format).
#pragma once

#include <linux/netlink.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <string>

#include "common/ipv6.h"
#include "common/link_layer_address.h"

namespace kedge::speaker {

using Bytes = std::span<const std::uint8_t>;

// A header structure at the start of `bytes`; nullopt when they are too few.
template <typename T>
std::optional<T> read_structure(Bytes bytes) {
  if (bytes.size() < sizeof(T)) return std::nullopt;
  T value;
  std::memcpy(&value, bytes.data(), sizeof(T));
  return value;
}

// The message's payload: what follows the nlmsghdr, cut at nlmsg_len. nullopt when truncated.
inline std::optional<Bytes> message_payload(Bytes message) {
  const auto header = read_structure<nlmsghdr>(message);
  if (!header || header->nlmsg_len < NLMSG_HDRLEN || header->nlmsg_len > message.size()) return std::nullopt;
  return message.subspan(NLMSG_HDRLEN, header->nlmsg_len - NLMSG_HDRLEN);
}

// The first message of what was received, cut at nlmsg_len; `rest` is what follows it. nullopt when there is none
// whole.
inline std::optional<Bytes> take_message(Bytes& rest) {
  const auto payload = message_payload(rest);
  if (!payload) return std::nullopt;
  const Bytes message = rest.first(NLMSG_HDRLEN + payload->size());
  rest = rest.subspan(std::min<std::size_t>(NLMSG_ALIGN(message.size()), rest.size()));
  return message;
}

// Calls visit(type, payload) for each attribute, flags masked off the type. False when an attribute is cut short.
template <typename Visitor>
bool for_each_attribute(Bytes bytes, Visitor visit) {
  while (bytes.size() >= sizeof(nlattr)) {
    const auto head = read_structure<nlattr>(bytes);
    if (head->nla_len < sizeof(nlattr) || head->nla_len > bytes.size()) return false;
    visit(static_cast<std::uint16_t>(head->nla_type & NLA_TYPE_MASK),
          bytes.subspan(sizeof(nlattr), head->nla_len - sizeof(nlattr)));
    const std::size_t step = NLA_ALIGN(head->nla_len);
    if (step >= bytes.size()) return true;
    bytes = bytes.subspan(step);
  }
  return bytes.empty();
}

inline std::optional<std::uint32_t> read_u32(Bytes b) { return read_structure<std::uint32_t>(b); }

inline std::optional<Ipv6Address> read_address(Bytes b) {
  if (b.size() != 16) return std::nullopt;
  Ipv6Address::Bytes bytes;
  std::memcpy(bytes.data(), b.data(), bytes.size());
  return Ipv6Address(bytes);
}

inline std::optional<LinkLayerAddress> read_link_layer_address(Bytes b) {
  if (b.size() != 6) return std::nullopt;
  LinkLayerAddress::Bytes bytes;
  std::memcpy(bytes.data(), b.data(), bytes.size());
  return LinkLayerAddress(bytes);
}

// Up to the first zero byte.
inline std::string read_text(Bytes b) {
  const auto* begin = reinterpret_cast<const char*>(b.data());
  return std::string(begin, ::strnlen(begin, b.size()));
}

}  // namespace kedge::speaker
