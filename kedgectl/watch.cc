#include "kedgectl/watch.h"

#include <chrono>
#include <condition_variable>
#include <mutex>
#include <optional>

#include "common/time.h"
#include "fmt/format.h"
#include "kedgectl/failure.h"
#include "kedgectl/output.h"

namespace kedge::kedgectl {
namespace {

constexpr std::chrono::milliseconds kReconnectDelay{500};

class Watch {
 public:
  Watch(const Session& session, const WatchCommand& command)
      : session_(session), command_(command), stop_(session.stop), last_id_(command.after) {}

  ExitCode run() {
    while (true) {
      grpc::Status status = command_.follow ? find_start() : grpc::Status::OK;
      if (status.ok()) status = stream();
      if (exit_) return *exit_;
      if (stop_.stop_requested()) return interrupted();
      if (!command_.follow || !may_come_back(status)) return ended(status);
      if (!outage_told_) tell(session_.err, explain(gone(status), session_.options.server).text + "\nTrying again.");
      outage_told_ = true;
      if (wait()) return interrupted();
    }
  }

 private:
  // Where to begin so that nothing is missed between two streams. Ids begin again with each run of the server.
  grpc::Status find_start() {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + session_.options.timeout);
    // A connection is only worked on while a call waits for it; with TLS it takes several round trips.
    context.set_wait_for_ready(outage_told_);
    const std::stop_callback cancel(stop_, [&context] { context.TryCancel(); });
    v1::StatusResponse answer;
    if (const auto status = session_.admin.Status(&context, {}, &answer); !status.ok()) return status;
    const auto started = from_proto(answer.started_at());
    if (server_started_ && *server_started_ != started) {
      tell(session_.err, "the server was restarted and counts its events anew: all that it keeps follow");
      last_id_ = 0;
    }
    server_started_ = started;
    if (!last_id_) last_id_ = answer.last_event_id();
    return grpc::Status::OK;
  }

  // OK only when the server ended the stream by itself.
  grpc::Status stream() {
    grpc::ClientContext context;
    const std::stop_callback cancel(stop_, [&context] { context.TryCancel(); });
    auto reader = session_.admin.WatchEvents(&context, request());
    v1::Event event;
    while (reader->Read(&event)) {
      outage_told_ = false;
      last_id_ = event.id();
      exit_ = show(event);
      if (exit_) {
        context.TryCancel();
        reader->Finish();
        return grpc::Status::OK;
      }
    }
    auto status = reader->Finish();
    if (command_.follow && status.error_code() == grpc::StatusCode::OUT_OF_RANGE && !stop_.stop_requested()) {
      tell(session_.err,
           fmt::format("events after {} have been dropped by the server: all that it keeps follow", *last_id_));
      last_id_ = 0;
      return stream();
    }
    return status;
  }

  v1::WatchEventsRequest request() const {
    v1::WatchEventsRequest request;
    request.set_after_id(last_id_.value_or(0));
    // Ids begin at 1: "after 0" is all, which the API asks for by another field.
    request.set_from_start(last_id_ == 0U);
    request.set_prefix(command_.prefix);
    request.set_mn_id(command_.mn_id);
    request.set_ar(command_.ar);
    return request;
  }

  // The exit code if this event is the last to show.
  std::optional<ExitCode> show(const v1::Event& event) {
    const auto code = print(session_, event, JsonStyle::kOneLine, [&] {
      std::string text = header_shown_ ? "" : render_event_header();
      header_shown_ = true;
      return text + render_event(event);
    });
    if (code != ExitCode::kOk) return code;
    ++shown_;
    if (command_.count != 0 && shown_ == command_.count) return ExitCode::kOk;
    return std::nullopt;
  }

  // A server that is shutting down ends its streams with OK or CANCELLED.
  static grpc::Status gone(const grpc::Status& status) {
    if (status.ok() || status.error_code() == grpc::StatusCode::CANCELLED) {
      return {grpc::StatusCode::UNAVAILABLE, "it ended the stream"};
    }
    return status;
  }

  static bool may_come_back(const grpc::Status& status) {
    const auto code = gone(status).error_code();
    return code == grpc::StatusCode::UNAVAILABLE || code == grpc::StatusCode::DEADLINE_EXCEEDED;
  }

  ExitCode ended(const grpc::Status& status) {
    const auto code = fail(session_, gone(status));
    if (status.error_code() == grpc::StatusCode::OUT_OF_RANGE) {
      tell(session_.err, "see what is still kept with --from-start");
    } else {
      tell_where_to_go_on();
    }
    return code;
  }

  ExitCode interrupted() {
    tell_where_to_go_on();
    return ExitCode::kInterrupted;
  }

  void tell_where_to_go_on() {
    if (last_id_) tell(session_.err, fmt::format("go on from here with: watch --after {}", *last_id_));
  }

  // True when told to stop.
  bool wait() {
    std::unique_lock lock(mutex_);
    wake_.wait_for(lock, stop_, kReconnectDelay, [] { return false; });
    return stop_.stop_requested();
  }

  const Session& session_;
  const WatchCommand& command_;
  std::stop_token stop_;
  std::optional<std::uint64_t> last_id_;
  std::optional<SystemTime> server_started_;
  std::optional<ExitCode> exit_;
  std::uint64_t shown_ = 0;
  bool header_shown_ = false;
  bool outage_told_ = false;
  std::mutex mutex_;
  std::condition_variable_any wake_;
};

}  // namespace

ExitCode run_watch(const Session& session, const WatchCommand& command) { return Watch(session, command).run(); }

}  // namespace kedge::kedgectl
