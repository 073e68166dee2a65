#include "common/json.h"

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "google/protobuf/util/json_util.h"

namespace kedge {

using google::protobuf::Value;

Json Json::at(const std::string& key) const {
  if (value_ == nullptr || value_->kind_case() != Value::kStructValue) return Json(nullptr);
  const auto& fields = value_->struct_value().fields();
  const auto found = fields.find(key);
  return Json(found == fields.end() ? nullptr : &found->second);
}

bool Json::is_empty_object() const {
  return value_ != nullptr && value_->kind_case() == Value::kStructValue && value_->struct_value().fields().empty();
}

std::vector<Json> Json::items() const {
  std::vector<Json> items;
  if (value_ == nullptr || value_->kind_case() != Value::kListValue) return items;
  items.reserve(value_->list_value().values_size());
  for (const Value& value : value_->list_value().values()) items.emplace_back(&value);
  return items;
}

std::vector<Json> Json::members() const {
  std::vector<Json> members;
  if (value_ == nullptr || value_->kind_case() != Value::kStructValue) return members;
  for (const auto& [name, value] : value_->struct_value().fields()) members.emplace_back(&value);
  return members;
}

const std::string& Json::text() const {
  static const std::string none;
  return value_ != nullptr && value_->kind_case() == Value::kStringValue ? value_->string_value() : none;
}

bool Json::is_true() const {
  return value_ != nullptr && value_->kind_case() == Value::kBoolValue && value_->bool_value();
}

std::uint32_t Json::number_or(std::uint32_t otherwise) const {
  if (value_ == nullptr) return otherwise;
  if (value_->kind_case() == Value::kStringValue) {
    std::uint32_t number = 0;
    return absl::SimpleAtoi(value_->string_value(), &number) ? number : otherwise;
  }
  if (value_->kind_case() != Value::kNumberValue) return otherwise;
  const double number = value_->number_value();
  if (!(number >= 0) || number > std::numeric_limits<std::uint32_t>::max() || number != std::floor(number)) {
    return otherwise;
  }
  return static_cast<std::uint32_t>(number);
}

absl::StatusOr<JsonDocument> JsonDocument::parse(std::string_view text) {
  JsonDocument document;
  document.value_ = std::make_shared<Value>();
  const auto status = google::protobuf::util::JsonStringToMessage(
      google::protobuf::StringPiece(text.data(), text.size()), document.value_.get());
  if (!status.ok()) return absl::InvalidArgumentError(absl::StrCat("this is no JSON: ", status.ToString()));
  return document;
}

}  // namespace kedge
