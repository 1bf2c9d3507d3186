#include "kernels/random.hpp"

#include <algorithm>

#include "kernels/parallel.hpp"
#include "kernels/random_math.hpp"

namespace cinnabar::cpu {

namespace {

constexpr std::int64_t kGrain = 1 << 15;
constexpr int kBatch = 64;  // counters whose words are made at a time, in vector lanes

/// Fills with numbers `first`.. of the sequence, both ends of the range inside one group of four.
template <class T, class Numbers>
void fill_partial_group(const RandomSequence& sequence, std::uint64_t first, std::int64_t count,
                        const Numbers& numbers, T* output) {
  const auto group = numbers(philox_4x32_10(sequence.seed, sequence.stream, first / 4));
  std::copy_n(group.number + first % 4, count, output);
}

template <class T, class Numbers>
void fill_whole_groups(const RandomSequence& sequence, std::uint64_t first_counter, std::int64_t groups,
                       const Numbers& numbers, T* output) {
  RandomGroup<T> batch[kBatch];
  for (std::int64_t start = 0; start < groups; start += kBatch) {
    const std::uint64_t counter = first_counter + static_cast<std::uint64_t>(start);
#pragma omp simd
    for (int g = 0; g < kBatch; ++g) {
      batch[g] = numbers(philox_4x32_10(sequence.seed, sequence.stream, counter + static_cast<unsigned>(g)));
    }
    const std::int64_t used = std::min<std::int64_t>(kBatch, groups - start);
    std::copy_n(batch[0].number, 4 * used, output + 4 * start);
  }
}

template <class T, class Numbers>
void fill(const RandomSequence& sequence, const Numbers& numbers, Tensor& output) {
  T* const data = output.data<T>();
  parallel_for(output.numel(), kGrain, [&](std::int64_t first, std::int64_t last) {
    std::uint64_t number = sequence.offset + static_cast<std::uint64_t>(first);
    if (number % 4 != 0) {
      const std::int64_t head = std::min(last - first, static_cast<std::int64_t>(4 - number % 4));
      fill_partial_group(sequence, number, head, numbers, data + first);
      first += head;
      number += static_cast<std::uint64_t>(head);
    }
    const std::int64_t groups = (last - first) / 4;
    fill_whole_groups(sequence, number / 4, groups, numbers, data + first);
    first += 4 * groups;
    if (first < last) {
      fill_partial_group(sequence, number + static_cast<std::uint64_t>(4 * groups), last - first, numbers,
                         data + first);
    }
  });
}

void uniform(const RandomSequence& sequence, double low, double high, Tensor& output) {
  check_random("random_uniform", sequence, low, high);
  dispatch_floating("random_uniform", output.dtype(), [&](auto element) {
    using T = decltype(element);
    fill<T>(sequence, UniformNumbers<T>{static_cast<T>(low), static_cast<T>(high - low)}, output);
  });
}

void normal(const RandomSequence& sequence, double mean, double deviation, Tensor& output) {
  check_random("random_normal", sequence, mean, deviation);
  dispatch_floating("random_normal", output.dtype(), [&](auto element) {
    using T = decltype(element);
    fill<T>(sequence, NormalNumbers<T>{static_cast<T>(mean), static_cast<T>(deviation)}, output);
  });
}

}  // namespace

extern const Random random;
const Random random{uniform, normal};

}  // namespace cinnabar::cpu
