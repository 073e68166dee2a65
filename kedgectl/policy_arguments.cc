#include "kedgectl/policy_arguments.h"

#include <algorithm>
#include <charconv>
#include <optional>
#include <utility>

#include "common/ipv6.h"
#include "fmt/format.h"
#include "kedgectl/duration.h"
#include "kedgectl/format.h"

namespace kedge::kedgectl {
namespace {

absl::Status wrong(const std::string& argument, std::string_view expected) {
  return absl::InvalidArgumentError(fmt::format("'{}': {}", argument, expected));
}

std::vector<std::string> split(const std::string& text, char separator) {
  std::vector<std::string> parts;
  std::size_t begin = 0;
  while (true) {
    const auto end = text.find(separator, begin);
    parts.push_back(text.substr(begin, end - begin));
    if (end == std::string::npos) return parts;
    begin = end + 1;
  }
}

std::optional<std::uint32_t> read_number(std::string_view text) {
  std::uint32_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || end != text.data() + text.size()) return std::nullopt;
  return value;
}

std::optional<bool> read_bool(const std::string& text) {
  if (text == "true") return true;
  if (text == "false") return false;
  return std::nullopt;
}

// The enumeration's value whose short name this is, but for the unspecified one; its number, or nothing.
std::optional<int> read_enum(const google::protobuf::EnumDescriptor& type, const std::string& text) {
  for (int i = 0; i < type.value_count(); ++i) {
    const int number = type.value(i)->number();
    if (number != 0 && short_enum_name(type, number) == text) return number;
  }
  return std::nullopt;
}

using FixedPrefixes = google::protobuf::RepeatedPtrField<v1::FixedPrefix>;

absl::Status read_fixed(const std::string& argument, const std::string& value, FixedPrefixes& prefixes) {
  for (const auto& item : split(value, ',')) {
    const auto parts = split(item, '@');
    const auto prefix = Ipv6Prefix::parse(parts[0]);
    if (!prefix.ok()) return wrong(argument, std::string(prefix.status().message()));
    if (parts.size() < 2 || parts.size() > 3 || parts[1].empty())
      return wrong(argument, "is no list of PREFIX@HOME or PREFIX@HOME@MODE");
    auto& fixed = *prefixes.Add();
    fixed.set_prefix(prefix->to_string());
    fixed.set_home_ar(parts[1]);
    if (parts.size() < 3) continue;
    const auto mode = read_enum(*v1::Mode_descriptor(), parts[2]);
    if (!mode) return wrong(argument, "the mode of a fixed prefix is redirect or relocate");
    fixed.set_mode(static_cast<v1::Mode>(*mode));
  }
  return absl::OkStatus();
}

std::string fixed_text(const FixedPrefixes& prefixes) {
  std::vector<std::string> items;
  for (const auto& prefix : prefixes) {
    items.push_back(fmt::format("{}@{}", prefix.prefix(), prefix.home_ar()));
    if (prefix.mode() != v1::MODE_UNSPECIFIED) items.back() += "@" + short_name(prefix.mode());
  }
  return fmt::format("{}", fmt::join(items, ","));
}

absl::Status read_duration_into(const std::string& argument, const std::string& value,
                                google::protobuf::Duration& duration) {
  const auto read = read_duration(value);
  if (!read) return wrong(argument, "is no time such as 250ms, 10s, 30m or 2h");
  duration = *read;
  return absl::OkStatus();
}

absl::Status read_field(const std::string& argument, const std::string& key, const std::string& value,
                        v1::Policy& policy) {
  if (key == "mode") {
    const auto mode = read_enum(*v1::Mode_descriptor(), value);
    if (!mode) return wrong(argument, "the mode is nomadic, redirect or relocate");
    policy.set_mode(static_cast<v1::Mode>(*mode));
  } else if (key == "prefix_type") {
    const auto type = read_enum(*v1::PrefixType_descriptor(), value);
    if (!type) return wrong(argument, "the type is session_lasting, non_persistent or graceful_replacement");
    policy.set_prefix_type(static_cast<v1::PrefixType>(*type));
  } else if (key == "allowed_ars") {
    for (const auto& ar : split(value, ',')) policy.add_allowed_ars(ar);
  } else if (key == "fixed_prefixes") {
    return read_fixed(argument, value, *policy.mutable_fixed_prefixes());
  } else if (key == "mobile_network_prefixes") {
    return read_fixed(argument, value, *policy.mutable_mobile_network_prefixes());
  } else if (key == "max_prefixes") {
    const auto number = read_number(value);
    if (!number || *number == 0) return wrong(argument, "is no whole number of 1 or more");
    policy.set_max_prefixes(*number);
  } else if (key == "serve_unknown" || key == "direct_uplink" || key == "require_authentication") {
    const auto yes = read_bool(value);
    if (!yes) return wrong(argument, "is neither true nor false");
    if (key == "serve_unknown") policy.set_serve_unknown(*yes);
    if (key == "direct_uplink") policy.set_direct_uplink(*yes);
    if (key == "require_authentication") policy.set_require_authentication(*yes);
  } else if (key == "relocate_after") {
    return read_duration_into(argument, value, *policy.mutable_relocate_after());
  } else if (key == "replacement_time") {
    return read_duration_into(argument, value, *policy.mutable_replacement_time());
  } else {
    return wrong(argument, "this kedgectl cannot set it");
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status read_policy_arguments(const std::vector<std::string>& arguments, v1::SetPolicyRequest* request) {
  request->mutable_policy();
  std::vector<std::string> seen;
  for (const auto& argument : arguments) {
    const auto equals = argument.find('=');
    const std::string key = argument.substr(0, equals);
    if (equals == std::string::npos || v1::Policy::descriptor()->FindFieldByName(key) == nullptr) {
      return wrong(argument,
                   "is no KEY=VALUE; keys are mode, prefix_type, allowed_ars, fixed_prefixes, "
                   "mobile_network_prefixes, serve_unknown, require_authentication, relocate_after, direct_uplink, "
                   "max_prefixes and replacement_time");
    }
    if (std::find(seen.begin(), seen.end(), key) != seen.end()) return wrong(argument, "is there twice");
    seen.push_back(key);
    const std::string value = argument.substr(equals + 1);
    if (value.empty()) {
      request->add_inherit(key);
    } else if (auto s = read_field(argument, key, value, *request->mutable_policy()); !s.ok()) {
      return s;
    }
  }
  return absl::OkStatus();
}

std::vector<std::pair<std::string, std::string>> policy_fields(const v1::Policy& policy) {
  std::vector<std::pair<std::string, std::string>> fields;
  const auto add = [&fields](bool has, const char* key, std::string value) {
    if (has) fields.emplace_back(key, std::move(value));
  };
  add(policy.mode() != v1::MODE_UNSPECIFIED, "mode", short_name(policy.mode()));
  add(policy.prefix_type() != v1::PREFIX_TYPE_UNSPECIFIED, "prefix_type", short_name(policy.prefix_type()));
  add(!policy.allowed_ars().empty(), "allowed_ars", fmt::format("{}", fmt::join(policy.allowed_ars(), ",")));
  add(!policy.fixed_prefixes().empty(), "fixed_prefixes", fixed_text(policy.fixed_prefixes()));
  add(!policy.mobile_network_prefixes().empty(), "mobile_network_prefixes",
      fixed_text(policy.mobile_network_prefixes()));
  add(policy.has_serve_unknown(), "serve_unknown", policy.serve_unknown() ? "true" : "false");
  add(policy.has_require_authentication(), "require_authentication",
      policy.require_authentication() ? "true" : "false");
  add(policy.has_relocate_after(), "relocate_after", duration_text(policy.relocate_after()));
  add(policy.has_direct_uplink(), "direct_uplink", policy.direct_uplink() ? "true" : "false");
  add(policy.max_prefixes() != 0, "max_prefixes", std::to_string(policy.max_prefixes()));
  add(policy.has_replacement_time(), "replacement_time", duration_text(policy.replacement_time()));
  return fields;
}

}  // namespace kedge::kedgectl
