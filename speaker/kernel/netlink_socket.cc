#include "speaker/kernel/netlink_socket.h"

#include <arpa/inet.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/rtnetlink.h>
#include <sys/socket.h>
#include <sys/time.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>

#include "absl/strings/str_cat.h"

namespace kedge::speaker {
namespace {

constexpr std::size_t kMessagesPerBatch = 128;
constexpr int kBufferBytes = 4 << 20;
constexpr int kDumpAttempts = 10;
constexpr int kIntrDump = -1;

const char* hint(int error) {
  switch (error) {
    case EPERM:
    case EACCES:
      return "; needs CAP_NET_ADMIN in this network namespace";
    case EOPNOTSUPP:
      return "; the kernel lacks it: needs CONFIG_IPV6_SEG6_LWTUNNEL, CONFIG_IPV6_MULTIPLE_TABLES, "
             "CONFIG_IPV6_SUBTREES and CONFIG_VETH";
    case ENODEV:
      return "; the interface does not exist";
    case ENETDOWN:
      return "; the interface is down";
    case EHOSTUNREACH:
    case ENETUNREACH:
      return "; the gateway is not on a link of this router";
    case ENOBUFS:
      return "; the kernel's answers were lost, it will be tried again";
    default:
      return "";
  }
}

absl::StatusCode code(int error) {
  switch (error) {
    case EPERM:
    case EACCES:
      return absl::StatusCode::kPermissionDenied;
    case ENODEV:
    case ENETDOWN:
    case EHOSTUNREACH:
    case ENETUNREACH:
      return absl::StatusCode::kFailedPrecondition;
    case EOPNOTSUPP:
      return absl::StatusCode::kUnimplemented;
    case ENOENT:
    case ESRCH:
      return absl::StatusCode::kNotFound;
    case EEXIST:
      return absl::StatusCode::kAlreadyExists;
    case ENOBUFS:
    case ETIMEDOUT:
      return absl::StatusCode::kUnavailable;
    case ENOMEM:
    case ENOSPC:
      return absl::StatusCode::kResourceExhausted;
    default:
      return absl::StatusCode::kInternal;
  }
}

}  // namespace

Message::Message(std::uint16_t type, std::uint16_t flags) {
  auto* h = mnl_nlmsg_put_header(buffer_.data());
  h->nlmsg_type = type;
  h->nlmsg_flags = static_cast<std::uint16_t>(NLM_F_REQUEST | flags);
}

void Message::put(std::uint16_t type, Bytes payload) {
  if (!mnl_attr_put_check(header(), buffer_.size(), type, payload.size(), payload.data())) std::abort();
}

void Message::put_u8(std::uint16_t type, std::uint8_t value) { put(type, Bytes(&value, 1)); }
void Message::put_u16(std::uint16_t type, std::uint16_t value) {
  put(type, Bytes(reinterpret_cast<const std::uint8_t*>(&value), sizeof value));
}
void Message::put_u32(std::uint16_t type, std::uint32_t value) {
  put(type, Bytes(reinterpret_cast<const std::uint8_t*>(&value), sizeof value));
}
void Message::put_text(std::uint16_t type, std::string_view value) {
  const std::string text(value);
  put(type, Bytes(reinterpret_cast<const std::uint8_t*>(text.c_str()), text.size() + 1));
}
void Message::put_address(std::uint16_t type, const Ipv6Address& value) { put(type, Bytes(value.bytes())); }
void Message::put_link_layer_address(std::uint16_t type, const LinkLayerAddress& value) {
  put(type, Bytes(value.bytes()));
}

nlattr* Message::begin_nest(std::uint16_t type) {
  auto* nest = mnl_attr_nest_start_check(header(), buffer_.size(), type);
  if (nest == nullptr) std::abort();
  return nest;
}
void Message::end_nest(nlattr* nest) { mnl_attr_nest_end(header(), nest); }

void Message::reserve(std::size_t size) {
  auto* h = header();
  if (h->nlmsg_len + size > buffer_.size()) std::abort();
  std::memset(buffer_.data() + h->nlmsg_len, 0, size);
  h->nlmsg_len += static_cast<std::uint32_t>(NLMSG_ALIGN(size));
}

Bytes Message::bytes() const {
  return Bytes(buffer_).first(reinterpret_cast<const nlmsghdr*>(buffer_.data())->nlmsg_len);
}

std::optional<Acknowledgement> decode_acknowledgement(Bytes message) {
  const auto header = read_structure<nlmsghdr>(message);
  const auto payload = message_payload(message);
  if (!header || !payload || header->nlmsg_type != NLMSG_ERROR) return std::nullopt;
  const auto error = read_structure<nlmsgerr>(*payload);
  if (!error || error->error > 0 || error->error < -4095) return std::nullopt;

  Acknowledgement result{header->nlmsg_seq, -error->error, {}};
  if ((header->nlmsg_flags & NLM_F_ACK_TLVS) == 0) return result;
  std::size_t skip = sizeof(nlmsgerr);
  if ((header->nlmsg_flags & NLM_F_CAPPED) == 0) {
    if (error->msg.nlmsg_len < sizeof(nlmsghdr) || error->msg.nlmsg_len > payload->size()) return result;
    skip += NLMSG_ALIGN(error->msg.nlmsg_len) - sizeof(nlmsghdr);
  }
  if (skip > payload->size()) return result;
  for_each_attribute(payload->subspan(skip), [&](std::uint16_t type, Bytes value) {
    if (type == NLMSGERR_ATTR_MSG) result.text = read_text(value);
  });
  return result;
}

absl::Status kernel_status(const Acknowledgement& acknowledgement, const std::string& what) {
  if (acknowledgement.ok()) return absl::OkStatus();
  const int error = acknowledgement.error;
  return absl::Status(code(error),
                      absl::StrCat("cannot ", what, ": ", ::strerrordesc_np(error), " (", ::strerrorname_np(error), ")",
                                   acknowledgement.text.empty() ? "" : ": ", acknowledgement.text, hint(error)));
}

absl::Status kernel_status(int error, const std::string& what) {
  return kernel_status(Acknowledgement{0, error, {}}, what);
}

absl::StatusOr<NetlinkSocket> NetlinkSocket::open(int bus) {
  auto* raw = mnl_socket_open2(bus, SOCK_CLOEXEC);
  if (raw == nullptr) return kernel_status(errno, "open a netlink socket");
  NetlinkSocket socket(raw);
  if (mnl_socket_bind(raw, 0, MNL_SOCKET_AUTOPID) < 0) return kernel_status(errno, "bind a netlink socket");

  const int fd = mnl_socket_get_fd(raw);
  const int on = 1;
  // Older kernels lack one or the other; all that is lost then is the kernel's own words or a filter on its side.
  for (const int option : {NETLINK_EXT_ACK, NETLINK_CAP_ACK, NETLINK_GET_STRICT_CHK}) {
    ::setsockopt(fd, SOL_NETLINK, option, &on, sizeof on);
  }
  for (const int option : {SO_RCVBUFFORCE, SO_SNDBUFFORCE}) {
    ::setsockopt(fd, SOL_SOCKET, option, &kBufferBytes, sizeof kBufferBytes);
  }
  const timeval limit{10, 0};
  ::setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
  return socket;
}

long NetlinkSocket::receive() {
  while (true) {
    const auto n = ::recv(mnl_socket_get_fd(socket_.get()), receive_buffer_.data(), receive_buffer_.size(), MSG_TRUNC);
    if (n >= 0) {
      if (static_cast<std::size_t>(n) <= receive_buffer_.size()) return n;
      receive_buffer_.resize(static_cast<std::size_t>(n) * 2);
      return -ENOBUFS;
    }
    if (errno == EINTR) continue;
    return errno == EAGAIN ? -ETIMEDOUT : -errno;
  }
}

void NetlinkSocket::discard_answers() {
  while (true) {
    const auto n =
        ::recv(mnl_socket_get_fd(socket_.get()), receive_buffer_.data(), receive_buffer_.size(), MSG_DONTWAIT);
    // ENOBUFS is told once.
    if (n < 0 && errno != EINTR && errno != ENOBUFS) return;
  }
}

Acknowledgement NetlinkSocket::request(Message& message) { return batch(absl::MakeSpan(&message, 1)).front(); }

std::vector<Acknowledgement> NetlinkSocket::batch(absl::Span<Message> messages) {
  std::vector<Acknowledgement> results(messages.size());
  for (std::size_t at = 0; at < messages.size(); at += kMessagesPerBatch) {
    const auto count = std::min(kMessagesPerBatch, messages.size() - at);
    send_and_collect(messages.subspan(at, count), absl::MakeSpan(results).subspan(at, count));
  }
  return results;
}

void NetlinkSocket::append(Message& message, std::uint16_t flags) {
  auto* h = message.header();
  h->nlmsg_seq = ++sequence_;
  h->nlmsg_flags |= flags;
  const auto bytes = message.bytes();
  send_buffer_.insert(send_buffer_.end(), bytes.begin(), bytes.end());
  send_buffer_.resize(NLMSG_ALIGN(send_buffer_.size()));
}

Acknowledgement NetlinkSocket::transaction(std::uint8_t subsystem, absl::Span<Message> messages) {
  if (messages.empty()) return {};
  const auto edge = [subsystem](std::uint16_t type) {
    Message message(type, 0);
    auto& header = message.put_header<nfgenmsg>();
    header.version = NFNETLINK_V0;
    header.res_id = htons(subsystem);
    return message;
  };
  auto begin = edge(NFNL_MSG_BATCH_BEGIN);
  auto end = edge(NFNL_MSG_BATCH_END);
  send_buffer_.clear();
  append(begin, 0);
  const std::uint32_t first = sequence_;
  for (auto& message : messages.first(messages.size() - 1)) append(message, 0);
  // Errors are told of any, and before this.
  append(messages.back(), NLM_F_ACK);
  const std::uint32_t last = sequence_;
  append(end, 0);
  if (send_buffer_.size() > kBufferBytes) {
    // Of one datagram, the kernel takes its own overhead off.
    const int bytes = static_cast<int>(send_buffer_.size() * 2);
    ::setsockopt(mnl_socket_get_fd(socket_.get()), SOL_SOCKET, SO_SNDBUFFORCE, &bytes, sizeof bytes);
  }
  if (mnl_socket_sendto(socket_.get(), send_buffer_.data(), send_buffer_.size()) < 0) return {first, errno, {}};

  Acknowledgement result{last, 0, {}};
  while (true) {
    const auto n = receive();
    if (n < 0) {
      discard_answers();
      return result.ok() ? Acknowledgement{first, static_cast<int>(-n), {}} : result;
    }
    Bytes rest(receive_buffer_.data(), static_cast<std::size_t>(n));
    while (const auto message = take_message(rest)) {
      const auto ack = decode_acknowledgement(*message);
      if (!ack || ack->sequence - first > last - first) continue;
      if (result.ok() && !ack->ok()) result = *ack;
      // What is said of the beginning is said of all: the transaction has failed as a whole.
      if (ack->sequence != last && ack->sequence != first) continue;
      if (!result.ok()) discard_answers();
      return result;
    }
  }
}

void NetlinkSocket::send_and_collect(absl::Span<Message> messages, absl::Span<Acknowledgement> results) {
  const std::uint32_t first = sequence_ + 1;
  send_buffer_.clear();
  for (std::size_t i = 0; i < messages.size(); ++i) {
    append(messages[i], NLM_F_ACK);
    results[i] = Acknowledgement{sequence_, ENOBUFS, {}};
  }
  const auto fail = [&](int error) {
    for (auto& r : results) {
      if (r.error == ENOBUFS) r.error = error;
    }
  };
  if (mnl_socket_sendto(socket_.get(), send_buffer_.data(), send_buffer_.size()) < 0) return fail(errno);

  for (std::size_t missing = messages.size(); missing > 0;) {
    const auto n = receive();
    if (n < 0) return fail(static_cast<int>(-n));
    Bytes rest(receive_buffer_.data(), static_cast<std::size_t>(n));
    while (const auto message = take_message(rest)) {
      const auto ack = decode_acknowledgement(*message);
      if (ack && ack->sequence - first < messages.size()) {
        results[ack->sequence - first] = *ack;
        --missing;
      }
    }
  }
}

int NetlinkSocket::dump_once(Message& message, std::vector<std::vector<std::uint8_t>>& answers) {
  answers.clear();
  auto* request = message.header();
  request->nlmsg_seq = ++sequence_;
  if (mnl_socket_sendto(socket_.get(), request, request->nlmsg_len) < 0) return errno;
  const bool is_dump = (request->nlmsg_flags & NLM_F_DUMP) == NLM_F_DUMP;

  bool interrupted = false;
  while (true) {
    const auto n = receive();
    if (n < 0) return static_cast<int>(-n);
    Bytes rest(receive_buffer_.data(), static_cast<std::size_t>(n));
    while (const auto answer = take_message(rest)) {
      const auto header = *read_structure<nlmsghdr>(*answer);
      if (header.nlmsg_seq != sequence_) continue;
      interrupted |= (header.nlmsg_flags & NLM_F_DUMP_INTR) != 0;
      if (header.nlmsg_type == NLMSG_DONE) {
        const auto status = read_structure<int>(*message_payload(*answer)).value_or(0);
        if (status < 0) return -status;
        return interrupted ? kIntrDump : 0;
      }
      if (header.nlmsg_type == NLMSG_ERROR) {
        const auto ack = decode_acknowledgement(*answer);
        return ack ? ack->error : EBADMSG;
      }
      answers.emplace_back(answer->begin(), answer->end());
      if (!is_dump) return 0;
    }
  }
}

Acknowledgement NetlinkSocket::get(Message& message, const std::function<void(Bytes)>& visit) {
  std::vector<std::vector<std::uint8_t>> answers;
  int error = EBUSY;
  for (int attempt = 0; attempt < kDumpAttempts; ++attempt) {
    error = dump_once(message, answers);
    if (error != kIntrDump && error != ENOBUFS) break;
  }
  if (error == kIntrDump) error = EBUSY;
  if (error == 0) {
    for (const auto& answer : answers) visit(answer);
  }
  return Acknowledgement{sequence_, error, {}};
}

Acknowledgement NetlinkSocket::dump(Message& message, const std::function<void(Bytes)>& visit) {
  message.header()->nlmsg_flags |= NLM_F_DUMP;
  return get(message, visit);
}

}  // namespace kedge::speaker
