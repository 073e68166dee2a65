#include "speaker/controller/activity_reporter.h"

#include "boost/asio/io_context.hpp"
#include "common/time.h"
#include "fmt/format.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace kedge::speaker {
namespace {

using namespace std::chrono_literals;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr char kPrefix[] = "2001:db8:1000:1::/64";
constexpr char kOther[] = "2001:db8:1000:2::/64";

Ipv6Prefix prefix(const std::string& text = kPrefix) { return *Ipv6Prefix::parse(text); }

class FakeMeter : public ActivityMeter {
 public:
  absl::Status replace_all(const std::set<Ipv6Prefix>& prefixes) override {
    ++replacements;
    if (!replace_failure.ok()) return replace_failure;
    intact = true;
    std::erase_if(readings, [&](const auto& reading) { return !prefixes.contains(reading.first); });
    for (const auto& p : prefixes) readings.try_emplace(p, Reading{0ms, true});
    return absl::OkStatus();
  }
  absl::Status change(const std::vector<Ipv6Prefix>& added, const std::vector<Ipv6Prefix>& removed) override {
    if (!intact) return absl::NotFoundError("no such table");
    for (const auto& p : removed) readings.erase(p);
    for (const auto& p : added) readings[p] = {0ms, true};
    return absl::OkStatus();
  }
  absl::StatusOr<std::map<Ipv6Prefix, Reading>> read() override {
    ++reads;
    if (!intact) return absl::NotFoundError("no such table");
    return readings;
  }
  absl::StatusOr<std::optional<Reading>> read(const Ipv6Prefix& p) override {
    if (!intact) return absl::NotFoundError("no such table");
    const auto found = readings.find(p);
    return found == readings.end() ? std::nullopt : std::optional(found->second);
  }
  // Somebody does so.
  void take_away() {
    intact = false;
    readings.clear();
  }

  std::map<Ipv6Prefix, Reading> readings;
  bool intact = true;
  absl::Status replace_failure;
  int replacements = 0;
  int reads = 0;
};

class FakeLm : public LmClient {
 public:
  void start() override {}
  void stop() override {}
  void ack(const v1::Ack&) override {}
  void report_health(const v1::SpeakerHealth&) override {}
  void report_activity(const v1::Activity& activity) override { reports.push_back(activity); }
  void attach(const v1::AttachRequest&, std::function<void(const absl::Status&)>) override {}
  void detach(const v1::DetachRequest&, std::function<void(const absl::Status&)>) override {}

  std::vector<v1::Activity> reports;
};

v1::Binding record(const std::string& attached_ar, const std::string& text = kPrefix) {
  v1::Binding binding;
  binding.set_prefix(text);
  binding.set_home_ar("ar1");
  binding.set_attached_ar(attached_ar);
  binding.set_prefix_type(v1::PREFIX_TYPE_SESSION_LASTING);
  return binding;
}

class ActivityReporterTest : public ::testing::Test {
 protected:
  void SetUp() override { start(); }

  void start() {
    reporter_ = std::make_unique<ActivityReporter>(io_.get_executor(), ActivityReporter::Config{"ar2", 1ms, 1ms},
                                                   meter_, lm_, metrics_);
    reporter_->on_health = [this](const absl::Status& status) { health_.push_back(status); };
  }

  void snapshot(const std::vector<v1::Binding>& bindings, std::chrono::nanoseconds idle_after = 8ms) {
    v1::Welcome welcome;
    if (idle_after > 0ns) *welcome.mutable_idle_after() = kedge::to_proto(idle_after);
    std::map<Ipv6Prefix, const v1::Binding*> records;
    for (const auto& binding : bindings) records[prefix(binding.prefix())] = &binding;
    reporter_->take_snapshot(welcome, records);
  }
  void take(const v1::Binding& binding) { reporter_->take(prefix(binding.prefix()), binding); }

  // Until it holds, or a generous bound is over.
  bool eventually(const std::function<bool()>& condition) {
    const auto end = std::chrono::steady_clock::now() + 20s;
    while (!condition()) {
      if (std::chrono::steady_clock::now() > end) return false;
      io_.restart();
      io_.run_one_for(1s);
    }
    return true;
  }
  // The next report, as text.
  std::vector<std::string> next_report() {
    const auto before = lm_.reports.size();
    EXPECT_TRUE(eventually([&] { return lm_.reports.size() > before; }));
    return uses_of(lm_.reports.back());
  }
  static std::vector<std::string> uses_of(const v1::Activity& activity) {
    std::vector<std::string> uses;
    for (const auto& use : activity.uses()) {
      uses.push_back(
          fmt::format("{}{} {} {}", use.last() ? "last of " : "", use.prefix(), use.unused() ? "unused" : "used",
                      std::chrono::duration_cast<std::chrono::milliseconds>(kedge::from_proto(use.age())).count()));
    }
    return uses;
  }
  // No timer is left.
  bool sleeps() {
    io_.restart();
    for (int i = 0; i < 100 && io_.run_one_for(1s) > 0; ++i) {
    }
    return io_.stopped();
  }

  boost::asio::io_context io_;
  Metrics metrics_;
  FakeMeter meter_;
  FakeLm lm_;
  std::vector<absl::Status> health_;
  std::unique_ptr<ActivityReporter> reporter_;
};

TEST_F(ActivityReporterTest, TellsOfPrefixesThatAreHereAwayFromHome) {
  auto at_home = record("ar2", "2001:db8:2000:1::/64");
  at_home.set_home_ar("ar2");
  auto fixed = record("ar2", "2001:db8:1000:3::/64");
  fixed.set_prefix_type(v1::PREFIX_TYPE_FIXED);
  auto graceful = record("ar2", "2001:db8:1000:4::/64");
  graceful.set_prefix_type(v1::PREFIX_TYPE_GRACEFUL_REPLACEMENT);
  auto network = record("ar2", "2001:db8:1000:500::/56");
  network.set_mobile_network(true);
  auto elsewhere = record("ar3", "2001:db8:1000:6::/64");
  auto detached = record("", "2001:db8:1000:7::/64");
  snapshot({record("ar2"), record("ar2", kOther), at_home, fixed, graceful, network, elsewhere, detached});
  meter_.readings[prefix(kOther)] = {250ms, false};
  EXPECT_THAT(next_report(), ElementsAre("2001:db8:1000:1::/64 unused 0", "2001:db8:1000:2::/64 used 250"));
  meter_.readings[prefix()] = {1500ms, true};
  EXPECT_THAT(next_report(), ElementsAre("2001:db8:1000:1::/64 unused 1500", "2001:db8:1000:2::/64 used 250"));
  EXPECT_THAT(metrics_.expose(), HasSubstr("kedge_speaker_watched_prefixes 2"));
}

TEST_F(ActivityReporterTest, RecordsChangeWhatIsWatched) {
  snapshot({});
  take(record("ar2"));
  EXPECT_TRUE(meter_.readings.contains(prefix())) << "before anything is delivered";
  EXPECT_THAT(next_report(), ElementsAre("2001:db8:1000:1::/64 unused 0"));
  take(record("ar2", kOther));
  EXPECT_EQ(meter_.readings.size(), 2U);
  // Back before anybody has looked.
  meter_.readings[prefix()] = {70ms, false};
  take(record("ar3"));
  take(record("ar2"));
  EXPECT_THAT(next_report(), ElementsAre("2001:db8:1000:1::/64 used 70", "2001:db8:1000:2::/64 unused 0"));
  reporter_->forget(prefix());
  EXPECT_TRUE(eventually([&] { return meter_.readings.size() == 1; }));
}

TEST_F(ActivityReporterTest, TellsOnceMoreOfOneThatHasGoneElsewhere) {
  snapshot({record("ar2")}, 1h);
  next_report();
  meter_.readings[prefix()] = {700ms, false};
  take(record("ar3"));
  EXPECT_THAT(next_report(), ElementsAre("last of 2001:db8:1000:1::/64 used 700"));
  EXPECT_TRUE(eventually([&] { return meter_.readings.empty(); }));
}

TEST_F(ActivityReporterTest, TellsOfOneThatHasGoneElsewhereWhileTheLmWasAway) {
  snapshot({record("ar2")}, 1h);
  next_report();
  meter_.readings[prefix()] = {700ms, false};
  snapshot({record("ar3")}, 1h);
  EXPECT_THAT(uses_of(lm_.reports.back()), ElementsAre("last of 2001:db8:1000:1::/64 used 700"));
  EXPECT_TRUE(meter_.readings.empty());
}

TEST_F(ActivityReporterTest, WhatAnEarlierRunHasSeenIsTold) {
  meter_.readings[prefix()] = {3min, false};
  meter_.readings[prefix(kOther)] = {5min, false};
  snapshot({record("ar2")});
  EXPECT_THAT(next_report(), ElementsAre("2001:db8:1000:1::/64 used 180000"));
  EXPECT_FALSE(meter_.readings.contains(prefix(kOther)));
}

TEST_F(ActivityReporterTest, WakesUpForNothing) {
  snapshot({});
  EXPECT_TRUE(sleeps());
  take(record("ar3"));
  EXPECT_TRUE(sleeps());
  snapshot({record("ar2")}, 0ns);
  EXPECT_TRUE(sleeps()) << "the LM does not ask";
  EXPECT_TRUE(lm_.reports.empty());
  EXPECT_TRUE(meter_.readings.empty());
  EXPECT_EQ(meter_.reads, 0);

  snapshot({record("ar2")});
  next_report();
  take(record("ar3"));
  EXPECT_TRUE(sleeps()) << "the last one has gone";
}

TEST_F(ActivityReporterTest, KeptRecordsStayAsTheyAre) {
  snapshot({record("ar2"), record("ar2", kOther)});
  next_report();
  v1::Welcome welcome;
  *welcome.mutable_idle_after() = kedge::to_proto(8ms);
  reporter_->take_snapshot(welcome, {{prefix(), nullptr}, {prefix("2001:db8:1000:9::/64"), nullptr}});
  EXPECT_TRUE(eventually([&] { return meter_.readings.size() == 1; }));
  EXPECT_TRUE(meter_.readings.contains(prefix()));
}

TEST_F(ActivityReporterTest, WhatSomebodyElseHasTakenAwayIsMadeAnew) {
  snapshot({record("ar2")});
  next_report();
  meter_.take_away();
  EXPECT_THAT(next_report(), ElementsAre("2001:db8:1000:1::/64 unused 0"));
  // A part of it only.
  meter_.readings.clear();
  EXPECT_THAT(next_report(), ElementsAre("2001:db8:1000:1::/64 unused 0"));
  meter_.take_away();
  take(record("ar2", kOther));
  EXPECT_EQ(meter_.readings.size(), 2U);
}

TEST_F(ActivityReporterTest, AMeterThatFailsIsToldAndTriedAgain) {
  meter_.replace_failure = absl::UnimplementedError("nftables: no such thing");
  snapshot({record("ar2")});
  EXPECT_TRUE(eventually([&] { return health_.size() == 1; }));
  EXPECT_FALSE(health_[0].ok());
  take(record("ar2", kOther));
  EXPECT_TRUE(eventually([&] { return meter_.replacements >= 3; }));
  EXPECT_EQ(health_.size(), 1U);
  EXPECT_TRUE(lm_.reports.empty()) << "it is not known what is idle";
  meter_.replace_failure = absl::OkStatus();
  EXPECT_THAT(next_report(), ElementsAre("2001:db8:1000:1::/64 unused 0", "2001:db8:1000:2::/64 unused 0"));
  ASSERT_EQ(health_.size(), 2U);
  EXPECT_TRUE(health_[1].ok());
}

TEST_F(ActivityReporterTest, ManyAreToldInSeveralMessages) {
  std::vector<v1::Binding> many;
  for (int i = 0; i < 600; ++i) many.push_back(record("ar2", fmt::format("2001:db8:1000:{:x}::/64", i + 1)));
  snapshot(many, 1h);
  EXPECT_TRUE(eventually([&] { return lm_.reports.size() == 3; }));
  int uses = 0;
  for (const auto& report : lm_.reports) {
    EXPECT_LE(report.uses_size(), 256);
    uses += report.uses_size();
  }
  EXPECT_EQ(uses, 600);
}

}  // namespace
}  // namespace kedge::speaker
