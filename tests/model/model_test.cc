// Random events by the million, each followed by a look at every invariant (docs/model.md).
//
// KEDGE_MODEL_SEED    one seed instead of the test's own
// KEDGE_MODEL_EVENTS  events for each seed
// KEDGE_MODEL_REPLAYS replays at most that look for fewer events with the same violation (0: none)
// KEDGE_MODEL_TRACE   if set, all lines of what happened are shown
#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <iostream>
#include <numeric>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "tests/model/surroundings.h"
#include "tests/model/world.h"

namespace kedge::model {
namespace {

constexpr std::size_t kEventsOfAnEpisode = 2000;
constexpr std::size_t kLastLines = 50;
// Of replays that look for fewer events that do the same.
constexpr std::uint64_t kReplays = 2000;

std::uint64_t from_environment(const char* name, std::uint64_t otherwise) {
  const char* text = std::getenv(name);
  return text == nullptr ? otherwise : std::strtoull(text, nullptr, 0);
}

// One network from its birth: faults, rest, planned operation, rest.
struct Episode {
  std::uint64_t seed = 0;
  // By index, so that those left out do not change the others.
  std::vector<std::size_t> events;
};

struct Result {
  std::string violation;
  std::size_t event = 0;
};

Result run(const Episode& episode, std::vector<std::string>* trace) {
  World world(episode.seed);
  world.trace_to(trace);
  set_log(trace);
  Result result;
  try {
    bool planned = false;
    for (const std::size_t event : episode.events) {
      result.event = event;
      if (!planned && event >= kEventsOfAnEpisode / 2) {
        planned = true;
        world.come_to_rest();
        world.begin_planned_operation();
      }
      if (trace != nullptr) trace->push_back("event " + std::to_string(event));
      world.step(mix(episode.seed, event));
    }
    world.come_to_rest();
  } catch (const std::exception& violation) {
    result.violation = violation.what();
    set_log(nullptr);
    return result;
  }
  set_log(nullptr);
  return result;
}

std::string invariant_of(const std::string& violation) { return violation.substr(0, violation.find('\n')); }

// Leaves out whatever is not needed for the same invariant to break.
Episode shrink(Episode episode, const std::string& violation) {
  const std::uint64_t most = from_environment("KEDGE_MODEL_REPLAYS", kReplays);
  std::uint64_t replays = 0;
  for (std::size_t portion = std::max<std::size_t>(episode.events.size() / 2, 1); portion > 0;) {
    bool shorter = false;
    for (std::size_t at = 0; at < episode.events.size() && replays < most; ++replays) {
      Episode fewer = episode;
      const auto begin = fewer.events.begin() + static_cast<std::ptrdiff_t>(at);
      fewer.events.erase(begin, begin + static_cast<std::ptrdiff_t>(std::min(portion, fewer.events.size() - at)));
      if (invariant_of(run(fewer, nullptr).violation) == invariant_of(violation)) {
        episode = std::move(fewer);
        shorter = true;
      } else {
        at += portion;
      }
    }
    if (replays >= most) break;
    if (portion == 1 && !shorter) break;
    portion = std::max<std::size_t>(portion / 2, 1);
  }
  return episode;
}

void report(const Episode& episode, const Result& result, std::uint64_t seed, std::size_t before) {
  const Episode few = shrink(episode, result.violation);
  std::vector<std::string> trace;
  const Result again = run(few, &trace);
  std::string text;
  const std::size_t first = trace.size() > kLastLines ? trace.size() - kLastLines : 0;
  if (std::getenv("KEDGE_MODEL_TRACE") != nullptr) {
    for (const auto& line : trace) text += "  " + line + "\n";
  } else {
    for (std::size_t i = first; i < trace.size(); ++i) text += "  " + trace[i] + "\n";
  }
  World world(episode.seed);
  ADD_FAILURE() << "seed " << seed << ", event " << before + result.event << ", " << world.settings_text() << "\n"
                << "violated: " << result.violation << "\n"
                << "The same with " << few.events.size() << " events; the last lines:\n"
                << text << "violated: " << again.violation;
}

void explore(std::uint64_t seed, std::uint64_t events) {
  const auto begun = std::chrono::steady_clock::now();
  std::size_t done = 0;
  for (std::uint64_t number = 0; done < events; ++number) {
    Episode episode;
    episode.seed = mix(seed, number);
    episode.events.resize(kEventsOfAnEpisode);
    std::iota(episode.events.begin(), episode.events.end(), 0U);
    const Result result = run(episode, nullptr);
    if (!result.violation.empty()) {
      report(episode, result, seed, done);
      return;
    }
    done += episode.events.size();
  }
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begun;
  std::cout << "seed " << seed << ": " << done << " events, "
            << static_cast<long>(static_cast<double>(done) / took.count()) << " a second\n";
  testing::Test::RecordProperty("events", static_cast<int>(done));
}

class Model : public testing::TestWithParam<std::uint64_t> {};

TEST_P(Model, KeepsItsInvariants) {
  explore(from_environment("KEDGE_MODEL_SEED", GetParam()), from_environment("KEDGE_MODEL_EVENTS", 150'000));
}

INSTANTIATE_TEST_SUITE_P(Seeds, Model, testing::Range<std::uint64_t>(1, 8));

}  // namespace
}  // namespace kedge::model
