#pragma once

#include "kernels/cuda/launch.cuh"

namespace cinnabar::cuda {

/// Sums Count doubles per thread over a block of kBlock threads in a fixed order: a shuffle tree in each
/// warp, then warp after warp. Thread 0 gets the totals. `scratch` is shared memory of Count * kBlock / 32
/// doubles; every thread of the block must call, with its number in the block.
template <int Count, int kBlock>
__device__ __forceinline__ void block_sum(double (&values)[Count], SharedPointer<double> scratch,
                                          int thread) {
  constexpr int kWarps = kBlock / 32;
  const int lane = thread % 32;
  const int warp = thread / 32;
#pragma unroll
  for (int k = 0; k < Count; ++k) {
    for (int offset = 16; offset > 0; offset /= 2) {
      values[k] += __shfl_down_sync(0xFFFFFFFFu, values[k], offset);
    }
    if (lane == 0) scratch[k * kWarps + warp] = values[k];
  }
  __syncthreads();
  if (thread == 0) {
#pragma unroll
    for (int k = 0; k < Count; ++k) {
      double total = 0.0;
      for (int w = 0; w < kWarps; ++w) total += scratch[k * kWarps + w];
      values[k] = total;
    }
  }
}

/// The same in a block that extends along x alone.
template <int Count, int kBlock>
__device__ __forceinline__ void block_sum(double (&values)[Count], SharedPointer<double> scratch) {
  block_sum<Count, kBlock>(values, scratch, static_cast<int>(threadIdx.x));
}

/// Block r adds the Count sums of each of the `chunks` entries of row r.
// budget: <=88 registers, 768 B shared, 256 threads, occupancy >= 0.25
template <int Count, int kBlock, class Result>
__global__ void __launch_bounds__(kBlock, 2)
    sum_chunks_row_kernel(const double* partial, std::int64_t rows, std::int64_t chunks, Result* sums) {
  CINNABAR_SHARED(double, scratch, Count* kBlock / 32);
  for (std::int64_t row = blockIdx.x; row < rows; row += gridDim.x) {
    double totals[Count] = {};
    for (std::int64_t chunk = threadIdx.x; chunk < chunks; chunk += kBlock) {
#pragma unroll
      for (int k = 0; k < Count; ++k) totals[k] += partial[(row * chunks + chunk) * Count + k];
    }
    block_sum<Count, kBlock>(totals, scratch);
    if (threadIdx.x == 0) {
#pragma unroll
      for (int k = 0; k < Count; ++k) sums[row * Count + k] = static_cast<Result>(totals[k]);
    }
    __syncthreads();
  }
}

/// sums [rows, Count] = partial [rows, chunks, Count] added over the chunks in a fixed order.
template <int Count, class Result>
void sum_chunks(const char* op, const Tensor& partial, std::int64_t rows, std::int64_t chunks, Result* sums) {
  if (rows == 0) return;
  const LaunchShape shape{dim3(static_cast<unsigned>(rows < 65535 ? rows : 65535)), dim3(256)};
  launch(op, sum_chunks_row_kernel<Count, 256, Result>, shape, partial.device(), partial.data<double>(), rows,
         chunks, sums);
}

}  // namespace cinnabar::cuda
