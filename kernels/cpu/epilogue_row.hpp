#pragma once

#include "kernels/cpu/uniform_block.hpp"
#include "kernels/epilogue_math.hpp"

namespace cinnabar::cpu {

/// Turns `count` elements of one channel, the first of them element `index` of the tensor, from x into y; y
/// may be x. Convolutions call it on results that are still in cache.
template <class T>
void epilogue_row(const EpilogueMath<T>& math, std::int64_t channel, std::int64_t index, std::int64_t count,
                  const T* x, T* y) {
  if (math.does_nothing() && x == y) return;
  const T bias = math.bias_of(channel), slope = math.slope_of(channel);
  if (math.before != nullptr) {
    for (std::int64_t i = 0; i < count; ++i) math.before[index + i] = x[i] + bias;
  }
  const auto activate = [&](auto activation) {
    for (std::int64_t i = 0; i < count; ++i) y[i] = activation_value<T>(activation(), x[i] + bias, slope);
  };
  // One loop for each, so that each vectorises.
  switch (math.activation) {
    case Activation::none:
      activate([] { return Activation::none; });
      break;
    case Activation::relu:
      activate([] { return Activation::relu; });
      break;
    default:
      activate([] { return Activation::prelu; });
  }
  if (!math.drops) return;
  for_each_uniform_block(math.sequence, index, index + count,
                         [&](std::int64_t first, std::int64_t block, const float* unit) {
                           T* values = y + (first - index);
                           for (std::int64_t i = 0; i < block; ++i) {
                             values[i] = math.mask.apply(unit[i], values[i]);
                           }
                         });
}

}  // namespace cinnabar::cpu
