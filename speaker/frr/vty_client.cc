#include "speaker/frr/vty_client.h"

#include <array>
#include <chrono>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "boost/asio/buffer.hpp"
#include "boost/asio/local/stream_protocol.hpp"
#include "boost/asio/post.hpp"
#include "boost/asio/steady_timer.hpp"
#include "boost/asio/write.hpp"
#include "speaker/frr/guard.h"

namespace kedge::speaker {
namespace {

using boost::asio::local::stream_protocol;

constexpr std::size_t kMaxReply = 4 << 20;
constexpr std::chrono::seconds kAnswerWithin{5};
constexpr int kNulsBeforeStatus = 3;

class SocketVtyClient : public VtyClient {
 public:
  SocketVtyClient(boost::asio::any_io_executor executor, std::string directory, std::string daemon)
      : executor_(executor),
        path_(absl::StrCat(directory, "/", daemon, ".vty")),
        daemon_(std::move(daemon)),
        timer_(executor) {}

  ~SocketVtyClient() override { close(); }

  void ask(std::string command, Done done) override {
    done_ = std::move(done);
    request_ = std::move(command);
    request_.push_back('\0');
    timer_.expires_after(kAnswerWithin);
    timer_.async_wait(guarded_([this](const boost::system::error_code& error) {
      if (!error && done_) {
        fail(absl::DeadlineExceededError(
            absl::StrCat(daemon_, " does not answer at ", path_, ": if it hangs, restart it")));
      }
    }));
    if (connection_ != nullptr) {
      send();
    } else {
      connect();
    }
  }

 private:
  struct Connection {
    explicit Connection(const boost::asio::any_io_executor& executor) : socket(executor) {}
    stream_protocol::socket socket;
    std::array<char, 16384> buffer{};
    std::string request;
    VtyDecoder decoder{kMaxReply};
  };

  void connect() {
    connection_ = std::make_shared<Connection>(executor_);
    connection_->socket.async_connect(
        stream_protocol::endpoint(path_),
        guarded_([this, connection = connection_](const boost::system::error_code& error) {
          if (connection_ != connection) return;
          if (error) {
            fail(explain(error));
            return;
          }
          receive();
          send();
        }));
  }

  absl::Status explain(const boost::system::error_code& error) const {
    if (error == boost::system::errc::permission_denied) {
      return absl::PermissionDeniedError(
          absl::StrCat("not allowed to open ", path_, ": put the speaker's user into the group frrvty"));
    }
    const std::string text = absl::StrCat(daemon_, " cannot be asked at ", path_, " (", error.message(),
                                          "): start it, or set frr.vty_directory to where its socket is");
    return error == boost::system::errc::no_such_file_or_directory ? absl::NotFoundError(text)
                                                                   : absl::UnavailableError(text);
  }

  void send() {
    connection_->request = std::move(request_);
    connection_->decoder = VtyDecoder(kMaxReply);
    boost::asio::async_write(connection_->socket, boost::asio::buffer(connection_->request),
                             guarded_([connection = connection_](const boost::system::error_code&, std::size_t) {
                               // The pending receive tells of errors.
                             }));
  }

  void receive() {
    connection_->socket.async_read_some(
        boost::asio::buffer(connection_->buffer),
        guarded_([this, connection = connection_](const boost::system::error_code& error, std::size_t size) {
          if (connection_ != connection) return;
          if (error) {
            fail(absl::UnavailableError(
                absl::StrCat(daemon_, " closed its connection at ", path_, ": if it has ended, start it")));
            return;
          }
          absl::StatusOr<std::optional<VtyReply>> reply =
              connection->decoder.feed(std::string_view(connection->buffer.data(), size));
          if (!reply.ok()) {
            fail(absl::Status(reply.status().code(), absl::StrCat(path_, ": ", reply.status().message())));
            return;
          }
          receive();
          if (reply->has_value()) answer(**std::move(reply));
        }));
  }

  void close() {
    if (connection_ == nullptr) return;
    boost::system::error_code ignored;
    connection_->socket.close(ignored);
    connection_.reset();
  }

  void fail(absl::Status status) {
    close();
    answer(std::move(status));
  }

  void answer(absl::StatusOr<VtyReply> reply) {
    timer_.cancel();
    if (Done done = std::exchange(done_, nullptr)) {
      done(std::move(reply));
    } else if (connection_ == nullptr && on_closed) {
      on_closed();
    }
  }

  boost::asio::any_io_executor executor_;
  const std::string path_;
  const std::string daemon_;
  Guard guarded_;
  std::shared_ptr<Connection> connection_;
  boost::asio::steady_timer timer_;
  std::string request_;
  Done done_;
};

}  // namespace

absl::StatusOr<std::optional<VtyReply>> VtyDecoder::feed(std::string_view bytes) {
  std::optional<VtyReply> reply;
  for (const char byte : bytes) {
    if (reply.has_value()) return absl::InvalidArgumentError("bytes after the end of a reply");
    if (nuls_ == kNulsBeforeStatus) {
      reply = VtyReply{std::exchange(text_, {}), static_cast<std::uint8_t>(byte)};
      nuls_ = 0;
    } else if (byte == '\0') {
      ++nuls_;
    } else if (nuls_ != 0) {
      return absl::InvalidArgumentError("a NUL within a reply's text");
    } else if (text_.size() == max_bytes_) {
      return absl::ResourceExhaustedError(absl::StrCat("a reply of more than ", max_bytes_, " bytes"));
    } else {
      text_.push_back(byte);
    }
  }
  return reply;
}

std::unique_ptr<VtyClient> make_vty_client(boost::asio::any_io_executor executor, std::string directory,
                                           std::string daemon) {
  return std::make_unique<SocketVtyClient>(std::move(executor), std::move(directory), std::move(daemon));
}

}  // namespace kedge::speaker
