// Reading JSON that another program made: absent members and wrong types are as good as absent, so that a reader states
// only what it needs.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "rapidjson/fwd.h"

namespace kedge {

// A value inside a JsonDocument, which must outlive it; or none.
class Json {
 public:
  explicit Json(const rapidjson::Value* value) : value_(value) {}

  bool exists() const { return value_ != nullptr; }
  bool has(std::string_view key) const { return at(key).exists(); }
  // A member of an object.
  Json at(std::string_view key) const;
  // "{}"
  bool is_empty_object() const;
  // The elements of an array; none when it is none.
  std::vector<Json> items() const;
  // The values of an object's members; none when it is none.
  std::vector<Json> members() const;
  // "" when it is no string.
  std::string text() const;
  bool is_true() const;
  // A number or a string of digits in 0 to 2^32-1.
  std::uint32_t number_or(std::uint32_t otherwise) const;

 private:
  const rapidjson::Value* value_;
};

class JsonDocument {
 public:
  // InvalidArgument says where the text stops being JSON.
  static absl::StatusOr<JsonDocument> parse(std::string_view text);
  Json root() const;

 private:
  std::shared_ptr<const rapidjson::Document> document_;
};

}  // namespace kedge
