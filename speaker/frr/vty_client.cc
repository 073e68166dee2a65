#include "speaker/frr/vty_client.h"

#include <array>
#include <chrono>
#include <deque>
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
    waiting_.push_back({std::move(done), std::chrono::steady_clock::now() + kAnswerWithin});
    if (waiting_.size() == 1) wait_for_answer();
    commands_ += command;
    commands_.push_back('\0');
    if (connection_ == nullptr) {
      connect();
    } else {
      send();
    }
  }

 private:
  struct Connection {
    explicit Connection(const boost::asio::any_io_executor& executor) : socket(executor) {}
    stream_protocol::socket socket;
    std::array<char, 16384> buffer{};
    // What is being written; empty: nothing.
    std::string request;
    VtyDecoder decoder{kMaxReply};
    bool connected = false;
  };

  struct Waiting {
    Done done;
    std::chrono::steady_clock::time_point until;
  };

  // For the first of those that wait.
  void wait_for_answer() {
    timer_.expires_at(waiting_.front().until);
    timer_.async_wait(guarded_([this](const boost::system::error_code& error) {
      if (error || waiting_.empty()) return;
      if (std::chrono::steady_clock::now() < waiting_.front().until) return wait_for_answer();
      fail(absl::DeadlineExceededError(
          absl::StrCat(daemon_, " does not answer at ", path_, ": if it hangs, restart it")));
    }));
  }

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
          connection->connected = true;
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

  // All that was asked since the last write.
  void send() {
    if (!connection_->connected || !connection_->request.empty() || commands_.empty()) return;
    connection_->request = std::exchange(commands_, {});
    boost::asio::async_write(
        connection_->socket, boost::asio::buffer(connection_->request),
        guarded_([this, connection = connection_](const boost::system::error_code& error, std::size_t) {
          // The pending receive tells of errors.
          if (error || connection_ != connection) return;
          connection->request.clear();
          send();
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
          absl::StatusOr<std::vector<VtyReply>> replies =
              connection->decoder.feed(std::string_view(connection->buffer.data(), size));
          if (!replies.ok()) {
            fail(absl::Status(replies.status().code(), absl::StrCat(path_, ": ", replies.status().message())));
            return;
          }
          for (VtyReply& reply : *replies) {
            if (waiting_.empty()) {
              fail(absl::InvalidArgumentError(absl::StrCat(path_, ": more replies than commands")));
              return;
            }
            answer(std::move(reply));
            // Its receiver may have done anything.
            if (connection_ != connection) return;
          }
          receive();
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
    timer_.cancel();
    commands_.clear();
    const auto waiting = std::exchange(waiting_, {});
    if (waiting.empty() && on_closed) return on_closed();
    // What they ask next is of the next connection.
    for (const Waiting& one : waiting) one.done(status);
  }

  void answer(VtyReply reply) {
    const Done done = std::move(waiting_.front().done);
    waiting_.pop_front();
    if (waiting_.empty()) timer_.cancel();
    done(std::move(reply));
  }

  boost::asio::any_io_executor executor_;
  const std::string path_;
  const std::string daemon_;
  Guard guarded_;
  std::shared_ptr<Connection> connection_;
  boost::asio::steady_timer timer_;
  // Not written yet.
  std::string commands_;
  std::deque<Waiting> waiting_;
};

}  // namespace

absl::StatusOr<std::vector<VtyReply>> VtyDecoder::feed(std::string_view bytes) {
  std::vector<VtyReply> replies;
  for (const char byte : bytes) {
    if (nuls_ == kNulsBeforeStatus) {
      replies.push_back({std::exchange(text_, {}), static_cast<std::uint8_t>(byte)});
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
  return replies;
}

std::unique_ptr<VtyClient> make_vty_client(boost::asio::any_io_executor executor, std::string directory,
                                           std::string daemon) {
  return std::make_unique<SocketVtyClient>(std::move(executor), std::move(directory), std::move(daemon));
}

}  // namespace kedge::speaker
