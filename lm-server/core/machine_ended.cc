// Prefixes that have ended while their mobile node goes on elsewhere.
//
// Standards: RFC 8818, 4.1 (nomadic case).
#include <algorithm>

#include "lm-server/core/machine_transaction.h"

namespace kedge::lm {
namespace {

// A Linux host has no more than 16 addresses.
constexpr std::size_t kMostRefusals = 15;

bool stays(const v1::Binding& binding, const v1::Holder& holder) {
  return holder.ar() != binding.home_ar() && !holder.releasing();
}

bool is_refused_at(const v1::Binding& binding, const v1::Binding* present) {
  const auto elsewhere = [&](const v1::Holder& holder) {
    return stays(binding, holder) && (present == nullptr || holder.ar() != present->attached_ar());
  };
  if (std::any_of(binding.holders().begin(), binding.holders().end(), elsewhere)) return false;
  if (present == nullptr) return true;
  const auto* here = find_holder(binding, present->attached_ar());
  return here != nullptr && !here->releasing() &&
         binding.attachment().SerializeAsString() == present->attachment().SerializeAsString();
}

}  // namespace

// RFC 8818, 4.1: "Since the IP address (IP1) configured at the previously visited network is not valid at the current
// attachment point, any existing flows have to be reestablished using IP2". Its home answers those who send to the
// prefix; the AR where the MN is answers the MN, which would learn of it by timeouts only.
void Machine::place_refusals(Transaction& tx, const std::string& mn_id) {
  const auto mn = mobile_nodes_.find(mn_id);
  if (mn == mobile_nodes_.end()) return;
  const v1::Binding* present = nullptr;
  bool in_grace = false;
  std::vector<const v1::Binding*> gone;
  for (const auto& prefix : mn->second.prefixes) {
    const auto& binding = bindings_.at(prefix).binding;
    if (!is_detached(binding)) present = &binding;
    in_grace = in_grace || binding.state() == v1::BINDING_STATE_DETACHED_GRACE;
    if (binding.state() == v1::BINDING_STATE_DETACHED) gone.push_back(&binding);
  }
  if (present == nullptr && in_grace) return;
  std::stable_sort(gone.begin(), gone.end(),
                   [](const auto* a, const auto* b) { return from_proto(a->free_at()) > from_proto(b->free_at()); });
  std::size_t refused = 0;
  for (const auto* binding : gone) {
    const auto* home = find_holder(*binding, binding->home_ar());
    // Its quarantine is over.
    if (home == nullptr || home->releasing()) continue;
    const bool here = present != nullptr && binding->released() && binding->home_ar() != present->attached_ar() &&
                      refused < kMostRefusals;
    if (here) ++refused;
    if (is_refused_at(*binding, here ? present : nullptr)) continue;
    refuse_at(tx, tx.edit(*Ipv6Prefix::parse(binding->prefix())), here ? present : nullptr);
  }
}

void Machine::refuse_at(Transaction& tx, Entry& entry, const v1::Binding* present) {
  v1::Binding& binding = entry.binding;
  *binding.mutable_generation() = tx.generation();
  for (auto& holder : *binding.mutable_holders()) holder.set_releasing(holder.ar() != binding.home_ar());
  if (present != nullptr) {
    enter_holder(binding, present->attached_ar()).set_releasing(false);
    *binding.mutable_attachment() = present->attachment();
  }
  entry.progress.clear();
  tx.durability = Durability::kSync;
}

}  // namespace kedge::lm
