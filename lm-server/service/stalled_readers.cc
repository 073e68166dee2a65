#include "lm-server/service/stalled_readers.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "common/log.h"

namespace kedge::lm {
namespace {

using std::chrono::steady_clock;

// How often all are looked at, within their patience.
constexpr int kLooks = 4;

}  // namespace

void StalledReaders::Reader::writing() { writing_since_ = steady_clock::now(); }

void StalledReaders::Reader::written() { writing_since_ = kNever; }

void StalledReaders::Reader::finished() {
  Time never = kNever;
  finished_at_.compare_exchange_strong(never, steady_clock::now());
}

void StalledReaders::Reader::gone() {
  std::lock_guard lock(mutex_);
  context_ = nullptr;
  end_ = nullptr;
}

StalledReaders::StalledReaders(boost::asio::io_context& io, std::chrono::milliseconds patience, Metrics& metrics)
    : patience_(patience), metrics_(metrics), timer_(io) {
  arm();
}

std::shared_ptr<StalledReaders::Reader> StalledReaders::watch(std::string method, std::string peer,
                                                              grpc::CallbackServerContext* context,
                                                              std::function<void(const absl::Status&)> end) {
  auto reader = std::make_shared<Reader>();
  reader->method_ = std::move(method);
  reader->peer_ = std::move(peer);
  reader->context_ = context;
  reader->end_ = std::move(end);
  std::lock_guard lock(mutex_);
  readers_.push_back(reader);
  return reader;
}

void StalledReaders::count(const std::string& method, const std::string& peer) {
  metrics_
      .counter("kedge_lm_slow_readers_total", "Streams that were cut off since their reader did not read",
               {{"method", method}})
      .Increment();
  log_warning("slow_reader", "method", method, "peer", peer, "effect", "cut off");
}

void StalledReaders::arm() {
  timer_.expires_after(patience_ / kLooks);
  timer_.async_wait([this](const boost::system::error_code& error) {
    if (error) return;
    look();
    arm();
  });
}

void StalledReaders::look() {
  const auto now = steady_clock::now();
  std::list<std::shared_ptr<Reader>> present;
  {
    std::lock_guard lock(mutex_);
    readers_.remove_if([&present](const std::weak_ptr<Reader>& weak) {
      auto reader = weak.lock();
      if (reader != nullptr) present.push_back(std::move(reader));
      return weak.expired();
    });
  }
  for (const auto& reader : present) look_at(*reader, now);
}

void StalledReaders::look_at(Reader& reader, steady_clock::time_point now) {
  std::lock_guard lock(reader.mutex_);
  if (reader.context_ == nullptr) return;
  if (const auto finished_at = reader.finished_at_.load(); finished_at != kNever) {
    if (now - finished_at >= patience_) reader.context_->TryCancel();
    return;
  }
  const auto since = reader.writing_since_.load();
  if (since == kNever || now - since < patience_) return;
  count(reader.method_, reader.peer_);
  reader.end_(absl::ResourceExhaustedError(
      absl::StrCat("the reader has not taken the next message for ", patience_.count(), " ms; ask again")));
}

}  // namespace kedge::lm
