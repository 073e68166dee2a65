#include "speaker/controller/controller.h"

#include "boost/asio/io_context.hpp"
#include "fmt/format.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace kedge::speaker {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::Not;

constexpr char kPrefix[] = "2001:db8:1000::/64";
constexpr char kNetwork[] = "2001:db8:1000:f00::/56";
constexpr char kMn[] = "02:00:00:00:00:11";

Ipv6Prefix prefix(const std::string& text = kPrefix) { return *Ipv6Prefix::parse(text); }
LinkLayerAddress mn() { return *LinkLayerAddress::parse(kMn); }

// Each fake writes what was asked of it into one common journal, so that order can be asserted.
using Journal = std::vector<std::string>;

class FakeLm : public LmClient {
 public:
  explicit FakeLm(Journal& journal) : journal_(journal) {}
  void start() override {}
  void stop() override {}
  void ack(const v1::Ack& ack) override {
    journal_.push_back(fmt::format("ack {} {}{}{}", v1::Stage_Name(ack.stage()).substr(6), ack.prefix(),
                                   ack.redirects_to().empty() ? "" : " to " + ack.redirects_to(),
                                   ack.preference() == 0 ? "" : fmt::format(" at {}", ack.preference())));
  }
  void report_health(const v1::SpeakerHealth& health) override { last_health = health; }
  void report_activity(const v1::Activity&) override {}
  void attach(const v1::AttachRequest& request, std::function<void(const absl::Status&)> done) override {
    attaches.push_back(request);
    attach_done.push_back(std::move(done));
  }
  void detach(const v1::DetachRequest& request, std::function<void(const absl::Status&)> done) override {
    detaches.push_back(request);
    detach_done.push_back(std::move(done));
  }
  v1::SpeakerHealth last_health;
  std::vector<v1::AttachRequest> attaches;
  std::vector<std::function<void(const absl::Status&)>> attach_done;
  std::vector<v1::DetachRequest> detaches;
  std::vector<std::function<void(const absl::Status&)>> detach_done;

 private:
  Journal& journal_;
};

class FakeForwarding : public ForwardingPlane {
 public:
  explicit FakeForwarding(Journal& journal) : journal_(journal) {}
  absl::Status set_identity(const Ipv6Address&, const Ipv6Address&, const Ipv6Address&) override {
    return absl::OkStatus();
  }
  absl::Status set(const Ipv6Prefix& prefix, const std::optional<Route>& route) override {
    if (!failure.ok()) return failure;
    journal_.push_back(fmt::format("kernel {} {}", prefix.to_string(), text(route)));
    return absl::OkStatus();
  }
  std::optional<Route> held(const Ipv6Prefix& prefix) const override {
    const auto found = left.find(prefix);
    return found == left.end() ? std::nullopt : std::optional(found->second);
  }
  absl::Status replace_all(const std::map<Ipv6Prefix, Route>& routes) override {
    all.clear();
    for (const auto& [p, route] : routes) all[p.to_string()] = text(route);
    return failure.ok() ? failure_of_all : failure;
  }
  static std::string text(const std::optional<Route>& route) {
    if (!route) return "none";
    switch (route->kind) {
      case Route::Kind::kDeliver:
        return "deliver " + route->interface +
               (route->uplink_segment ? " uplink " + route->uplink_segment->to_string() : "");
      case Route::Kind::kRedirect:
        return "redirect " + route->segment.to_string();
      case Route::Kind::kUnreachable:
        return route->ended ? "ended" : "unreachable";
      case Route::Kind::kRefuse:
        return "refuse " + route->interface + " " + route->link_local.to_string();
    }
    return "";
  }
  absl::Status failure;
  // Of replace_all() alone.
  absl::Status failure_of_all;
  // By an earlier run.
  std::map<Ipv6Prefix, Route> left;
  std::map<std::string, std::string> all;

 private:
  Journal& journal_;
};

class FakeInjector : public RouteInjector {
 public:
  explicit FakeInjector(Journal& journal) : journal_(journal) {}
  void set(const Ipv6Prefix& prefix, std::uint32_t level) override {
    journal_.push_back(fmt::format("frr {} {}", prefix.to_string(), level));
  }
  void replace_all(const std::map<Ipv6Prefix, std::uint32_t>& levels) override {
    all.clear();
    for (const auto& [p, level] : levels) all[p.to_string()] = level;
  }
  void raise_levels(std::uint32_t levels) override { highest_level = levels; }
  State state() const override { return State::kSynced; }
  std::string frr_version() const override { return "8.4.4"; }
  std::uint32_t highest_level = 0;
  std::map<std::string, std::uint32_t> all;

 private:
  Journal& journal_;
};

class FakeObserver : public BestPathObserver {
 public:
  explicit FakeObserver(Journal& journal) : journal_(journal) {}
  void watch(const Ipv6Prefix& prefix, const Ipv6Address& successor, std::uint32_t local_preference) override {
    journal_.push_back(fmt::format("watch {} {} {}", prefix.to_string(), successor.to_string(), local_preference));
  }
  void unwatch(const Ipv6Prefix&) override {}
  void await_withdrawal(const Ipv6Prefix& prefix, std::uint32_t levels) override { awaited[prefix] = levels; }
  void forget_withdrawal(const Ipv6Prefix& prefix) override { awaited.erase(prefix); }
  // Which withdrawals have to be told of, and the highest tag that counts.
  std::map<Ipv6Prefix, std::uint32_t> awaited;

 private:
  Journal& journal_;
};

class FakeAccess : public AccessPlane {
 public:
  explicit FakeAccess(Journal& journal) : journal_(journal) {}
  void serve(const LinkLayerAddress& mn, const Ipv6Address&, const std::string& interface,
             const std::vector<AdvertisedPrefix>& prefixes) override {
    std::string text = fmt::format("serve {} {}", mn.to_string(), interface);
    for (const auto& p : prefixes)
      text += fmt::format(" {}{}{}", p.prefix.to_string(), p.deprecated ? " deprecated" : "", p.ended ? " ended" : "");
    journal_.push_back(text);
  }
  void release(const LinkLayerAddress& mn) override { journal_.push_back("release " + mn.to_string()); }
  void release_after_restart(const LinkLayerAddress& mn) override {
    journal_.push_back("release after restart " + mn.to_string());
  }
  void refuse(const LinkLayerAddress& mn, std::chrono::milliseconds) override {
    journal_.push_back("refuse " + mn.to_string());
  }
  std::optional<SteadyTime> last_heard(const LinkLayerAddress&) const override { return heard; }
  void probe(const LinkLayerAddress& mn, const Ipv6Address&, const std::string& interface,
             std::function<void(bool)> answered) override {
    journal_.push_back("ask " + mn.to_string() + " " + interface);
    answer = std::move(answered);
  }

  bool authenticated(const LinkLayerAddress&, const std::string&) const override { return vouched_for; }

  std::optional<SteadyTime> heard;
  std::function<void(bool)> answer;
  bool vouched_for = false;

 private:
  Journal& journal_;
};

class FakeFilter : public AccessFilter {
 public:
  explicit FakeFilter(Journal& journal) : journal_(journal) {}
  const std::set<PermittedSource>& held() const override { return held_; }
  absl::Status replace_all(const std::set<PermittedSource>& sources, const TunnelEnds&) override {
    journal_.push_back(fmt::format("filter {}", sources.size()));
    return failure;
  }
  absl::Status change(const std::vector<PermittedSource>& added, const std::vector<PermittedSource>&) override {
    for (const auto& s : added) journal_.push_back(fmt::format("let in {} {}", s.interface, s.prefix.to_string()));
    return failure;
  }
  absl::StatusOr<Counters> counters() override { return Counters{}; }

  absl::Status failure;

 private:
  Journal& journal_;
  std::set<PermittedSource> held_;
};

class ControllerTest : public ::testing::Test {
 protected:
  // The AR under test is `self`.
  void start(const std::string& self, bool redirection = true) {
    controller_ = std::make_unique<Controller>(
        io_.get_executor(), ControllerConfig{self, 7, 100, redirection, std::chrono::milliseconds(1)}, lm_, forwarding_,
        [this](std::uint32_t) {
          auto injector = std::make_unique<FakeInjector>(journal_);
          injector_ = injector.get();
          return injector;
        },
        observer_, access_, metrics_, guard_);
    self_ = self;
  }

  void snapshot(std::vector<v1::Binding> bindings, std::uint64_t epoch = 1) {
    LmClient::Snapshot snapshot;
    snapshot.welcome.mutable_revision()->set_epoch(epoch);
    for (int i = 1; i <= 3; ++i) {
      auto* node = snapshot.welcome.add_nodes();
      node->set_name(fmt::format("ar{}", i));
      node->set_locator(fmt::format("2001:db8:a{}::1", i));
      node->set_deliver_sid(fmt::format("2001:db8:a{}::d", i));
      node->set_uplink_sid(fmt::format("2001:db8:a{}::e", i));
      if (node->name() == self_) *snapshot.welcome.mutable_self() = *node;
    }
    snapshot.welcome.set_preference_levels(levels_);
    snapshot.bindings = std::move(bindings);
    lm_.on_snapshot(snapshot);
  }

  void record(const v1::Binding& binding, bool more = false) {
    v1::Record record;
    *record.mutable_binding() = binding;
    record.set_more(more);
    deliver(record);
  }

  void deliver(const v1::Record& record) {
    lm_.on_record(record);
    io_.restart();
    io_.poll();
  }

  // FRR commits the removal, and bgpd follows it.
  void withdraw(const Ipv6Prefix& prefix) {
    injector_->on_committed(prefix, 0);
    bgpd_follows(prefix);
  }

  void bgpd_follows(const Ipv6Prefix& prefix) {
    ASSERT_EQ(observer_.awaited.erase(prefix), 1U);
    observer_.on_withdrawn(prefix);
  }

  Journal take() { return std::exchange(journal_, {}); }

  boost::asio::io_context io_;
  Journal journal_;
  Metrics metrics_;
  FakeLm lm_{journal_};
  FakeForwarding forwarding_{journal_};
  FakeObserver observer_{journal_};
  FakeAccess access_{journal_};
  FakeInjector* injector_ = nullptr;
  std::string self_;
  std::uint32_t levels_ = 8;
  SourceGuard* guard_ = nullptr;
  std::unique_ptr<Controller> controller_;
};

v1::Holder* holder(v1::Binding& binding, const std::string& ar) {
  for (auto& h : *binding.mutable_holders()) {
    if (h.ar() == ar) return &h;
  }
  auto* h = binding.add_holders();
  h->set_ar(ar);
  return h;
}

void revise(v1::Binding& binding, std::uint64_t revision) {
  binding.mutable_revision()->set_epoch(1);
  binding.mutable_revision()->set_revision(revision);
}

v1::Binding attached(const std::string& ar, std::uint64_t revision, std::uint32_t preference,
                     const std::string& prefix_text = kPrefix, const std::string& home = "ar1") {
  v1::Binding binding;
  binding.set_prefix(prefix_text);
  binding.set_mn_id(kMn);
  binding.set_home_ar(home);
  binding.set_attached_ar(ar);
  binding.set_preference(preference);
  binding.set_state(v1::BINDING_STATE_MOVING);
  binding.mutable_generation()->set_epoch(1);
  binding.mutable_generation()->set_revision(revision);
  revise(binding, revision);
  binding.mutable_attachment()->set_interface("eth2");
  binding.mutable_attachment()->set_link_layer_address(kMn);
  binding.mutable_attachment()->set_link_local("fe80::ff:fe00:11");
  holder(binding, home);
  holder(binding, ar)->set_advertises_preference(preference);
  return binding;
}

void delivers(v1::Binding& binding, const std::string& ar, std::uint64_t revision) {
  holder(binding, ar)->set_delivers(true);
  *holder(binding, ar)->mutable_generation() = binding.generation();
  revise(binding, revision);
}

Arrival arrival(v1::Trigger trigger = v1::TRIGGER_ROUTER_SOLICITATION) {
  Arrival a;
  a.link_layer_address = mn();
  a.link_local = *Ipv6Address::parse("fe80::ff:fe00:11");
  a.link_local_seen = true;
  a.interface = "eth2";
  a.trigger = trigger;
  a.heard_at = now_system();
  a.heard_at_steady = std::chrono::steady_clock::now();
  return a;
}

TEST_F(ControllerTest, DeliversBeforeItAcknowledgesAdvertisesAndSendsAnRa) {
  start("ar2");
  snapshot({});
  record(attached("ar2", 20, 1));
  EXPECT_THAT(take(), ElementsAre("kernel 2001:db8:1000::/64 deliver eth2", "frr 2001:db8:1000::/64 1",
                                  "ack DELIVERING 2001:db8:1000::/64",
                                  "serve 02:00:00:00:00:11 eth2 2001:db8:1000::/64 deprecated"));
  injector_->on_committed(prefix(), 1);
  EXPECT_THAT(take(), ElementsAre("ack ADVERTISED 2001:db8:1000::/64 at 1"));
}

TEST_F(ControllerTest, AnMnIsLetInBeforeItHearsOfThisAccessRouter) {
  FakeFilter filter(journal_);
  SourceGuard guard(io_.get_executor(), {"ar2", std::chrono::hours(1)}, filter, access_, metrics_);
  guard_ = &guard;
  start("ar2");
  snapshot({});
  EXPECT_THAT(take(), ElementsAre("filter 0"));
  record(attached("ar2", 20, 0));
  EXPECT_THAT(take(), ElementsAre("let in eth2 2001:db8:1000::/64", "let in eth2 fe80::ff:fe00:11/128",
                                  "kernel 2001:db8:1000::/64 deliver eth2", "ack DELIVERING 2001:db8:1000::/64",
                                  "serve 02:00:00:00:00:11 eth2 2001:db8:1000::/64 deprecated"));
  // All of a commit before any of it is delivered.
  record(attached("ar2", 22, 0, "2001:db8:3000::/64"), true);
  record(attached("ar2", 22, 0, kNetwork));
  const auto both = take();
  EXPECT_THAT(std::vector(both.begin(), both.begin() + 3),
              ElementsAre("let in eth2 2001:db8:1000:f00::/56", "let in eth2 2001:db8:3000::/64",
                          "kernel 2001:db8:1000:f00::/56 deliver eth2"));
  // Said to the operator.
  filter.failure = absl::InternalError("nftables: no memory");
  record(attached("ar2", 23, 0, "2001:db8:2000::/64", "ar2"));
  EXPECT_EQ(lm_.last_health.access(), "nftables: no memory");
  controller_.reset();
}

TEST_F(ControllerTest, AttachmentsWaitForEachOtherAndTellTheirAgeWhenTheyAreSent) {
  start("ar2");
  snapshot({});
  constexpr std::size_t kAtOnce = 128;
  const auto node = [](std::size_t i) {
    return LinkLayerAddress({2, 0, 0, 1, static_cast<std::uint8_t>(i >> 8), static_cast<std::uint8_t>(i)});
  };
  auto one = arrival();
  for (std::size_t i = 0; i < kAtOnce + 3; ++i) {
    one.link_layer_address = node(i);
    access_.on_arrival(one);
    // It solicits again.
    access_.on_arrival(one);
  }
  ASSERT_EQ(lm_.attaches.size(), kAtOnce);
  // One leaves while it waits.
  access_.on_departure({.link_layer_address = node(kAtOnce),
                        .interface = "eth2",
                        .reason = v1::DETACH_REASON_LINK_DOWN,
                        .last_heard = std::chrono::steady_clock::now()});
  lm_.attach_done[0](absl::OkStatus());
  ASSERT_EQ(lm_.attaches.size(), kAtOnce + 1);
  EXPECT_EQ(lm_.attaches.back().mn_id(), node(kAtOnce + 1).to_string());
  lm_.attach_done[1](absl::PermissionDeniedError("unknown"));
  ASSERT_EQ(lm_.attaches.size(), kAtOnce + 2);
  EXPECT_EQ(lm_.attaches.back().mn_id(), node(kAtOnce + 2).to_string());
  lm_.attach_done[2](absl::OkStatus());
  EXPECT_EQ(lm_.attaches.size(), kAtOnce + 2);
}

TEST_F(ControllerTest, CommitsThatComeTogetherAreProgrammedTogether) {
  start("ar2");
  snapshot({});
  const auto put = [this](const v1::Binding& binding) {
    v1::Record record;
    *record.mutable_binding() = binding;
    lm_.on_record(record);
  };
  auto other = attached("ar2", 21, 0, "2001:db8:3000::/64");
  other.set_mn_id("02:00:00:00:00:22");
  put(attached("ar2", 20, 0));
  put(other);
  // What was meant for in between need not be told any more.
  put(attached("ar2", 22, 1));
  EXPECT_THAT(take(), IsEmpty());
  io_.poll();
  EXPECT_THAT(take(), ElementsAre("kernel 2001:db8:1000::/64 deliver eth2", "kernel 2001:db8:3000::/64 deliver eth2",
                                  "frr 2001:db8:1000::/64 1", "ack DELIVERING 2001:db8:1000::/64",
                                  "ack DELIVERING 2001:db8:3000::/64",
                                  "serve 02:00:00:00:00:11 eth2 2001:db8:1000::/64 deprecated",
                                  "serve 02:00:00:00:00:22 eth2 2001:db8:3000::/64 deprecated"));
}

TEST_F(ControllerTest, WhatIsForgottenAndComesBackAtOnceIsLetIn) {
  FakeFilter filter(journal_);
  SourceGuard guard(io_.get_executor(), {"ar2", std::chrono::hours(1)}, filter, access_, metrics_);
  guard_ = &guard;
  start("ar2");
  snapshot({attached("ar2", 20, 0)});
  take();
  v1::Record forget;
  forget.mutable_forget()->set_prefix(kPrefix);
  lm_.on_record(forget);
  record(attached("ar2", 30, 0));
  EXPECT_THAT(metrics_.expose(), ::testing::HasSubstr("kedge_speaker_permitted_sources 1"));
  controller_.reset();
}

TEST_F(ControllerTest, StrangersAreThoseOfWhichThereIsNoRecord) {
  start("ar2");
  snapshot({attached("ar1", 20, 0)});
  EXPECT_TRUE(access_.is_known(mn()));
  EXPECT_FALSE(access_.is_known(*LinkLayerAddress::parse("02:00:00:00:00:99")));
  access_.on_limited(ArrivalLimit::kStranger);
  EXPECT_THAT(metrics_.expose(), ::testing::HasSubstr("kedge_speaker_arrivals_limited_total{limit=\"stranger\"} 1"));
}

TEST_F(ControllerTest, TheUplinkOfARedirectedPrefixGoesThroughItsHomeUntilItIsRelocated) {
  start("ar2");
  snapshot({});
  auto binding = attached("ar2", 20, 0);
  binding.set_mode(v1::MODE_REDIRECT);
  record(binding);
  EXPECT_THAT(take(), ElementsAre("kernel 2001:db8:1000::/64 deliver eth2 uplink 2001:db8:a1::e",
                                  "ack DELIVERING 2001:db8:1000::/64",
                                  "serve 02:00:00:00:00:11 eth2 2001:db8:1000::/64 deprecated"));
  // A restarted session programs the same.
  snapshot({binding});
  EXPECT_EQ(forwarding_.all.at(kPrefix), "deliver eth2 uplink 2001:db8:a1::e");
  take();
  binding.set_mode(v1::MODE_RELOCATE);
  revise(binding, 30);
  record(binding);
  EXPECT_THAT(take(), Contains("kernel 2001:db8:1000::/64 deliver eth2"));
  binding.set_mode(v1::MODE_REDIRECT);
  binding.set_direct_uplink(true);
  revise(binding, 31);
  record(binding);
  EXPECT_THAT(take(), Not(Contains(::testing::HasSubstr("uplink"))));
}

TEST_F(ControllerTest, AHomeArWithoutAnUplinkIdentifierDoesNotKeepTheMnFromBeingServed) {
  start("ar2");
  snapshot({});
  auto binding = attached("ar2", 20, 0, kPrefix, "ar9");
  binding.set_mode(v1::MODE_REDIRECT);
  record(binding);
  EXPECT_THAT(take(), Contains("kernel 2001:db8:1000::/64 deliver eth2"));
}

TEST_F(ControllerTest, AdvertisesAndSendsNothingWhileTheKernelRefuses) {
  start("ar2");
  snapshot({});
  forwarding_.failure = absl::UnavailableError("no such interface");
  record(attached("ar2", 20, 1));
  EXPECT_THAT(take(), IsEmpty());
  forwarding_.failure = absl::OkStatus();
  forwarding_.on_programmed(prefix());
  EXPECT_THAT(take(), ElementsAre("frr 2001:db8:1000::/64 1", "ack DELIVERING 2001:db8:1000::/64",
                                  "serve 02:00:00:00:00:11 eth2 2001:db8:1000::/64 deprecated"));
}

TEST_F(ControllerTest, ASnapshotAnnouncesNothingThatTheKernelRefuses) {
  start("ar2");
  forwarding_.failure = absl::UnavailableError("no such interface");
  snapshot({attached("ar2", 20, 1)});
  EXPECT_THAT(injector_->all, IsEmpty());
  injector_->on_committed(prefix(), 0);
  take();
  forwarding_.failure = absl::OkStatus();
  forwarding_.on_programmed(prefix());
  EXPECT_THAT(take(), ElementsAre("frr 2001:db8:1000::/64 1", "ack DELIVERING 2001:db8:1000::/64",
                                  "serve 02:00:00:00:00:11 eth2 2001:db8:1000::/64 deprecated"));
}

TEST_F(ControllerTest, ARouteThatTheKernelRefusesWithdrawsNoOther) {
  start("ar2");
  forwarding_.failure_of_all = absl::UnavailableError("one of them");
  snapshot({attached("ar2", 20, 1)});
  EXPECT_EQ(injector_->all, (std::map<std::string, std::uint32_t>{{kPrefix, 1}}));
  EXPECT_THAT(take(), Contains("kernel 2001:db8:1000::/64 deliver eth2"));
  injector_->on_committed(prefix(), 1);
  EXPECT_THAT(take(), Contains("ack ADVERTISED 2001:db8:1000::/64 at 1"));
}

TEST_F(ControllerTest, WhatIsAnnouncedStaysWhileASnapshotCannotBeProgrammed) {
  start("ar2");
  snapshot({attached("ar2", 20, 1)});
  injector_->on_committed(prefix(), 1);
  forwarding_.failure = absl::UnavailableError("out of memory");
  snapshot({attached("ar2", 20, 1)});
  EXPECT_EQ(injector_->all, (std::map<std::string, std::uint32_t>{{kPrefix, 1}}));
}

TEST_F(ControllerTest, APrefixThatASnapshotHasTwiceIsThatOfTheFirst) {
  start("ar1");
  auto second = attached("ar1", 20, 0);
  second.set_mn_id("02:00:00:00:00:22");
  snapshot({attached("ar1", 10, 0), second});
  EXPECT_THAT(take(), Not(Contains(::testing::HasSubstr("serve 02:00:00:00:00:22"))));
  v1::Record forget;
  forget.mutable_forget()->set_prefix(kPrefix);
  deliver(forget);
  EXPECT_THAT(take(), Contains("release 02:00:00:00:00:11"));
}

TEST_F(ControllerTest, NothingIsToldToTheMnWhileTheKernelMayHoldSomethingElse) {
  start("ar2");
  snapshot({attached("ar2", 20, 1)});
  auto away = attached("ar3", 30, 2);
  holder(away, "ar2")->set_delivers(true);
  delivers(away, "ar3", 31);
  forwarding_.failure = absl::UnavailableError("refused, or programmed all the same");
  record(away);
  take();
  record(attached("ar2", 40, 3));
  EXPECT_THAT(take(), Not(Contains(::testing::StartsWith("serve"))));
  forwarding_.failure = absl::OkStatus();
  forwarding_.on_programmed(prefix());
  EXPECT_THAT(take(), Contains(::testing::StartsWith("serve")));
}

TEST_F(ControllerTest, WhoIsVouchedForWhileItIsBeingRefusedAsksAgain) {
  start("ar2");
  snapshot({});
  access_.on_arrival(arrival());
  ASSERT_EQ(lm_.attaches.size(), 1U);
  EXPECT_FALSE(lm_.attaches[0].authenticated());
  access_.vouched_for = true;
  access_.on_arrival(arrival());
  ASSERT_EQ(lm_.attaches.size(), 1U) << "one at a time";
  lm_.attach_done[0](absl::PermissionDeniedError("require_authentication"));
  ASSERT_EQ(lm_.attaches.size(), 2U);
  EXPECT_TRUE(lm_.attaches[1].authenticated());
  EXPECT_GT(lm_.attaches[1].sequence(), lm_.attaches[0].sequence());
  lm_.attach_done[1](absl::PermissionDeniedError("allowed_ars"));
  EXPECT_EQ(lm_.attaches.size(), 2U);
  EXPECT_THAT(take(), Contains("refuse 02:00:00:00:00:11"));
}

TEST_F(ControllerTest, AllPrefixesOfAnMnGoIntoOneRaWithThatOfThisArFirst) {
  start("ar2");
  snapshot({});
  record(attached("ar2", 20, 1), /*more=*/true);
  EXPECT_THAT(take(), Not(Contains(::testing::StartsWith("serve"))));
  record(attached("ar2", 20, 0, "2001:db8:2000::/64", "ar2"));
  EXPECT_THAT(take(), Contains("serve 02:00:00:00:00:11 eth2 2001:db8:2000::/64 2001:db8:1000::/64 deprecated"));
}

v1::Binding network_attached(const std::string& ar, std::uint64_t revision, std::uint32_t preference) {
  auto binding = attached(ar, revision, preference, kNetwork);
  binding.set_mobile_network(true);
  return binding;
}

TEST_F(ControllerTest, AMobileNetworkIsRoutedToItsRouterAndNeverAdvertisedToIt) {
  start("ar2");
  snapshot({});
  record(attached("ar2", 20, 1), /*more=*/true);
  record(network_attached("ar2", 20, 1));
  EXPECT_THAT(take(),
              ElementsAre("kernel 2001:db8:1000::/64 deliver eth2", "kernel 2001:db8:1000:f00::/56 deliver eth2",
                          "frr 2001:db8:1000::/64 1", "ack DELIVERING 2001:db8:1000::/64",
                          "frr 2001:db8:1000:f00::/56 1", "ack DELIVERING 2001:db8:1000:f00::/56",
                          "serve 02:00:00:00:00:11 eth2 2001:db8:1000::/64 deprecated"));
  auto away = network_attached("ar3", 30, 2);
  holder(away, "ar2")->set_delivers(true);
  delivers(away, "ar3", 31);
  record(away);
  EXPECT_THAT(take(), ElementsAre("kernel 2001:db8:1000:f00::/56 redirect 2001:db8:a3::d",
                                  "watch 2001:db8:1000:f00::/56 2001:db8:a3::1 102",
                                  "ack REDIRECTING 2001:db8:1000:f00::/56 to ar3",
                                  "serve 02:00:00:00:00:11 eth2 2001:db8:1000::/64 deprecated"));
}

TEST_F(ControllerTest, AMobileRouterWithoutAPrefixOfItsOwnGetsAnRaWithoutPrefixes) {
  start("ar2");
  snapshot({network_attached("ar2", 20, 0)});
  EXPECT_THAT(take(), Contains("serve 02:00:00:00:00:11 eth2"));
  // It is served: what it sends is no arrival.
  access_.on_arrival(arrival());
  EXPECT_THAT(lm_.attaches, IsEmpty());
}

TEST_F(ControllerTest, NoRaBeforeTheMobileNetworkIsDeliveredToo) {
  start("ar2");
  snapshot({});
  record(attached("ar2", 20, 0), /*more=*/true);
  forwarding_.failure = absl::UnavailableError("refused");
  record(network_attached("ar2", 20, 0));
  EXPECT_THAT(take(), Not(Contains(::testing::StartsWith("serve"))));
  forwarding_.failure = absl::OkStatus();
  forwarding_.on_programmed(prefix());
  EXPECT_THAT(take(), Not(Contains(::testing::StartsWith("serve"))));
  forwarding_.on_programmed(prefix(kNetwork));
  EXPECT_THAT(take(), Contains("serve 02:00:00:00:00:11 eth2 2001:db8:1000::/64 deprecated"));
}

TEST_F(ControllerTest, ANetworkThatHasEndedIsNotAdvertisedToItsRouterEither) {
  start("ar2");
  auto ended = network_attached("ar2", 20, 0);
  snapshot({attached("ar2", 20, 0), ended});
  take();
  ended.set_attached_ar("");
  ended.set_state(v1::BINDING_STATE_DETACHED);
  ended.set_released(true);
  ended.mutable_generation()->set_revision(30);
  revise(ended, 30);
  record(ended);
  EXPECT_THAT(take(), Contains("serve 02:00:00:00:00:11 eth2 2001:db8:1000::/64 deprecated"));
}

// One that the MN's profile has lost answers unreachable at home for as long as the quarantine.
TEST_F(ControllerTest, WhatHasEndedDoesNotSayWhereTheMnIsAttached) {
  start("ar1");
  auto ended = network_attached("ar1", 20, 0);
  ended.set_prefix("2001:db8:1000::/56");
  ended.set_attached_ar("");
  ended.set_state(v1::BINDING_STATE_DETACHED);
  ended.mutable_attachment()->set_interface("eth9");
  snapshot({ended, attached("ar1", 30, 0, "2001:db8:1000:f00::/64")});
  access_.on_arrival(arrival());
  EXPECT_THAT(lm_.attaches, IsEmpty());
}

v1::Binding ended(const std::string& present, std::uint64_t revision) {
  auto binding = attached(present, revision, 0);
  binding.clear_attached_ar();
  binding.set_state(v1::BINDING_STATE_DETACHED);
  binding.set_released(true);
  return binding;
}

TEST_F(ControllerTest, AnEndedPrefixIsRefusedAndItsNodeToldNotToUseIt) {
  start("ar2");
  snapshot({});
  record(ended("ar2", 20), /*more=*/true);
  EXPECT_THAT(take(), IsEmpty()) << "a commit is taken as a whole";
  record(attached("ar2", 20, 0, "2001:db8:2000::/64", "ar2"));
  const auto done = take();
  EXPECT_THAT(done, Contains("kernel 2001:db8:1000::/64 refuse eth2 fe80::ff:fe00:11"));
  EXPECT_THAT(done, Contains("ack UNREACHABLE 2001:db8:1000::/64"));
  EXPECT_THAT(done, Contains("serve 02:00:00:00:00:11 eth2 2001:db8:2000::/64 2001:db8:1000::/64 deprecated ended"));
  access_.on_ra_sent(mn(), {{prefix(), true, true}}, now_system());
  EXPECT_THAT(take(), IsEmpty()) << "it is not advertised";
  // The MN goes on to ar3.
  auto gone = ended("ar2", 30);
  holder(gone, "ar2")->set_releasing(true);
  record(gone);
  EXPECT_THAT(take(), Contains("kernel 2001:db8:1000::/64 none"));
}

TEST_F(ControllerTest, ARefusalStaysUntilTheHomeDeliversAgain) {
  start("ar2");
  snapshot({ended("ar2", 20)});
  auto home = attached("ar1", 30, 0);
  holder(home, "ar2")->set_unreachable(true);
  take();
  record(home);
  EXPECT_THAT(take(), Not(Contains(::testing::StartsWith("kernel"))));
  delivers(home, "ar1", 31);
  record(home);
  EXPECT_THAT(take(), Contains("kernel 2001:db8:1000::/64 redirect 2001:db8:a1::d"));
}

TEST_F(ControllerTest, RedirectsOnlyAfterTheTargetHasAcknowledged) {
  start("ar1");
  auto binding = attached("ar1", 10, 0);
  snapshot({binding});
  delivers(binding, "ar1", 11);
  record(binding);
  take();

  auto moved = attached("ar2", 20, 1);
  holder(moved, "ar1")->set_delivers(true);
  record(moved);
  EXPECT_THAT(take(), ElementsAre("watch 2001:db8:1000::/64 2001:db8:a2::1 101", "release 02:00:00:00:00:11"));
  delivers(moved, "ar2", 21);
  record(moved);
  EXPECT_THAT(take(), ElementsAre("kernel 2001:db8:1000::/64 redirect 2001:db8:a2::d",
                                  "ack REDIRECTING 2001:db8:1000::/64 to ar2"));
  observer_.on_superseded(prefix());
  EXPECT_THAT(take(), ElementsAre("ack SUPERSEDED 2001:db8:1000::/64 at 1"));
}

TEST_F(ControllerTest, KeepsItsRouteWhenTheLmHasNotSeenItsAcknowledgementYet) {
  start("ar1");
  snapshot({attached("ar1", 10, 0)});
  take();
  record(attached("ar2", 20, 1));  // holder ar1 without `delivers`
  EXPECT_THAT(take(), Not(Contains(::testing::StartsWith("kernel"))));
}

TEST_F(ControllerTest, AnOldAnchorWithdrawsOnlyWhenSuperseded) {
  start("ar2");
  auto binding = attached("ar2", 20, 1);
  snapshot({binding});
  injector_->on_committed(prefix(), 1);
  take();
  auto moved = attached("ar3", 30, 2);
  holder(moved, "ar2")->set_delivers(true);
  holder(moved, "ar2")->set_advertises_preference(1);
  delivers(moved, "ar3", 31);
  record(moved);
  EXPECT_THAT(take(), Not(Contains("frr 2001:db8:1000::/64 0")));
  observer_.on_superseded(prefix());
  EXPECT_THAT(take(), ElementsAre("frr 2001:db8:1000::/64 0", "ack SUPERSEDED 2001:db8:1000::/64 at 2"));
  // bgpd may hear of it late, and announces the prefix until then.
  injector_->on_committed(prefix(), 0);
  EXPECT_THAT(take(), IsEmpty());
  bgpd_follows(prefix());
  EXPECT_THAT(take(), ElementsAre("ack WITHDRAWN 2001:db8:1000::/64"));
}

TEST_F(ControllerTest, SaysOnceMoreWhatHasBecomeSoAgainWithinOneGeneration) {
  start("ar2");
  auto binding = attached("ar2", 20, 2);
  snapshot({binding});
  injector_->on_committed(prefix(), 2);
  for (int round = 0; round < 2; ++round) {
    binding.set_preference(0);
    revise(binding, static_cast<std::uint64_t>(30 + 10 * round));
    record(binding);
    take();
    withdraw(prefix());
    EXPECT_THAT(take(), ElementsAre("ack WITHDRAWN 2001:db8:1000::/64"));
    binding.set_preference(2);
    revise(binding, static_cast<std::uint64_t>(35 + 10 * round));
    record(binding);
    take();
    injector_->on_committed(prefix(), 2);
    EXPECT_THAT(take(), ElementsAre("ack ADVERTISED 2001:db8:1000::/64 at 2"));
  }
}

TEST_F(ControllerTest, ClearsTheKernelOnlyAfterBgpdHasWithdrawn) {
  start("ar2");
  auto binding = attached("ar2", 20, 1);
  snapshot({binding});
  injector_->on_committed(prefix(), 1);
  take();
  holder(binding, "ar2")->set_releasing(true);
  binding.set_attached_ar("");
  binding.set_state(v1::BINDING_STATE_DETACHED);
  revise(binding, 40);
  record(binding);
  EXPECT_THAT(take(), ElementsAre("frr 2001:db8:1000::/64 0", "release 02:00:00:00:00:11"));
  injector_->on_committed(prefix(), 0);
  EXPECT_THAT(take(), IsEmpty());
  bgpd_follows(prefix());
  EXPECT_THAT(take(), ElementsAre("kernel 2001:db8:1000::/64 none", "ack WITHDRAWN 2001:db8:1000::/64",
                                  "ack CLEARED 2001:db8:1000::/64"));
}

TEST_F(ControllerTest, WhatIsAnnouncedAgainIsNoLongerExpectedToBeWithdrawn) {
  start("ar2");
  auto binding = attached("ar2", 20, 2);
  snapshot({binding});
  injector_->on_committed(prefix(), 2);
  binding.set_preference(0);
  revise(binding, 30);
  record(binding);
  injector_->on_committed(prefix(), 0);
  EXPECT_THAT(observer_.awaited, ElementsAre(std::pair(prefix(), 8U)));
  binding.set_preference(3);
  revise(binding, 31);
  record(binding);
  EXPECT_THAT(observer_.awaited, IsEmpty());
  take();
  injector_->on_committed(prefix(), 3);
  EXPECT_THAT(take(), ElementsAre("ack ADVERTISED 2001:db8:1000::/64 at 3"));
}

TEST_F(ControllerTest, GoesOnForwardingOverASnapshotUntilBgpdHasWithdrawn) {
  start("ar2");
  auto binding = attached("ar2", 20, 1);
  snapshot({binding});
  injector_->on_committed(prefix(), 1);
  auto moved = attached("ar1", 30, 2);
  holder(moved, "ar2")->set_advertises_preference(1);
  delivers(moved, "ar1", 31);
  record(moved);
  observer_.on_superseded(prefix());
  injector_->on_committed(prefix(), 0);
  take();
  // The LM comes back, and does not know that anything was announced here.
  holder(moved, "ar2")->set_advertises_preference(0);
  holder(moved, "ar2")->set_releasing(true);
  revise(moved, 40);
  snapshot({moved});
  EXPECT_EQ(forwarding_.all.at(kPrefix), "redirect 2001:db8:a1::d");
  EXPECT_THAT(take(), Not(Contains("ack CLEARED 2001:db8:1000::/64")));
  bgpd_follows(prefix());
  EXPECT_THAT(take(), ElementsAre("kernel 2001:db8:1000::/64 none", "ack CLEARED 2001:db8:1000::/64"));
}

TEST_F(ControllerTest, IgnoresARecordThatIsOlderThanItsOwn) {
  start("ar1");
  snapshot({attached("ar1", 10, 0)});
  auto moved = attached("ar2", 20, 1);
  delivers(moved, "ar2", 21);
  record(moved);
  take();
  record(attached("ar1", 10, 0));
  EXPECT_THAT(take(), IsEmpty());
}

TEST_F(ControllerTest, ASnapshotIsTheWholeTruthAndIsAcknowledgedAnew) {
  start("ar2");
  auto binding = attached("ar2", 20, 1);
  snapshot({binding, attached("ar2", 20, 0, "2001:db8:2000::/64", "ar2")});
  injector_->on_committed(prefix(), 1);
  take();
  snapshot({binding});
  EXPECT_THAT(forwarding_.all, ElementsAre(std::pair<const std::string, std::string>(kPrefix, "deliver eth2")));
  EXPECT_THAT(injector_->all, ElementsAre(std::pair<const std::string, std::uint32_t>(kPrefix, 1)));
  EXPECT_THAT(take(), Contains("ack DELIVERING 2001:db8:1000::/64"));
  injector_->on_committed(prefix(), 1);
  EXPECT_THAT(take(), Contains("ack ADVERTISED 2001:db8:1000::/64 at 1"));
}

TEST_F(ControllerTest, ARestartedOldAnchorGoesOnAdvertisingUntilSuperseded) {
  start("ar2");
  auto moved = attached("ar3", 30, 2);
  holder(moved, "ar2")->set_advertises_preference(1);
  delivers(moved, "ar3", 31);
  snapshot({moved});
  EXPECT_THAT(injector_->all, ElementsAre(std::pair<const std::string, std::uint32_t>(kPrefix, 1)));
  EXPECT_THAT(forwarding_.all,
              ElementsAre(std::pair<const std::string, std::string>(kPrefix, "redirect 2001:db8:a3::d")));
}

TEST_F(ControllerTest, ARestartedOldAnchorKeepsWhatItsEarlierRunHasLeftUntilTheNewOneDelivers) {
  start("ar1");
  Route deliver;
  deliver.kind = Route::Kind::kDeliver;
  deliver.interface = "eth7";
  deliver.link_local = *Ipv6Address::parse("fe80::ff:fe00:11");
  forwarding_.left[prefix()] = deliver;
  auto moved = attached("ar2", 20, 1);
  holder(moved, "ar1")->set_redirects_to("ar3");  // older than what the kernel has
  snapshot({moved});
  EXPECT_THAT(forwarding_.all, ElementsAre(std::pair<const std::string, std::string>(kPrefix, "deliver eth7")));
  take();
  delivers(moved, "ar2", 21);
  record(moved);
  EXPECT_THAT(take(), Contains("kernel 2001:db8:1000::/64 redirect 2001:db8:a2::d"));
}

TEST_F(ControllerTest, ARestartedOldAnchorDoesNotTakeFramesOnAnOldLinkForAReturn) {
  start("ar2");
  auto moved = attached("ar3", 30, 2);
  delivers(moved, "ar3", 31);
  snapshot({moved});
  EXPECT_THAT(take(), Contains("release after restart 02:00:00:00:00:11"));
  snapshot({moved});
  EXPECT_THAT(take(), Not(Contains("release after restart 02:00:00:00:00:11"))) << "a lost session is no restart";
}

TEST_F(ControllerTest, WhatARestartedOldAnchorHeardBeforeItsFirstSnapshotIsNoReturn) {
  start("ar1");
  auto answer = arrival(v1::TRIGGER_DATA_FRAME);
  answer.on_earlier_link = true;
  access_.on_arrival(answer);
  EXPECT_THAT(lm_.attaches, IsEmpty()) << "only the snapshot tells whether it has moved on";
  auto moved = attached("ar2", 20, 1);
  delivers(moved, "ar2", 21);
  snapshot({moved});
  EXPECT_THAT(lm_.attaches, IsEmpty());
}

TEST_F(ControllerTest, AnArrivalBeforeTheFirstSnapshotIsAttachedByIt) {
  start("ar1");
  access_.on_arrival(arrival(v1::TRIGGER_DATA_FRAME));
  auto elsewhere = attached("ar2", 20, 1);
  snapshot({elsewhere});
  ASSERT_EQ(lm_.attaches.size(), 1U) << "its link came up in this run";
  EXPECT_EQ(lm_.attaches[0].trigger(), v1::TRIGGER_DATA_FRAME) << "nothing was away, so nothing is replayed";
}

TEST_F(ControllerTest, ASolicitationOnAnEarlierLinkBeforeTheFirstSnapshotIsAnArrival) {
  start("ar1");
  auto asks = arrival();
  asks.on_earlier_link = true;
  access_.on_arrival(asks);
  snapshot({attached("ar2", 20, 1)});
  EXPECT_EQ(lm_.attaches.size(), 1U);
}

TEST_F(ControllerTest, WithoutRedirectionTheOldRouteGoesOnlyWhenBgpPrefersTheNewOne) {
  start("ar1", /*redirection=*/false);
  snapshot({attached("ar1", 10, 0)});
  withdraw(prefix());
  auto moved = attached("ar2", 20, 1);
  delivers(moved, "ar2", 21);
  record(moved);
  EXPECT_THAT(take(), Not(Contains(::testing::HasSubstr("redirect"))));
  observer_.on_superseded(prefix());
  EXPECT_THAT(take(), ElementsAre("kernel 2001:db8:1000::/64 none", "ack SUPERSEDED 2001:db8:1000::/64 at 1",
                                  "ack CLEARED 2001:db8:1000::/64"));
}

TEST_F(ControllerTest, WhatIsKeptDuringTheGraceTimeIsNotAcknowledgedAgain) {
  start("ar1");
  auto moved = attached("ar2", 20, 1);
  delivers(moved, "ar2", 21);
  snapshot({moved});
  ASSERT_THAT(take(), Contains("ack REDIRECTING 2001:db8:1000::/64 to ar2"));
  moved.set_attached_ar("");
  moved.set_state(v1::BINDING_STATE_DETACHED_GRACE);
  moved.mutable_generation()->set_revision(30);
  holder(moved, "ar1")->set_redirects_to("ar2");
  revise(moved, 30);
  record(moved);
  EXPECT_THAT(take(), IsEmpty());
}

TEST_F(ControllerTest, AForgottenPrefixLeavesNothing) {
  start("ar2");
  snapshot({attached("ar2", 20, 1)});
  take();
  v1::Record forget;
  forget.mutable_forget()->set_prefix(kPrefix);
  deliver(forget);
  EXPECT_THAT(take(),
              ElementsAre("frr 2001:db8:1000::/64 0", "kernel 2001:db8:1000::/64 none", "release 02:00:00:00:00:11"));
}

TEST_F(ControllerTest, AnArrivalBecomesOneAttachAndIsTriedAgainWhileTheLmIsAway) {
  start("ar2");
  snapshot({});
  access_.on_arrival(arrival());
  access_.on_arrival(arrival());
  ASSERT_EQ(lm_.attaches.size(), 1U);
  EXPECT_EQ(lm_.attaches[0].mn_id(), kMn);
  EXPECT_EQ(lm_.attaches[0].ar(), "ar2");
  EXPECT_EQ(lm_.attaches[0].incarnation(), 7U);
  lm_.attach_done[0](absl::UnavailableError("LM away"));
  io_.run_one();  // the retry's timer
  ASSERT_EQ(lm_.attaches.size(), 2U);
  EXPECT_GT(lm_.attaches[1].sequence(), lm_.attaches[0].sequence());
}

TEST_F(ControllerTest, AnAttachThatWaitsIsReplayedWithItsAgeWhenTheLmIsBack) {
  start("ar2");
  snapshot({});
  auto early = arrival(v1::TRIGGER_DATA_FRAME);
  early.heard_at_steady -= std::chrono::seconds(30);
  access_.on_arrival(early);
  lm_.attach_done[0](absl::UnavailableError("LM away"));
  lm_.on_connection(absl::UnavailableError("LM away"));
  snapshot({});
  ASSERT_EQ(lm_.attaches.size(), 1U) << "it is asked first whether it is there still";
  EXPECT_THAT(take(), Contains("ask 02:00:00:00:00:11 eth2"));
  // What it answers is no word of its own: of two access routers, the one where it speaks wins.
  access_.heard = std::chrono::steady_clock::now();
  access_.answer(true);
  ASSERT_EQ(lm_.attaches.size(), 2U);
  EXPECT_GE(lm_.attaches[1].age().seconds(), 30);
  EXPECT_EQ(lm_.attaches[1].trigger(), v1::TRIGGER_REPLAY);
}

TEST_F(ControllerTest, TellsTheLmThatTheMnIsStillOnTheLinkThatItWasMovedAwayFrom) {
  start("ar2");
  snapshot({});
  auto back = arrival(v1::TRIGGER_DATA_FRAME);
  access_.on_arrival(back);
  EXPECT_FALSE(lm_.attaches[0].link_unchanged());
  lm_.attach_done[0](absl::OkStatus());
  back.link_unchanged = true;
  access_.on_arrival(back);
  EXPECT_TRUE(lm_.attaches[1].link_unchanged());
  // The link changes while the LM is away.
  lm_.attach_done[1](absl::UnavailableError("LM away"));
  access_.on_arrival(arrival());
  ASSERT_EQ(lm_.attaches.size(), 3U);
  EXPECT_FALSE(lm_.attaches[2].link_unchanged());
}

TEST_F(ControllerTest, AnMnThatChangesThePortIsAttachedAndDeliveredAtTheNewOne) {
  start("ar1");
  auto binding = attached("ar1", 20, 0);
  snapshot({binding});
  take();
  auto on_other_port = arrival(v1::TRIGGER_DATA_FRAME);
  on_other_port.interface = "eth3";
  access_.on_arrival(on_other_port);
  ASSERT_EQ(lm_.attaches.size(), 1U);
  EXPECT_EQ(lm_.attaches[0].attachment().interface(), "eth3");
  lm_.attach_done[0](absl::OkStatus());
  take();
  binding = attached("ar1", 21, 0);
  binding.mutable_attachment()->set_interface("eth3");
  record(binding);
  EXPECT_THAT(take(), ElementsAre("kernel 2001:db8:1000::/64 deliver eth3", "ack DELIVERING 2001:db8:1000::/64",
                                  "serve 02:00:00:00:00:11 eth3 2001:db8:1000::/64"));
}

TEST_F(ControllerTest, ARefusedMnIsLeftAlone) {
  start("ar2");
  snapshot({});
  access_.on_arrival(arrival(v1::TRIGGER_DATA_FRAME));
  lm_.attach_done[0](absl::NotFoundError("unknown MN"));
  EXPECT_THAT(take(), ElementsAre("refuse 02:00:00:00:00:11"));
  io_.run();
  EXPECT_EQ(lm_.attaches.size(), 1U);
}

TEST_F(ControllerTest, ADepartureIsFencedByTheAttachmentThatHasEnded) {
  start("ar2");
  snapshot({attached("ar2", 20, 1)});
  access_.on_departure({mn(), "eth2", v1::DETACH_REASON_LINK_DOWN, std::chrono::steady_clock::now()});
  ASSERT_EQ(lm_.detaches.size(), 1U);
  EXPECT_EQ(lm_.detaches[0].generation().revision(), 20U);
  EXPECT_EQ(lm_.detaches[0].reason(), v1::DETACH_REASON_LINK_DOWN);
  // The LM is away: sent again with the next snapshot.
  lm_.detach_done[0](absl::UnavailableError("LM away"));
  auto gone = attached("ar2", 20, 1);
  gone.set_attached_ar("");
  gone.set_state(v1::BINDING_STATE_DETACHED_GRACE);
  snapshot({gone});
  EXPECT_EQ(lm_.detaches.size(), 2U);
}

TEST_F(ControllerTest, ADepartureOfAnMnThatIsElsewhereIsNotReported) {
  start("ar1");
  snapshot({attached("ar2", 20, 1)});
  access_.on_departure({mn(), "eth2", v1::DETACH_REASON_LINK_DOWN, std::chrono::steady_clock::now()});
  EXPECT_THAT(lm_.detaches, IsEmpty());
}

// A deliver route whose link cannot send yet stands in the kernel nevertheless.
TEST_F(ControllerTest, WhatTheKernelPostponedIsTakenBackWhenTheMnHasGoneOn) {
  start("ar1");
  auto away = attached("ar2", 20, 1);
  delivers(away, "ar2", 21);
  snapshot({away});
  auto home = attached("ar1", 30, 2);
  holder(home, "ar1")->set_redirects_to("ar2");
  holder(home, "ar2")->set_delivers(true);
  forwarding_.failure = absl::UnavailableError("its link is coming up");
  record(home);
  forwarding_.failure = absl::OkStatus();
  take();
  auto away_again = attached("ar2", 40, 1);
  holder(away_again, "ar1")->set_redirects_to("ar2");
  record(away_again);
  EXPECT_THAT(take(), Contains("kernel 2001:db8:1000::/64 redirect 2001:db8:a2::d"));
}

TEST_F(ControllerTest, WhatTheKernelPostponedIsKnownForWhatItIsWhenItComes) {
  start("ar2");
  snapshot({});
  forwarding_.failure = absl::UnavailableError("its link is coming up");
  record(attached("ar2", 20, 1));
  auto binding = attached("ar3", 30, 2);
  holder(binding, "ar2");  // keeps what it has: no acknowledgement of it has arrived
  record(binding);
  forwarding_.failure = absl::OkStatus();
  forwarding_.on_programmed(prefix());
  holder(binding, "ar2")->set_releasing(true);
  revise(binding, 31);
  take();
  record(binding);
  EXPECT_THAT(take(), Contains("kernel 2001:db8:1000::/64 none"));
}

TEST_F(ControllerTest, ADepartureThatTheLmMissedIsReportedWithTheNextSnapshot) {
  start("ar2");
  const auto binding = attached("ar2", 20, 1);
  snapshot({binding});
  take();
  access_.on_departure({mn(), "eth2", v1::DETACH_REASON_LINK_DOWN, std::chrono::steady_clock::now()});
  lm_.detach_done[0](absl::UnavailableError("LM away"));
  snapshot({binding});
  ASSERT_EQ(lm_.detaches.size(), 2U);
  EXPECT_EQ(lm_.detaches[1].generation().revision(), 20U);
  EXPECT_THAT(take(), Not(Contains(::testing::StartsWith("serve"))));
}

TEST_F(ControllerTest, AnMnThatHasLeftIsNotServedByARecordOfTheSameAttachment) {
  start("ar2");
  auto binding = attached("ar2", 20, 1);
  snapshot({binding});
  take();
  access_.on_departure({mn(), "eth2", v1::DETACH_REASON_LINK_DOWN, std::chrono::steady_clock::now()});
  delivers(binding, "ar2", 21);
  record(binding);
  EXPECT_THAT(take(), Not(Contains(::testing::StartsWith("serve"))));
  // The LM knows of a younger attachment here: that one stands.
  lm_.detach_done[0](absl::OkStatus());
  record(attached("ar2", 30, 1));
  EXPECT_THAT(take(), Contains(::testing::StartsWith("serve")));
}

TEST_F(ControllerTest, AnMnThatHasLeftIsNotServedByAnotherModeOfTheSameAttachment) {
  start("ar2");
  auto binding = attached("ar2", 20, 1);
  *binding.mutable_attachment_generation() = binding.generation();
  snapshot({binding});
  take();
  access_.on_departure({mn(), "eth2", v1::DETACH_REASON_LINK_DOWN, std::chrono::steady_clock::now()});
  lm_.detach_done[0](absl::UnavailableError("LM away"));
  auto changed = attached("ar2", 30, 0);
  *changed.mutable_attachment_generation() = binding.generation();
  changed.set_mode(v1::MODE_REDIRECT);
  record(changed);
  EXPECT_THAT(take(), Not(Contains(::testing::StartsWith("serve"))));
  snapshot({changed});
  EXPECT_EQ(lm_.detaches.size(), 2U) << "its departure is still to be reported";
}

TEST_F(ControllerTest, AnMnThatCameBackBeforeItsDepartureWasReportedStays) {
  start("ar2");
  const auto binding = attached("ar2", 20, 1);
  snapshot({binding});
  access_.on_departure({mn(), "eth2", v1::DETACH_REASON_LINK_DOWN, std::chrono::steady_clock::now()});
  lm_.detach_done[0](absl::UnavailableError("LM away"));
  access_.on_arrival(arrival());
  ASSERT_EQ(lm_.attaches.size(), 1U);
  take();
  snapshot({binding});
  EXPECT_EQ(lm_.detaches.size(), 1U);
  EXPECT_THAT(take(), Contains(::testing::StartsWith("serve")));
}

// The Attach has overtaken the Detach, which is stale then: no record tells of it.
TEST_F(ControllerTest, AnAttachThatChangesNothingMakesTheMnServedAgain) {
  start("ar2");
  snapshot({attached("ar2", 20, 1)});
  access_.on_departure({mn(), "eth2", v1::DETACH_REASON_LINK_DOWN, std::chrono::steady_clock::now()});
  access_.on_arrival(arrival());
  take();
  lm_.attach_done[0](absl::OkStatus());
  lm_.detach_done[0](absl::OkStatus());
  EXPECT_THAT(take(), ElementsAre("serve 02:00:00:00:00:11 eth2 2001:db8:1000::/64 deprecated"));
}

TEST_F(ControllerTest, ADepartureIsReportedAgainAfterAnErrorThatMayPass) {
  start("ar2");
  const auto binding = attached("ar2", 20, 1);
  snapshot({binding});
  access_.on_departure({mn(), "eth2", v1::DETACH_REASON_LINK_DOWN, std::chrono::steady_clock::now()});
  lm_.detach_done[0](absl::CancelledError("the LM is stopping"));
  snapshot({binding});
  ASSERT_EQ(lm_.detaches.size(), 2U);
  snapshot({binding});
  EXPECT_EQ(lm_.detaches.size(), 2U) << "it is under way";
}

TEST_F(ControllerTest, ADepartureThatTheLmCannotWriteIsReportedAgainThoughTheSessionStays) {
  start("ar2");
  snapshot({attached("ar2", 20, 1)});
  access_.on_departure({mn(), "eth2", v1::DETACH_REASON_LINK_DOWN, std::chrono::steady_clock::now()});
  lm_.detach_done[0](absl::UnavailableError("the disk is full"));
  io_.run_one();  // the retry's timer
  ASSERT_EQ(lm_.detaches.size(), 2U);
  EXPECT_GT(lm_.detaches[1].sequence(), lm_.detaches[0].sequence());
  EXPECT_EQ(lm_.detaches[1].generation().revision(), 20U);
  lm_.detach_done[1](absl::UnavailableError("the disk is full"));
  access_.on_arrival(arrival());
  io_.run();
  EXPECT_EQ(lm_.detaches.size(), 2U) << "it is here again";
}

TEST_F(ControllerTest, WhatIsLearntOfAnMnWhileItsAttachIsUnderWayFollows) {
  start("ar2");
  snapshot({});
  auto guess = arrival(v1::TRIGGER_DATA_FRAME);
  guess.link_local_seen = false;
  access_.on_arrival(guess);
  auto seen = arrival(v1::TRIGGER_NEIGHBOUR_DISCOVERY);
  seen.link_local = *Ipv6Address::parse("fe80::1234");
  seen.interface = "eth3";
  access_.on_arrival(seen);
  ASSERT_EQ(lm_.attaches.size(), 1U);
  lm_.attach_done[0](absl::OkStatus());
  ASSERT_EQ(lm_.attaches.size(), 2U);
  EXPECT_EQ(lm_.attaches[1].attachment().interface(), "eth3");
  EXPECT_EQ(lm_.attaches[1].attachment().link_local(), "fe80::1234");
  lm_.attach_done[1](absl::OkStatus());
  EXPECT_EQ(lm_.attaches.size(), 2U);
}

TEST_F(ControllerTest, ANewSnapshotAsksBgpdAgainWhenTheLevelHasRisen) {
  start("ar2");
  auto moved = attached("ar3", 30, 2);
  holder(moved, "ar2")->set_advertises_preference(1);
  delivers(moved, "ar3", 31);
  snapshot({moved});
  observer_.on_superseded(prefix());
  moved.set_preference(4);
  revise(moved, 32);
  take();
  snapshot({moved});
  const auto journal = take();
  EXPECT_THAT(journal, Contains("watch 2001:db8:1000::/64 2001:db8:a3::1 104"));
  EXPECT_THAT(journal, Not(Contains("ack SUPERSEDED 2001:db8:1000::/64 at 4")));
  EXPECT_THAT(injector_->all, IsEmpty()) << "what has been withdrawn is not announced again";
}

TEST_F(ControllerTest, LevelsThatTheLmHasComeToKnowAreUsed) {
  start("ar2");
  snapshot({});
  levels_ = 12;
  snapshot({attached("ar2", 20, 12)});
  EXPECT_EQ(injector_->highest_level, 12U);
}

TEST_F(ControllerTest, RecordsAfterAnInvalidWelcomeAreLeftAlone) {
  start("ar2");
  LmClient::Snapshot snapshot;
  snapshot.welcome.mutable_self()->set_locator("no address");
  snapshot.bindings.push_back(attached("ar2", 20, 1));
  lm_.on_snapshot(snapshot);
  record(attached("ar2", 20, 1));
  v1::Record forget;
  forget.mutable_forget()->set_prefix(kPrefix);
  deliver(forget);
  EXPECT_THAT(take(), IsEmpty());
  EXPECT_THAT(lm_.last_health.kernel(), ::testing::HasSubstr("correct access_routers"));
  this->snapshot({});
  EXPECT_EQ(lm_.last_health.kernel(), "synced");
}

TEST_F(ControllerTest, WhatIsWrongWithBgpdIsShownBesideTheInjectorsState) {
  start("ar1");
  snapshot({});
  injector_->on_state(RouteInjector::State::kSynced, "synced");
  observer_.on_health(absl::UnavailableError("bgpd cannot be asked"));
  EXPECT_EQ(lm_.last_health.frr(), "synced; bgpd cannot be asked");
  observer_.on_health(absl::OkStatus());
  EXPECT_EQ(lm_.last_health.frr(), "synced");
}

TEST_F(ControllerTest, KeepsWhatTheKernelHasThoughTheLmRemembersSomethingOlder) {
  start("ar1");
  snapshot({});
  record(attached("ar1", 10, 0));
  take();
  auto moved = attached("ar2", 20, 1);
  holder(moved, "ar1")->set_redirects_to("ar3");
  record(moved);
  EXPECT_THAT(take(), Not(Contains(::testing::StartsWith("kernel"))));
}

TEST_F(ControllerTest, KeepsDeliveringThoughTheLmRemembersThatItWasUnreachableHere) {
  start("ar2");
  auto route = Route{};
  route.kind = Route::Kind::kDeliver;
  route.interface = "eth2";
  forwarding_.left[prefix()] = route;
  auto binding = attached("ar3", 20, 1);
  holder(binding, "ar2")->set_unreachable(true);
  snapshot({binding});
  EXPECT_THAT(take(), Not(Contains("kernel 2001:db8:1000::/64 unreachable")));
  EXPECT_THAT(forwarding_.all["2001:db8:1000::/64"], ::testing::StartsWith("deliver"));
}

TEST_F(ControllerTest, ARouteThatTheKernelGoesOnTryingIsReplacedByTheOneWantedNow) {
  start("ar1");
  snapshot({attached("ar1", 10, 0)});
  auto moved = attached("ar2", 20, 1);
  delivers(moved, "ar2", 21);
  forwarding_.failure = absl::UnavailableError("busy");
  record(moved);
  forwarding_.failure = absl::OkStatus();
  take();
  record(attached("ar1", 30, 2));
  const auto journal = take();
  EXPECT_THAT(journal, Contains("kernel 2001:db8:1000::/64 deliver eth2"));
  EXPECT_THAT(journal, Contains("ack DELIVERING 2001:db8:1000::/64"));
}

TEST_F(ControllerTest, IsNotClearedUntilTheKernelHasConfirmedTheRemoval) {
  start("ar2");
  auto binding = attached("ar1", 20, 0);
  delivers(binding, "ar1", 21);
  holder(binding, "ar2")->set_releasing(true);
  forwarding_.failure = absl::UnavailableError("busy");
  snapshot({binding});
  withdraw(prefix());
  EXPECT_THAT(take(), Not(Contains(::testing::StartsWith("ack CLEARED"))));
  forwarding_.failure = absl::OkStatus();
  forwarding_.on_programmed(prefix());
  EXPECT_THAT(take(), Contains("ack CLEARED 2001:db8:1000::/64"));
}

// Replay

TEST_F(ControllerTest, AnMnThatDoesNotAnswerAnyMoreIsNotReplayed) {
  start("ar2");
  snapshot({});
  auto early = arrival();
  early.heard_at_steady -= std::chrono::seconds(30);
  access_.on_arrival(early);
  lm_.attach_done[0](absl::UnavailableError("LM away"));
  snapshot({});
  access_.answer(false);
  snapshot({});
  EXPECT_EQ(lm_.attaches.size(), 1U);
  access_.on_arrival(arrival());
  EXPECT_EQ(lm_.attaches.size(), 2U) << "until it is heard again";
}

TEST_F(ControllerTest, AnMnThatWasHeardJustNowIsReplayedUnasked) {
  start("ar2");
  snapshot({});
  access_.on_arrival(arrival());
  lm_.attach_done[0](absl::DeadlineExceededError("too late"));
  snapshot({});
  ASSERT_EQ(lm_.attaches.size(), 2U);
  EXPECT_EQ(lm_.attaches[1].age().seconds(), 0);
}

TEST_F(ControllerTest, WhatAnMnSaysWhileItIsAskedCountsMoreThanItsAnswer) {
  start("ar2");
  snapshot({});
  auto early = arrival();
  early.heard_at_steady -= std::chrono::seconds(30);
  access_.on_arrival(early);
  lm_.attach_done[0](absl::UnavailableError("LM away"));
  snapshot({});
  access_.on_arrival(arrival(v1::TRIGGER_NEIGHBOUR_DISCOVERY));
  EXPECT_EQ(lm_.attaches.size(), 1U) << "the answer";
  access_.on_arrival(arrival(v1::TRIGGER_ROUTER_SOLICITATION));
  ASSERT_EQ(lm_.attaches.size(), 2U);
  EXPECT_EQ(lm_.attaches[1].age().seconds(), 0);
  access_.answer(true);
  EXPECT_EQ(lm_.attaches.size(), 2U);
}

// Recovery

v1::Binding of_epoch(v1::Binding binding, std::uint64_t epoch) {
  binding.mutable_generation()->set_epoch(epoch);
  binding.mutable_revision()->set_epoch(epoch);
  for (auto& h : *binding.mutable_holders()) {
    if (h.has_generation()) h.mutable_generation()->set_epoch(epoch);
  }
  return binding;
}

// As a restored LM begins with.
v1::Binding doubted(v1::Binding binding) {
  binding.clear_attached_ar();
  binding.set_state(v1::BINDING_STATE_DETACHED_GRACE);
  return of_epoch(binding, 2);
}

class RecoveryTest : public ControllerTest {
 protected:
  // ar2 has the MN and announces its prefix.
  void serve() {
    start("ar2");
    snapshot({attached("ar2", 20, 1)});
    injector_->on_committed(prefix(), 1);
    access_.heard = std::chrono::steady_clock::now() - std::chrono::seconds(30);
    take();
  }
  void expect_untouched() {
    EXPECT_THAT(forwarding_.all, ElementsAre(std::pair<const std::string, std::string>(kPrefix, "deliver eth2")));
    EXPECT_THAT(injector_->all, ElementsAre(std::pair<const std::string, std::uint32_t>(kPrefix, 1)));
  }
};

TEST_F(RecoveryTest, WhatTheRestoredLmDoesNotKnowStaysAndIsToldToIt) {
  serve();
  snapshot({}, 2);
  expect_untouched();
  const auto kept = take();
  EXPECT_THAT(kept, Contains("ask 02:00:00:00:00:11 eth2"));
  EXPECT_THAT(kept, Not(Contains(::testing::StartsWith("ack")))) << "in no generation of this epoch";
  EXPECT_THAT(kept, Not(Contains(::testing::StartsWith("release"))));
  access_.answer(true);
  ASSERT_EQ(lm_.attaches.size(), 1U);
  EXPECT_EQ(lm_.attaches[0].trigger(), v1::TRIGGER_RECOVERY);
  EXPECT_THAT(lm_.attaches[0].held_prefixes(), ElementsAre(kPrefix));
  lm_.attach_done[0](absl::OkStatus());
  record(of_epoch(attached("ar2", 5, 1), 2));
  injector_->on_committed(prefix(), 1);
  const auto journal = take();
  EXPECT_THAT(journal, Contains("ack DELIVERING 2001:db8:1000::/64"));
  EXPECT_THAT(journal, Contains("ack ADVERTISED 2001:db8:1000::/64 at 1"));
  EXPECT_THAT(journal, Not(Contains(::testing::StartsWith("kernel"))))
      << "the record has a lower revision than the old";
  io_.run();
  EXPECT_THAT(take(), IsEmpty()) << "what was taken up stays";
}

TEST_F(RecoveryTest, WhatTheRestoredLmKnowsOfAnEarlierTimeWaits) {
  serve();
  auto old = doubted(attached("ar3", 10, 2));
  holder(old, "ar2");
  snapshot({old}, 2);
  expect_untouched();
  injector_->on_committed(prefix(), 1);
  revise(old, 11);
  old.mutable_revision()->set_epoch(2);
  take();
  record(old);
  EXPECT_THAT(take(), Not(Contains(::testing::StartsWith("release"))));
  // Only that the MN is elsewhere by now is newer.
  auto moved = of_epoch(attached("ar3", 30, 2), 2);
  holder(moved, "ar2");
  holder(moved, "ar3")->set_delivers(true);
  *holder(moved, "ar3")->mutable_generation() = moved.generation();
  record(moved);
  const auto journal = take();
  EXPECT_THAT(journal, Contains("kernel 2001:db8:1000::/64 redirect 2001:db8:a3::d"));
  EXPECT_THAT(journal, Contains("ack ADVERTISED 2001:db8:1000::/64 at 1"))
      << "ar3 has to announce above what the LM does not know of";
  EXPECT_THAT(journal, Contains("release 02:00:00:00:00:11"));
}

TEST_F(RecoveryTest, WhatTheLmRefusesIsLetGo) {
  serve();
  snapshot({}, 2);
  access_.answer(true);
  take();
  lm_.attach_done[0](absl::PermissionDeniedError("no"));
  EXPECT_THAT(take(), ElementsAre("frr 2001:db8:1000::/64 0", "kernel 2001:db8:1000::/64 none",
                                  "release 02:00:00:00:00:11", "refuse 02:00:00:00:00:11"));
}

TEST_F(RecoveryTest, WhatTheLmHasNotTakenUpIsLetGo) {
  serve();
  snapshot({}, 2);
  access_.answer(true);
  lm_.attach_done[0](absl::OkStatus());
  take();
  io_.run();
  EXPECT_THAT(take(), Contains("kernel 2001:db8:1000::/64 none"));
}

TEST_F(RecoveryTest, AnMnThatHasLeftIsToldWithWhatItHadAndThenThatItHasLeft) {
  serve();
  snapshot({}, 2);
  access_.on_departure({mn(), "eth2", v1::DETACH_REASON_UNREACHABLE, std::chrono::steady_clock::now()});
  access_.answer(false);
  ASSERT_EQ(lm_.attaches.size(), 1U);
  EXPECT_THAT(lm_.attaches[0].held_prefixes(), ElementsAre(kPrefix));
  EXPECT_THAT(lm_.detaches, IsEmpty());
  take();
  record(of_epoch(attached("ar2", 5, 1), 2));
  EXPECT_THAT(take(), Not(Contains(::testing::StartsWith("serve"))));
  lm_.attach_done[0](absl::OkStatus());
  ASSERT_EQ(lm_.detaches.size(), 1U);
  EXPECT_EQ(lm_.detaches[0].generation().revision(), 0U);
}

TEST_F(RecoveryTest, AnMnThatLeftWhileTheLmWasAwayIsToldToo) {
  serve();
  access_.on_departure(
      {mn(), "eth2", v1::DETACH_REASON_LINK_DOWN, std::chrono::steady_clock::now() - std::chrono::seconds(20)});
  lm_.detach_done[0](absl::UnavailableError("LM away"));
  snapshot({}, 2);
  expect_untouched();
  ASSERT_EQ(lm_.attaches.size(), 1U) << "there is nobody to ask";
  EXPECT_GE(lm_.attaches[0].age().seconds(), 20);
  lm_.attach_done[0](absl::OkStatus());
  EXPECT_EQ(lm_.detaches.size(), 2U);
}

TEST_F(RecoveryTest, ASessionThatBreaksMeanwhileChangesNothing) {
  serve();
  snapshot({}, 2);
  access_.answer(true);
  lm_.attach_done[0](absl::UnavailableError("lost"));
  snapshot({}, 2);
  expect_untouched();
  access_.answer(true);
  ASSERT_EQ(lm_.attaches.size(), 2U);
  EXPECT_THAT(lm_.attaches[1].held_prefixes(), ElementsAre(kPrefix));
}

TEST_F(RecoveryTest, ARedirectThatTheRestoredLmDoesNotKnowIsKeptForAWhile) {
  start("ar1");
  auto away = attached("ar2", 20, 1);
  delivers(away, "ar2", 21);
  snapshot({away});
  take();
  snapshot({}, 2);
  EXPECT_THAT(forwarding_.all,
              ElementsAre(std::pair<const std::string, std::string>(kPrefix, "redirect 2001:db8:a2::d")));
  auto recovered = of_epoch(attached("ar2", 5, 1), 2);
  holder(recovered, "ar2")->set_delivers(true);
  *holder(recovered, "ar2")->mutable_generation() = recovered.generation();
  record(recovered);
  EXPECT_THAT(take(), Contains("ack REDIRECTING 2001:db8:1000::/64 to ar2"));
  io_.run();
  EXPECT_THAT(take(), IsEmpty());
}

TEST_F(RecoveryTest, ARedirectThatNobodyTellsOfEnds) {
  start("ar1");
  auto away = attached("ar2", 20, 1);
  delivers(away, "ar2", 21);
  snapshot({away});
  snapshot({}, 2);
  take();
  io_.run();
  EXPECT_THAT(take(), Contains("kernel 2001:db8:1000::/64 none"));
}

TEST_F(RecoveryTest, AnOldAnchorWithdrawsWhatTheRestoredLmDoesNotKnow) {
  serve();
  auto moved = attached("ar3", 30, 2);
  holder(moved, "ar2")->set_advertises_preference(1);
  delivers(moved, "ar3", 31);
  record(moved);
  snapshot({}, 2);
  EXPECT_THAT(injector_->all, IsEmpty());
  EXPECT_THAT(forwarding_.all,
              ElementsAre(std::pair<const std::string, std::string>(kPrefix, "redirect 2001:db8:a3::d")));
}

TEST_F(RecoveryTest, WhatAnEarlierRunMayHaveAnnouncedIsNotCalledClearedBeforeFrrAndBgpdSaySo) {
  start("ar2");
  auto binding = attached("ar1", 20, 0);
  delivers(binding, "ar1", 21);
  holder(binding, "ar2")->set_releasing(true);
  snapshot({binding});
  const auto journal = take();
  EXPECT_THAT(journal, Contains("frr 2001:db8:1000::/64 0"));
  EXPECT_THAT(journal, Not(Contains("ack CLEARED 2001:db8:1000::/64")));
  injector_->on_committed(prefix(), 0);
  EXPECT_THAT(take(), Not(Contains("ack CLEARED 2001:db8:1000::/64")));
  bgpd_follows(prefix());
  EXPECT_THAT(take(), Contains("ack CLEARED 2001:db8:1000::/64"));
}

TEST_F(RecoveryTest, ALmThatComesBackWithItsEpochIsTakenAtItsWord) {
  serve();
  snapshot({});
  EXPECT_THAT(forwarding_.all, IsEmpty());
  EXPECT_THAT(lm_.attaches, IsEmpty());
}

TEST_F(ControllerTest, AnInvalidRecordIsSkipped) {
  start("ar2");
  snapshot({});
  auto bad = attached("ar2", 20, 1);
  bad.set_prefix("not a prefix");
  record(bad);
  EXPECT_THAT(take(), IsEmpty());
}

}  // namespace
}  // namespace kedge::speaker
