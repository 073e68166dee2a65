#include "tests/tools/flow_account.h"

#include <algorithm>
#include <limits>

namespace kedge::tools {
namespace {

constexpr std::int64_t kNeverReceived = std::numeric_limits<std::int64_t>::min();

// Packets of the window that are judged. They form one range, since send times are ordered.
struct Scope {
  std::uint64_t begin = 0;
  std::uint64_t end = 0;
  std::uint64_t not_judged = 0;

  bool contains(std::uint64_t sequence) const { return sequence >= begin && sequence < end; }
};

std::uint64_t first_not_before(const std::vector<SentPacket>& sent, std::int64_t time_ns) {
  const auto place =
      std::lower_bound(sent.begin(), sent.end(), time_ns,
                       [](const SentPacket& packet, std::int64_t time) { return packet.sent_ns < time; });
  return static_cast<std::uint64_t>(place - sent.begin());
}

Scope scope_of(const std::vector<SentPacket>& sent, const AccountOptions& options) {
  const std::uint64_t window_begin = options.from_ns ? first_not_before(sent, *options.from_ns) : 0;
  const std::uint64_t window_end =
      std::max(window_begin, options.to_ns ? first_not_before(sent, *options.to_ns) : sent.size());

  Scope scope{window_begin, window_end, 0};
  if (options.judged_from_ns) {
    scope.begin = std::clamp(first_not_before(sent, *options.judged_from_ns), window_begin, window_end);
  }
  if (options.judged_until_ns) {
    scope.end = std::clamp(first_not_before(sent, *options.judged_until_ns + 1), scope.begin, window_end);
  }
  scope.not_judged = (window_end - window_begin) - (scope.end - scope.begin);
  return scope;
}

// Fills the figures that depend on the order of arrival; returns the first arrival of each packet.
// Order is a property of the whole flow: a packet of the window may be overtaken by one after it.
std::vector<std::int64_t> count_arrivals(const std::vector<SentPacket>& sent,
                                         const std::vector<ReceivedPacket>& received, const Scope& scope,
                                         DirectionFigures& figures) {
  std::vector<std::int64_t> arrival(sent.size(), kNeverReceived);
  std::uint64_t next_expected = 0;
  for (const ReceivedPacket& packet : received) {
    if (packet.sequence >= sent.size()) {
      ++figures.impossible;
      continue;
    }
    const bool counts = scope.contains(packet.sequence);
    if (arrival[packet.sequence] != kNeverReceived) {
      figures.duplicated += counts;
      continue;
    }
    arrival[packet.sequence] = packet.received_ns;
    figures.received += counts;
    // RFC 4737, 3.3: "If s >= NextExp then [...] Type-P-Reordered = FALSE [...] else
    // Type-P-Reordered = TRUE"
    if (packet.sequence >= next_expected) {
      next_expected = packet.sequence + 1;
    } else {
      figures.reordered += counts;
    }
  }
  return arrival;
}

void count_sent(const std::vector<SentPacket>& sent, const Scope& scope, DirectionFigures& figures) {
  figures.sent = scope.end - scope.begin;
  figures.lost = figures.sent - figures.received;
  if (figures.sent == 0) return;
  figures.first_sent_ns = sent[scope.begin].sent_ns;
  figures.last_sent_ns = sent[scope.end - 1].sent_ns;
  for (std::uint64_t sequence = scope.begin; sequence < scope.end; ++sequence) {
    figures.send_failed += sent[sequence].error != 0;
  }
}

void find_losses(const std::vector<SentPacket>& sent, const std::vector<std::int64_t>& arrival, const Scope& scope,
                 DirectionFigures& figures) {
  bool in_run = false;
  for (std::uint64_t sequence = scope.begin; sequence < scope.end; ++sequence) {
    if (arrival[sequence] != kNeverReceived) {
      in_run = false;
      continue;
    }
    if (!in_run) figures.losses.push_back({sequence, sequence, sent[sequence].sent_ns, 0});
    in_run = true;
    LossRun& run = figures.losses.back();
    run.last_sequence = sequence;
    run.last_sent_ns = sent[sequence].sent_ns;
    figures.longest_loss_run = std::max(figures.longest_loss_run, run.count());
  }
}

std::int64_t longest_send_gap(const std::vector<SentPacket>& sent, std::uint64_t first, std::uint64_t last) {
  std::int64_t longest = 0;
  for (std::uint64_t sequence = first; sequence < last; ++sequence) {
    longest = std::max(longest, sent[sequence + 1].sent_ns - sent[sequence].sent_ns);
  }
  return longest;
}

void offer_gap(std::optional<Gap>& longest, const Gap& gap) {
  if (!longest || gap.length_ns > longest->length_ns) longest = gap;
}

// Between two arrivals the receiver's clock measures. Where the window begins or ends with losses
// there is only one arrival, or none; what was lost before or after it is then measured by send
// times, so that an outage at the edge is not overlooked.
void find_longest_gap(const std::vector<SentPacket>& sent, const std::vector<std::int64_t>& arrival, const Scope& scope,
                      DirectionFigures& figures) {
  if (figures.sent < 2) return;
  const std::uint64_t last = scope.end - 1;

  std::vector<std::uint64_t> arrived;
  arrived.reserve(figures.received);
  for (std::uint64_t sequence = scope.begin; sequence < scope.end; ++sequence) {
    if (arrival[sequence] != kNeverReceived) arrived.push_back(sequence);
  }
  if (arrived.empty()) {
    figures.longest_gap =
        Gap{sent[last].sent_ns - sent[scope.begin].sent_ns, std::nullopt, std::nullopt, sent[scope.begin].sent_ns, 0};
  } else {
    const std::uint64_t first_arrived = arrived.front();
    const std::uint64_t last_arrived = arrived.back();
    offer_gap(figures.longest_gap, {sent[first_arrived].sent_ns - sent[scope.begin].sent_ns, std::nullopt,
                                    first_arrived, sent[scope.begin].sent_ns, 0});
    offer_gap(figures.longest_gap, {sent[last].sent_ns - sent[last_arrived].sent_ns, last_arrived, std::nullopt,
                                    sent[last_arrived].sent_ns, 0});
    std::stable_sort(arrived.begin(), arrived.end(),
                     [&](std::uint64_t one, std::uint64_t two) { return arrival[one] < arrival[two]; });
    for (std::size_t i = 1; i < arrived.size(); ++i) {
      offer_gap(figures.longest_gap, {arrival[arrived[i]] - arrival[arrived[i - 1]], arrived[i - 1], arrived[i],
                                      sent[arrived[i - 1]].sent_ns, 0});
    }
  }

  Gap& gap = *figures.longest_gap;
  const std::uint64_t from = gap.after_sequence.value_or(scope.begin);
  const std::uint64_t to = gap.before_sequence.value_or(last);
  gap.send_gap_ns = longest_send_gap(sent, std::min(from, to), std::max(from, to));
}

void find_delay(const std::vector<SentPacket>& sent, const std::vector<std::int64_t>& arrival, const Scope& scope,
                DirectionFigures& figures) {
  if (figures.received == 0) return;
  std::vector<std::int64_t> delays;
  delays.reserve(figures.received);
  for (std::uint64_t sequence = scope.begin; sequence < scope.end; ++sequence) {
    if (arrival[sequence] == kNeverReceived) continue;
    delays.push_back(arrival[sequence] - sent[sequence].sent_ns);
  }
  const auto middle = delays.begin() + static_cast<std::ptrdiff_t>(delays.size() / 2);
  std::nth_element(delays.begin(), middle, delays.end());
  const auto [min, max] = std::minmax_element(delays.begin(), delays.end());
  figures.delay = Delay{*min, *middle, *max};
}

}  // namespace

DirectionFigures account_direction(const std::vector<SentPacket>& sent, const std::vector<ReceivedPacket>& received,
                                   const AccountOptions& options) {
  DirectionFigures figures;
  const Scope scope = scope_of(sent, options);
  figures.not_judged = scope.not_judged;
  const std::vector<std::int64_t> arrival = count_arrivals(sent, received, scope, figures);
  count_sent(sent, scope, figures);
  if (figures.sent == 0) return figures;
  figures.longest_send_gap_ns = longest_send_gap(sent, scope.begin, scope.end - 1);
  find_losses(sent, arrival, scope, figures);
  find_longest_gap(sent, arrival, scope, figures);
  if (options.shared_clock) find_delay(sent, arrival, scope, figures);
  return figures;
}

}  // namespace kedge::tools
