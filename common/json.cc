#include "common/json.h"

#include <cmath>
#include <limits>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "rapidjson/document.h"
#include "rapidjson/error/en.h"

namespace kedge {
namespace {

// Not by recursion: however deep a text nests, the stack stays as it is.
constexpr unsigned kFlags = rapidjson::kParseIterativeFlag;

rapidjson::Value::StringRefType reference(std::string_view text) {
  return {text.data(), static_cast<rapidjson::SizeType>(text.size())};
}

}  // namespace

Json Json::at(std::string_view key) const {
  if (value_ == nullptr || !value_->IsObject()) return Json(nullptr);
  const auto found = value_->FindMember(rapidjson::Value(reference(key)));
  return Json(found == value_->MemberEnd() ? nullptr : &found->value);
}

bool Json::is_empty_object() const { return value_ != nullptr && value_->IsObject() && value_->ObjectEmpty(); }

std::vector<Json> Json::items() const {
  std::vector<Json> items;
  if (value_ == nullptr || !value_->IsArray()) return items;
  items.reserve(value_->Size());
  for (const auto& value : value_->GetArray()) items.emplace_back(&value);
  return items;
}

std::vector<Json> Json::members() const {
  std::vector<Json> members;
  if (value_ == nullptr || !value_->IsObject()) return members;
  for (const auto& member : value_->GetObject()) members.emplace_back(&member.value);
  return members;
}

std::string Json::text() const {
  if (value_ == nullptr || !value_->IsString()) return {};
  return {value_->GetString(), value_->GetStringLength()};
}

bool Json::is_true() const { return value_ != nullptr && value_->IsTrue(); }

std::uint32_t Json::number_or(std::uint32_t otherwise) const {
  if (value_ == nullptr) return otherwise;
  if (value_->IsString()) {
    std::uint32_t number = 0;
    return absl::SimpleAtoi(text(), &number) ? number : otherwise;
  }
  if (!value_->IsNumber()) return otherwise;
  const double number = value_->GetDouble();
  if (!(number >= 0) || number > std::numeric_limits<std::uint32_t>::max() || number != std::floor(number)) {
    return otherwise;
  }
  return static_cast<std::uint32_t>(number);
}

absl::StatusOr<JsonDocument> JsonDocument::parse(std::string_view text) {
  auto parsed = std::make_shared<rapidjson::Document>();
  parsed->Parse<kFlags>(text.data(), text.size());
  if (parsed->HasParseError()) {
    return absl::InvalidArgumentError(absl::StrCat("this is no JSON: at byte ", parsed->GetErrorOffset(), ": ",
                                                   rapidjson::GetParseError_En(parsed->GetParseError())));
  }
  JsonDocument document;
  document.document_ = std::move(parsed);
  return document;
}

Json JsonDocument::root() const { return Json(document_.get()); }

}  // namespace kedge
