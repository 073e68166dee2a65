// Which rules hold for a mobile node at an access router, and what they make of one of its prefixes. No state but the
// policies themselves, no clock.
//
// Standards: RFC 8653, 3 (prefix types); RFC 8818, 4 (modes); RFC 3963 (mobile network prefixes).
#pragma once

#include <chrono>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/ipv6.h"
#include "common/time.h"
#include "kedge/v1/policy.pb.h"
#include "lm-server/core/settings.h"

namespace kedge::lm {

// A prefix that is its mobile node's for as long as the profile says so.
struct FixedPrefix {
  Ipv6Prefix prefix;
  std::string home_ar;
  // Redirect, relocate, or unspecified: as the rest of the policy says.
  v1::Mode mode = v1::MODE_UNSPECIFIED;
  // Of the network behind the MN (RFC 8818, 2: MNP), /48 to /64; otherwise a /64 of the MN itself (HNP).
  bool mobile_network = false;

  // Of the policy's field.
  const char* field() const { return mobile_network ? "mobile_network_prefixes" : "fixed_prefixes"; }
};

// All that the policy names, HNPs first.
std::vector<FixedPrefix> fixed_prefixes(const v1::Policy& policy);

// What holds after all scopes have been asked; `mode` and `prefix_type` do not contradict each other. The pointer is
// valid until the PolicyBook changes; null: not limited.
struct Rules {
  v1::Mode mode = v1::MODE_RELOCATE;
  v1::PrefixType prefix_type = v1::PREFIX_TYPE_SESSION_LASTING;
  const v1::Policy* allowed = nullptr;
  std::vector<FixedPrefix> fixed;
  bool serve_unknown = true;
  bool require_authentication = false;
  std::chrono::nanoseconds relocate_after{};
  bool direct_uplink = false;
  std::uint32_t max_prefixes = 0;
  std::chrono::nanoseconds replacement_time{};

  bool allows(const std::string& ar) const;
  // Null when it is not among the fixed ones.
  const FixedPrefix* find_fixed(const std::string& prefix) const;
};

// Field name -> "mn", "ar", "default", "configuration" or "derived".
using Sources = std::map<std::string, std::string>;

// Whether a prefix of the type can be handled in the mode.
bool agree(v1::Mode mode, v1::PrefixType type);

// Names of access routers and their pools are taken from `ars`. InvalidArgument, NotFound (the scope's AR): the text
// names the field.
absl::Status check_policy(const v1::PolicyScope& scope, const v1::Policy& policy, const std::vector<AccessRouter>& ars);

// Sets the fields that `change` has in `policy` and clears those that `inherit` names. InvalidArgument: no such field.
absl::Status merge_policy(const v1::Policy& change, const google::protobuf::RepeatedPtrField<std::string>& inherit,
                          v1::Policy& policy);

// The policies of all scopes. Not thread-safe.
class PolicyBook {
 public:
  explicit PolicyBook(const Settings& settings);

  // Key in the store; all begin with kKeyPrefix. The default comes first, then ARs, then MNs.
  static constexpr const char* kKeyPrefix = "policy/";
  static std::string key_of(const v1::PolicyScope& scope);

  // Null when there is none.
  const v1::PolicyEntry* find(const v1::PolicyScope& scope) const;
  const v1::PolicyEntry* find_profile(const std::string& mn_id) const;
  void set(v1::PolicyEntry entry);
  void erase(const v1::PolicyScope& scope);
  void clear();
  void visit(const std::function<void(const v1::PolicyEntry&)>& visit) const;

  // The MN whose profile has exactly this prefix.
  std::optional<std::string> owner_of(const Ipv6Prefix& fixed_prefix) const;
  // A fixed prefix, and its owner, of another MN that overlaps this one.
  std::optional<std::pair<Ipv6Prefix, std::string>> find_rival(const Ipv6Prefix& prefix,
                                                               const std::string& mn_id) const;

  // `ar` may be empty. `sources` may be null.
  Rules resolve(const std::string& mn_id, const std::string& ar, Sources* sources = nullptr) const;
  // The same as a message with every field.
  v1::Policy effective(const std::string& mn_id, const std::string& ar, Sources& sources) const;

 private:
  v1::Policy configuration_;
  std::map<std::string, v1::PolicyEntry> entries_;
  // None overlaps another: Machine sees to that.
  std::map<Ipv6Prefix, std::string> owners_;
};

// How things stand with one prefix of an attached MN.
struct Situation {
  bool away = false;
  bool home_draining = false;
  SystemTime now{};
  SystemTime arrived_at{};
  SystemTime away_since{};
  // A flapping MN is left alone until then.
  std::optional<SystemTime> quiet_at;
};

// What shall be done with it. `mode` is redirect while a relocation is put off.
struct Plan {
  v1::Mode mode = v1::MODE_UNSPECIFIED;
  v1::PrefixType prefix_type = v1::PREFIX_TYPE_UNSPECIFIED;
  bool direct_uplink = false;
  bool flapping = false;
  bool mobile_network = false;
  std::optional<SystemTime> relocate_at;
  std::optional<SystemTime> ends_at;
};

Plan make_plan(const Rules& rules, const std::string& prefix, const Situation& situation);

}  // namespace kedge::lm
