#include "speaker/authenticator/authenticating_access_plane.h"

#include "boost/asio/io_context.hpp"
#include "common/log.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/unit/speaker/access/idle_access_plane.h"

namespace kedge::speaker {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using Station = AuthenticatingAccessPlane::Station;

const LinkLayerAddress kMn = LinkLayerAddress::parse("02:00:5e:00:00:01").value();
const LinkLayerAddress kOther = LinkLayerAddress::parse("02:00:5e:00:00:02").value();

class InnerAccess : public testing::IdleAccessPlane {
 public:
  void release(const LinkLayerAddress& mn) override { released.push_back(mn.to_string()); }

  std::vector<std::string> released;
};

class AuthenticatingAccessPlaneTest : public ::testing::Test {
 protected:
  AuthenticatingAccessPlaneTest() {
    auto inner = std::make_unique<InnerAccess>();
    inner_ = inner.get();
    plane_ = std::make_unique<AuthenticatingAccessPlane>(
        io_.get_executor(), std::vector<std::string>{"access1", "access2"}, std::move(inner));
    plane_->on_arrival = [this](const Arrival& arrival) {
      arrivals_.push_back(arrival.interface + " " + arrival.link_layer_address.to_string());
    };
    plane_->on_departure = [this](const Departure& departure) { departures_.push_back(departure); };
  }

  void hear(const LinkLayerAddress& mn, const std::string& interface) {
    Arrival arrival;
    arrival.link_layer_address = mn;
    arrival.interface = interface;
    inner_->on_arrival(arrival);
  }

  boost::asio::io_context io_;
  InnerAccess* inner_ = nullptr;
  std::unique_ptr<AuthenticatingAccessPlane> plane_;
  std::vector<std::string> arrivals_;
  std::vector<Departure> departures_;
};

TEST_F(AuthenticatingAccessPlaneTest, AStationIsVouchedForOnItsInterfaceOnly) {
  ASSERT_TRUE(plane_->authorize({"access1", kMn}, "alice", {}).ok());
  EXPECT_TRUE(plane_->authenticated(kMn, "access1"));
  EXPECT_FALSE(plane_->authenticated(kMn, "access2"));
  EXPECT_FALSE(plane_->authenticated(kOther, "access1"));
  const auto status = plane_->authorize({"uplink", kMn}, "alice", {});
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(status.message()), HasSubstr("access1, access2"));
  EXPECT_EQ(plane_->revoke({"uplink", kMn}).code(), absl::StatusCode::kNotFound);
}

TEST_F(AuthenticatingAccessPlaneTest, WhoWasHeardBeforeArrivesOnceMoreWhenItIsVouchedFor) {
  hear(kMn, "access1");
  EXPECT_THAT(arrivals_, ElementsAre("access1 02:00:5e:00:00:01"));
  ASSERT_TRUE(plane_->authorize({"access2", kMn}, "", {}).ok());
  EXPECT_EQ(arrivals_.size(), 1U) << "it was heard elsewhere";
  ASSERT_TRUE(plane_->authorize({"access1", kMn}, "", {}).ok());
  EXPECT_THAT(arrivals_, ElementsAre("access1 02:00:5e:00:00:01", "access1 02:00:5e:00:00:01"));
  ASSERT_TRUE(plane_->authorize({"access1", kMn}, "", {}).ok());
  EXPECT_EQ(arrivals_.size(), 2U) << "it was told already";
}

TEST_F(AuthenticatingAccessPlaneTest, WhoIsServedDepartsWhenItIsNotVouchedForAnyMore) {
  ASSERT_TRUE(plane_->authorize({"access1", kMn}, "", {}).ok());
  plane_->serve(kMn, Ipv6Address(), "access1", {});
  ASSERT_TRUE(plane_->revoke({"access2", kMn}).ok());
  EXPECT_THAT(departures_, IsEmpty()) << "it is served elsewhere";
  ASSERT_TRUE(plane_->revoke({"access1", kMn}).ok());
  ASSERT_EQ(departures_.size(), 1U);
  EXPECT_EQ(departures_[0].reason, v1::DETACH_REASON_UNAUTHENTICATED);
  EXPECT_EQ(departures_[0].interface, "access1");
  EXPECT_THAT(inner_->released, ElementsAre(kMn.to_string()));
  EXPECT_FALSE(plane_->authenticated(kMn, "access1"));
  ASSERT_TRUE(plane_->revoke({"access1", kMn}).ok());
  EXPECT_EQ(departures_.size(), 1U);
}

TEST_F(AuthenticatingAccessPlaneTest, TrustEndsWithItsTimeAndTheLastWordCounts) {
  ASSERT_TRUE(plane_->authorize({"access1", kMn}, "", std::chrono::milliseconds(1)).ok());
  ASSERT_TRUE(plane_->authorize({"access1", kOther}, "", std::chrono::milliseconds(1)).ok());
  ASSERT_TRUE(plane_->authorize({"access1", kOther}, "bob", {}).ok());
  plane_->serve(kMn, Ipv6Address(), "access1", {});
  // Runs until there is no timer any more.
  io_.run();
  EXPECT_FALSE(plane_->authenticated(kMn, "access1"));
  EXPECT_EQ(departures_.size(), 1U);
  EXPECT_TRUE(plane_->authenticated(kOther, "access1"));
  ASSERT_EQ(plane_->vouched().size(), 1U);
  EXPECT_EQ(plane_->vouched()[0].identity, "bob");
  EXPECT_FALSE(plane_->vouched()[0].until.has_value());
}

TEST_F(AuthenticatingAccessPlaneTest, MemoryIsBoundedWhateverTheLinkSends) {
  // A line for each of 65536 stations.
  set_log_level(LogLevel::kWarning);
  const auto nth = [](std::size_t n) {
    return LinkLayerAddress(LinkLayerAddress::Bytes{2, 0, static_cast<std::uint8_t>(n >> 16U),
                                                    static_cast<std::uint8_t>(n >> 8U), static_cast<std::uint8_t>(n),
                                                    1});
  };
  for (std::size_t n = 0; n <= AuthenticatingAccessPlane::kMostWaiting; ++n) hear(nth(n), "access1");
  arrivals_.clear();
  ASSERT_TRUE(plane_->authorize({"access1", nth(0)}, "", {}).ok());
  EXPECT_THAT(arrivals_, IsEmpty()) << "the longest silent is forgotten";
  ASSERT_TRUE(plane_->authorize({"access1", nth(1)}, "", {}).ok());
  EXPECT_EQ(arrivals_.size(), 1U);
  absl::Status status;
  for (std::size_t n = 2; n <= AuthenticatingAccessPlane::kMostVouched && status.ok(); ++n) {
    status = plane_->authorize({"access1", nth(n)}, "", {});
  }
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(plane_->vouched().size(), AuthenticatingAccessPlane::kMostVouched);
}

}  // namespace
}  // namespace kedge::speaker
