#include "speaker/core/permitted_sources.h"

#include <utility>

#include "speaker/core/desired.h"

namespace kedge::speaker {

std::optional<PermittedSource> present_source(const v1::Binding& binding, const std::string& self) {
  // A link that flaps: the AR keeps all that it has for the MN's return.
  const bool just_left =
      binding.state() == v1::BINDING_STATE_DETACHED_GRACE && binding.attached_ar().empty() && binding.last_ar() == self;
  const bool refused = desired(binding, self).forwarding.kind == Forwarding::Kind::kRefuse;
  if (binding.attached_ar() != self && !just_left && !refused) return std::nullopt;
  const auto prefix = Ipv6Prefix::parse(binding.prefix());
  const auto mn = LinkLayerAddress::parse(binding.attachment().link_layer_address());
  if (!prefix.ok() || !mn.ok()) return std::nullopt;
  return PermittedSource{binding.attachment().interface(), *mn, *prefix};
}

std::optional<PermittedSource> link_local_source(const v1::Binding& binding, const PermittedSource& present) {
  const auto address = Ipv6Address::parse(binding.attachment().link_local());
  if (!address.ok() || !address->is_link_local()) return std::nullopt;
  return PermittedSource{present.interface, present.mn, Ipv6Prefix(*address, 128)};
}

void PermittedSources::permit(const PermittedSource& source) {
  if (!all_.insert(source).second) return;
  if (removed_.erase(source) == 0) added_.insert(source);
}

void PermittedSources::prohibit(const PermittedSource& source) {
  if (all_.erase(source) == 0) return;
  if (added_.erase(source) == 0) removed_.insert(source);
}

PermittedSources::Change PermittedSources::take_change() {
  Change change;
  change.added.assign(added_.begin(), added_.end());
  change.removed.assign(removed_.begin(), removed_.end());
  added_.clear();
  removed_.clear();
  return change;
}

void PermittedSources::adopt(const PermittedSource& source, SteadyTime now) {
  auto& sources = sources_[source.prefix];
  if (source.prefix.address().is_link_local()) return set_link_local(sources, source);
  if (sources.present == source) return;
  permit(source);
  sources.earlier.insert(source);
  earlier_.emplace(source, now);
}

void PermittedSources::retire(Sources& sources, SteadyTime now) {
  if (!sources.present) return;
  sources.earlier.insert(*sources.present);
  earlier_.emplace(*sources.present, now);
  sources.present.reset();
  set_link_local(sources, std::nullopt);
}

void PermittedSources::set_present(Sources& sources, const PermittedSource& source, SteadyTime now) {
  if (sources.present == source) return;
  retire(sources, now);
  sources.earlier.erase(source);
  earlier_.erase(source);
  sources.present = source;
  permit(source);
}

void PermittedSources::set_link_local(Sources& sources, const std::optional<PermittedSource>& link_local) {
  if (sources.link_local == link_local) return;
  if (link_local && link_locals_[*link_local]++ == 0) permit(*link_local);
  const auto before = std::exchange(sources.link_local, link_local);
  if (!before || --link_locals_.at(*before) > 0) return;
  link_locals_.erase(*before);
  prohibit(*before);
}

void PermittedSources::take(const Ipv6Prefix& prefix, const v1::Binding& binding, SteadyTime now) {
  const auto present = present_source(binding, self_);
  auto& sources = sources_[prefix];
  sources.forgotten = false;
  if (present) {
    set_present(sources, *present, now);
    set_link_local(sources, link_local_source(binding, *present));
  } else if (binding.attached_ar().empty() && binding.state() != v1::BINDING_STATE_DETACHED_GRACE) {
    return end(prefix);
  } else {
    retire(sources, now);
  }
  // The prefix was another MN's.
  const auto mn = LinkLayerAddress::parse(binding.mn_id());
  std::vector<PermittedSource> foreign;
  for (const auto& source : sources.earlier) {
    if (mn.ok() && source.mn != *mn) foreign.push_back(source);
  }
  end_earlier(foreign);
  const auto left = sources_.find(prefix);
  if (left != sources_.end() && !left->second.present && left->second.earlier.empty()) sources_.erase(left);
}

void PermittedSources::forget(const Ipv6Prefix& prefix, SteadyTime now) {
  const auto found = sources_.find(prefix);
  if (found == sources_.end() || found->second.forgotten) return;
  if (found->second.present || found->second.earlier.empty()) return end(prefix);
  found->second.forgotten = true;
  for (const auto& source : found->second.earlier) earlier_[source] = now;
}

void PermittedSources::end(const Ipv6Prefix& prefix) {
  const auto found = sources_.find(prefix);
  if (found == sources_.end()) return;
  if (found->second.present) prohibit(*found->second.present);
  set_link_local(found->second, std::nullopt);
  for (const auto& source : found->second.earlier) {
    prohibit(source);
    earlier_.erase(source);
  }
  sources_.erase(found);
}

bool PermittedSources::any_of(const LinkLayerAddress& mn, const std::string& interface) const {
  const auto first = all_.lower_bound({interface, mn, {}});
  return first != all_.end() && first->interface == interface && first->mn == mn;
}

std::vector<Ipv6Prefix> PermittedSources::prefixes() const {
  std::vector<Ipv6Prefix> prefixes;
  for (const auto& [prefix, sources] : sources_) {
    if (!sources.forgotten) prefixes.push_back(prefix);
  }
  return prefixes;
}

void PermittedSources::end_earlier(const std::vector<PermittedSource>& over) {
  for (const auto& source : over) {
    prohibit(source);
    earlier_.erase(source);
    const auto found = sources_.find(source.prefix);
    if (found == sources_.end()) continue;
    found->second.earlier.erase(source);
    if (!found->second.present && found->second.earlier.empty()) sources_.erase(found);
  }
}

void PermittedSources::departed(const LinkLayerAddress& mn, const std::string& interface) {
  std::vector<PermittedSource> over;
  for (auto it = earlier_.lower_bound({interface, mn, {}}); it != earlier_.end(); ++it) {
    if (it->first.interface != interface || it->first.mn != mn) break;
    over.push_back(it->first);
  }
  end_earlier(over);
}

void PermittedSources::link_down(const std::string& interface) {
  std::vector<PermittedSource> over;
  for (auto it = earlier_.lower_bound({interface, {}, {}}); it != earlier_.end(); ++it) {
    if (it->first.interface != interface) break;
    over.push_back(it->first);
  }
  end_earlier(over);
}

void PermittedSources::expire(SteadyTime now, std::chrono::milliseconds silence, const LastHeard& last_heard) {
  std::vector<PermittedSource> over;
  for (const auto& [source, since] : earlier_) {
    if (since + silence > now) continue;
    const auto heard =
        sources_.at(source.prefix).forgotten ? since : last_heard(source.interface, source.mn).value_or(since);
    if (heard + silence <= now) over.push_back(source);
  }
  end_earlier(over);
}

}  // namespace kedge::speaker
