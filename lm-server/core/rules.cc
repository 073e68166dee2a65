#include "lm-server/core/rules.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "lm-server/core/generation.h"

namespace kedge::lm {

const v1::Holder* find_holder(const v1::Binding& binding, const std::string& ar) {
  for (const auto& holder : binding.holders()) {
    if (holder.ar() == ar) return &holder;
  }
  return nullptr;
}

v1::Holder* find_holder(v1::Binding& binding, const std::string& ar) {
  return const_cast<v1::Holder*>(find_holder(const_cast<const v1::Binding&>(binding), ar));
}

v1::Holder& enter_holder(v1::Binding& binding, const std::string& ar) {
  if (auto* holder = find_holder(binding, ar)) return *holder;
  auto* holder = binding.add_holders();
  holder->set_ar(ar);
  return *holder;
}

void remove_holder(v1::Binding& binding, const std::string& ar) {
  auto& holders = *binding.mutable_holders();
  holders.erase(std::remove_if(holders.begin(), holders.end(), [&](const auto& h) { return h.ar() == ar; }),
                holders.end());
}

bool is_detached(const v1::Binding& binding) { return binding.attached_ar().empty(); }

bool is_away(const v1::Binding& binding) { return !is_detached(binding) && binding.attached_ar() != binding.home_ar(); }

bool ends_when_idle(const v1::Binding& binding) {
  // RFC 8653, 3: a fixed one is the MN's for good, a graceful replacement has its own time.
  return is_away(binding) && binding.prefix_type() == v1::PREFIX_TYPE_SESSION_LASTING && !binding.mobile_network();
}

std::uint32_t highest_other_preference(const v1::Binding& binding, const std::string& ar) {
  std::uint32_t highest = 0;
  for (const auto& holder : binding.holders()) {
    if (holder.ar() != ar) highest = std::max(highest, holder.advertises_preference());
  }
  return highest;
}

bool anchored_by_bgp(const v1::Binding& binding) { return binding.mode() == v1::MODE_RELOCATE && is_away(binding); }

std::uint32_t winning_preference(const v1::Binding& binding, std::uint32_t levels) {
  const std::string& ar = binding.attached_ar();
  const std::uint32_t others = highest_other_preference(binding, ar);
  const auto* own = find_holder(binding, ar);
  if (own != nullptr && own->advertises_preference() > others) return own->advertises_preference();
  return others < levels ? others + 1 : 0;
}

bool attached_delivers(const v1::Binding& binding) {
  const auto* attached = is_detached(binding) ? nullptr : find_holder(binding, binding.attached_ar());
  return attached != nullptr && attached->delivers() && same(attached->generation(), binding.generation());
}

bool follows(const v1::Binding& binding, const v1::Holder& holder) {
  if (!same(holder.generation(), binding.generation())) return false;
  // An AR without redirection has cleared what it had once its bgpd leads to the attached AR.
  const bool led_by_bgp = holder.superseded() && !holder.delivers() && !holder.unreachable();
  return holder.redirects_to() == binding.attached_ar() || (holder.redirects_to().empty() && led_by_bgp);
}

bool may_release(const v1::Binding& binding, const v1::Holder& holder) {
  if (holder.ar() == binding.home_ar() || holder.ar() == binding.attached_ar()) return false;
  if (holder.advertises_preference() != 0 || !attached_delivers(binding)) return false;
  const bool needs_bgp = binding.preference() > 0;
  if (anchored_by_bgp(binding) && !needs_bgp) return false;
  return std::all_of(binding.holders().begin(), binding.holders().end(), [&](const v1::Holder& other) {
    if (other.ar() == binding.attached_ar()) return true;
    return follows(binding, other) && (!needs_bgp || other.superseded());
  });
}

bool is_settled(const v1::Binding& binding, std::uint32_t advertised) {
  if (!attached_delivers(binding)) return false;
  const bool by_bgp = anchored_by_bgp(binding);
  const std::uint32_t level = by_bgp ? 1 : 0;
  if (binding.preference() != level || (by_bgp && advertised != level)) return false;
  return std::all_of(binding.holders().begin(), binding.holders().end(), [&](const v1::Holder& holder) {
    if (holder.ar() == binding.attached_ar()) return holder.advertises_preference() == level;
    // RFC 8818, 4.2: the home AR goes on redirecting for as long as the prefix is away.
    return holder.ar() == binding.home_ar() && holder.advertises_preference() == 0 && follows(binding, holder) &&
           (!by_bgp || holder.superseded());
  });
}

std::string summary(const v1::Binding& binding) {
  if (binding.prefix().empty()) return {};
  // Enumerations by the ends of their names, as people know them.
  const auto name = [](const std::string& value, std::size_t prefix) {
    return value.size() > prefix ? absl::AsciiStrToLower(value.substr(prefix)) : value;
  };
  std::string text = absl::StrCat("mn=", binding.mn_id(), " home_ar=", binding.home_ar());
  if (is_detached(binding)) {
    const bool grace = binding.state() == v1::BINDING_STATE_DETACHED_GRACE;
    absl::StrAppend(&text, grace ? " detached_in_grace" : " detached");
  } else {
    absl::StrAppend(&text, " attached_ar=", binding.attached_ar(), " interface=", binding.attachment().interface());
  }
  absl::StrAppend(&text, " mode=", name(v1::Mode_Name(binding.mode()), sizeof("MODE_") - 1),
                  " type=", name(v1::PrefixType_Name(binding.prefix_type()), sizeof("PREFIX_TYPE_") - 1));
  if (binding.mobile_network()) absl::StrAppend(&text, " mobile_network");
  if (binding.direct_uplink()) absl::StrAppend(&text, " direct_uplink");
  if (binding.flapping()) absl::StrAppend(&text, " flapping");
  if (binding.released()) absl::StrAppend(&text, " released");
  return text;
}

}  // namespace kedge::lm
