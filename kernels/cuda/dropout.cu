// Dropout with a mask from Philox 4x32-10.
// Work split: a thread makes the four numbers of one counter and maps the four elements that take them.
// Shared memory: none. Launch: 256 threads. Limiting resource: memory (8 bytes an element) next to the
// integer work of one counter for four elements.
#include "kernels/dropout.hpp"

#include "engine/random.hpp"
#include "kernels/cuda/launch.cuh"

namespace cinnabar::cuda {

namespace {

constexpr const char* kOp = "dropout";
constexpr int kBlock = 256;

/// A thread owns one counter; `skip` numbers of the first one come before the tensor.
// budget: <=32 registers, 0 B shared, 256 threads, occupancy >= 1.0
__global__ void __launch_bounds__(kBlock)
    dropout_counter_kernel(RandomSequence sequence, DropoutMask<float> mask, std::int64_t skip,
                           std::int64_t count, const float* x, float* y) {
  const std::int64_t counter = thread_index();
  const std::int64_t first = 4 * counter - skip;
  if (first >= count) return;
  const PhiloxWords words = philox_4x32_10(sequence.seed, sequence.stream,
                                           sequence.offset / 4 + static_cast<std::uint64_t>(counter));
#pragma unroll
  for (int w = 0; w < 4; ++w) {
    const std::int64_t i = first + w;
    if (i < 0 || i >= count) continue;
    y[i] = mask.apply(uniform_from_bits(words.word[w]), x[i]);
  }
}

void apply(const RandomSequence& sequence, double p, const Tensor& x, Tensor& y) {
  check_dropout(sequence, p, x, y);
  require_dtype(kOp, x, DType::f32);
  const std::int64_t count = x.numel();
  if (count == 0) return;
  const auto skip = static_cast<std::int64_t>(sequence.offset % 4);
  launch(kOp, dropout_counter_kernel, cover((skip + count + 3) / 4, kBlock), x.device(), sequence,
         dropout_mask<float>(p), skip, count, x.data<float>(), y.data<float>());
}

}  // namespace

extern const Dropout dropout;
const Dropout dropout{apply};

}  // namespace cinnabar::cuda
