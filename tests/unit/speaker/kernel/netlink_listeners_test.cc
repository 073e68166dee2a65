#include "speaker/kernel/netlink_listeners.h"

#include <string>

#include "gtest/gtest.h"

namespace kedge::speaker {
namespace {

constexpr char kHead[] = "sk               Eth Pid        Groups   Rmem     Wmem     Dump  Locks    Drops    Inode\n";
// As Linux shows them: zebra 8.4.4's sockets, `ip monitor`, and generic netlink.
constexpr char kZebra[] =
    "00000000b218ca2c 0   13         800405f5 974080   0        0     2        7        111469  \n";
constexpr char kOthers[] =
    "00000000296c7a41 0   0          00000000 0        0        0     2        0        112445  \n"
    "000000005ae11f7c 0   2133       00000400 5120     0        0     2        9        112490  \n"
    "00000000412b239c 0   2531473957 11800111 0        0        0     2        0        111472  \n"
    "00000000921d3db6 16  0          800405f5 0        0        0     2        0        112446  \n";

TEST(NetlinkListeners, ZebraIsFoundByItsGroups) {
  const auto zebra = find_zebra(std::string(kHead) + kOthers + kZebra);
  EXPECT_EQ(zebra, (ZebraListener{111469, 974080, 7}));
}

TEST(NetlinkListeners, WithoutZebraThereIsNone) {
  EXPECT_EQ(find_zebra(std::string(kHead) + kOthers), std::nullopt);
  EXPECT_EQ(find_zebra(""), std::nullopt);
  // Cut short, or of another kind.
  EXPECT_EQ(find_zebra("00000000b218ca2c 0 13 800405f5 974080"), std::nullopt);
  EXPECT_EQ(find_zebra("x y z 800405f5 1 2 3 4 5 6"), std::nullopt);
}

TEST(NetlinkListeners, TwoAreLookedAtTogether) {
  const auto both = find_zebra(std::string(kZebra) + "0 0 14 800405f5 5 0 0 2 1 10\n");
  EXPECT_EQ(both, (ZebraListener{111479, 974080, 8}));
}

}  // namespace
}  // namespace kedge::speaker
