#include "speaker/frr/http2_goodbye.h"

#include <string>

#include "gtest/gtest.h"

namespace kedge::speaker {
namespace {

// RFC 9113, 4.1; of stream 0.
std::string frame(char type, std::size_t payload) {
  std::string text(9 + payload, '\0');
  text[1] = static_cast<char>(payload >> 8U);
  text[2] = static_cast<char>(payload);
  text[3] = type;
  return text;
}

TEST(SaysGoodbye, OnlyAGoawayEndsTheConnection) {
  std::string unread = frame(4, 18) + frame(6, 8) + frame(0, 300);
  EXPECT_FALSE(says_goodbye(unread));
  EXPECT_EQ(unread, "");
  unread = frame(4, 0) + frame(7, 8);
  EXPECT_TRUE(says_goodbye(unread));
}

TEST(SaysGoodbye, AFrameMayComeInPieces) {
  const std::string all = frame(0, 7) + frame(7, 8);
  std::string unread;
  std::size_t read = 0;
  while (!says_goodbye(unread) && read < all.size()) unread.push_back(all[read++]);
  EXPECT_EQ(read, 9 + 7 + 9) << "the head of a GOAWAY is enough";
}

}  // namespace
}  // namespace kedge::speaker
