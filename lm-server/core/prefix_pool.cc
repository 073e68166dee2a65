#include "lm-server/core/prefix_pool.h"

#include <algorithm>
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
  const auto range = range_of(prefix);
  if (!range) return false;
  const auto first = taken_.begin() + static_cast<std::ptrdiff_t>(range->first);
  const auto last = taken_.begin() + static_cast<std::ptrdiff_t>(range->second);
  if (std::find(first, last, true) != last) return false;
  std::fill(first, last, true);
  used_ += range->second - range->first;
  if (prefix.length() < kPrefixLength) networks_.insert(prefix);
  return true;
}

void PrefixPool::continue_behind(const Ipv6Prefix& prefix) {
  if (const auto range = range_of(prefix)) next_ = range->second % size();
}

void PrefixPool::skip_ahead() {
  if (taken_.empty()) return;
  // By the golden section, whose multiples keep away from each other.
  next_ = (next_ + static_cast<std::uint64_t>(0.618034 * static_cast<double>(size()))) % size();
}

void PrefixPool::give_back(const Ipv6Prefix& prefix) {
  const auto range = range_of(prefix);
  if (!range || !taken_[range->first]) return;
  if (prefix.length() < kPrefixLength && networks_.erase(prefix) == 0) return;
  std::fill(taken_.begin() + static_cast<std::ptrdiff_t>(range->first),
            taken_.begin() + static_cast<std::ptrdiff_t>(range->second), false);
  used_ -= range->second - range->first;
}

std::optional<PrefixPool::Range> PrefixPool::range_of(const Ipv6Prefix& prefix) const {
  if (prefix.length() > kPrefixLength) return std::nullopt;
  std::uint64_t base = 0;
  for (const auto& pool : pools_) {
    if (pool.contains(prefix)) {
      const std::uint64_t count = prefix.count(kPrefixLength);
      const std::uint64_t first = base + pool.index_of(prefix) * count;
      return Range(first, first + count);
    }
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
