#include "lm-server/core/binding_table.h"

#include <chrono>
#include <cstdint>
#include <utility>

#include "kedge/lm/packed_entry.pb.h"
#include "lm-server/core/prefix_map.h"
#include "lm-server/core/wire.h"

namespace kedge::lm {
namespace {

std::int64_t to_number(const std::optional<SystemTime>& time) {
  return time ? std::chrono::duration_cast<std::chrono::nanoseconds>(time->time_since_epoch()).count() : 0;
}

std::optional<SystemTime> to_time(std::int64_t number) {
  if (number == 0) return std::nullopt;
  return SystemTime(std::chrono::duration_cast<SystemTime::duration>(std::chrono::nanoseconds(number)));
}

std::string pack_entry(BindingEntry& entry) {
  PackedEntry packed;
  packed.mutable_binding()->Swap(&entry.binding);
  for (const auto& [ar, progress] : entry.progress) {
    auto& part = *packed.add_progress();
    part.set_ar(ar);
    part.set_advertised(progress.advertised);
    part.set_releasable_since(to_number(progress.releasable_since));
    for (const auto& [stage, detail] : progress.seen) {
      auto& seen = *part.add_seen();
      seen.set_stage(stage);
      seen.set_detail(detail);
    }
  }
  packed.set_grace_ends(to_number(entry.grace_ends));
  packed.set_timer(to_number(entry.timer));
  if (entry.idle) {
    auto& idle = *packed.mutable_idle();
    idle.set_since(to_number(entry.idle->since));
    idle.set_until(to_number(entry.idle->until));
    idle.set_seen_by(entry.idle->seen_by);
    idle.set_handed_over(entry.idle->handed_over);
  }
  packed.set_moved_from(entry.moved_from);
  return packed.SerializeAsString();
}

void unpack_entry(const std::string& bytes, BindingEntry& entry) {
  PackedEntry packed;
  packed.ParseFromString(bytes);
  entry.binding.Swap(packed.mutable_binding());
  for (const auto& part : packed.progress()) {
    auto& progress = entry.progress[part.ar()];
    progress.advertised = part.advertised();
    progress.releasable_since = to_time(part.releasable_since());
    for (const auto& seen : part.seen()) progress.seen.emplace(seen.stage(), seen.detail());
  }
  entry.grace_ends = to_time(packed.grace_ends());
  entry.timer = to_time(packed.timer());
  if (packed.has_idle()) {
    const auto& idle = packed.idle();
    entry.idle = IdleTime{to_time(idle.since()).value_or(SystemTime()), to_time(idle.until()).value_or(SystemTime()),
                          idle.seen_by(), idle.handed_over()};
  }
  entry.moved_from = packed.moved_from();
}

}  // namespace

BindingEntry& BindingTable::unpack(const Ipv6Prefix& prefix, Slot& slot) const {
  if (slot.entry == nullptr) {
    slot.entry = std::make_unique<BindingEntry>();
    unpack_entry(slot.packed, *slot.entry);
    slot.packed = std::string();
    unpacked_.push_back(prefix);
  }
  return *slot.entry;
}

BindingEntry& BindingTable::at(const Ipv6Prefix& prefix) { return unpack(prefix, slots_.at(prefix)); }

const BindingEntry& BindingTable::at(const Ipv6Prefix& prefix) const { return unpack(prefix, slots_.at(prefix)); }

BindingEntry* BindingTable::find(const Ipv6Prefix& prefix) {
  const auto found = slots_.find(prefix);
  return found == slots_.end() ? nullptr : &unpack(prefix, found->second);
}

const BindingEntry* BindingTable::find(const Ipv6Prefix& prefix) const {
  const auto found = slots_.find(prefix);
  return found == slots_.end() ? nullptr : &unpack(prefix, found->second);
}

const BindingEntry* BindingTable::find_covering(const Ipv6Prefix& prefix) const {
  const auto found = lm::find_covering(slots_, prefix);
  return found == slots_.end() ? nullptr : &unpack(found->first, found->second);
}

std::pair<BindingEntry&, bool> BindingTable::try_emplace(const Ipv6Prefix& prefix) {
  auto [it, fresh] = slots_.try_emplace(prefix);
  if (fresh) {
    it->second.entry = std::make_unique<BindingEntry>();
    unpacked_.push_back(prefix);
  }
  return {unpack(prefix, it->second), fresh};
}

std::string BindingTable::pack_binding(const std::string& binding) {
  return field_of(PackedEntry::kBindingFieldNumber, binding);
}

void BindingTable::add(const Ipv6Prefix& prefix, std::string packed, std::optional<SystemTime> grace_ends,
                       std::optional<SystemTime> timer) {
  if (grace_ends || timer) {
    PackedEntry rest;
    rest.set_grace_ends(to_number(grace_ends));
    rest.set_timer(to_number(timer));
    // A part of the same message (wire.h).
    rest.AppendToString(&packed);
  }
  // Nearly always in order.
  slots_.try_emplace(slots_.end(), prefix)->second.packed = std::move(packed);
}

void BindingTable::erase(const Ipv6Prefix& prefix) { slots_.erase(prefix); }

void BindingTable::clear() {
  slots_.clear();
  unpacked_.clear();
}

void BindingTable::pack() const {
  while (unpacked_.size() > most_unpacked_) {
    const auto found = slots_.find(unpacked_.front());
    unpacked_.pop_front();
    if (found == slots_.end() || found->second.entry == nullptr) continue;
    found->second.packed = pack_entry(*found->second.entry);
    found->second.entry.reset();
  }
}

const v1::Binding& BindingTable::look(const Slot& slot, v1::Binding& space) {
  if (slot.entry != nullptr) return slot.entry->binding;
  PackedEntry packed;
  packed.ParseFromString(slot.packed);
  space.Swap(packed.mutable_binding());
  return space;
}

v1::Binding BindingTable::copy(const Ipv6Prefix& prefix) const {
  v1::Binding space;
  return look(slots_.at(prefix), space);
}

void BindingTable::visit(const std::optional<Ipv6Prefix>& after, const Visit& visit) const {
  v1::Binding space;
  for (auto it = after ? slots_.upper_bound(*after) : slots_.begin(); it != slots_.end(); ++it) {
    if (!visit(it->first, look(it->second, space))) return;
  }
}

void BindingTable::visit_overlapping(const Ipv6Prefix& prefix, const Visit& visit) const {
  v1::Binding space;
  const auto [first, last] = find_overlapping(slots_, prefix);
  for (auto it = first; it != last; ++it) {
    if (!visit(it->first, look(it->second, space))) return;
  }
}

}  // namespace kedge::lm
