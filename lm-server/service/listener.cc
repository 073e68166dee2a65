#include "lm-server/service/listener.h"

#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <string_view>
#include <unordered_map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "boost/asio/ip/tcp.hpp"
#include "boost/asio/posix/stream_descriptor.hpp"
#include "boost/asio/steady_timer.hpp"
#include "common/endpoint.h"
#include "common/log.h"
#include "common/status.h"

namespace kedge::lm {
namespace {

using boost::asio::ip::tcp;
using boost::asio::posix::stream_descriptor;
using boost::system::error_code;
using std::chrono::steady_clock;

constexpr std::chrono::milliseconds kPauseAfterError{100};
constexpr std::chrono::seconds kBetweenWarnings{10};
// A connection takes gRPC's descriptor and the one by which its end is seen.
constexpr std::size_t kDescriptorsPerConnection = 2;
// Store, logs, metrics and what libraries open.
constexpr std::size_t kOtherDescriptors = 512;

// As many descriptors as the process may have.
std::size_t raise_descriptor_limit() {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return 0;
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
  getrlimit(RLIMIT_NOFILE, &limit);
  return limit.rlim_cur;
}

std::size_t possible_connections(std::size_t wanted) {
  const std::size_t descriptors = raise_descriptor_limit();
  const std::size_t possible = descriptors < 2 * kOtherDescriptors
                                   ? descriptors / 8
                                   : (descriptors - kOtherDescriptors) / kDescriptorsPerConnection;
  if (possible >= wanted) return wanted;
  log_warning("connections_limited", "wanted", wanted, "possible", possible, "file_descriptors", descriptors, "do",
              "raise LimitNOFILE of kedge-lm.service, or lower limits.connections");
  return possible;
}

class LimitedListener : public Listener {
 public:
  LimitedListener(boost::asio::io_context& io, const ServerLimits& limits, Metrics& metrics)
      : limits_(limits),
        most_(possible_connections(limits.connections)),
        acceptor_(io),
        pause_(io),
        ends_(io, epoll_create1(EPOLL_CLOEXEC)),
        metrics_(metrics),
        open_gauge_(metrics.gauge("kedge_lm_connections", "Connections that are open, with those in their handshake")) {
    wait_for_ends();
  }

  ~LimitedListener() override {
    for (const auto& [descriptor, address] : open_) ::close(descriptor);
  }

  error_code listen(const tcp::endpoint& endpoint) {
    error_code error;
    acceptor_.open(endpoint.protocol(), error);
    if (!error) acceptor_.set_option(tcp::acceptor::reuse_address(true), error);
    if (!error) acceptor_.bind(endpoint, error);
    if (!error) acceptor_.listen(boost::asio::socket_base::max_listen_connections, error);
    return error;
  }

  int port() const override { return acceptor_.local_endpoint().port(); }

  void start(std::unique_ptr<Acceptor> acceptor) override {
    server_ = std::move(acceptor);
    accept();
  }

 private:
  void accept() {
    acceptor_.async_accept([this](const error_code& error, tcp::socket socket) {
      if (error == boost::asio::error::operation_aborted) return;
      if (error) return accept_later(error);
      take(std::move(socket));
      accept();
    });
  }

  // Those that wait meanwhile are in the kernel's queue.
  void accept_later(const error_code& error) {
    refused("error", error.message());
    pause_.expires_after(kPauseAfterError);
    pause_.async_wait([this](const error_code& cancelled) {
      if (!cancelled) accept();
    });
  }

  void take(tcp::socket socket) {
    error_code error;
    const auto peer = socket.remote_endpoint(error);
    if (error) return;
    const std::string address = peer.address().to_string();
    if (open_.size() >= most_) return refused("connections", address);
    if (const auto found = by_address_.find(address);
        found != by_address_.end() && found->second >= limits_.connections_per_address) {
      return refused("connections_per_address", address);
    }
    socket.set_option(tcp::no_delay(true), error);
    socket.non_blocking(true, error);
    // Closing gRPC's descriptor shuts the connection down (grpc_fd_orphan), which is seen at this one.
    const int watched = dup(socket.native_handle());
    epoll_event event{};
    event.events = EPOLLONESHOT;
    event.data.fd = watched;
    if (error || watched < 0 || epoll_ctl(ends_.native_handle(), EPOLL_CTL_ADD, watched, &event) != 0) {
      if (watched >= 0) ::close(watched);
      return refused("error", address);
    }
    open_.emplace(watched, address);
    ++by_address_[address];
    open_gauge_.Set(static_cast<double>(open_.size()));
    Acceptor::NewConnectionParameters connection;
    connection.listener_fd = acceptor_.native_handle();
    connection.fd = socket.release();
    server_->HandleNewConnection(&connection);
  }

  void refused(const char* limit, std::string_view peer) {
    metrics_
        .counter("kedge_lm_connections_refused_total",
                 "Connections that were closed at once, by the limit that was reached", {{"limit", limit}})
        .Increment();
    const auto now = steady_clock::now();
    if (now < next_warning_) return;
    next_warning_ = now + kBetweenWarnings;
    log_warning("connection_refused", "limit", limit, "peer", peer, "open", open_.size());
  }

  void wait_for_ends() {
    ends_.async_wait(stream_descriptor::wait_read, [this](const error_code& error) {
      if (error) return;
      std::array<epoll_event, 64> events;
      const int count = epoll_wait(ends_.native_handle(), events.data(), events.size(), 0);
      for (int i = 0; i < count; ++i) ended(events.at(static_cast<std::size_t>(i)).data.fd);
      wait_for_ends();
    });
  }

  void ended(int watched) {
    const auto found = open_.find(watched);
    const auto address = by_address_.find(found->second);
    if (--address->second == 0) by_address_.erase(address);
    open_.erase(found);
    ::close(watched);
    open_gauge_.Set(static_cast<double>(open_.size()));
  }

  const ServerLimits limits_;
  const std::size_t most_;
  tcp::acceptor acceptor_;
  boost::asio::steady_timer pause_;
  // An epoll of its own: only the ends of connections wake this thread, and no data.
  stream_descriptor ends_;
  std::unique_ptr<Acceptor> server_;
  // Duplicated descriptor -> address of the peer.
  std::unordered_map<int, std::string> open_;
  std::unordered_map<std::string, std::size_t> by_address_;
  Metrics& metrics_;
  prometheus::Gauge& open_gauge_;
  steady_clock::time_point next_warning_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Listener>> Listener::open(boost::asio::io_context& io, const std::string& listen,
                                                         const ServerLimits& limits, Metrics& metrics) {
  const auto endpoint = parse_endpoint(listen);
  if (!endpoint.ok()) return annotate(endpoint.status(), "listen");
  auto listener = std::make_unique<LimitedListener>(io, limits, metrics);
  if (const auto error = listener->listen(*endpoint)) {
    return absl::UnavailableError(absl::StrCat("cannot listen on ", listen, " (", error.message(),
                                               "); is another kedge-lm running, or is the address not of this host?"));
  }
  return listener;
}

}  // namespace kedge::lm
