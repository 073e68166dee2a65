#include "tests/bench/swarm/mobile_node.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace kedge::bench {
namespace {

using speaker::FrameAddresses;

constexpr std::size_t kOld = 0;
constexpr std::size_t kNew = 1;

Ipv6Address address(const std::string& text) { return *Ipv6Address::parse(text); }
LinkLayerAddress mac(const std::string& text) { return *LinkLayerAddress::parse(text); }

const LinkLayerAddress kRouter = mac("02:00:5e:00:88:18");

class MobileNodeTest : public testing::Test {
 protected:
  MobileNodeTest() { node_.link(kOld, true); }

  FrameAddresses from_router(const Ipv6Address& to) const {
    return {.link_source = kRouter,
            .link_destination = node_.link_layer_address(),
            .source = address("fe80::1"),
            .destination = to};
  }

  MobileNode::Reaction advertise(std::size_t port, const std::string& prefix, std::uint32_t valid = 7200,
                                 std::uint32_t preferred = 1800) {
    speaker::RouterAdvertisement message{.router_lifetime = 1800, .source_link_layer_address = kRouter};
    message.prefixes.push_back(
        {.prefix = *Ipv6Prefix::parse(prefix), .valid_lifetime = valid, .preferred_lifetime = preferred});
    frame_ = build_frame(from_router(node_.link_local()), message);
    return node_.hear(port, frame_);
  }

  MobileNode::Reaction solicit(std::size_t port, const Ipv6Address& target) {
    frame_ = build_frame(from_router(target),
                         speaker::NeighbourSolicitation{.target = target, .source_link_layer_address = kRouter});
    return node_.hear(port, frame_);
  }

  MobileNode node_{mac("02:00:00:01:00:02")};
  std::vector<std::uint8_t> frame_;
};

TEST_F(MobileNodeTest, SolicitsWithItsLinkLayerAddress) {
  const auto frame = node_.solicitation();
  const auto packet = speaker::parse_icmpv6_frame(frame);
  ASSERT_TRUE(packet.ok());
  EXPECT_EQ(packet->addresses.link_source, node_.link_layer_address());
  EXPECT_EQ(packet->addresses.source, address("fe80::ff:fe01:2"));
  EXPECT_EQ(packet->addresses.destination, address("ff02::2"));
  const auto message = speaker::parse_router_solicitation(*packet);
  ASSERT_TRUE(message.ok());
  EXPECT_EQ(message->source_link_layer_address, node_.link_layer_address());
}

TEST_F(MobileNodeTest, TakesAnAddressFromAnAdvertisedPrefix) {
  EXPECT_TRUE(advertise(kOld, "2001:db8:1000:1::/64").advertised);
  EXPECT_EQ(node_.first_address(), address("2001:db8:1000:1:0:ff:fe01:2"));
  EXPECT_EQ(node_.uplink(), kOld);
}

TEST_F(MobileNodeTest, KeepsAnAddressThatIsDeprecatedAndLosesOneThatHasEnded) {
  advertise(kOld, "2001:db8:1000:1::/64");
  advertise(kOld, "2001:db8:1000:1::/64", 7200, 0);
  ASSERT_EQ(node_.prefixes().size(), 1u);
  EXPECT_TRUE(node_.prefixes()[0].deprecated);
  EXPECT_FALSE(advertise(kOld, "2001:db8:1000:1::/64", 0, 0).advertised);
  EXPECT_TRUE(node_.prefixes().empty());
}

TEST_F(MobileNodeTest, SendsByTheNewLinkOnceItWasAdvertisedToThere) {
  advertise(kOld, "2001:db8:1000:1::/64");
  node_.link(kNew, true);
  node_.head_for(kNew);
  EXPECT_EQ(node_.uplink(), kOld);
  // A repetition on the old link takes nothing back.
  advertise(kOld, "2001:db8:1000:1::/64");
  EXPECT_EQ(node_.uplink(), kOld);
  advertise(kNew, "2001:db8:1000:1::/64");
  EXPECT_EQ(node_.uplink(), kNew);
  advertise(kOld, "2001:db8:1000:1::/64");
  EXPECT_EQ(node_.uplink(), kNew);
}

TEST_F(MobileNodeTest, NeitherHearsNorSendsWithoutALink) {
  advertise(kOld, "2001:db8:1000:1::/64");
  node_.link(kOld, false);
  EXPECT_FALSE(node_.uplink());
  EXPECT_FALSE(node_.datagram(address("2001:db8:0:4::2"), 9000, {}));
  EXPECT_FALSE(solicit(kOld, node_.link_local()).reply);
}

TEST_F(MobileNodeTest, AnswersSolicitationsForAllItsAddressesAndForNoOther) {
  advertise(kOld, "2001:db8:1000:1::/64");
  for (const auto& own : {node_.link_local(), *node_.first_address()}) {
    const auto reaction = solicit(kOld, own);
    ASSERT_TRUE(reaction.reply);
    const auto packet = speaker::parse_icmpv6_frame(*reaction.reply);
    ASSERT_TRUE(packet.ok());
    EXPECT_EQ(packet->addresses.link_destination, kRouter);
    EXPECT_EQ(packet->addresses.source, own);
    const auto message = speaker::parse_neighbour_advertisement(*packet);
    ASSERT_TRUE(message.ok());
    EXPECT_EQ(message->target, own);
    EXPECT_TRUE(message->solicited);
    EXPECT_EQ(message->target_link_layer_address, node_.link_layer_address());
  }
  EXPECT_FALSE(solicit(kOld, address("2001:db8:1000:1::99")).reply);
  EXPECT_FALSE(solicit(kOld, address("2001:db8:1000:2:0:ff:fe01:2")).reply);
}

TEST_F(MobileNodeTest, AnswersEchoRequestsToItsAddresses) {
  advertise(kOld, "2001:db8:1000:1::/64");
  frame_ = speaker::build_echo_request(from_router(*node_.first_address()), 1, 2);
  EXPECT_TRUE(node_.hear(kOld, frame_).reply);
  frame_ = speaker::build_echo_request(from_router(address("2001:db8:1000:1::99")), 1, 2);
  EXPECT_FALSE(node_.hear(kOld, frame_).reply);
}

TEST_F(MobileNodeTest, SendsDatagramsToItsRouterAndHearsThoseToItself) {
  advertise(kOld, "2001:db8:1000:1::/64");
  const std::vector<std::uint8_t> payload = {1, 2, 3};
  const auto frame = node_.datagram(address("2001:db8:0:4::2"), 9000, payload);
  ASSERT_TRUE(frame);
  auto datagram = parse_datagram(*frame);
  ASSERT_TRUE(datagram);
  EXPECT_EQ(datagram->addresses.link_destination, kRouter);
  EXPECT_EQ(datagram->addresses.source, *node_.first_address());

  std::swap(datagram->addresses.source, datagram->addresses.destination);
  frame_ = build_datagram(*datagram);
  const auto heard = node_.hear(kOld, frame_);
  ASSERT_TRUE(heard.datagram);
  EXPECT_EQ(heard.datagram->payload.size(), payload.size());
  EXPECT_FALSE(node_.hear(kOld, *frame).datagram);
}

TEST_F(MobileNodeTest, SurvivesEveryCutOffFrame) {
  advertise(kOld, "2001:db8:1000:1::/64");
  solicit(kOld, *node_.first_address());
  for (std::size_t size = 0; size < frame_.size(); ++size) {
    EXPECT_FALSE(node_.hear(kOld, std::span(frame_).first(size)).reply) << size;
  }
}

}  // namespace
}  // namespace kedge::bench
