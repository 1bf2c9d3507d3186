// count: blocks of 256 threads count 16384 values each into bins in shared memory (16 KiB, up to 4096 bins;
// more
//   go to global memory directly), then add them to the result. Integer atomics: any order gives the same
//   bits.
// sort: one kernel replaces background by infinity and counts the foreground, CUB's radix sort does the rest.
// map: one thread per value, binary search among the knots, which stay in L1.
// Launch: 256 threads. Limiting resource: memory (4 bytes read per value in count, 8 in map), and the shared
//   atomics of count where many values share a bin.

#include "kernels/histogram.hpp"

#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/vendor/sort.hpp"

namespace cinnabar::cuda {
namespace {

constexpr int kBlock = 256;
constexpr int kPerThread = 64;
constexpr int kSharedBins = 4096;
constexpr const char* kOp = "histogram";

__device__ __forceinline__ void add_to(std::int64_t* total, unsigned long long value) {
  atomicAdd(reinterpret_cast<unsigned long long*>(total), value);
}

// budget: <=40 registers, 16384 B shared, 256 threads, occupancy >= 0.75
__global__ void __launch_bounds__(kBlock)
    histogram_count_block_kernel(const float* values, std::int64_t count, ForegroundRule rule, double low,
                                 double high, int bins, std::int64_t* totals) {
  CINNABAR_SHARED(unsigned, own, kSharedBins);
  const bool in_shared = bins <= kSharedBins;
  for (int bin = static_cast<int>(threadIdx.x); in_shared && bin < bins; bin += kBlock) own[bin] = 0;
  __syncthreads();
  const std::int64_t first = static_cast<std::int64_t>(blockIdx.x) * kBlock * kPerThread + threadIdx.x;
  for (int k = 0; k < kPerThread; ++k) {
    const std::int64_t i = first + static_cast<std::int64_t>(k) * kBlock;
    if (i >= count) break;
    const float value = values[i];
    if (!rule.contains(value)) continue;
    const auto bin = static_cast<int>(histogram_bin(static_cast<double>(value), low, high, bins));
    if (bin < 0) continue;
    if (in_shared) {
      atomicAdd(&own[bin], 1u);
    } else {
      add_to(totals + bin, 1);
    }
  }
  __syncthreads();
  for (int bin = static_cast<int>(threadIdx.x); in_shared && bin < bins; bin += kBlock) {
    if (own[bin] != 0) add_to(totals + bin, own[bin]);
  }
}

// budget: <=16 registers, 0 B shared, 256 threads, occupancy >= 1.0
__global__ void __launch_bounds__(kBlock)
    histogram_keys_value_kernel(const float* values, std::int64_t count, ForegroundRule rule, float* keys,
                                std::int64_t* chosen) {
  const std::int64_t i = thread_index();
  const bool used = i < count && rule.contains(values[i]);
  if (i < count) keys[i] = used ? values[i] : HUGE_VALF;
  const unsigned lanes = __ballot_sync(0xFFFFFFFFu, used);
  if (threadIdx.x % 32 == 0 && lanes != 0) add_to(chosen, static_cast<unsigned long long>(__popc(lanes)));
}

// budget: <=24 registers, 0 B shared, 256 threads, occupancy >= 1.0
__global__ void __launch_bounds__(kBlock)
    histogram_map_value_kernel(const float* values, std::int64_t count, ForegroundRule rule,
                               const float* from, const float* to, std::int64_t knots, float* mapped) {
  const std::int64_t i = thread_index();
  if (i >= count) return;
  const float value = values[i];
  mapped[i] = rule.contains(value) ? interpolate_knots(value, from, to, knots) : value;
}

void count(const Tensor& values, const ForegroundRule& rule, double low, double high, Tensor& counts) {
  check_histogram_count(values, low, high, counts);
  require_dtype(kOp, values, DType::f32);
  CINNABAR_CHECK(counts.numel() <= std::numeric_limits<std::int32_t>::max(), kOp, "too many bins");
  counts.fill(0.0);
  LaunchShape shape = cover(values.numel(), kBlock * kPerThread);
  shape.block = dim3(kBlock);
  launch(kOp, histogram_count_block_kernel, shape, values.device(), values.data<float>(), values.numel(),
         rule, low, high, static_cast<int>(counts.numel()), counts.data<std::int64_t>());
}

Tensor sort(const Tensor& values, const ForegroundRule& rule) {
  require_dtype(kOp, values, DType::f32);
  Tensor keys = Tensor::empty(values.shape(), DType::f32, values.device());
  Tensor sorted = Tensor::empty({values.numel()}, DType::f32, values.device());
  Tensor chosen = Tensor::zeros({1}, DType::i64, values.device());
  if (values.numel() == 0) return sorted;
  launch(kOp, histogram_keys_value_kernel, cover(values.numel(), kBlock), values.device(),
         values.data<float>(), values.numel(), rule, keys.data<float>(), chosen.data<std::int64_t>());
  vendor::sort_ascending(keys.data<float>(), values.numel(), sorted.data<float>(), values.device());
  return sorted.rows(0, static_cast<std::int64_t>(chosen.item()));
}

void map(const Tensor& values, const ForegroundRule& rule, const Tensor& from, const Tensor& to,
         Tensor& mapped) {
  check_histogram_map(values, from, to, mapped);
  require_dtype(kOp, values, DType::f32);
  const Tensor knots = from.to(DType::f32).to(values.device());
  const Tensor targets = to.to(DType::f32).to(values.device());
  launch(kOp, histogram_map_value_kernel, cover(values.numel(), kBlock), values.device(),
         values.data<float>(), values.numel(), rule, knots.data<float>(), targets.data<float>(),
         knots.numel(), mapped.data<float>());
}

}  // namespace

extern const Histogram histogram;
const Histogram histogram{count, sort, map};

}  // namespace cinnabar::cuda
