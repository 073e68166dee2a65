#include "common/json.h"

#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace kedge {
namespace {

using testing::HasSubstr;

TEST(JsonTest, ReadsWhatIsThere) {
  const auto document = JsonDocument::parse(
      R"({"a": {"b": [1, {"c": "text"}, true]}, "tag": "880001", "utf": "\u00e9", "escaped": "a\"b\u0000c"})");
  ASSERT_TRUE(document.ok()) << document.status();
  const auto items = document->root().at("a").at("b").items();
  ASSERT_EQ(items.size(), 3U);
  EXPECT_EQ(items[0].number_or(7), 1U);
  EXPECT_EQ(items[1].at("c").text(), "text");
  EXPECT_TRUE(items[2].is_true());
  EXPECT_EQ(document->root().at("tag").number_or(0), 880001U);
  EXPECT_EQ(document->root().at("utf").text(), "\xc3\xa9");
  EXPECT_EQ(document->root().at("escaped").text(), std::string("a\"b\0c", 5));
  EXPECT_EQ(document->root().members().size(), 4U);
}

TEST(JsonTest, WhatIsAbsentOrOfAnotherTypeIsAsGoodAsAbsent) {
  const auto document = JsonDocument::parse(R"({"text": "x", "list": [], "none": null, "object": {}, "number": 1})");
  ASSERT_TRUE(document.ok()) << document.status();
  const Json root = document->root();
  EXPECT_FALSE(root.has("missing"));
  EXPECT_TRUE(root.has("none"));
  EXPECT_FALSE(root.at("missing").at("deeper").at("still").exists());
  EXPECT_FALSE(root.at("text").at("key").exists());
  EXPECT_TRUE(root.at("text").items().empty());
  EXPECT_TRUE(root.at("list").members().empty());
  EXPECT_EQ(root.at("number").text(), "");
  EXPECT_FALSE(root.at("number").is_true());
  EXPECT_FALSE(root.at("text").is_empty_object());
  EXPECT_FALSE(root.is_empty_object());
  EXPECT_TRUE(root.at("object").is_empty_object());
}

TEST(JsonTest, NumbersOutsideOfTheirRangeAreNone) {
  const auto document = JsonDocument::parse(
      R"([4294967295, 4294967296, -1, 1.5, 2.0, 1e3, 18446744073709551615, "4294967295", "4294967296", "-1", "x", ""])");
  ASSERT_TRUE(document.ok()) << document.status();
  std::vector<std::uint32_t> numbers;
  for (const Json& item : document->root().items()) numbers.push_back(item.number_or(7));
  EXPECT_THAT(numbers, testing::ElementsAre(4294967295U, 7, 7, 7, 2, 1000, 7, 4294967295U, 7, 7, 7, 7));
}

TEST(JsonTest, SaysWhereATextStopsBeingJson) {
  for (const auto* text : {"", "{", "{\"a\" 1}", "[1,]", "{} {}", "nul", "\"open"}) {
    const auto document = JsonDocument::parse(text);
    EXPECT_EQ(document.status().code(), absl::StatusCode::kInvalidArgument) << text;
    EXPECT_THAT(std::string(document.status().message()), HasSubstr("at byte ")) << text;
  }
  EXPECT_THAT(std::string(JsonDocument::parse("{\"a\" 1}").status().message()), HasSubstr("at byte 5"));
}

TEST(JsonTest, HoweverDeepATextNestsTheStackHolds) {
  constexpr std::size_t kDepth = 2'000'000;
  EXPECT_TRUE(JsonDocument::parse(std::string(kDepth, '[') + std::string(kDepth, ']')).ok());
  EXPECT_FALSE(JsonDocument::parse(std::string(kDepth, '[')).ok());
}

TEST(JsonTest, CopiesOfADocumentShareIt) {
  auto first = JsonDocument::parse(R"({"a": "b"})");
  ASSERT_TRUE(first.ok());
  const JsonDocument second = *first;
  *first = *JsonDocument::parse("{}");
  EXPECT_EQ(second.root().at("a").text(), "b");
}

}  // namespace
}  // namespace kedge
