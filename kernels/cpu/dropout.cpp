#include "kernels/dropout.hpp"

#include "kernels/cpu/uniform_block.hpp"
#include "kernels/parallel.hpp"

namespace cinnabar::cpu {

namespace {

constexpr std::int64_t kGrain = 1 << 14;

void apply(const RandomSequence& sequence, double p, const Tensor& x, Tensor& y) {
  check_dropout(sequence, p, x, y);
  dispatch_floating("dropout", x.dtype(), [&](auto element) {
    using T = decltype(element);
    const DropoutMask<T> mask = dropout_mask<T>(p);
    const T* const in = x.data<T>();
    T* const out = y.data<T>();
    parallel_for(x.numel(), kGrain, [&](std::int64_t begin, std::int64_t end) {
      for_each_uniform_block(sequence, begin, end,
                             [=](std::int64_t first, std::int64_t count, const float* unit) {
#pragma omp simd
                               for (std::int64_t i = 0; i < count; ++i) {
                                 out[first + i] = mask.apply(unit[i], in[first + i]);
                               }
                             });
    });
  });
}

}  // namespace

extern const Dropout dropout;
const Dropout dropout{apply};

}  // namespace cinnabar::cpu
