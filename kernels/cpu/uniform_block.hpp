#pragma once

#include <algorithm>
#include <cstdint>

#include "engine/random.hpp"
#include "kernels/random.hpp"

namespace cinnabar::cpu {

/// Most elements of a block below: 64 Philox counters are made at a time, in vector lanes.
inline constexpr int kUniformBlock = 256;

/// Calls body(first, count, unit) over elements [first, last) of a sequence, in blocks, with the elements'
/// uniform numbers in `unit`.
template <class Body>
void for_each_uniform_block(const RandomSequence& sequence, std::int64_t first, std::int64_t last,
                            const Body& body) {
  constexpr int kCounters = kUniformBlock / 4;
  float unit[kUniformBlock];
  const std::uint64_t seed = sequence.seed;  // copies, or the loop does not vectorise
  const std::uint64_t stream = sequence.stream;
  while (first < last) {
    const std::uint64_t number = sequence.offset + static_cast<std::uint64_t>(first);
    const std::uint64_t counter = number / 4;
#pragma omp simd
    for (int g = 0; g < kCounters; ++g) {
      const PhiloxWords words = philox_4x32_10(seed, stream, counter + static_cast<unsigned>(g));
      unit[4 * g] = uniform_from_bits(words.word[0]);  // a loop over the words would keep this one scalar
      unit[4 * g + 1] = uniform_from_bits(words.word[1]);
      unit[4 * g + 2] = uniform_from_bits(words.word[2]);
      unit[4 * g + 3] = uniform_from_bits(words.word[3]);
    }
    const auto skip = static_cast<std::int64_t>(number % 4);
    const std::int64_t count = std::min<std::int64_t>(last - first, kUniformBlock - skip);
    body(first, count, static_cast<const float*>(unit + skip));
    first += count;
  }
}

}  // namespace cinnabar::cpu
