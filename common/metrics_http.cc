#include "common/metrics_http.h"

#include <chrono>
#include <utility>

#include "absl/strings/str_cat.h"
#include "boost/asio/ip/tcp.hpp"
#include "boost/beast/core.hpp"
#include "boost/beast/http.hpp"
#include "common/endpoint.h"
#include "common/status.h"

namespace kedge {
namespace {

namespace beast = boost::beast;
namespace http = boost::beast::http;
using boost::asio::ip::tcp;

constexpr auto kPatience = std::chrono::seconds(10);
constexpr std::size_t kLargestRequest = 8192;

class Connection : public std::enable_shared_from_this<Connection> {
 public:
  Connection(tcp::socket socket, const Metrics& metrics) : stream_(std::move(socket)), metrics_(metrics) {
    parser_.header_limit(kLargestRequest);
    parser_.body_limit(kLargestRequest);
  }

  void run() {
    stream_.expires_after(kPatience);
    http::async_read(stream_, buffer_, parser_, [self = shared_from_this()](beast::error_code error, std::size_t) {
      if (!error) self->answer();
    });
  }

 private:
  void answer() {
    const auto& request = parser_.get();
    response_.version(request.version());
    response_.keep_alive(false);
    response_.set(http::field::content_type, "text/plain; version=0.0.4");
    if (request.method() != http::verb::get) {
      response_.result(http::status::method_not_allowed);
    } else if (request.target() != "/metrics") {
      response_.result(http::status::not_found);
      response_.body() = "see /metrics\n";
    } else {
      response_.body() = metrics_.expose();
    }
    response_.prepare_payload();
    http::async_write(stream_, response_, [self = shared_from_this()](beast::error_code error, std::size_t) {
      if (!error) self->stream_.socket().shutdown(tcp::socket::shutdown_send, error);
    });
  }

  beast::tcp_stream stream_;
  beast::flat_buffer buffer_{kLargestRequest * 2};
  http::request_parser<http::string_body> parser_;
  http::response<http::string_body> response_;
  const Metrics& metrics_;
};

class Listener : public MetricsServer {
 public:
  Listener(boost::asio::io_context& io, const Metrics& metrics)
      : acceptor_(std::make_shared<tcp::acceptor>(io)), metrics_(metrics) {}
  ~Listener() override {
    beast::error_code ignored;
    acceptor_->close(ignored);
  }

  beast::error_code listen(const tcp::endpoint& endpoint) {
    beast::error_code error;
    acceptor_->open(endpoint.protocol(), error);
    if (!error) acceptor_->set_option(tcp::acceptor::reuse_address(true), error);
    if (!error) acceptor_->bind(endpoint, error);
    if (!error) acceptor_->listen(boost::asio::socket_base::max_listen_connections, error);
    if (!error) accept(acceptor_, metrics_);
    return error;
  }

  int port() const override { return acceptor_->local_endpoint().port(); }

 private:
  static void accept(const std::shared_ptr<tcp::acceptor>& acceptor, const Metrics& metrics) {
    acceptor->async_accept([acceptor, &metrics](beast::error_code error, tcp::socket socket) {
      if (!acceptor->is_open()) return;
      if (!error) std::make_shared<Connection>(std::move(socket), metrics)->run();
      accept(acceptor, metrics);
    });
  }

  std::shared_ptr<tcp::acceptor> acceptor_;
  const Metrics& metrics_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<MetricsServer>> MetricsServer::start(boost::asio::io_context& io,
                                                                    const std::string& listen, const Metrics& metrics) {
  const auto endpoint = parse_endpoint(listen);
  if (!endpoint.ok()) return annotate(endpoint.status(), "metrics.listen");
  auto listener = std::make_unique<Listener>(io, metrics);
  if (const auto error = listener->listen(*endpoint)) {
    return absl::UnavailableError(absl::StrCat("metrics.listen: cannot listen on ", listen, ": ", error.message()));
  }
  return listener;
}

}  // namespace kedge
