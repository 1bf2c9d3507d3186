#pragma once

#include <cstdint>

namespace cinnabar {

/// The least number >= n whose only prime factors are 2, 3, 5 and 7: extents that transforms are fast at.
inline std::int64_t next_smooth_number(std::int64_t n) {
  for (;; ++n) {
    std::int64_t rest = n;
    for (const std::int64_t prime : {2, 3, 5, 7}) {
      while (rest % prime == 0) rest /= prime;
    }
    if (rest == 1) return n;
  }
}

}  // namespace cinnabar
