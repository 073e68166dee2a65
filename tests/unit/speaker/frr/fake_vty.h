// An FRR daemon's vty socket, in a folder of its own.
#pragma once

#include <stdlib.h>

#include <array>
#include <chrono>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "boost/asio/io_context.hpp"
#include "boost/asio/local/stream_protocol.hpp"
#include "boost/asio/write.hpp"

namespace kedge::speaker {

class FakeVty {
 public:
  using Socket = boost::asio::local::stream_protocol::socket;

  FakeVty(boost::asio::io_context& context, std::string daemon) : context_(context), daemon_(std::move(daemon)) {
    char name[] = "/tmp/kedge_fake_vty.XXXXXX";
    directory_ = ::mkdtemp(name);
  }
  ~FakeVty() { std::filesystem::remove_all(directory_); }

  FakeVty(const FakeVty&) = delete;
  FakeVty& operator=(const FakeVty&) = delete;

  const std::string& directory() const { return directory_; }

  void listen() {
    const std::string path = directory_ + "/" + daemon_ + ".vty";
    std::filesystem::remove(path);
    acceptor_.emplace(context_, boost::asio::local::stream_protocol::endpoint(path));
    accept();
  }

  // The socket's file stays, as after a kill.
  void stop_listening() { acceptor_.reset(); }
  void close_connection() {
    boost::system::error_code ignored;
    if (peer_ != nullptr) peer_->close(ignored);
    peer_.reset();
  }

  // The bytes that answer a command; none: it is not answered.
  std::function<std::string(const std::string& command)> reply;
  std::string received;
  int connections = 0;

 private:
  void accept() {
    acceptor_->async_accept([this](const boost::system::error_code& error, Socket socket) {
      if (error) return;
      ++connections;
      peer_ = std::make_shared<Socket>(std::move(socket));
      read();
      accept();
    });
  }

  void read() {
    peer_->async_read_some(boost::asio::buffer(buffer_),
                           [this, peer = peer_](const boost::system::error_code& error, std::size_t size) {
                             if (error || peer != peer_) return;
                             received.append(buffer_.data(), size);
                             command_.append(buffer_.data(), size);
                             answer();
                             read();
                           });
  }

  void answer() {
    for (auto end = command_.find('\0'); end != std::string::npos; end = command_.find('\0')) {
      const std::string bytes = reply ? reply(command_.substr(0, end)) : std::string();
      command_.erase(0, end + 1);
      if (!bytes.empty()) boost::asio::write(*peer_, boost::asio::buffer(bytes));
    }
  }

  boost::asio::io_context& context_;
  const std::string daemon_;
  std::string directory_;
  std::optional<boost::asio::local::stream_protocol::acceptor> acceptor_;
  std::shared_ptr<Socket> peer_;
  std::array<char, 1000> buffer_{};
  std::string command_;
};

// Runs the context until the condition holds; false: it did not in time.
template <typename Condition>
bool run_until(boost::asio::io_context& context, Condition condition) {
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  while (!condition() && std::chrono::steady_clock::now() < end) {
    context.restart();
    context.run_one_for(std::chrono::milliseconds(50));
  }
  return condition();
}

}  // namespace kedge::speaker
