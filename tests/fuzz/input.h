// What the fuzz targets share: how the bytes of an input become values, and what to do when something is broken.
//
// Numbers are big-endian, a text has its length (8 or 16 bits) before it; what is missing at the end of an input is
// zero or empty. make_seeds.cc writes the same.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <span>
#include <string>
#include <string_view>

namespace kedge::fuzz {

inline void require(bool condition, std::string_view what) {
  if (condition) return;
  std::fprintf(stderr, "broken: %.*s\n", static_cast<int>(what.size()), what.data());
  std::abort();
}

class Input {
 public:
  Input(const std::uint8_t* data, std::size_t size) : rest_(data, size) {}

  bool empty() const { return rest_.empty(); }
  std::size_t size() const { return rest_.size(); }

  std::uint8_t u8() { return static_cast<std::uint8_t>(number(1)); }
  std::uint16_t u16() { return static_cast<std::uint16_t>(number(2)); }
  std::uint32_t u32() { return static_cast<std::uint32_t>(number(4)); }
  std::uint64_t u64() { return number(8); }
  bool flag() { return (u8() & 1U) != 0; }
  // 0 to below - 1.
  std::size_t below(std::size_t below) { return u8() % below; }
  template <typename T, std::size_t n>
  const T& choice(const std::array<T, n>& of) {
    return of[below(n)];
  }
  std::string text8() { return text(u8()); }
  std::string text16() { return text(u16()); }
  std::span<const std::uint8_t> bytes(std::size_t size) {
    const auto taken = rest_.first(std::min(size, rest_.size()));
    rest_ = rest_.subspan(taken.size());
    return taken;
  }
  std::string rest() { return text(rest_.size()); }

 private:
  std::uint64_t number(std::size_t size) {
    std::uint64_t value = 0;
    for (const std::uint8_t byte : bytes(size)) value = value << 8U | byte;
    return value;
  }
  std::string text(std::size_t size) {
    const auto taken = bytes(size);
    return {taken.begin(), taken.end()};
  }

  std::span<const std::uint8_t> rest_;
};

}  // namespace kedge::fuzz
