#include "kernels/dropout.hpp"

#include <algorithm>

#include "engine/random.hpp"
#include "kernels/parallel.hpp"

namespace cinnabar::cpu {

namespace {

constexpr std::int64_t kGrain = 1 << 14;
constexpr int kBatch = 64;  // counters whose words are made at a time, in vector lanes

void apply(const RandomSequence& sequence, double p, const Tensor& x, Tensor& y) {
  check_dropout(sequence, p, x, y);
  const auto threshold = static_cast<float>(p);
  dispatch_floating("dropout", x.dtype(), [&](auto element) {
    using T = decltype(element);
    const T scale = static_cast<T>(dropout_scale(p));
    const T* const in = x.data<T>();
    T* const out = y.data<T>();
    parallel_for(x.numel(), kGrain, [&](std::int64_t first, std::int64_t last) {
      float unit[4 * kBatch];
      while (first < last) {
        const std::uint64_t number = sequence.offset + static_cast<std::uint64_t>(first);
        const std::uint64_t counter = number / 4;
#pragma omp simd
        for (int g = 0; g < kBatch; ++g) {
          const PhiloxWords words =
              philox_4x32_10(sequence.seed, sequence.stream, counter + static_cast<unsigned>(g));
          for (int w = 0; w < 4; ++w) unit[4 * g + w] = uniform_from_bits(words.word[w]);
        }
        const auto skip = static_cast<std::int64_t>(number % 4);
        const std::int64_t count = std::min<std::int64_t>(last - first, 4 * kBatch - skip);
        for (std::int64_t i = 0; i < count; ++i) {
          out[first + i] = unit[skip + i] >= threshold ? in[first + i] * scale : T(0);
        }
        first += count;
      }
    });
  });
}

}  // namespace

extern const Dropout dropout;
const Dropout dropout{apply};

}  // namespace cinnabar::cpu
