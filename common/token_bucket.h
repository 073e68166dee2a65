// A token bucket (RFC 2697's committed rate, one packet a token): so many at once, so many a second on average.
#pragma once

#include <algorithm>
#include <chrono>

namespace kedge {

// Full at first.
class TokenBucket {
 public:
  TokenBucket(double size, double per_second) : size_(size), per_second_(per_second), tokens_(size) {}

  // `now` is the time since any moment, always the same one; going back counts as standing still.
  bool has(std::chrono::nanoseconds now) {
    if (at_ < now && filled_) tokens_ = std::min(size_, tokens_ + per_second_ * seconds(now - at_));
    if (at_ < now || !filled_) at_ = now;
    filled_ = true;
    return tokens_ >= 1;
  }
  // False: there is none left.
  bool take(std::chrono::nanoseconds now) {
    if (!has(now)) return false;
    tokens_ -= 1;
    return true;
  }
  bool is_full(std::chrono::nanoseconds now) { return has(now) && tokens_ >= size_; }

 private:
  static double seconds(std::chrono::nanoseconds time) { return std::chrono::duration<double>(time).count(); }

  double size_;
  double per_second_;
  double tokens_;
  std::chrono::nanoseconds at_{};
  bool filled_ = false;
};

}  // namespace kedge
