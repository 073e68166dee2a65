#include "speaker/frr/kernel_injector.h"

#include <algorithm>
#include <chrono>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "boost/asio/io_context.hpp"
#include "boost/asio/post.hpp"
#include "boost/asio/steady_timer.hpp"
#include "common/anchor_level.h"
#include "fmt/format.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/unit/speaker/frr/fake_vty.h"

namespace kedge::speaker {
namespace {

using State = RouteInjector::State;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;
using testing::Pair;
using namespace std::chrono_literals;

constexpr std::uint8_t kOurs = 89;
constexpr std::uint8_t kStatic = 4;

Ipv6Prefix prefix(int number) {
  return Ipv6Prefix::parse("2001:db8::/40")->nth(64, static_cast<std::uint64_t>(number));
}

KernelRoute route(int number, std::uint32_t metric, std::uint8_t protocol = kOurs) {
  KernelRoute route;
  route.kind = KernelRoute::Kind::kBlackhole;
  route.table = 254;
  route.protocol = protocol;
  route.metric = metric;
  route.destination = prefix(number);
  return route;
}

// A kernel, and a zebra that reads its notices when it is told to.
class FakeKernel {
 public:
  using Key = std::pair<Ipv6Prefix, std::uint32_t>;

  class Routes final : public AnchorRoutes {
   public:
    explicit Routes(FakeKernel& kernel) : kernel_(kernel) { kernel_.open = this; }
    ~Routes() override { kernel_.open = nullptr; }
    absl::Status read(const std::function<void(const KernelRoute&)>& visit) override {
      ++kernel_.reads;
      for (const auto& one : kernel_.all()) visit(one);
      return absl::OkStatus();
    }
    std::vector<absl::Status> write(absl::Span<const AnchorRouteChange> changes) override {
      kernel_.largest_batch = std::max(kernel_.largest_batch, changes.size());
      std::vector<absl::Status> results;
      for (const auto& change : changes) results.push_back(kernel_.change(change));
      return results;
    }
    std::optional<ZebraListener> zebra() const override { return kernel_.zebra; }

   private:
    FakeKernel& kernel_;
  };

  std::vector<KernelRoute> all() const {
    std::vector<KernelRoute> all = others;
    for (const auto& [key, unused] : ours) {
      KernelRoute one = route(0, key.second);
      one.destination = key.first;
      all.push_back(one);
    }
    return all;
  }

  absl::Status change(const AnchorRouteChange& change) {
    const Key key{change.prefix, change.metric};
    if (refuse.contains(change.prefix)) return absl::ResourceExhaustedError("no room");
    if (change.add) {
      ours[key] = true;
    } else {
      ours.erase(key);
    }
    if (lose > 0) {
      --lose;
      ++zebra->drops;
      return absl::OkStatus();
    }
    if (!reading) zebra->queued += 1280;
    if (change.add) {
      seen.insert(key);
    } else {
      seen.erase(key);
    }
    return absl::OkStatus();
  }

  std::map<Key, bool> ours;
  std::vector<KernelRoute> others;
  std::set<Ipv6Prefix> refuse;
  Routes* open = nullptr;
  int reads = 0;
  std::size_t largest_batch = 0;

  std::optional<ZebraListener> zebra = ZebraListener{1, 0, 0};
  // What it has read, or will.
  std::set<Key> seen;
  bool reading = true;
  // So many of the next notices are lost.
  int lose = 0;
};

class FakeZebraVty final : public VtyClient {
 public:
  FakeZebraVty(boost::asio::io_context& context, FakeKernel& kernel) : context_(context), kernel_(kernel) {}
  void ask(std::string command, Done done) override {
    ++asked[command];
    if (hold) {
      held = [this, command, done = std::move(done)] { answer(command, done); };
      return;
    }
    boost::asio::post(context_, [this, command, done = std::move(done)] { answer(command, done); });
  }
  void answer(const std::string& command, const Done& done) {
    if (!answers) return done(absl::UnavailableError("zebra cannot be asked: start it"));
    done(VtyReply{command == "show version" ? "FRRouting 8.4.4 (ar1) on Linux(6.1.0).\n" : summary(), 0});
  }
  std::string summary() const {
    return fmt::format(R"({{"routes":[{{"type":"kernel","fib":1,"rib":{}}},{{"type":"connected","rib":7}}]}})",
                       static_cast<int>(kernel_.seen.size()) + more);
  }

  std::map<std::string, int> asked;
  bool answers = true;
  // The next command is answered by held().
  bool hold = false;
  std::function<void()> held;
  // Of others' routes, which the injector does not know.
  int more = 0;

 private:
  boost::asio::io_context& context_;
  FakeKernel& kernel_;
};

class KernelInjectorTest : public testing::Test {
 protected:
  void make() {
    KernelInjectorConfig config;
    config.audit_interval = audit_interval_;
    config.repair_interval = 20ms;
    auto vty = std::make_unique<FakeZebraVty>(context_, kernel_);
    vty_ = vty.get();
    injector_ = make_kernel_injector(
        context_.get_executor(), config, [this] { return std::make_unique<FakeKernel::Routes>(kernel_); },
        std::move(vty));
    injector_->on_state = [this](State, const std::string& why) { state_text_ = why; };
    injector_->on_committed = [this](const Ipv6Prefix& p, std::uint32_t level) { committed_.emplace_back(p, level); };
  }
  void make_synced(const std::map<Ipv6Prefix, std::uint32_t>& levels = {}) {
    make();
    injector_->replace_all(levels);
    ASSERT_TRUE(wait_for([this] { return injector_->state() == State::kSynced; })) << state_text_;
  }
  template <typename Condition>
  bool wait_for(Condition condition) {
    return run_until(context_, condition);
  }
  bool wait_for_committed(int number, std::uint32_t level) {
    return wait_for([&] {
      return std::find(committed_.begin(), committed_.end(), std::pair(prefix(number), level)) != committed_.end();
    });
  }
  // All that can be done without waiting for anything.
  void run_all() {
    context_.restart();
    while (context_.poll_one() > 0) {
    }
  }
  void wait_100ms() {
    boost::asio::steady_timer timer(context_, 100ms);
    bool over = false;
    timer.async_wait([&](const boost::system::error_code&) { over = true; });
    ASSERT_TRUE(wait_for([&] { return over; }));
  }
  std::vector<std::pair<Ipv6Prefix, std::uint32_t>> levels() const {
    std::vector<std::pair<Ipv6Prefix, std::uint32_t>> levels;
    for (const auto& [key, unused] : kernel_.ours) levels.emplace_back(key.first, key.second - kKernelMetricBase);
    return levels;
  }
  // zebra's set is the kernel's.
  bool zebra_has_all() const {
    std::set<FakeKernel::Key> ours;
    for (const auto& [key, unused] : kernel_.ours) ours.insert(key);
    return kernel_.seen == ours;
  }

  boost::asio::io_context context_;
  FakeKernel kernel_;
  FakeZebraVty* vty_ = nullptr;
  std::chrono::milliseconds audit_interval_{1h};
  std::string state_text_;
  std::vector<std::pair<Ipv6Prefix, std::uint32_t>> committed_;
  std::unique_ptr<RouteInjector> injector_;
};

TEST_F(KernelInjectorTest, SetsChangesTheLevelAndWithdraws) {
  make_synced();
  EXPECT_EQ(injector_->frr_version(), "8.4.4");
  for (const std::uint32_t level : {1U, 3U, 2U}) {
    committed_.clear();
    injector_->set(prefix(1), level);
    ASSERT_TRUE(wait_for_committed(1, level));
    EXPECT_THAT(levels(), ElementsAre(Pair(prefix(1), level)));
  }
  injector_->set(prefix(1), 0);
  ASSERT_TRUE(wait_for_committed(1, 0));
  EXPECT_THAT(kernel_.ours, IsEmpty());
  EXPECT_TRUE(zebra_has_all());
}

TEST_F(KernelInjectorTest, WritesNothingBeforeItIsTold) {
  kernel_.ours[{prefix(1), kernel_metric(1)}] = true;
  make();
  ASSERT_TRUE(wait_for([this] { return state_text_.find("waiting to be told") != std::string::npos; }));
  injector_->set(prefix(2), 1);
  run_all();
  EXPECT_THAT(levels(), ElementsAre(Pair(prefix(1), 1)));
}

TEST_F(KernelInjectorTest, KeepsOfLeftoversWhatIsDesiredAndRemovesTheRest) {
  for (const auto& [number, level] : {std::pair(1, 1), {1, 2}, {2, 3}, {3, 9}, {4, 2}}) {
    kernel_.ours[{prefix(number), kernel_metric(static_cast<std::uint32_t>(level))}] = true;
  }
  kernel_.ours[{prefix(5), 1024}] = true;
  for (const auto& [key, unused] : kernel_.ours) kernel_.seen.insert(key);
  make_synced({{prefix(1), 2}, {prefix(4), 2}});
  EXPECT_THAT(levels(), ElementsAre(Pair(prefix(1), 2), Pair(prefix(4), 2)));
  EXPECT_TRUE(zebra_has_all());
}

TEST_F(KernelInjectorTest, ARouteOfTheOperatorsIsNamedAndWaitedFor) {
  kernel_.others.push_back(route(1, 1024, kStatic));
  kernel_.seen.insert({prefix(1), 1024});
  make_synced({{prefix(1), 1}, {prefix(2), 1}});
  EXPECT_THAT(state_text_, HasSubstr("another route for " + prefix(1).to_string() + " (of the protocol static)"));
  EXPECT_THAT(levels(), ElementsAre(Pair(prefix(2), 1)));
  const auto gone = kernel_.others.back();
  kernel_.others.clear();
  kernel_.seen.erase({prefix(1), 1024});
  kernel_.open->on_change(gone, false);
  ASSERT_TRUE(wait_for_committed(1, 1));
  ASSERT_TRUE(wait_for([this] { return state_text_ == "synced"; })) << state_text_;
}

TEST_F(KernelInjectorTest, WhatOthersRemoveComesBackAtOnce) {
  make_synced({{prefix(1), 1}});
  kernel_.ours.clear();
  kernel_.seen.clear();
  kernel_.open->on_change(route(1, kernel_metric(1)), false);
  ASSERT_TRUE(wait_for([this] { return !kernel_.ours.empty(); }));
  // What is told without notices is found by reading again.
  kernel_.ours.clear();
  kernel_.seen.clear();
  kernel_.open->on_overrun();
  ASSERT_TRUE(wait_for([this] { return !kernel_.ours.empty(); }));
}

TEST_F(KernelInjectorTest, CommitsOnlyWhatZebraWillReadAndTellsTheRestAgain) {
  make_synced({{prefix(1), 1}, {prefix(2), 1}});
  committed_.clear();
  // A removal, a change of the level and an addition: four notices, and the first ones that tell them again.
  kernel_.lose = 6;
  injector_->set(prefix(1), 0);
  injector_->set(prefix(2), 3);
  injector_->set(prefix(3), 2);
  ASSERT_TRUE(wait_for([this] { return kernel_.zebra->drops >= 4; }));
  EXPECT_THAT(committed_, IsEmpty());
  ASSERT_TRUE(wait_for_committed(1, 0));
  ASSERT_TRUE(wait_for_committed(2, 3));
  ASSERT_TRUE(wait_for_committed(3, 2));
  EXPECT_TRUE(zebra_has_all());
  EXPECT_THAT(levels(), ElementsAre(Pair(prefix(2), 3), Pair(prefix(3), 2)));
}

TEST_F(KernelInjectorTest, WritesNoMoreThanWaitsWellInZebrasBufferAndGoesOnWhenItReads) {
  make_synced();
  kernel_.reading = false;
  for (int i = 0; i < 1000; ++i) injector_->set(prefix(i), 1);
  ASSERT_TRUE(wait_for([this] { return kernel_.zebra->queued >= 150 * 1280; }));
  run_all();
  EXPECT_LE(kernel_.zebra->queued, 256'000U);
  EXPECT_LE(kernel_.ours.size(), 200U);
  while (kernel_.ours.size() < 1000) {
    const auto before = kernel_.ours.size();
    kernel_.zebra->queued = 0;
    ASSERT_TRUE(wait_for([&] { return kernel_.ours.size() > before; }));
  }
  kernel_.zebra->queued = 0;
  ASSERT_TRUE(wait_for_committed(999, 1));
  EXPECT_LE(kernel_.largest_batch, 200U);
}

TEST_F(KernelInjectorTest, AZebraThatHasMissedNoticesBeforeIsToldOfAll) {
  kernel_.ours[{prefix(1), kernel_metric(1)}] = true;
  kernel_.zebra->drops = 5;
  make_synced({{prefix(1), 1}});
  EXPECT_TRUE(zebra_has_all());
}

TEST_F(KernelInjectorTest, AZebraWhoseCountDiffersIsToldOfAllOnce) {
  kernel_.ours[{prefix(1), kernel_metric(1)}] = true;
  make_synced({{prefix(1), 1}});
  EXPECT_TRUE(zebra_has_all());
}

TEST_F(KernelInjectorTest, RoutesThatOnlyZebraCountsAreNoReasonToGoOn) {
  make();
  vty_->more = 3;
  injector_->replace_all({{prefix(1), 1}});
  ASSERT_TRUE(wait_for([this] { return injector_->state() == State::kSynced; })) << state_text_;
  EXPECT_EQ(state_text_, "synced");
}

TEST_F(KernelInjectorTest, AsksZebraForItsCountOnceAfterChangesAndThenNotAgain) {
  audit_interval_ = 10ms;
  make_synced({{prefix(1), 1}});
  const auto& asked = vty_->asked["show ipv6 route summary json"];
  ASSERT_TRUE(wait_for([&] { return asked >= 1; }));
  const int before = asked;
  injector_->set(prefix(2), 1);
  ASSERT_TRUE(wait_for([&] { return asked == before + 1; }));
  // Many intervals.
  wait_100ms();
  EXPECT_LE(asked, before + 1);
}

TEST_F(KernelInjectorTest, ChangesNothingWhileZebraIsAwayAndAnswersAllWhenItIsBack) {
  make_synced({{prefix(1), 1}});
  vty_->answers = false;
  kernel_.zebra.reset();
  vty_->on_closed();
  EXPECT_EQ(injector_->state(), State::kAwaiting);
  committed_.clear();
  injector_->set(prefix(2), 2);
  run_all();
  EXPECT_THAT(levels(), ElementsAre(Pair(prefix(1), 1)));
  ASSERT_TRUE(wait_for([this] { return state_text_.find("start it") != std::string::npos; }));
  kernel_.seen.clear();
  for (const auto& [key, unused] : kernel_.ours) kernel_.seen.insert(key);
  kernel_.zebra = ZebraListener{2, 0, 0};
  vty_->answers = true;
  ASSERT_TRUE(wait_for([this] { return injector_->state() == State::kSynced; }));
  EXPECT_THAT(committed_, testing::UnorderedElementsAre(Pair(prefix(1), 1), Pair(prefix(2), 2)));
  EXPECT_TRUE(zebra_has_all());
}

TEST_F(KernelInjectorTest, AZebraThatIsAnotherWhileItIsAskedIsBegunWithAnew) {
  make();
  ASSERT_TRUE(wait_for([this] { return state_text_.find("waiting to be told") != std::string::npos; }));
  vty_->hold = true;
  injector_->replace_all({{prefix(1), 1}});
  ASSERT_TRUE(wait_for([this] { return vty_->held != nullptr; }));
  kernel_.zebra->inode = 2;
  injector_->set(prefix(2), 1);
  ASSERT_TRUE(wait_for([this] { return injector_->state() == State::kAwaiting; }));
  // Longer than until it would connect anew.
  wait_100ms();
  vty_->hold = false;
  vty_->held();
  ASSERT_TRUE(wait_for([this] { return injector_->state() == State::kSynced; })) << state_text_;
  EXPECT_THAT(levels(), ElementsAre(Pair(prefix(1), 1), Pair(prefix(2), 1)));
}

TEST_F(KernelInjectorTest, AZebraThatEndsBeforeItsCountIsRightIsBegunWithAnew) {
  make();
  vty_->more = 3;
  injector_->replace_all({{prefix(1), 1}});
  ASSERT_TRUE(wait_for([this] { return vty_->asked["show ipv6 route summary json"] >= 2; }));
  // The answer has come, and it waits until it asks again.
  run_all();
  vty_->on_closed();
  vty_->more = 0;
  kernel_.zebra->inode = 2;
  ASSERT_TRUE(wait_for([this] { return injector_->state() == State::kSynced; })) << state_text_;
}

TEST_F(KernelInjectorTest, AZebraOfAnotherNamespaceIsAwaited) {
  kernel_.zebra.reset();
  make();
  injector_->replace_all({{prefix(1), 1}});
  ASSERT_TRUE(wait_for([this] { return state_text_.find("network namespace") != std::string::npos; }));
  EXPECT_EQ(injector_->state(), State::kAwaiting);
  EXPECT_THAT(kernel_.ours, IsEmpty());
}

TEST_F(KernelInjectorTest, ARouteThatTheKernelRefusesIsNamedAndTriedAgain) {
  kernel_.refuse.insert(prefix(1));
  make_synced({{prefix(1), 1}, {prefix(2), 1}});
  EXPECT_THAT(state_text_, HasSubstr("the kernel refuses " + prefix(1).to_string() + " (no room)"));
  EXPECT_THAT(levels(), ElementsAre(Pair(prefix(2), 1)));
  kernel_.refuse.clear();
  ASSERT_TRUE(wait_for_committed(1, 1));
  ASSERT_TRUE(wait_for([this] { return state_text_ == "synced"; }));
}

TEST_F(KernelInjectorTest, TheOldRouteStaysWhenTheNewOneIsRefused) {
  make_synced({{prefix(1), 1}});
  kernel_.refuse.insert(prefix(1));
  injector_->set(prefix(1), 2);
  ASSERT_TRUE(wait_for([this] { return state_text_.find("refuses") != std::string::npos; }));
  EXPECT_THAT(levels(), ElementsAre(Pair(prefix(1), 1)));
}

TEST_F(KernelInjectorTest, ALevelOverTheHighestIsRefusedUntilItIsKnown) {
  make_synced();
  injector_->set(prefix(1), 9);
  ASSERT_TRUE(wait_for([this] { return state_text_.find("over the highest") != std::string::npos; }));
  injector_->raise_levels(9);
  injector_->replace_all({{prefix(1), 9}});
  ASSERT_TRUE(wait_for_committed(1, 9));
}

}  // namespace
}  // namespace kedge::speaker
