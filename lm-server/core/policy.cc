#include "lm-server/core/policy.h"

#include <algorithm>
#include <array>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/link_layer_address.h"
#include "lm-server/core/prefix_map.h"

namespace kedge::lm {
namespace {

using std::chrono::hours;
using std::chrono::nanoseconds;

constexpr std::size_t kMostFixedPrefixes = 15;
constexpr int kShortestNetwork = 48;
constexpr int kLongestNetwork = 64;
constexpr std::uint32_t kMostPrefixes = 15;

template <typename... Text>
absl::Status invalid(const Text&... text) {
  return absl::InvalidArgumentError(absl::StrCat(text...));
}

const AccessRouter* find_ar(const std::vector<AccessRouter>& ars, const std::string& name) {
  const auto it = std::find_if(ars.begin(), ars.end(), [&](const auto& ar) { return ar.info.name() == name; });
  return it == ars.end() ? nullptr : &*it;
}

std::string names_of(const std::vector<AccessRouter>& ars) {
  std::string text;
  for (const auto& ar : ars) absl::StrAppend(&text, text.empty() ? "" : ", ", ar.info.name());
  return text;
}

absl::Status unknown_ar(const std::string& field, const std::string& name, const std::vector<AccessRouter>& ars) {
  return invalid(field, ": access router \"", name, "\" is unknown; the LM's configuration has ", names_of(ars));
}

absl::Status check_scope(const v1::PolicyScope& scope, const std::vector<AccessRouter>& ars) {
  switch (scope.kind_case()) {
    case v1::PolicyScope::kMnId: {
      const auto mn = LinkLayerAddress::parse(scope.mn_id());
      if (!mn.ok()) return invalid("scope.mn_id: ", mn.status().message());
      if (mn->to_string() != scope.mn_id()) {
        return invalid("scope.mn_id: \"", scope.mn_id(), "\" must be written ", mn->to_string());
      }
      if (mn->is_multicast() || mn->is_zero()) return invalid("scope.mn_id: ", scope.mn_id(), " is no unicast address");
      return absl::OkStatus();
    }
    case v1::PolicyScope::kAr:
      if (find_ar(ars, scope.ar()) == nullptr) {
        return absl::NotFoundError(unknown_ar("scope.ar", scope.ar(), ars).message());
      }
      return absl::OkStatus();
    case v1::PolicyScope::kDefaults:
      if (!scope.defaults()) return invalid("scope.defaults: must be true");
      return absl::OkStatus();
    default:
      return invalid("scope: must be a mobile node, an access router or the defaults");
  }
}

absl::Status check_duration(const char* field, const google::protobuf::Duration& value) {
  const bool in_range = value.seconds() >= 0 && value.nanos() >= 0 && value.nanos() <= 999'999'999 &&
                        value.seconds() <= 24 * 3600 && kedge::from_proto(value) <= hours(24);
  return in_range ? absl::OkStatus() : invalid(field, ": must be 0s to 24h");
}

absl::Status check_text(const char* field, const v1::FixedPrefix& fixed) {
  const auto prefix = Ipv6Prefix::parse(fixed.prefix());
  if (!prefix.ok()) return invalid(field, ": ", prefix.status().message());
  if (prefix->to_string() == fixed.prefix()) return absl::OkStatus();
  return invalid(field, ": \"", fixed.prefix(), "\" must be written ", prefix->to_string());
}

absl::Status check_fixed(const FixedPrefix& fixed, const std::vector<AccessRouter>& ars) {
  const char* field = fixed.field();
  const Ipv6Prefix& prefix = fixed.prefix;
  if (!fixed.mobile_network && prefix.length() != 64) return invalid(field, ": ", prefix.to_string(), " is no /64");
  if (prefix.length() < kShortestNetwork || prefix.length() > kLongestNetwork) {
    return invalid(field, ": ", prefix.to_string(), " is not /48 to /64");
  }
  const auto* home = find_ar(ars, fixed.home_ar);
  if (home == nullptr) return unknown_ar(field, fixed.home_ar, ars);
  const bool covered = std::any_of(home->pools.begin(), home->pools.end(),
                                   [&](const Ipv6Prefix& pool) { return pool.contains(prefix); });
  if (!covered) {
    std::string pools;
    for (const auto& pool : home->pools) absl::StrAppend(&pools, pools.empty() ? "" : ", ", pool.to_string());
    return invalid(field, ": ", prefix.to_string(), " is in no pool of its home ", fixed.home_ar, ", which has ",
                   pools);
  }
  if (fixed.mode != v1::MODE_UNSPECIFIED && fixed.mode != v1::MODE_REDIRECT && fixed.mode != v1::MODE_RELOCATE) {
    return invalid(field, ": ", prefix.to_string(), " keeps its addresses; its mode is redirect or relocate");
  }
  return absl::OkStatus();
}

absl::Status check_all_fixed(const v1::PolicyScope& scope, const v1::Policy& policy,
                             const std::vector<AccessRouter>& ars) {
  for (const auto& fixed : policy.fixed_prefixes()) {
    if (auto s = check_text("fixed_prefixes", fixed); !s.ok()) return s;
  }
  for (const auto& fixed : policy.mobile_network_prefixes()) {
    if (auto s = check_text("mobile_network_prefixes", fixed); !s.ok()) return s;
  }
  const auto all = fixed_prefixes(policy);
  if (!all.empty() && !scope.has_mn_id()) return invalid(all.front().field(), ": belong to a mobile node");
  if (all.size() > kMostFixedPrefixes) {
    return invalid(all.back().field(), ": at most 15 fixed prefixes, those of mobile networks included");
  }
  for (auto it = all.begin(); it != all.end(); ++it) {
    if (auto s = check_fixed(*it, ars); !s.ok()) return s;
    const auto other =
        std::find_if(all.begin(), it, [&](const FixedPrefix& before) { return before.prefix.overlaps(it->prefix); });
    if (other == it) continue;
    const std::string text = it->prefix.to_string();
    if (other->prefix == it->prefix) return invalid(it->field(), ": ", text, " is there twice");
    return invalid(it->field(), ": ", text, " overlaps ", other->prefix.to_string(), " of ", other->field());
  }
  return absl::OkStatus();
}

v1::Mode mode_for(v1::PrefixType type) {
  if (type == v1::PREFIX_TYPE_NON_PERSISTENT) return v1::MODE_NOMADIC;
  if (type == v1::PREFIX_TYPE_GRACEFUL_REPLACEMENT) return v1::MODE_REDIRECT;
  return v1::MODE_RELOCATE;
}

v1::PrefixType type_for(v1::Mode mode) {
  return mode == v1::MODE_NOMADIC ? v1::PREFIX_TYPE_NON_PERSISTENT : v1::PREFIX_TYPE_SESSION_LASTING;
}

}  // namespace

std::vector<FixedPrefix> fixed_prefixes(const v1::Policy& policy) {
  std::vector<FixedPrefix> result;
  const auto add = [&](const auto& list, bool mobile_network) {
    for (const auto& fixed : list) {
      const auto prefix = Ipv6Prefix::parse(fixed.prefix());
      if (prefix.ok()) result.push_back({*prefix, fixed.home_ar(), fixed.mode(), mobile_network});
    }
  };
  add(policy.fixed_prefixes(), false);
  add(policy.mobile_network_prefixes(), true);
  return result;
}

bool Rules::allows(const std::string& ar) const {
  if (allowed == nullptr) return true;
  return std::find(allowed->allowed_ars().begin(), allowed->allowed_ars().end(), ar) != allowed->allowed_ars().end();
}

const FixedPrefix* Rules::find_fixed(const std::string& prefix) const {
  if (fixed.empty()) return nullptr;
  const auto wanted = Ipv6Prefix::parse(prefix);
  const auto it =
      std::find_if(fixed.begin(), fixed.end(), [&](const auto& f) { return wanted.ok() && f.prefix == *wanted; });
  return it == fixed.end() ? nullptr : &*it;
}

bool agree(v1::Mode mode, v1::PrefixType type) {
  // RFC 8653, 3: only an address that need not outlive its attachment can be left behind.
  switch (type) {
    case v1::PREFIX_TYPE_NON_PERSISTENT:
      return mode == v1::MODE_NOMADIC;
    case v1::PREFIX_TYPE_GRACEFUL_REPLACEMENT:
      return mode == v1::MODE_REDIRECT;
    default:
      return mode == v1::MODE_REDIRECT || mode == v1::MODE_RELOCATE;
  }
}

absl::Status check_policy(const v1::PolicyScope& scope, const v1::Policy& policy,
                          const std::vector<AccessRouter>& ars) {
  if (auto s = check_scope(scope, ars); !s.ok()) return s;
  if (!v1::Mode_IsValid(policy.mode())) return invalid("mode: ", policy.mode(), " is unknown");
  if (!v1::PrefixType_IsValid(policy.prefix_type()))
    return invalid("prefix_type: ", policy.prefix_type(), " is unknown");
  if (policy.prefix_type() == v1::PREFIX_TYPE_FIXED) {
    return invalid("prefix_type: fixed is what fixed_prefixes are; name the prefixes there");
  }
  if (policy.mode() != v1::MODE_UNSPECIFIED && policy.prefix_type() != v1::PREFIX_TYPE_UNSPECIFIED &&
      !agree(policy.mode(), policy.prefix_type())) {
    return invalid(
        "prefix_type: contradicts mode; session-lasting goes with redirect and relocate, non-persistent with nomadic, "
        "graceful-replacement with redirect");
  }
  if (scope.has_ar() && !policy.allowed_ars().empty()) {
    return invalid("allowed_ars: belongs to a mobile node or to the defaults, not to an access router");
  }
  std::set<std::string> seen;
  for (const auto& name : policy.allowed_ars()) {
    if (find_ar(ars, name) == nullptr) return unknown_ar("allowed_ars", name, ars);
    if (!seen.insert(name).second) return invalid("allowed_ars: ", name, " is there twice");
  }
  if (auto s = check_all_fixed(scope, policy, ars); !s.ok()) return s;
  if (scope.has_mn_id() && policy.has_serve_unknown()) {
    return invalid("serve_unknown: a mobile node with a profile is known; set it for an access router or the defaults");
  }
  if (policy.max_prefixes() > kMostPrefixes) {
    return invalid("max_prefixes: ", policy.max_prefixes(), " is not 1 to 15 (a Linux host stops at 16 addresses)");
  }
  if (auto s = check_duration("relocate_after", policy.relocate_after()); !s.ok()) return s;
  return check_duration("replacement_time", policy.replacement_time());
}

absl::Status merge_policy(const v1::Policy& change, const google::protobuf::RepeatedPtrField<std::string>& inherit,
                          v1::Policy& policy) {
  for (const auto& name : inherit) {
    const auto* field = v1::Policy::descriptor()->FindFieldByName(name);
    if (field == nullptr) return invalid("inherit: a policy has no field \"", name, "\"");
    policy.GetReflection()->ClearField(&policy, field);
  }
  // Each field is replaced as a whole.
  std::vector<const google::protobuf::FieldDescriptor*> fields;
  change.GetReflection()->ListFields(change, &fields);
  for (const auto* field : fields) policy.GetReflection()->ClearField(&policy, field);
  policy.MergeFrom(change);
  return absl::OkStatus();
}

PolicyBook::PolicyBook(const Settings& settings) {
  configuration_.set_mode(settings.mode);
  configuration_.set_prefix_type(settings.prefix_type == v1::PREFIX_TYPE_UNSPECIFIED ? type_for(settings.mode)
                                                                                     : settings.prefix_type);
  configuration_.set_serve_unknown(settings.serve_unknown);
  configuration_.set_require_authentication(settings.require_authentication);
  *configuration_.mutable_relocate_after() = kedge::to_proto(settings.relocate_after);
  configuration_.set_direct_uplink(settings.direct_uplink);
  configuration_.set_max_prefixes(settings.max_prefixes_per_mn);
  *configuration_.mutable_replacement_time() = kedge::to_proto(settings.replacement_time);
}

std::string PolicyBook::key_of(const v1::PolicyScope& scope) {
  if (scope.has_mn_id()) return absl::StrCat(kKeyPrefix, "mn/", scope.mn_id());
  if (scope.has_ar()) return absl::StrCat(kKeyPrefix, "ar/", scope.ar());
  // Sorts before the others.
  return absl::StrCat(kKeyPrefix, "=");
}

const v1::PolicyEntry* PolicyBook::find(const v1::PolicyScope& scope) const {
  const auto it = entries_.find(key_of(scope));
  return it == entries_.end() ? nullptr : &it->second;
}

const v1::PolicyEntry* PolicyBook::find_profile(const std::string& mn_id) const {
  v1::PolicyScope scope;
  scope.set_mn_id(mn_id);
  return find(scope);
}

void PolicyBook::set(v1::PolicyEntry entry) {
  erase(entry.scope());
  for (const auto& fixed : fixed_prefixes(entry.policy())) owners_[fixed.prefix] = entry.scope().mn_id();
  const std::string key = key_of(entry.scope());
  entries_[key] = std::move(entry);
}

void PolicyBook::erase(const v1::PolicyScope& scope) {
  const auto it = entries_.find(key_of(scope));
  if (it == entries_.end()) return;
  for (const auto& fixed : fixed_prefixes(it->second.policy())) owners_.erase(fixed.prefix);
  entries_.erase(it);
}

void PolicyBook::clear() {
  entries_.clear();
  owners_.clear();
}

void PolicyBook::visit(const std::function<void(const v1::PolicyEntry&)>& visit) const {
  for (const auto& [key, entry] : entries_) visit(entry);
}

std::optional<std::string> PolicyBook::owner_of(const Ipv6Prefix& fixed_prefix) const {
  const auto it = owners_.find(fixed_prefix);
  if (it == owners_.end()) return std::nullopt;
  return it->second;
}

std::optional<std::pair<Ipv6Prefix, std::string>> PolicyBook::find_rival(const Ipv6Prefix& prefix,
                                                                         const std::string& mn_id) const {
  const auto [first, last] = find_overlapping(owners_, prefix);
  const auto it = std::find_if(first, last, [&](const auto& owner) { return owner.second != mn_id; });
  if (it == last) return std::nullopt;
  return *it;
}

Rules PolicyBook::resolve(const std::string& mn_id, const std::string& ar, Sources* sources) const {
  static constexpr std::array<const char*, 4> kNames{"mn", "ar", "default", "configuration"};
  v1::PolicyScope ar_scope;
  ar_scope.set_ar(ar);
  v1::PolicyScope defaults;
  defaults.set_defaults(true);
  const auto* mn_entry = find_profile(mn_id);
  const auto* ar_entry = ar.empty() ? nullptr : find(ar_scope);
  const auto* default_entry = find(defaults);
  const std::array<const v1::Policy*, 4> layers{
      mn_entry == nullptr ? nullptr : &mn_entry->policy(), ar_entry == nullptr ? nullptr : &ar_entry->policy(),
      default_entry == nullptr ? nullptr : &default_entry->policy(), &configuration_};

  // Index of the most specific layer that sets the field; 4: none.
  const auto layer_of = [&](const char* field, const auto& has) {
    std::size_t i = 0;
    while (i < layers.size() && (layers[i] == nullptr || !has(*layers[i]))) ++i;
    if (sources != nullptr && i < layers.size()) (*sources)[field] = kNames[i];
    return i;
  };
  const auto mode = layer_of("mode", [](const auto& p) { return p.mode() != v1::MODE_UNSPECIFIED; });
  const auto type =
      layer_of("prefix_type", [](const auto& p) { return p.prefix_type() != v1::PREFIX_TYPE_UNSPECIFIED; });
  const auto allowed = layer_of("allowed_ars", [](const auto& p) { return !p.allowed_ars().empty(); });
  const auto serve = layer_of("serve_unknown", [](const auto& p) { return p.has_serve_unknown(); });
  const auto authentication =
      layer_of("require_authentication", [](const auto& p) { return p.has_require_authentication(); });
  const auto after = layer_of("relocate_after", [](const auto& p) { return p.has_relocate_after(); });
  const auto uplink = layer_of("direct_uplink", [](const auto& p) { return p.has_direct_uplink(); });
  const auto most = layer_of("max_prefixes", [](const auto& p) { return p.max_prefixes() != 0; });
  const auto replacement = layer_of("replacement_time", [](const auto& p) { return p.has_replacement_time(); });

  Rules rules;
  rules.mode = layers[mode]->mode();
  rules.prefix_type = layers[type]->prefix_type();
  if (!agree(rules.mode, rules.prefix_type)) {
    const bool mode_is_more_specific = mode <= type;
    if (mode_is_more_specific) {
      rules.prefix_type = type_for(rules.mode);
    } else {
      rules.mode = mode_for(rules.prefix_type);
    }
    if (sources != nullptr) (*sources)[mode_is_more_specific ? "prefix_type" : "mode"] = "derived";
  }
  if (allowed < layers.size()) rules.allowed = layers[allowed];
  // Only profiles have any.
  layer_of("fixed_prefixes", [](const auto& p) { return !p.fixed_prefixes().empty(); });
  layer_of("mobile_network_prefixes", [](const auto& p) { return !p.mobile_network_prefixes().empty(); });
  if (mn_entry != nullptr) rules.fixed = fixed_prefixes(mn_entry->policy());
  rules.serve_unknown = layers[serve]->serve_unknown();
  rules.require_authentication = layers[authentication]->require_authentication();
  rules.relocate_after = kedge::from_proto(layers[after]->relocate_after());
  rules.direct_uplink = layers[uplink]->direct_uplink();
  rules.max_prefixes = layers[most]->max_prefixes();
  rules.replacement_time = kedge::from_proto(layers[replacement]->replacement_time());
  return rules;
}

v1::Policy PolicyBook::effective(const std::string& mn_id, const std::string& ar, Sources& sources) const {
  const Rules rules = resolve(mn_id, ar, &sources);
  v1::Policy policy;
  policy.set_mode(rules.mode);
  policy.set_prefix_type(rules.prefix_type);
  if (rules.allowed != nullptr) *policy.mutable_allowed_ars() = rules.allowed->allowed_ars();
  if (const auto* profile = find_profile(mn_id)) {
    *policy.mutable_fixed_prefixes() = profile->policy().fixed_prefixes();
    *policy.mutable_mobile_network_prefixes() = profile->policy().mobile_network_prefixes();
  }
  policy.set_serve_unknown(rules.serve_unknown);
  policy.set_require_authentication(rules.require_authentication);
  *policy.mutable_relocate_after() = kedge::to_proto(rules.relocate_after);
  policy.set_direct_uplink(rules.direct_uplink);
  policy.set_max_prefixes(rules.max_prefixes);
  *policy.mutable_replacement_time() = kedge::to_proto(rules.replacement_time);
  return policy;
}

Plan make_plan(const Rules& rules, const std::string& prefix, const Situation& at) {
  Plan plan;
  plan.mode = rules.mode;
  plan.prefix_type = rules.prefix_type;
  plan.direct_uplink = rules.direct_uplink;
  if (const auto* fixed = rules.find_fixed(prefix)) {
    plan.prefix_type = v1::PREFIX_TYPE_FIXED;
    plan.mobile_network = fixed->mobile_network;
    if (fixed->mode != v1::MODE_UNSPECIFIED) plan.mode = fixed->mode;
    if (plan.mode == v1::MODE_NOMADIC) plan.mode = v1::MODE_RELOCATE;
  }
  if (plan.prefix_type == v1::PREFIX_TYPE_GRACEFUL_REPLACEMENT && at.away) {
    plan.ends_at = at.away_since + rules.replacement_time;
  }
  if (at.away && at.home_draining) {
    if (plan.mode == v1::MODE_REDIRECT) plan.mode = v1::MODE_RELOCATE;
    return plan;
  }
  if (plan.mode != v1::MODE_RELOCATE) return plan;
  plan.flapping = at.quiet_at && *at.quiet_at > at.now;
  SystemTime relocate_at = plan.flapping ? *at.quiet_at : at.now;
  if (at.away) relocate_at = std::max(relocate_at, at.arrived_at + rules.relocate_after);
  if (relocate_at > at.now) {
    plan.mode = v1::MODE_REDIRECT;
    plan.relocate_at = relocate_at;
  }
  return plan;
}

}  // namespace kedge::lm
