#pragma once

#include "kernels/cuda/launch.cuh"

namespace cinnabar::cuda {

/// Sums Count doubles per thread over a block of kBlock threads in a fixed order: a shuffle tree in each
/// warp, then warp after warp. Thread 0 gets the totals. `scratch` is shared memory of Count * kBlock / 32
/// doubles; every thread of the block must call.
template <int Count, int kBlock>
__device__ __forceinline__ void block_sum(double (&values)[Count], SharedPointer<double> scratch) {
  constexpr int kWarps = kBlock / 32;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int warp = static_cast<int>(threadIdx.x) / 32;
#pragma unroll
  for (int k = 0; k < Count; ++k) {
    for (int offset = 16; offset > 0; offset /= 2) {
      values[k] += __shfl_down_sync(0xFFFFFFFFu, values[k], offset);
    }
    if (lane == 0) scratch[k * kWarps + warp] = values[k];
  }
  __syncthreads();
  if (threadIdx.x == 0) {
#pragma unroll
    for (int k = 0; k < Count; ++k) {
      double total = 0.0;
      for (int w = 0; w < kWarps; ++w) total += scratch[k * kWarps + w];
      values[k] = total;
    }
  }
}

}  // namespace cinnabar::cuda
