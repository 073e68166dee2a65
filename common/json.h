// Reading JSON that another program made: absent members and wrong types are as good as absent, so that a reader states
// only what it needs.
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "google/protobuf/struct.pb.h"

namespace kedge {

// A value inside a JsonDocument, which must outlive it; or none.
class Json {
 public:
  explicit Json(const google::protobuf::Value* value) : value_(value) {}

  bool exists() const { return value_ != nullptr; }
  bool has(const std::string& key) const { return at(key).exists(); }
  // A member of an object.
  Json at(const std::string& key) const;
  // "{}"
  bool is_empty_object() const;
  // The elements of an array; none when it is none.
  std::vector<Json> items() const;
  // The values of an object's members, in no order; none when it is none.
  std::vector<Json> members() const;
  // "" when it is no string.
  const std::string& text() const;
  bool is_true() const;
  // A number or a string of digits in 0 to 2^32-1.
  std::uint32_t number_or(std::uint32_t otherwise) const;

 private:
  const google::protobuf::Value* value_;
};

class JsonDocument {
 public:
  // InvalidArgument says where the text stops being JSON.
  static absl::StatusOr<JsonDocument> parse(std::string_view text);
  Json root() const { return Json(value_.get()); }

 private:
  std::shared_ptr<google::protobuf::Value> value_;
};

}  // namespace kedge
