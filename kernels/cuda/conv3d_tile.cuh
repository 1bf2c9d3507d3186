#pragma once

// What the tiled products of conv3d share: the shape of a tile and the loop over its stages; and the inner
// loop in fp32.

#include "kernels/cuda/launch.cuh"

namespace cinnabar::cuda {
namespace {

constexpr int kThreads = 128;
constexpr int kDepth = 8;                   // of a stage
constexpr int kColumns = 128;               // of a tile; a thread has 4 of each half
constexpr int kColumnPitch = kColumns + 4;  // 4 banks apart, so that stores along the depth do not collide
constexpr int kOutside = -(1 << 30);        // a coordinate that no tap brings inside

/// Rows of a tile whose threads have kRowsEach rows each, and the distance of its stages' rows.
template <int kRowsEach>
constexpr int kRows = 8 * kRowsEach;
template <int kRowsEach>
constexpr int kRowPitch = kRows<kRowsEach> + 4;

/// sums += a b for one stage: a [kDepth][rows], b [kDepth][columns]. Thread t has rows t / 16 * kRowsEach on
/// and columns t % 16 * 4 on, in both halves.
template <int kRowsEach>
__device__ __forceinline__ void multiply_stage(SharedPointer<float> a, SharedPointer<float> b,
                                               float (&sums)[kRowsEach][8]) {
  const int row = static_cast<int>(threadIdx.x) / 16 * kRowsEach;
  const int column = static_cast<int>(threadIdx.x) % 16 * 4;
#pragma unroll
  for (int k = 0; k < kDepth; ++k) {
    float left[kRowsEach];
    float right[8];
#pragma unroll
    for (int i = 0; i < kRowsEach; ++i) left[i] = a[k * kRowPitch<kRowsEach> + row + i];
#pragma unroll
    for (int j = 0; j < 8; ++j) right[j] = b[k * kColumnPitch + j / 4 * (kColumns / 2) + column + j % 4];
#pragma unroll
    for (int i = 0; i < kRowsEach; ++i) {
#pragma unroll
      for (int j = 0; j < 8; ++j) sums[i][j] += left[i] * right[j];
    }
  }
}

/// Adds up `stages` products of tiles. `load` reads the next stage into registers, `store(which)` puts it
/// into one of the two stages of shared memory, `multiply(which)` adds the product of that one: the next one
/// is loaded while this one is multiplied.
template <class Load, class Store, class Multiply>
__device__ __forceinline__ void multiply_stages(int stages, const Load& load, const Store& store,
                                                const Multiply& multiply) {
  if (stages > 0) {
    load();
    store(0);
    __syncthreads();
  }
  for (int stage = 0; stage < stages; ++stage) {
    const int now = stage % 2;
    if (stage + 1 < stages) load();
    multiply(now);
    if (stage + 1 < stages) store(1 - now);
    __syncthreads();
  }
}

/// The column of a tile in which this thread keeps its j-th result.
__device__ __forceinline__ int column_of_result(int j) {
  return j / 4 * (kColumns / 2) + static_cast<int>(threadIdx.x) % 16 * 4 + j % 4;
}

}  // namespace
}  // namespace cinnabar::cuda
