#include "speaker/access/link_monitor.h"

#include <linux/rtnetlink.h>
#include <net/if.h>

#include <cstring>
#include <vector>

#include "gtest/gtest.h"

namespace kedge::speaker {
namespace {

using Buffer = std::vector<std::uint8_t>;

template <typename T>
void append(Buffer& buffer, const T& value) {
  const auto* bytes = reinterpret_cast<const std::uint8_t*>(&value);
  buffer.insert(buffer.end(), bytes, bytes + sizeof(value));
}

void append_attribute(Buffer& buffer, std::uint16_t type, const Buffer& value) {
  append(buffer, nlattr{static_cast<std::uint16_t>(sizeof(nlattr) + value.size()), type});
  buffer.insert(buffer.end(), value.begin(), value.end());
  buffer.resize(NLA_ALIGN(buffer.size()));
}

Buffer notice(std::uint16_t type = RTM_NEWLINK, unsigned char family = AF_UNSPEC) {
  Buffer message;
  nlmsghdr header{};
  header.nlmsg_type = type;
  append(message, header);
  ifinfomsg info{};
  info.ifi_family = family;
  info.ifi_index = 7;
  info.ifi_flags = IFF_UP | IFF_RUNNING;
  append(message, info);
  append_attribute(message, IFLA_IFNAME, {'e', 't', 'h', '2', 0});
  append_attribute(message, IFLA_CARRIER_UP_COUNT, {3, 0, 0, 0});
  const auto size = static_cast<std::uint32_t>(message.size());
  std::memcpy(message.data(), &size, sizeof(size));
  return message;
}

TEST(DecodeLinkState, TellsTheStateOfAnInterface) {
  const auto link = decode_link_state(notice());
  ASSERT_TRUE(link.has_value());
  EXPECT_EQ(link->index, 7U);
  EXPECT_EQ(link->name, "eth2");
  EXPECT_EQ(link->carrier_ups, 3U);
  EXPECT_TRUE(link->up);
  EXPECT_FALSE(link->removed);
  const auto removed = decode_link_state(notice(RTM_DELLINK));
  ASSERT_TRUE(removed.has_value());
  EXPECT_TRUE(removed->removed);
  EXPECT_FALSE(removed->up);
}

TEST(DecodeLinkState, IgnoresWhatIsOfSomethingElse) {
  EXPECT_FALSE(decode_link_state(notice(RTM_NEWADDR)).has_value());
  EXPECT_FALSE(decode_link_state(notice(RTM_NEWLINK, AF_BRIDGE)).has_value());
}

TEST(DecodeLinkState, ReadsNothingBeyondWhatIsThere) {
  const Buffer whole = notice();
  for (std::size_t size = 0; size < whole.size(); ++size) {
    // A copy of its own, so that the sanitizer sees a read past its end.
    Buffer cut(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(size));
    EXPECT_FALSE(decode_link_state(cut).has_value()) << size;
    if (size < sizeof(nlmsghdr)) continue;
    const auto told = static_cast<std::uint32_t>(size);
    std::memcpy(cut.data(), &told, sizeof(told));
    decode_link_state(cut);
  }
}

TEST(DecodeLinkState, AnAttributeThatIsTooShortForItsTypeTellsNothing) {
  Buffer message = notice();
  // The length of the carrier count: its header only.
  message[message.size() - 8] = sizeof(nlattr);
  message.resize(message.size() - 4);
  const auto size = static_cast<std::uint32_t>(message.size());
  std::memcpy(message.data(), &size, sizeof(size));
  const auto link = decode_link_state(message);
  ASSERT_TRUE(link.has_value());
  EXPECT_EQ(link->carrier_ups, 0U);
}

TEST(DecodeLinkState, ANameWithoutAnEndIsAsLongAsItsAttribute) {
  Buffer message = notice();
  // The zero behind "eth2" belongs to the padding now.
  message[sizeof(nlmsghdr) + sizeof(ifinfomsg)] = sizeof(nlattr) + 4;
  message.erase(message.begin() + sizeof(nlmsghdr) + sizeof(ifinfomsg) + sizeof(nlattr) + 4,
                message.begin() + sizeof(nlmsghdr) + sizeof(ifinfomsg) + sizeof(nlattr) + 8);
  const auto size = static_cast<std::uint32_t>(message.size());
  std::memcpy(message.data(), &size, sizeof(size));
  const auto link = decode_link_state(message);
  ASSERT_TRUE(link.has_value());
  EXPECT_EQ(link->name, "eth2");
}

}  // namespace
}  // namespace kedge::speaker
