#include "lm-server/core/prefix_pool.h"

#include <utility>

namespace kedge::lm {
namespace {
constexpr int kPrefixLength = 64;
}

PrefixPool::PrefixPool(std::vector<Ipv6Prefix> pools) : pools_(std::move(pools)) {
  std::uint64_t size = 0;
  for (const auto& pool : pools_) size += pool.count(kPrefixLength);
  taken_.resize(size);
  next_ = size > 1 ? 1 : 0;
}

std::optional<Ipv6Prefix> PrefixPool::take() {
  if (used_ == size()) return std::nullopt;
  while (taken_[next_]) next_ = (next_ + 1) % size();
  const std::uint64_t index = next_;
  taken_[index] = true;
  ++used_;
  next_ = (next_ + 1) % size();
  return at(index);
}

bool PrefixPool::claim(const Ipv6Prefix& prefix) {
  const auto index = index_of(prefix);
  if (!index || taken_[*index]) return false;
  taken_[*index] = true;
  ++used_;
  return true;
}

void PrefixPool::continue_behind(const Ipv6Prefix& prefix) {
  if (const auto index = index_of(prefix)) next_ = (*index + 1) % size();
}

void PrefixPool::skip_ahead() {
  if (taken_.empty()) return;
  // By the golden section, whose multiples keep away from each other.
  next_ = (next_ + static_cast<std::uint64_t>(0.618034 * static_cast<double>(size()))) % size();
}

void PrefixPool::give_back(const Ipv6Prefix& prefix) {
  const auto index = index_of(prefix);
  if (!index || !taken_[*index]) return;
  taken_[*index] = false;
  --used_;
}

std::optional<std::uint64_t> PrefixPool::index_of(const Ipv6Prefix& prefix) const {
  if (prefix.length() != kPrefixLength) return std::nullopt;
  std::uint64_t base = 0;
  for (const auto& pool : pools_) {
    if (pool.contains(prefix)) return base + pool.index_of(prefix);
    base += pool.count(kPrefixLength);
  }
  return std::nullopt;
}

Ipv6Prefix PrefixPool::at(std::uint64_t index) const {
  for (const auto& pool : pools_) {
    const std::uint64_t count = pool.count(kPrefixLength);
    if (index < count) return pool.nth(kPrefixLength, index);
    index -= count;
  }
  return {};
}

}  // namespace kedge::lm
