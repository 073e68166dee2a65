#include "speaker/controller/source_guard.h"

#include "boost/asio/io_context.hpp"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/unit/speaker/access/idle_access_plane.h"

namespace kedge::speaker {
namespace {

using namespace std::chrono_literals;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr char kPrefix[] = "2001:db8:1000:1::/64";
constexpr char kMn[] = "02:00:00:00:00:11";

Ipv6Prefix prefix() { return *Ipv6Prefix::parse(kPrefix); }
Ipv6Address address(const std::string& text) { return *Ipv6Address::parse(text); }
PermittedSource source() { return {"eth2", *LinkLayerAddress::parse(kMn), prefix()}; }

class FakeFilter : public AccessFilter {
 public:
  const std::set<PermittedSource>& held() const override { return left; }
  absl::Status replace_all(const std::set<PermittedSource>& sources, const TunnelEnds& ends) override {
    ++replacements;
    if (!replace_failure.ok()) return replace_failure;
    present = sources;
    tunnels = ends;
    counted = Counters{};
    return absl::OkStatus();
  }
  absl::Status change(const std::vector<PermittedSource>& added, const std::vector<PermittedSource>& removed) override {
    if (!counted.ok()) return counted.status();
    ++changes;
    for (const auto& s : added) present.insert(s);
    for (const auto& s : removed) present.erase(s);
    return absl::OkStatus();
  }
  absl::StatusOr<Counters> counters() override { return counted; }

  std::set<PermittedSource> left;
  std::set<PermittedSource> present;
  TunnelEnds tunnels;
  absl::StatusOr<Counters> counted = Counters{};
  absl::Status replace_failure;
  int replacements = 0;
  int changes = 0;
};

class SourceGuardTest : public ::testing::Test {
 protected:
  void start(std::chrono::milliseconds silence = 1h, std::set<Ipv6Address> tunnel_sources = {}) {
    guard_ = std::make_unique<SourceGuard>(io_.get_executor(),
                                           SourceGuard::Config{"ar1", silence, 1ms, std::move(tunnel_sources)}, filter_,
                                           access_, metrics_);
    guard_->on_health = [this](const absl::Status& status) { health_.push_back(status); };
  }

  void snapshot(const std::vector<v1::Binding>& bindings) {
    v1::Welcome welcome;
    for (int i = 1; i <= 3; ++i) {
      auto* node = welcome.add_nodes();
      const std::string n = std::to_string(i);
      node->set_name("ar" + n);
      node->set_locator("2001:db8:a" + n + "::1");
      node->set_deliver_sid("2001:db8:a" + n + "::d");
      node->set_uplink_sid("2001:db8:a" + n + "::e");
      if (i == 1) *welcome.mutable_self() = *node;
    }
    std::map<Ipv6Prefix, const v1::Binding*> records;
    for (const auto& binding : bindings) records[*Ipv6Prefix::parse(binding.prefix())] = &binding;
    guard_->take_snapshot(welcome, records);
  }

  void take(const v1::Binding& binding) { guard_->take({{*Ipv6Prefix::parse(binding.prefix()), &binding}}); }

  // Until it holds, or a generous bound is over.
  bool eventually(const std::function<bool()>& condition) {
    const auto end = std::chrono::steady_clock::now() + 20s;
    while (!condition()) {
      if (std::chrono::steady_clock::now() > end) return false;
      io_.run_one_for(1s);
    }
    return true;
  }

  // Without the link-local addresses.
  std::set<PermittedSource> let_in() const {
    auto sources = filter_.present;
    std::erase_if(sources, [](const auto& source) { return source.prefix.address().is_link_local(); });
    return sources;
  }

  boost::asio::io_context io_;
  Metrics metrics_;
  FakeFilter filter_;
  testing::IdleAccessPlane access_;
  std::vector<absl::Status> health_;
  std::unique_ptr<SourceGuard> guard_;
};

v1::Binding attached(const std::string& ar) {
  v1::Binding binding;
  binding.set_prefix(kPrefix);
  binding.set_mn_id(kMn);
  binding.set_home_ar("ar1");
  binding.set_attached_ar(ar);
  binding.set_state(v1::BINDING_STATE_MOVING);
  binding.mutable_attachment()->set_interface("eth2");
  binding.mutable_attachment()->set_link_layer_address(kMn);
  binding.mutable_attachment()->set_link_local("fe80::ff:fe00:11");
  binding.add_holders()->set_ar("ar1");
  return binding;
}

TEST_F(SourceGuardTest, ASnapshotSetsAllInOneStepAndRecordsChangeIt) {
  start();
  snapshot({});
  EXPECT_EQ(filter_.replacements, 1);
  take(attached("ar1"));
  // At once: the MN may hear of this AR any moment.
  EXPECT_THAT(let_in(), ElementsAre(source()));
  guard_->forget(prefix());
  EXPECT_TRUE(eventually([&] { return filter_.present.empty(); }));
  EXPECT_EQ(filter_.replacements, 1);
}

TEST_F(SourceGuardTest, OnlyTheOtherAccessRoutersMayTunnelToTheSegmentIdentifiers) {
  start();
  snapshot({});
  EXPECT_THAT(filter_.tunnels.segments, ElementsAre(address("2001:db8:a1::d"), address("2001:db8:a1::e")));
  EXPECT_THAT(filter_.tunnels.peers, ElementsAre(address("2001:db8:a2::1"), address("2001:db8:a3::1")));
}

TEST_F(SourceGuardTest, OthersMayTunnelThatTheOperatorNames) {
  start(1h, {address("2001:db8:c0::1")});
  snapshot({});
  EXPECT_THAT(filter_.tunnels.peers,
              ElementsAre(address("2001:db8:a2::1"), address("2001:db8:a3::1"), address("2001:db8:c0::1")));
}

TEST_F(SourceGuardTest, WhatAnEarlierRunHasLeftStaysUntilTheSnapshot) {
  filter_.left = filter_.present = {
      source(), {"eth2", *LinkLayerAddress::parse("02:00:00:00:00:22"), *Ipv6Prefix::parse("2001:db8:1000:2::/64")}};
  start(1ms);
  // It is looked after all the same.
  for (int i = 0; i < 20; ++i) io_.run_one_for(1s);
  access_.on_link_down("eth2");
  EXPECT_EQ(filter_.replacements, 0);
  EXPECT_EQ(filter_.changes, 0);
  EXPECT_EQ(filter_.present.size(), 2U);
  snapshot({attached("ar1")});
  // What this AR holds nothing for goes as it does when it has just let go.
  EXPECT_TRUE(eventually([&] { return let_in() == std::set<PermittedSource>{source()}; }));
}

TEST_F(SourceGuardTest, AnotherSessionChangesOnlyWhatDiffers) {
  start();
  snapshot({attached("ar1")});
  snapshot({attached("ar1")});
  EXPECT_EQ(filter_.replacements, 1);
  EXPECT_EQ(filter_.changes, 0);
  snapshot({});
  EXPECT_TRUE(eventually([&] { return filter_.present.empty(); }));
  EXPECT_EQ(filter_.replacements, 1);
}

TEST_F(SourceGuardTest, TheOldLinkOfANodeThatHasMovedClosesWhenItGoesDown) {
  start();
  snapshot({attached("ar1")});
  take(attached("ar2"));
  // Its link-local address does soon: where the MN is not, it is no permanent neighbour.
  EXPECT_THAT(let_in(), ElementsAre(source()));
  EXPECT_TRUE(eventually([&] { return filter_.present == std::set<PermittedSource>{source()}; }));
  access_.on_link_down("eth2");
  EXPECT_TRUE(eventually([&] { return filter_.present.empty(); }));
}

TEST_F(SourceGuardTest, TheOldLinkOfANodeThatIsSilentCloses) {
  start(1ms);
  snapshot({attached("ar1")});
  take(attached("ar2"));
  EXPECT_TRUE(eventually([&] { return filter_.present.empty(); }));
}

TEST_F(SourceGuardTest, WhatSomebodyElseHasRemovedIsMadeAnew) {
  start();
  snapshot({attached("ar1")});
  filter_.present.clear();
  filter_.counted = absl::NotFoundError("no such table");
  EXPECT_TRUE(eventually([&] { return filter_.present.contains(source()); }));
  EXPECT_EQ(filter_.replacements, 2);
  // Noticed by a change before the next look.
  filter_.present.clear();
  filter_.counted = absl::NotFoundError("no such table");
  auto other = attached("ar1");
  other.set_prefix("2001:db8:1000:2::/64");
  take(other);
  EXPECT_EQ(let_in().size(), 2U);
}

TEST_F(SourceGuardTest, AFilterThatCannotBeMadeIsToldAndTriedAgain) {
  start();
  filter_.replace_failure = absl::InternalError("nftables: out of memory");
  snapshot({attached("ar1")});
  ASSERT_EQ(health_.size(), 1U);
  EXPECT_FALSE(health_[0].ok());
  filter_.replace_failure = absl::OkStatus();
  EXPECT_TRUE(eventually([&] { return health_.size() == 2 && health_[1].ok(); }));
  EXPECT_THAT(let_in(), ElementsAre(source()));
}

TEST_F(SourceGuardTest, CountsWhatWasDroppedAlsoWhenTheFilterWasMadeAnew) {
  start();
  snapshot({});
  filter_.counted = AccessFilter::Counters{5, 2};
  EXPECT_TRUE(eventually(
      [&] { return metrics_.expose().find("kedge_speaker_foreign_source_packets_total 5") != std::string::npos; }));
  filter_.counted = AccessFilter::Counters{3, 2};
  EXPECT_TRUE(eventually(
      [&] { return metrics_.expose().find("kedge_speaker_foreign_source_packets_total 8") != std::string::npos; }));
  EXPECT_THAT(metrics_.expose(), HasSubstr("kedge_speaker_foreign_tunnel_packets_total 2"));
}

}  // namespace
}  // namespace kedge::speaker
