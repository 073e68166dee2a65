#include "common/config.h"

#include <cctype>
#include <cerrno>
#include <chrono>
#include <cmath>
#include <cstring>
#include <fstream>
#include <limits>
#include <set>
#include <sstream>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "boost/locale/encoding_utf.hpp"
#include "common/time.h"
#include "fmt/format.h"
#include "google/protobuf/descriptor.h"
#include "google/protobuf/duration.pb.h"
#include "yaml-cpp/eventhandler.h"
#include "yaml-cpp/yaml.h"

namespace kedge {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::FieldDescriptor;
using google::protobuf::Message;

std::size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> row(b.size() + 1);
  for (std::size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (std::size_t i = 1; i <= a.size(); ++i) {
    std::size_t diagonal = row[0];
    row[0] = i;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t above = row[j];
      row[j] = std::min({above + 1, row[j - 1] + 1, diagonal + (a[i - 1] == b[j - 1] ? 0 : 1)});
      diagonal = above;
    }
  }
  return row[b.size()];
}

// "250ms", "1.5s", "30m", "2h".
bool parse_duration(std::string_view text, std::chrono::nanoseconds* out) {
  static constexpr std::pair<std::string_view, double> kUnits[] = {{"ms", 1e6}, {"s", 1e9}, {"m", 60e9}, {"h", 3600e9}};
  const auto end = text.find_first_not_of("0123456789.");
  double number = 0;
  if (end == 0 || end == std::string_view::npos || !absl::SimpleAtod(std::string(text.substr(0, end)), &number))
    return false;
  for (const auto& [unit, nanos] : kUnits) {
    if (text.substr(end) != unit) continue;
    if (number * nanos > 1e18) return false;
    *out = std::chrono::nanoseconds(std::llround(number * nanos));
    return true;
  }
  return false;
}

bool is_utf8(const std::string& text) {
  try {
    boost::locale::conv::utf_to_utf<char32_t>(text, boost::locale::conv::stop);
    return true;
  } catch (const boost::locale::conv::conversion_error&) {
    return false;
  }
}

// Remembers where the last document began and ignores all else.
struct DocumentStart final : YAML::EventHandler {
  void OnDocumentStart(const YAML::Mark& at) override { mark = at; }
  void OnDocumentEnd() override {}
  void OnNull(const YAML::Mark&, YAML::anchor_t) override {}
  void OnAlias(const YAML::Mark&, YAML::anchor_t) override {}
  void OnScalar(const YAML::Mark&, const std::string&, YAML::anchor_t, const std::string&) override {}
  void OnSequenceStart(const YAML::Mark&, const std::string&, YAML::anchor_t, YAML::EmitterStyle::value) override {}
  void OnSequenceEnd() override {}
  void OnMapStart(const YAML::Mark&, const std::string&, YAML::anchor_t, YAML::EmitterStyle::value) override {}
  void OnMapEnd() override {}

  YAML::Mark mark;
};

class Reader {
 public:
  explicit Reader(std::string_view name) : name_(name) {}

  absl::Status read(const YAML::Node& node, const std::string& path, Message* message) {
    if (!node.IsMap()) return error(node, path, "a group of keys is expected here");
    std::set<std::string> seen;
    const Descriptor* type = message->GetDescriptor();
    for (const auto& entry : node) {
      if (!entry.first.IsScalar()) return error(entry.first, path, "a key is a plain word");
      const std::string key = entry.first.Scalar();
      const std::string key_path = path.empty() ? key : absl::StrCat(path, ".", key);
      const FieldDescriptor* field = type->FindFieldByName(key);
      if (field == nullptr) return error(entry.first, key_path, absl::StrCat("unknown key", suggestion(*type, key)));
      if (!seen.insert(key).second) return error(entry.first, key_path, "this key is given twice");
      if (auto status = read_field(entry.second, entry.first, key_path, field, message); !status.ok()) return status;
    }
    return absl::OkStatus();
  }

  absl::Status error(const YAML::Node& node, const std::string& path, std::string_view text) const {
    const YAML::Mark mark = node.Mark();
    return absl::InvalidArgumentError(
        fmt::format("{}:{}:{}: {}{}{}", name_, mark.line + 1, mark.column + 1, path, path.empty() ? "" : ": ", text));
  }

 private:
  static std::string suggestion(const Descriptor& type, const std::string& key) {
    std::string best;
    std::size_t best_distance = 4;
    std::vector<std::string> all;
    for (int i = 0; i < type.field_count(); ++i) {
      const auto& name = type.field(i)->name();
      all.push_back(name);
      if (const auto distance = edit_distance(key, name); distance < best_distance) {
        best_distance = distance;
        best = name;
      }
    }
    if (!best.empty()) return absl::StrCat("; did you mean '", best, "'?");
    return absl::StrCat("; known here: ", absl::StrJoin(all, ", "));
  }

  absl::Status read_field(const YAML::Node& node, const YAML::Node& key, const std::string& path,
                          const FieldDescriptor* field, Message* message) {
    if (node.IsNull()) return error(key, path, "this key has no value; leave it out to have its default");
    if (!field->is_repeated()) return read_value(node, path, field, message);
    if (!node.IsSequence()) return error(node, path, "a list is expected here");
    std::size_t index = 0;
    for (const auto& item : node) {
      if (auto status = read_value(item, absl::StrCat(path, "[", index++, "]"), field, message); !status.ok()) {
        return status;
      }
    }
    return absl::OkStatus();
  }

  absl::Status read_value(const YAML::Node& node, const std::string& path, const FieldDescriptor* field,
                          Message* message) {
    const auto* reflection = message->GetReflection();
    if (field->cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE) {
      Message* inner =
          field->is_repeated() ? reflection->AddMessage(message, field) : reflection->MutableMessage(message, field);
      if (field->message_type() == google::protobuf::Duration::descriptor()) return read_duration(node, path, inner);
      return read(node, path, inner);
    }
    if (!node.IsScalar()) return error(node, path, "a single value is expected here");
    const std::string& text = node.Scalar();
    const auto put = [&](auto add, auto set, auto value) {
      if (field->is_repeated()) {
        (reflection->*add)(message, field, value);
      } else {
        (reflection->*set)(message, field, value);
      }
      return absl::OkStatus();
    };
    using R = google::protobuf::Reflection;
    switch (field->cpp_type()) {
      case FieldDescriptor::CPPTYPE_STRING:
        // What Protobuf would not send.
        if (!is_utf8(text)) return error(node, path, "text in UTF-8 is expected here");
        return put(&R::AddString, &R::SetString, text);
      case FieldDescriptor::CPPTYPE_BOOL:
        // Quoted text is no boolean.
        if (node.Tag() != "!" && (text == "true" || text == "false")) {
          return put(&R::AddBool, &R::SetBool, text == "true");
        }
        return error(node, path, absl::StrCat("true or false is expected, not '", text, "'"));
      case FieldDescriptor::CPPTYPE_UINT32: {
        std::uint32_t value = 0;
        if (node.Tag() == "!" || !absl::SimpleAtoi(text, &value)) {
          return error(node, path, absl::StrCat("a whole number of 0 or more is expected, not '", text, "'"));
        }
        return put(&R::AddUInt32, &R::SetUInt32, value);
      }
      default:
        return error(node, path, absl::StrCat("keys of type ", field->cpp_type_name(), " cannot be configured"));
    }
  }

  absl::Status read_duration(const YAML::Node& node, const std::string& path, Message* message) {
    std::chrono::nanoseconds value{};
    if (!node.IsScalar() || !parse_duration(node.Scalar(), &value)) {
      return error(node, path, "a duration with its unit is expected: 250ms, 10s, 30m or 2h");
    }
    message->CopyFrom(to_proto(value));
    return absl::OkStatus();
  }

  std::string name_;
};

}  // namespace

absl::Status parse_config(std::string_view text, std::string_view name, Message* message) {
  // One bad document never throws past here.
  try {
    std::istringstream input{std::string(text)};
    YAML::Parser parser(input);
    DocumentStart document;
    // Not YAML::LoadAll(): in some malformed texts it finds empty documents without end.
    if (parser.HandleNextDocument(document) && parser.HandleNextDocument(document)) {
      return absl::InvalidArgumentError(fmt::format("{}:{}:{}: a second YAML document begins here; one is expected",
                                                    name, document.mark.line + 1, document.mark.column + 1));
    }
    const YAML::Node root = YAML::Load(std::string(text));
    if (root.IsNull()) return absl::InvalidArgumentError(fmt::format("{}: the file is empty", name));
    return Reader(name).read(root, "", message);
  } catch (const YAML::Exception& e) {
    return absl::InvalidArgumentError(
        fmt::format("{}:{}:{}: not valid YAML: {}", name, e.mark.line + 1, e.mark.column + 1, e.msg));
  }
}

absl::Status load_config(const std::string& path, Message* message) {
  std::ifstream file(path);
  std::stringstream text;
  // The first read tells what open() does not, for example that it is a folder.
  if (file && file.peek() != std::ifstream::traits_type::eof()) text << file.rdbuf();
  if (!file.is_open() || file.bad()) {
    const int error = errno;
    const std::string what = absl::StrCat("cannot read the configuration '", path, "': ", std::strerror(error));
    return error == EACCES ? absl::PermissionDeniedError(what) : absl::NotFoundError(what);
  }
  return parse_config(text.str(), path, message);
}

}  // namespace kedge
