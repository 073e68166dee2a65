#include "kedgectl/table.h"

#include <gtest/gtest.h>

namespace kedge::kedgectl {
namespace {

TEST(Table, AlignsEachColumnToItsWidestCell) {
  Table table({{"NAME"}, {"COUNT", Align::kRight}, {"NOTE"}});
  table.add({"ar1", "7", "x"});
  table.add({"a-long-name", "123456", ""});
  EXPECT_EQ(table.to_string(),
            "NAME          COUNT  NOTE\n"
            "ar1               7  x\n"
            "a-long-name  123456  -\n");
}

TEST(Table, HasItsTitlesWithoutRows) { EXPECT_EQ(Table({{"A"}, {"B"}}).to_string(), "A  B\n"); }

TEST(Table, CountsCharactersNotBytes) {
  Table table({{"A"}, {"B"}});
  table.add({"größe", "1"});
  table.add({"grosse", "2"});
  EXPECT_EQ(table.to_string(), "A       B\ngröße   1\ngrosse  2\n");
}

TEST(Table, PrintsLinesOfLeastWidth) {
  const Table table({{"ID", Align::kRight, 4}, {"AT", Align::kLeft, 3}, {"X"}});
  EXPECT_EQ(table.header_line(), "  ID  AT   X\n");
  EXPECT_EQ(table.line({"123456", "a", "b"}), "123456  a    b\n");
}

TEST(Table, ACellCannotBreakItsLineNorSteerTheTerminal) {
  EXPECT_EQ(printable("a\nb\x1b[2Jc\x7f"
                      "d\xc2\x9b"
                      "e"),
            "a b [2Jc d e");
  EXPECT_EQ(Table({{"A"}}).line({"x\ny"}), "x y\n");
}

}  // namespace
}  // namespace kedge::kedgectl
