// Random fills from Philox 4x32-10.
// Work split: a thread makes the four numbers of one counter, so no random bits are thrown away. Shared
// memory: none. Launch: 256 threads a block, one thread per counter that the tensor touches. Stores: one
// 16-byte store a thread where the sequence starts at a whole counter and the tensor is aligned, else up to
// four single ones. Limiting resource: by count, integer work (20 wide multiplies and 40 xors a thread) and
// the 4 bytes written per number are close on recent cards, with integer work first on older ones.
#include "kernels/random.hpp"

#include "kernels/cuda/launch.cuh"
#include "kernels/random_math.hpp"

namespace cinnabar::cuda {

namespace {

constexpr int kBlock = 256;

/// `skip` numbers of the first counter come before the tensor (offset mod 4).
// budget: <=32 registers, 0 B shared, 256 threads, occupancy >= 1.0
template <class Numbers, bool kWholeGroups>
__global__ void __launch_bounds__(kBlock)
    random_counter_kernel(RandomSequence sequence, Numbers numbers, std::int64_t count, float* output) {
  const std::int64_t counter = thread_index();
  const auto skip = static_cast<std::int64_t>(sequence.offset % 4);
  const std::int64_t first = 4 * counter - skip;
  if (first >= count) return;
  const RandomGroup<float> group = numbers(philox_4x32_10(
      sequence.seed, sequence.stream, sequence.offset / 4 + static_cast<std::uint64_t>(counter)));
  if (kWholeGroups && first + 4 <= count) {
    *reinterpret_cast<float4*>(output + first) =
        make_float4(group.number[0], group.number[1], group.number[2], group.number[3]);
    return;
  }
#pragma unroll
  for (int w = 0; w < 4; ++w) {
    if (first + w >= 0 && first + w < count) output[first + w] = group.number[w];
  }
}

template <class Numbers>
void fill(const char* op, const RandomSequence& sequence, const Numbers& numbers, Tensor& output) {
  require_dtype(op, output, DType::f32);
  const std::int64_t count = output.numel();
  if (count == 0) return;
  const auto skip = static_cast<std::int64_t>(sequence.offset % 4);
  float* data = output.data<float>();
  const bool aligned = skip == 0 && reinterpret_cast<std::uintptr_t>(data) % sizeof(float4) == 0;
  const auto kernel = aligned ? random_counter_kernel<Numbers, true> : random_counter_kernel<Numbers, false>;
  launch(op, kernel, cover((skip + count + 3) / 4, kBlock), output.device(), sequence, numbers, count, data);
}

void uniform(const RandomSequence& sequence, double low, double high, Tensor& output) {
  check_random("random_uniform", sequence, low, high);
  const UniformNumbers<float> numbers{static_cast<float>(low), static_cast<float>(high - low)};
  fill("random_uniform", sequence, numbers, output);
}

void normal(const RandomSequence& sequence, double mean, double deviation, Tensor& output) {
  check_random("random_normal", sequence, mean, deviation);
  const NormalNumbers<float> numbers{static_cast<float>(mean), static_cast<float>(deviation)};
  fill("random_normal", sequence, numbers, output);
}

}  // namespace

extern const Random random;
const Random random{uniform, normal};

}  // namespace cinnabar::cuda
