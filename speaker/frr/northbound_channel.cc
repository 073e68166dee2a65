#include "speaker/frr/northbound_channel.h"

#include <algorithm>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <utility>

#include "absl/strings/str_cat.h"
#include "boost/asio/buffer.hpp"
#include "boost/asio/write.hpp"
#include "common/asio_grpc.h"
#include "grpc/grpc.h"
#include "grpcpp/channel.h"
#include "grpcpp/create_channel.h"
#include "grpcpp/security/credentials.h"
#include "grpcpp/support/channel_arguments.h"
#include "speaker/frr/http2_goodbye.h"

namespace kedge::speaker {
namespace {

using boost::asio::ip::tcp;
using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr milliseconds kFirstRetry{10};
constexpr milliseconds kLongestRetry{100};
constexpr seconds kSlowCall{10};
// The kernel itself answers on the loopback interface. Left alone, it would try again for minutes, later and later.
constexpr seconds kLongestConnect{1};

// RFC 9113, 3.4: "the connection preface ... followed by a SETTINGS frame", which may be empty. FRR's server drops
// connections that do not begin with it.
constexpr char kHttp2Preface[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00";

std::string to_text(const tcp::endpoint& endpoint) {
  const std::string address = endpoint.address().to_string();
  return absl::StrCat(endpoint.address().is_v6() ? absl::StrCat("[", address, "]") : address, ":", endpoint.port());
}

std::shared_ptr<grpc::Channel> make_loopback_channel(const tcp::endpoint& endpoint) {
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(-1);
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  arguments.SetInt(GRPC_ARG_ENABLE_RETRIES, 0);
  // A connection of its own, which knows nothing of the failures of earlier ones.
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 100);
  arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, 100);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 200);
  return grpc::CreateCustomChannel(to_text(endpoint), grpc::InsecureChannelCredentials(), arguments);
}

// Reads a Get to its end; lives until then.
class GetReader : public grpc::ClientReadReactor<frr::GetResponse> {
 public:
  using Done = std::function<void(const grpc::Status&, const std::string&)>;

  // `left` runs last, on a thread of gRPC.
  static std::shared_ptr<grpc::ClientContext> start(frr::Northbound::Stub* stub, boost::asio::any_io_executor executor,
                                                    const frr::GetRequest& request, Done done,
                                                    std::function<void()> left) {
    auto reader =
        std::shared_ptr<GetReader>(new GetReader(std::move(executor), request, std::move(done), std::move(left)));
    reader->self_ = reader;
    stub->async()->Get(&reader->context_, &reader->request_, reader.get());
    reader->StartRead(&reader->response_);
    reader->StartCall();
    return std::shared_ptr<grpc::ClientContext>(reader, &reader->context_);
  }

  void OnReadDone(bool ok) override {
    if (!ok) return;
    data_ += response_.data().data();
    StartRead(&response_);
  }

  void OnDone(const grpc::Status& status) override {
    const auto self = std::move(self_);
    boost::asio::post(executor_, [done = std::move(done_), status, data = std::move(data_)] { done(status, data); });
    left_();
  }

 private:
  GetReader(boost::asio::any_io_executor executor, const frr::GetRequest& request, Done done,
            std::function<void()> left)
      : executor_(std::move(executor)), request_(request), done_(std::move(done)), left_(std::move(left)) {}

  std::shared_ptr<GetReader> self_;
  boost::asio::any_io_executor executor_;
  grpc::ClientContext context_;
  frr::GetRequest request_;
  frr::GetResponse response_;
  std::string data_;
  Done done_;
  std::function<void()> left_;
};

// gRPC 1.51 aborts now and then ("ref_counted.h: assertion failed: prior > 0") when a channel goes while one of its
// threads is still leaving a cancelled call. A channel that was closed therefore stays until some more were closed.
void retire(std::unique_ptr<frr::Northbound::Stub> stub) {
  constexpr std::size_t kKept = 4;
  if (stub == nullptr) return;
  static std::mutex mutex;
  // Never destroyed: at the end of the process gRPC may be gone before it.
  static auto& retired = *new std::deque<std::unique_ptr<frr::Northbound::Stub>>;
  std::lock_guard lock(mutex);
  retired.push_back(std::move(stub));
  if (retired.size() > kKept) retired.pop_front();
}

// How many calls gRPC may still complete, from its own threads.
class CallsUnderWay {
 public:
  void enter() {
    std::lock_guard lock(mutex_);
    ++count_;
  }
  void leave() {
    std::lock_guard lock(mutex_);
    --count_;
    changed_.notify_all();
  }
  void wait_for_none() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return count_ == 0; });
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  int count_ = 0;
};

}  // namespace

// One stretch of time in which the daemon was there.
struct NorthboundChannel::Connection {
  explicit Connection(const boost::asio::any_io_executor& executor) : witness(executor) {}

  tcp::socket witness;
  std::array<char, 512> piece{};
  std::string unread;
  std::unique_ptr<frr::Northbound::Stub> stub;
};

// Outlives the channel when a call is under way.
struct NorthboundChannel::Shared {
  // Null when the channel is gone.
  NorthboundChannel* channel = nullptr;
  bool call_under_way = false;
  CallsUnderWay under_way;
  // Of the last call.
  std::shared_ptr<grpc::ClientContext> context;
  // The daemon is back, but a call to its predecessor has not ended.
  std::function<void()> after_call;
};

NorthboundChannel::NorthboundChannel(boost::asio::any_io_executor executor, tcp::endpoint endpoint)
    : executor_(std::move(executor)),
      endpoint_(std::move(endpoint)),
      shared_(std::make_shared<Shared>()),
      retry_timer_(executor_),
      slow_timer_(executor_),
      retry_pause_(kFirstRetry) {
  shared_->channel = this;
}

NorthboundChannel::~NorthboundChannel() {
  shared_->channel = nullptr;
  close();
  // Nothing may be posted to the executor any more, since its context may go next. FRR bears a cancelled call, other
  // than one whose deadline has passed.
  if (shared_->call_under_way) shared_->context->TryCancel();
  shared_->under_way.wait_for_none();
  shared_->context.reset();
}

void NorthboundChannel::open() { connect(); }

void NorthboundChannel::reopen(milliseconds pause) {
  close();
  retry_after(pause);
}

void NorthboundChannel::close() {
  for (std::shared_ptr<Connection>* connection : {&connection_, &attempt_}) {
    boost::system::error_code ignored;
    if (*connection != nullptr) {
      (*connection)->witness.close(ignored);
      retire(std::move((*connection)->stub));
    }
    connection->reset();
  }
  slow_timer_.cancel();
}

void NorthboundChannel::connect() {
  auto connection = std::make_shared<Connection>(executor_);
  attempt_ = connection;
  connection->witness.async_connect(endpoint_, [shared = shared_, connection](const boost::system::error_code& error) {
    if (shared->channel == nullptr || shared->channel->attempt_ != connection) return;
    NorthboundChannel& self = *shared->channel;
    if (!error) {
      self.connected(connection);
      return;
    }
    self.retry_pause_ = std::min(self.retry_pause_ * 2, kLongestRetry);
    self.lost(
        error == boost::asio::error::connection_refused
            ? absl::StrCat("FRR's northbound at ", to_text(self.endpoint_),
                           " refuses connections: start staticd with '-M <path>/grpc.so:", self.endpoint_.port(),
                           "' (docs/frr.md)")
            : absl::StrCat("FRR's northbound at ", to_text(self.endpoint_), " cannot be reached: ", error.message()));
  });
  retry_timer_.expires_after(kLongestConnect);
  retry_timer_.async_wait([shared = shared_, connection](const boost::system::error_code& error) {
    if (error || shared->channel == nullptr || shared->channel->attempt_ != connection) return;
    const tcp::endpoint& endpoint = shared->channel->endpoint_;
    shared->channel->lost(absl::StrCat("FRR's northbound at ", to_text(endpoint),
                                       " does not answer connections: let this machine itself reach TCP port ",
                                       endpoint.port(), " in its packet filter (docs/frr.md)"));
  });
}

void NorthboundChannel::connected(std::shared_ptr<Connection> connection) {
  auto preface = boost::asio::buffer(kHttp2Preface, sizeof(kHttp2Preface) - 1);
  boost::asio::async_write(connection->witness, preface,
                           [connection](const boost::system::error_code&, std::size_t) {});
  connection->stub = frr::Northbound::NewStub(make_loopback_channel(endpoint_));
  connection_ = connection;
  attempt_.reset();
  retry_timer_.cancel();
  watch(connection);
  auto up = [this, connection] {
    if (connection_ != connection) return;
    retry_pause_ = kFirstRetry;
    if (on_up) on_up();
  };
  // What an earlier commit still does has to be over before the configuration is read again.
  if (shared_->call_under_way) {
    shared_->after_call = up;
  } else {
    up();
  }
}

void NorthboundChannel::watch(std::shared_ptr<Connection> connection) {
  connection->witness.async_read_some(
      boost::asio::buffer(connection->piece),
      [shared = shared_, connection](const boost::system::error_code& error, std::size_t size) {
        if (shared->channel == nullptr || shared->channel->connection_ != connection) return;
        connection->unread.append(connection->piece.data(), size);
        // A server that shuts down waits for its clients to go: 20 s for one that does not.
        if (!error && !says_goodbye(connection->unread)) {
          shared->channel->watch(connection);
          return;
        }
        shared->channel->lost(absl::StrCat("FRR's northbound at ", to_text(shared->channel->endpoint_),
                                           " closed the connection: staticd has ended or its gRPC server has"));
      });
}

void NorthboundChannel::lost(const std::string& why) {
  close();
  retry_after(retry_pause_);
  if (on_down) on_down(why);
}

void NorthboundChannel::retry_after(milliseconds pause) {
  retry_timer_.expires_after(pause);
  retry_timer_.async_wait([shared = shared_](const boost::system::error_code& error) {
    if (!error && shared->channel != nullptr) shared->channel->connect();
  });
}

void NorthboundChannel::watch_call(const char* call, seconds after) {
  slow_timer_.expires_after(kSlowCall);
  slow_timer_.async_wait([shared = shared_, call, after](const boost::system::error_code& error) {
    if (error || shared->channel == nullptr || !shared->call_under_way) return;
    if (shared->channel->on_slow) shared->channel->on_slow(call, after);
    shared->channel->watch_call(call, after + kSlowCall);
  });
}

template <typename Response>
std::function<void(const grpc::Status&, const Response&)> NorthboundChannel::begin(const char* call,
                                                                                   Done<Response> done) {
  shared_->call_under_way = true;
  watch_call(call, kSlowCall);
  return [shared = shared_, connection = std::weak_ptr<Connection>(connection_), done = std::move(done)](
             const grpc::Status& status, const Response& response) {
    shared->call_under_way = false;
    if (shared->channel == nullptr) return;
    shared->channel->slow_timer_.cancel();
    if (auto next = std::exchange(shared->after_call, nullptr)) {
      next();
      return;
    }
    const auto alive = connection.lock();
    if (alive != nullptr && shared->channel->connection_ == alive) done(status, response);
  };
}

template <typename Request, typename Response>
void NorthboundChannel::call(const char* name, Method<Request, Response> method, const Request& request,
                             Done<Response> done) {
  shared_->under_way.enter();
  shared_->context = async_unary<Request, Response>(
      executor_, request,
      [shared = shared_, stub = connection_->stub.get(), method](auto* context, auto* sent, auto* response,
                                                                 auto completed) {
        (static_cast<Async*>(stub->async())->*method)(
            context, sent, response, [shared, completed = std::move(completed)](grpc::Status status) mutable {
              completed(std::move(status));
              shared->under_way.leave();
            });
      },
      begin(name, std::move(done)));
}

void NorthboundChannel::get(const frr::GetRequest& request, Done<std::string> done) {
  shared_->under_way.enter();
  shared_->context = GetReader::start(connection_->stub.get(), executor_, request, begin("Get", std::move(done)),
                                      [shared = shared_] { shared->under_way.leave(); });
}

void NorthboundChannel::get_capabilities(Done<frr::GetCapabilitiesResponse> done) {
  call<frr::GetCapabilitiesRequest>("GetCapabilities", &Async::GetCapabilities, {}, std::move(done));
}

void NorthboundChannel::create_candidate(Done<frr::CreateCandidateResponse> done) {
  call<frr::CreateCandidateRequest>("CreateCandidate", &Async::CreateCandidate, {}, std::move(done));
}

void NorthboundChannel::edit_candidate(const frr::EditCandidateRequest& edit, Done<frr::EditCandidateResponse> done) {
  call<frr::EditCandidateRequest>("EditCandidate", &Async::EditCandidate, edit, std::move(done));
}

void NorthboundChannel::load_to_candidate(const frr::LoadToCandidateRequest& request,
                                          Done<frr::LoadToCandidateResponse> done) {
  call<frr::LoadToCandidateRequest>("LoadToCandidate", &Async::LoadToCandidate, request, std::move(done));
}

void NorthboundChannel::commit(std::uint32_t candidate_id, Done<frr::CommitResponse> done) {
  frr::CommitRequest commit;
  commit.set_candidate_id(candidate_id);
  // PREPARE and APPLY crash staticd 8.4 when the candidate is deleted afterwards.
  commit.set_phase(frr::CommitRequest::ALL);
  call<frr::CommitRequest>("Commit", &Async::Commit, commit, std::move(done));
}

void NorthboundChannel::delete_candidate(std::uint32_t candidate_id, Done<frr::DeleteCandidateResponse> done) {
  frr::DeleteCandidateRequest candidate;
  candidate.set_candidate_id(candidate_id);
  call<frr::DeleteCandidateRequest>("DeleteCandidate", &Async::DeleteCandidate, candidate, std::move(done));
}

}  // namespace kedge::speaker
