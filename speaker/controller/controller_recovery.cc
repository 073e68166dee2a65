// What the controller does when the LM was away: replay of what it has missed, and, when its store was restored from a
// backup meanwhile, recovery of what it has lost.
#include <algorithm>
#include <utility>
#include <vector>

#include "common/log.h"
#include "common/time.h"
#include "speaker/controller/controller.h"

namespace kedge::speaker {
namespace {

using namespace std::chrono_literals;

// An MN that was heard so lately is there.
constexpr auto kLately = 1s;
// Answers to one probe come one after the other: MLD reports (RFC 3810, 6.2) after the neighbour advertisement.
constexpr auto kAnswersFollow = 200ms;
// 500 MNs a second are asked, so that neither the access links nor the LM get all at once.
constexpr int kAskedAtOnce = 10;
constexpr auto kAskInterval = 20ms;
// The LM's answer may overtake the records of what it has answered.
constexpr auto kRecordsFollow = 2s;

}  // namespace

void Controller::after(std::chrono::milliseconds time, std::function<void()> action) {
  auto timer = std::make_shared<boost::asio::steady_timer>(executor_, time);
  timer->async_wait([timer, action = std::move(action), alive = alive_](boost::system::error_code error) {
    if (!error && *alive) action();
  });
}

// Replay

SteadyTime Controller::heard_by_itself(const LinkLayerAddress& mn, const PendingAttach& pending) const {
  const auto arrived = pending.arrival.heard_at_steady;
  const auto heard = std::max(access_.last_heard(mn).value_or(arrived), arrived);
  return pending.answered && heard <= *pending.answered + kAnswersFollow ? pending.heard : heard;
}

bool Controller::was_heard_lately(const LinkLayerAddress& mn, const PendingAttach& pending) const {
  const auto arrived = pending.arrival.heard_at_steady;
  const auto heard = std::max(access_.last_heard(mn).value_or(arrived), arrived);
  return std::chrono::steady_clock::now() - heard <= kLately;
}

void Controller::resend_attach(const LinkLayerAddress& mn) {
  auto& pending = pending_attaches_.at(mn);
  if (!pending.recovery && was_heard_lately(mn, pending)) return send_attach(mn);
  if (pending.queued || pending.asked) return;
  pending.queued = true;
  to_ask_.push_back(mn);
  if (!asking_) ask_some();
}

void Controller::ask_some() {
  asking_ = true;
  for (int asked = 0; asked < kAskedAtOnce && !to_ask_.empty();) {
    const auto mn = to_ask_.front();
    to_ask_.pop_front();
    const auto pending = pending_attaches_.find(mn);
    if (pending == pending_attaches_.end() || !std::exchange(pending->second.queued, false)) continue;
    if (pending->second.in_flight) continue;
    ask(mn);
    ++asked;
  }
  asking_ = !to_ask_.empty();
  if (asking_) after(kAskInterval, [this] { ask_some(); });
}

void Controller::ask(const LinkLayerAddress& mn) {
  auto& pending = pending_attaches_.at(mn);
  if (pending.departed || was_heard_lately(mn, pending)) return send_attach(mn);
  pending.heard = heard_by_itself(mn, pending);
  pending.asked = true;
  access_.probe(mn, pending.arrival.link_local, pending.arrival.interface, [this, mn, alive = alive_](bool answered) {
    if (*alive) on_answer(mn, answered);
  });
}

void Controller::on_answer(const LinkLayerAddress& mn, bool answered) {
  const auto found = pending_attaches_.find(mn);
  if (found == pending_attaches_.end() || !std::exchange(found->second.asked, false)) return;
  auto& pending = found->second;
  if (pending.in_flight) return;
  if (answered) {
    pending.answered = std::chrono::steady_clock::now();
    return send_attach(mn);
  }
  log_info("attach_given_up", "mn", mn, "interface", pending.arrival.interface, "reason",
           "it does not answer here any more");
  if (pending.recovery) {
    return recover_departed({mn, pending.arrival.interface, v1::DETACH_REASON_UNREACHABLE, pending.heard});
  }
  pending_attaches_.erase(found);
  report_departure(mn);
}

// Recovery

bool Controller::recovering(const std::string& mn_id) const {
  const auto mn = LinkLayerAddress::parse(mn_id);
  if (!mn.ok()) return false;
  const auto pending = pending_attaches_.find(*mn);
  return pending != pending_attaches_.end() && pending->second.recovery;
}

void Controller::begin_recovery() {
  keep_until_ = std::chrono::steady_clock::now() + config_.recovery_time;
  after(config_.recovery_time, [this] { end_keeping(); });
  for (const auto& mn : served_) recover(mn, false);
  // The LM does not know the attachment that they have ended. What they had here they may still have elsewhere.
  for (auto& [mn, pending] : pending_detaches_) {
    pending.generation.Clear();
    // The answer that it waits for is that of the LM as it was.
    pending.in_flight = false;
    pending.sequence = 0;
    pending.timer->cancel();
    recover(mn, true);
  }
}

void Controller::recover(const LinkLayerAddress& mn, bool departed) {
  const auto prefixes = prefixes_of_mn_.find(mn.to_string());
  if (prefixes == prefixes_of_mn_.end()) return;
  const auto here = std::find_if(prefixes->second.begin(), prefixes->second.end(), [&](const Ipv6Prefix& prefix) {
    return entries_.at(prefix).record.attached_ar() == config_.name;
  });
  if (here == prefixes->second.end()) return;
  const auto& attachment = entries_.at(*here).record.attachment();
  const auto link_local = Ipv6Address::parse(attachment.link_local());
  if (!link_local.ok()) return;
  auto& pending = pending_attaches_[mn];
  pending.recovery = true;
  pending.departed = departed;
  if (pending.timer != nullptr) return;
  pending.timer = std::make_shared<boost::asio::steady_timer>(executor_);
  pending.arrival.link_layer_address = mn;
  pending.arrival.link_local = *link_local;
  pending.arrival.interface = attachment.interface();
  pending.arrival.trigger = v1::TRIGGER_RECOVERY;
  pending.arrival.heard_at = now_system();
  pending.arrival.heard_at_steady =
      access_.last_heard(mn).value_or(departed ? pending_detaches_.at(mn).departure.last_heard : started_at_);
}

bool Controller::keeps(const Entry& entry, const v1::Binding* known) const {
  if (!entry.programmed) return false;
  const auto& mn_id = entry.record.mn_id();
  // Nothing is younger than an MN that is here but an attachment.
  if (entry.record.attached_ar() == config_.name && recovering(mn_id)) {
    return known == nullptr || (known->attached_ar().empty() && known->mn_id() == mn_id);
  }
  return known == nullptr && entry.programmed->kind == Route::Kind::kRedirect &&
         std::chrono::steady_clock::now() < keep_until_;
}

void Controller::add_held_prefixes(v1::AttachRequest& request) const {
  request.set_trigger(v1::TRIGGER_RECOVERY);
  const auto prefixes = prefixes_of_mn_.find(request.mn_id());
  if (prefixes == prefixes_of_mn_.end()) return;
  for (const auto& prefix : prefixes->second) {
    const auto& record = entries_.at(prefix).record;
    // Those of a mobile router's networks are its profile's.
    if (record.attached_ar() == config_.name && !record.mobile_network()) request.add_held_prefixes(prefix.to_string());
  }
}

void Controller::recover_departed(const Departure& departure) {
  const auto& mn = departure.link_layer_address;
  auto& pending = pending_attaches_.at(mn);
  pending.departed = true;
  pending.asked = false;
  expect_detach(departure, {});
  log_info("departure", "mn", mn, "interface", departure.interface, "reason", v1::DetachReason_Name(departure.reason));
  if (!pending.in_flight) send_attach(mn);
}

void Controller::recovered(const LinkLayerAddress& mn, bool departed) {
  log_info("recovered", "mn", mn, "has_left", departed ? "yes" : "no");
  if (departed) report_departure(mn);
  after(std::min<std::chrono::milliseconds>(kRecordsFollow, config_.recovery_time), [this, mn_id = mn.to_string()] {
    if (!recovering(mn_id)) end_recovery(mn_id);
  });
}

void Controller::end_recovery(const std::string& mn_id) {
  const auto found = prefixes_of_mn_.find(mn_id);
  if (found == prefixes_of_mn_.end()) return;
  const auto prefixes = found->second;
  std::vector<v1::Record> records;
  bool any = false;
  for (const auto& prefix : prefixes) {
    if (!entries_.at(prefix).kept) continue;
    any = true;
    if (auto known = withheld_.extract(prefix); !known.empty()) {
      *records.emplace_back().mutable_binding() = std::move(known.mapped());
    } else {
      log_warning("prefix_lost", "prefix", prefix, "mn", mn_id, "reason", "the LM has not taken it up");
      drop(prefix);
    }
  }
  if (!records.empty()) take_commits(records);
  if (any) refresh_mn(mn_id);
}

void Controller::end_keeping() {
  if (std::chrono::steady_clock::now() < keep_until_) return;
  std::vector<Ipv6Prefix> over;
  for (const auto& [prefix, entry] : entries_) {
    if (entry.kept && !keeps(entry, nullptr)) over.push_back(prefix);
  }
  for (const auto& prefix : over) drop(prefix);
}

}  // namespace kedge::speaker
