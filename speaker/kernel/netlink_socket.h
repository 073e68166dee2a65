// Requests to the kernel over netlink (libmnl): acknowledged one by one or in batches, and dumps.
//
// Threading: one thread at a time. Requests block for the microseconds that the kernel takes.
// Standards: RFC 3549.
#pragma once

#include <libmnl/libmnl.h>

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "speaker/kernel/attributes.h"

namespace kedge::speaker {

// A request under construction. Large enough for every request that the speaker makes; a put that does not fit is a
// broken invariant and aborts.
class Message {
 public:
  Message(std::uint16_t type, std::uint16_t flags);

  template <typename T>
  T& put_header() {
    return *static_cast<T*>(mnl_nlmsg_put_extra_header(header(), sizeof(T)));
  }
  void put(std::uint16_t type, Bytes payload);
  void put_u8(std::uint16_t type, std::uint8_t value);
  void put_u16(std::uint16_t type, std::uint16_t value);
  void put_u32(std::uint16_t type, std::uint32_t value);
  // With the terminating zero.
  void put_text(std::uint16_t type, std::string_view value);
  void put_address(std::uint16_t type, const Ipv6Address& value);
  void put_link_layer_address(std::uint16_t type, const LinkLayerAddress& value);
  nlattr* begin_nest(std::uint16_t type);
  void end_nest(nlattr* nest);
  // For the structure that precedes the attributes inside VETH_INFO_PEER.
  void reserve(std::size_t size);

  nlmsghdr* header() { return reinterpret_cast<nlmsghdr*>(buffer_.data()); }
  Bytes bytes() const;

 private:
  alignas(nlmsghdr) std::array<std::uint8_t, 448> buffer_;
};

// What the kernel answered to one request.
struct Acknowledgement {
  std::uint32_t sequence = 0;
  // 0 or an errno value.
  int error = 0;
  // The kernel's own words (NETLINK_EXT_ACK), often empty.
  std::string text;

  bool ok() const { return error == 0; }
};

// nullopt when the message is no NLMSG_ERROR or is truncated.
std::optional<Acknowledgement> decode_acknowledgement(Bytes message);

// `what` says operation and object ("replace route 2001:db8::/64 in table 8818"). OK when error is 0. The text carries
// errno's name, the kernel's own words and what to do.
absl::Status kernel_status(const Acknowledgement& acknowledgement, const std::string& what);
absl::Status kernel_status(int error, const std::string& what);

class NetlinkSocket {
 public:
  // `bus` is NETLINK_ROUTE, NETLINK_GENERIC or NETLINK_NETFILTER.
  static absl::StatusOr<NetlinkSocket> open(int bus);

  // Names this socket in the notices that its own requests cause (nlmsg_pid).
  std::uint32_t port_id() const { return mnl_socket_get_portid(socket_.get()); }

  Acknowledgement request(Message& message);
  // One acknowledgement for each message, in their order. When the kernel's answers were lost, the messages without an
  // answer carry ENOBUFS: they may or may not have been carried out.
  std::vector<Acknowledgement> batch(absl::Span<Message> messages);
  // For NETLINK_NETFILTER: all messages to this subsystem (NFNL_SUBSYS_*) in one transaction, or none of them; the
  // first error. ENOBUFS or ETIMEDOUT: the answer was lost, it may or may not have been carried out.
  Acknowledgement transaction(std::uint8_t subsystem, absl::Span<Message> messages);
  // All answers to a dump, each passed to `visit` whole. Starts again when the tables changed during the dump.
  Acknowledgement dump(Message& message, const std::function<void(Bytes)>& visit);
  // The answer to a request for one object.
  Acknowledgement get(Message& message, const std::function<void(Bytes)>& visit);

 private:
  struct Close {
    void operator()(mnl_socket* s) const { mnl_socket_close(s); }
  };
  explicit NetlinkSocket(mnl_socket* socket) : socket_(socket), receive_buffer_(64 * 1024) {}

  void append(Message& message, std::uint16_t flags);
  void send_and_collect(absl::Span<Message> messages, absl::Span<Acknowledgement> results);
  // Bytes received, or -errno.
  long receive();
  // What waits to be received: behind it the kernel would drop new answers.
  void discard_answers();
  int dump_once(Message& message, std::vector<std::vector<std::uint8_t>>& answers);

  std::unique_ptr<mnl_socket, Close> socket_;
  std::uint32_t sequence_ = 0;
  std::vector<std::uint8_t> receive_buffer_;
  std::vector<std::uint8_t> send_buffer_;
};

}  // namespace kedge::speaker
