#include <chrono>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "boost/asio/io_context.hpp"
#include "boost/asio/post.hpp"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "speaker/frr/anchoring_plane.h"
#include "tests/unit/speaker/frr/fake_northbound.h"

namespace kedge::speaker {
namespace {

using State = RouteInjector::State;
using Routes = FakeNorthbound::Routes;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Pair;
using namespace std::chrono_literals;

Ipv6Prefix prefix(int number) {
  return Ipv6Prefix::parse("2001:db8::/40")->nth(64, static_cast<std::uint64_t>(number));
}
std::string text(int number) { return prefix(number).to_string(); }

class NorthboundInjectorTest : public testing::Test {
 protected:
  void make(const std::string& northbound) {
    RouteInjectorConfig config;
    config.northbound = northbound;
    config.levels = 8;
    config.audit_interval = audit_interval_;
    config.repair_interval = 20ms;
    injector_ = make_northbound_injector(context_.get_executor(), config);
    injector_->on_state = [this](State state, const std::string& why) {
      states_.push_back(state);
      state_text_ = why;
    };
    injector_->on_committed = [this](const Ipv6Prefix& p, std::uint32_t level) { committed_.emplace_back(p, level); };
  }
  void make() { make("127.0.0.1:" + std::to_string(frr_.port())); }
  void make_synced(const std::map<Ipv6Prefix, std::uint32_t>& levels = {}) {
    frr_.start();
    make();
    injector_->replace_all(levels);
    ASSERT_TRUE(wait_for([this] { return injector_->state() == State::kSynced; })) << state_text_;
  }

  template <typename Condition>
  bool wait_for(Condition condition) {
    const auto end = std::chrono::steady_clock::now() + 20s;
    while (!condition() && std::chrono::steady_clock::now() < end) {
      context_.restart();
      context_.run_one_for(10ms);
    }
    return condition();
  }
  bool wait_for_committed(int number, std::uint32_t level) {
    return wait_for([&] {
      return std::find(committed_.begin(), committed_.end(), std::pair(prefix(number), level)) != committed_.end();
    });
  }

  FakeNorthbound frr_;
  boost::asio::io_context context_;
  std::chrono::milliseconds audit_interval_{1h};
  std::vector<State> states_;
  std::string state_text_;
  std::vector<std::pair<Ipv6Prefix, std::uint32_t>> committed_;
  std::unique_ptr<RouteInjector> injector_;
};

TEST_F(NorthboundInjectorTest, SetsRetagsAndWithdraws) {
  make_synced();
  injector_->set(prefix(1), 1);
  ASSERT_TRUE(wait_for_committed(1, 1));
  EXPECT_THAT(frr_.running(), ElementsAre(Pair(text(1), 1)));
  injector_->set(prefix(1), 2);
  ASSERT_TRUE(wait_for_committed(1, 2));
  EXPECT_THAT(frr_.running(), ElementsAre(Pair(text(1), 2)));
  injector_->set(prefix(1), 0);
  ASSERT_TRUE(wait_for_committed(1, 0));
  EXPECT_THAT(frr_.running(), IsEmpty());
  EXPECT_TRUE(wait_for([this] { return frr_.candidates() == 0; }));
  EXPECT_EQ(injector_->frr_version(), "8.4.4");
}

TEST_F(NorthboundInjectorTest, WritesNothingBeforeItKnowsAllThatIsDesired) {
  frr_.running_ = {{text(7), 3}};
  frr_.start();
  make();
  injector_->set(prefix(1), 1);
  ASSERT_TRUE(wait_for([this] { return state_text_.find("waiting") != std::string::npos; }));
  EXPECT_THAT(frr_.commits(), IsEmpty());
  injector_->replace_all({{prefix(2), 2}});
  ASSERT_TRUE(wait_for_committed(2, 2));
  EXPECT_THAT(frr_.running(), ElementsAre(Pair(text(2), 2)));
}

TEST_F(NorthboundInjectorTest, PutsAllThatWaitedIntoTheNextCommit) {
  make_synced();
  frr_.hold(true);
  injector_->set(prefix(1000), 1);
  ASSERT_TRUE(wait_for([this] { return frr_.commit_under_way(); }));
  for (int i = 0; i < 100; ++i) injector_->set(prefix(i), 1);
  frr_.hold(false);
  ASSERT_TRUE(wait_for_committed(99, 1));
  const auto commits = frr_.commits();
  ASSERT_EQ(commits.size(), 2u);
  EXPECT_EQ(commits[0].size(), 1u);
  EXPECT_EQ(commits[1].size(), 100u);
  EXPECT_EQ(committed_.size(), 101u);
}

TEST_F(NorthboundInjectorTest, CancelsWhatWasWithdrawnBeforeItWasWritten) {
  make_synced();
  frr_.hold(true);
  injector_->set(prefix(1), 1);
  ASSERT_TRUE(wait_for([this] { return frr_.commit_under_way(); }));
  injector_->set(prefix(2), 1);
  injector_->set(prefix(2), 0);
  frr_.hold(false);
  ASSERT_TRUE(wait_for_committed(2, 0));
  EXPECT_EQ(frr_.commits().size(), 1u);
}

TEST_F(NorthboundInjectorTest, TakesWhatIsAskedForWhileFrrCopiesItsConfiguration) {
  make_synced({{prefix(1), 1}, {prefix(2), 1}});
  frr_.on_create = [this] { boost::asio::post(context_, [this] { injector_->set(prefix(2), 0); }); };
  frr_.on_edit = [this] { boost::asio::post(context_, [this] { injector_->set(prefix(3), 3); }); };
  injector_->set(prefix(1), 0);
  ASSERT_TRUE(wait_for_committed(3, 3));
  frr_.with_lock([this] { frr_.on_create = frr_.on_edit = nullptr; });
  EXPECT_THAT(frr_.commits().back(), ElementsAre(Pair(text(1), 0), Pair(text(2), 0), Pair(text(3), 3)));
}

TEST_F(NorthboundInjectorTest, BringsBackWhatIsAskedForWhileItIsRemoved) {
  make_synced({{prefix(1), 1}});
  committed_.clear();
  bool asked = false;
  frr_.on_edit = [this, &asked] {
    if (!std::exchange(asked, true)) boost::asio::post(context_, [this] { injector_->set(prefix(1), 1); });
  };
  injector_->set(prefix(1), 0);
  ASSERT_TRUE(wait_for_committed(1, 1));
  EXPECT_THAT(committed_, ElementsAre(Pair(prefix(1), 0u), Pair(prefix(1), 1u)));
  EXPECT_THAT(frr_.running(), ElementsAre(Pair(text(1), 1)));
}

TEST_F(NorthboundInjectorTest, CommitsNothingWhenAllIsWithdrawnWhileFrrCopies) {
  make_synced();
  frr_.on_create = [this] { boost::asio::post(context_, [this] { injector_->set(prefix(1), 0); }); };
  injector_->set(prefix(1), 1);
  ASSERT_TRUE(wait_for_committed(1, 0));
  EXPECT_TRUE(wait_for([this] { return frr_.candidates() == 0; }));
  EXPECT_THAT(frr_.commits(), IsEmpty());
}

TEST_F(NorthboundInjectorTest, AnswersAgainForWhatIsSetAgain) {
  make_synced({{prefix(1), 1}});
  committed_.clear();
  injector_->set(prefix(1), 1);
  ASSERT_TRUE(wait_for_committed(1, 1));
  EXPECT_EQ(frr_.commits().size(), 1u);
}

TEST_F(NorthboundInjectorTest, TakesNoChangesForSuccess) {
  make_synced();
  // Somebody else writes the same between our reading and our commit.
  frr_.with_lock([this] { frr_.running_[text(1)] = 4; });
  injector_->set(prefix(1), 4);
  ASSERT_TRUE(wait_for_committed(1, 4));
  EXPECT_THAT(frr_.commits(), IsEmpty());
}

TEST_F(NorthboundInjectorTest, ReadsAgainWhenWhatItRemovesIsGone) {
  make_synced({{prefix(1), 1}, {prefix(2), 1}});
  frr_.with_lock([this] { frr_.running_.erase(text(1)); });
  injector_->set(prefix(1), 0);
  injector_->set(prefix(2), 0);
  ASSERT_TRUE(wait_for_committed(1, 0));
  ASSERT_TRUE(wait_for_committed(2, 0));
  EXPECT_THAT(frr_.running(), IsEmpty());
}

TEST_F(NorthboundInjectorTest, OneRouteThatFrrRefusesDoesNotKeepTheOthersBack) {
  make_synced();
  frr_.on_commit = [](const Routes& changes) {
    return changes.contains(text(13)) ? grpc::Status(grpc::StatusCode::INVALID_ARGUMENT, "") : grpc::Status::OK;
  };
  for (int i = 0; i < 40; ++i) injector_->set(prefix(i), 1);
  for (int i = 0; i < 40; ++i) {
    if (i == 13) continue;
    ASSERT_TRUE(wait_for_committed(i, 1)) << i;
  }
  ASSERT_TRUE(wait_for([this] { return state_text_.find(text(13)) != std::string::npos; }));
  EXPECT_THAT(state_text_, HasSubstr("refuses"));

  frr_.with_lock([this] { frr_.on_commit = nullptr; });
  EXPECT_TRUE(wait_for_committed(13, 1));
  EXPECT_TRUE(wait_for([this] { return state_text_ == "synced"; }));
}

TEST_F(NorthboundInjectorTest, OneRouteThatCannotBeLoadedKeepsNeitherTheOthersNorRemovalsBack) {
  make_synced();
  for (int i = 0; i < 10; ++i) injector_->set(prefix(i), 1);
  for (int i = 0; i < 10; ++i) ASSERT_TRUE(wait_for_committed(i, 1)) << i;
  frr_.with_lock([this] {
    frr_.on_load = [](const Routes& loaded) {
      return loaded.contains(text(13)) ? grpc::Status(grpc::StatusCode::INTERNAL, "not valid") : grpc::Status::OK;
    };
  });
  for (int i = 0; i < 10; ++i) injector_->set(prefix(i), 0);
  for (int i = 10; i < 30; ++i) injector_->set(prefix(i), 1);
  for (int i = 0; i < 30; ++i) {
    if (i == 13) continue;
    ASSERT_TRUE(wait_for_committed(i, i < 10 ? 0 : 1)) << i;
  }
  ASSERT_TRUE(wait_for([this] { return state_text_.find(text(13)) != std::string::npos; }));
  EXPECT_TRUE(wait_for([this] { return frr_.candidates() == 0; }));

  frr_.with_lock([this] { frr_.on_load = nullptr; });
  EXPECT_TRUE(wait_for_committed(13, 1));
}

TEST_F(NorthboundInjectorTest, TriesAgainWhenFrrMakesNoCandidate) {
  make_synced();
  int failures = 3;
  frr_.with_lock([&] {
    frr_.on_candidate = [&failures] {
      return failures-- > 0 ? grpc::Status(grpc::StatusCode::INTERNAL, "no memory") : grpc::Status::OK;
    };
  });
  injector_->set(prefix(1), 1);
  ASSERT_TRUE(wait_for_committed(1, 1));
  EXPECT_TRUE(wait_for([this] { return state_text_ == "synced"; }));
}

TEST_F(NorthboundInjectorTest, WaitsForALockToBeReleased) {
  make_synced();
  int refusals = 10;
  frr_.on_commit = [&refusals](const Routes&) {
    return refusals-- > 0
               ? grpc::Status(grpc::StatusCode::UNAVAILABLE, "there's already another transaction in progress")
               : grpc::Status::OK;
  };
  injector_->set(prefix(1), 1);
  ASSERT_TRUE(wait_for([this] { return state_text_.find("another client") != std::string::npos; }));
  ASSERT_TRUE(wait_for_committed(1, 1));
  EXPECT_TRUE(wait_for([this] { return state_text_ == "synced"; }));
}

TEST_F(NorthboundInjectorTest, ResyncsWhenFrrIsBackAndRemovesLeftovers) {
  make_synced({{prefix(1), 1}, {prefix(2), 2}});
  const int port = frr_.port();
  frr_.stop();
  ASSERT_TRUE(wait_for([this] {
    return injector_->state() == State::kAwaiting && state_text_.find("refuses connections") != std::string::npos;
  }));
  EXPECT_THAT(state_text_, HasSubstr("-M <path>/grpc.so:" + std::to_string(port)));
  injector_->set(prefix(3), 3);
  injector_->set(prefix(1), 0);
  committed_.clear();
  // What a saved configuration brought back, and a static of the operator's.
  frr_.running_ = {{text(1), 1}, {text(2), 2}, {text(9), 8}, {text(10), 9}};
  frr_.start(port);
  ASSERT_TRUE(wait_for([this] { return injector_->state() == State::kSynced; }));
  EXPECT_THAT(frr_.running(), ElementsAre(Pair(text(2), 2), Pair(text(3), 3), Pair(text(10), 9)));
  EXPECT_THAT(committed_, testing::UnorderedElementsAre(Pair(prefix(1), 0u), Pair(prefix(2), 2u), Pair(prefix(3), 3u),
                                                        Pair(prefix(9), 0u)));
}

TEST_F(NorthboundInjectorTest, RemovesLeftoversThatFrrReadsAfterItHasAnswered) {
  make_synced({{prefix(1), 1}});
  frr_.with_lock([this] { frr_.running_[text(9)] = 8; });
  // The regular audit is an hour away.
  EXPECT_TRUE(wait_for([this] { return frr_.running() == Routes{{text(1), 1}}; }));
}

TEST_F(NorthboundInjectorTest, ResyncsAfterACommitThatFrrDidNotSurvive) {
  make_synced();
  frr_.hold(true);
  injector_->set(prefix(1), 1);
  ASSERT_TRUE(wait_for([this] { return frr_.commit_under_way(); }));
  frr_.on_commit = [](const Routes&) { return grpc::Status(grpc::StatusCode::UNAVAILABLE, "Socket closed"); };
  frr_.stop();
  frr_.on_commit = nullptr;
  frr_.start(frr_.port());
  ASSERT_TRUE(wait_for_committed(1, 1));
  EXPECT_THAT(frr_.running(), ElementsAre(Pair(text(1), 1)));
}

TEST_F(NorthboundInjectorTest, NamesAStaticOfTheOperatorAndWaitsForItsEnd) {
  frr_.running_ = {{text(1), 0}};
  frr_.operators = {text(1)};
  frr_.start();
  make();
  injector_->replace_all({{prefix(1), 1}, {prefix(2), 1}});
  ASSERT_TRUE(wait_for_committed(2, 1));
  ASSERT_TRUE(wait_for([this] { return state_text_.find(text(1) + " (via eth0)") != std::string::npos; }))
      << state_text_;
  EXPECT_EQ(frr_.running()[text(1)], 0);
  frr_.with_lock([this] {
    frr_.running_.erase(text(1));
    frr_.operators.clear();
  });
  ASSERT_TRUE(wait_for_committed(1, 1));
  EXPECT_TRUE(wait_for([this] { return state_text_ == "synced"; }));
}

TEST_F(NorthboundInjectorTest, RepairsWhatSomebodyElseRemoved) {
  audit_interval_ = 20ms;
  make_synced({{prefix(1), 1}});
  frr_.with_lock([this] { frr_.running_.clear(); });
  EXPECT_TRUE(wait_for([this] { return frr_.running() == Routes{{text(1), 1}}; }));
}

TEST_F(NorthboundInjectorTest, RefusesOldVersionsAndOtherDaemons) {
  frr_.version = "8.1";
  frr_.start();
  make();
  injector_->replace_all({{prefix(1), 1}});
  ASSERT_TRUE(wait_for([this] { return state_text_.find("too old") != std::string::npos; }));
  EXPECT_EQ(injector_->state(), State::kAwaiting);
  frr_.with_lock([this] {
    frr_.version = "8.4.4";
    frr_.module = "frr-zebra";
  });
  ASSERT_TRUE(wait_for([this] { return state_text_.find("not staticd") != std::string::npos; }));
  frr_.with_lock([this] { frr_.module = "frr-staticd"; });
  EXPECT_TRUE(wait_for_committed(1, 1));
}

TEST_F(NorthboundInjectorTest, RefusesAnAddressThatIsNotLoopback) {
  make("[2001:db8::1]:50051");
  injector_->replace_all({{prefix(1), 1}});
  ASSERT_TRUE(wait_for([this] { return !state_text_.empty(); }));
  EXPECT_EQ(injector_->state(), State::kAwaiting);
  EXPECT_THAT(state_text_, HasSubstr("no loopback address"));
}

TEST_F(NorthboundInjectorTest, MayBeDestroyedDuringACommit) {
  make_synced();
  frr_.hold(true);
  injector_->set(prefix(1), 1);
  ASSERT_TRUE(wait_for([this] { return frr_.commit_under_way(); }));
  injector_.reset();
  frr_.hold(false);
  ASSERT_TRUE(wait_for([this] { return !frr_.running().empty(); }));
  context_.run_for(10ms);
  EXPECT_THAT(committed_, IsEmpty());
}

}  // namespace
}  // namespace kedge::speaker
