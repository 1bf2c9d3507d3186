#pragma once

// conv3d's weight gradient: a block owns 64 output channels x 128 weights (input channel and tap) and sums
// over a range of positions of all images; the ranges' partial sums are added in order by a second kernel.

#include "kernels/conv3d.hpp"
#include "kernels/cuda/conv3d_tile.cuh"

namespace cinnabar::cuda {
namespace {

struct WeightSums {
  Conv3dAxis axis[3];
  std::int32_t channels;  // of the input, in a group
  std::int32_t rows;      // output channels, in a group
  std::int32_t groups;
  std::int32_t columns;  // weights of one output channel
  std::int32_t in_volume;
  std::int32_t out_volume;
  std::int32_t positions;  // of all images
  std::int32_t range;      // positions of one partial sum
};

/// What a column of backward_weight adds to a position: coordinates, and the offset in the group's channels.
struct alignas(16) ColumnTap {
  std::int32_t z, y, x, offset;
};

/// A position of the output, advancing from stage to stage.
struct PositionCursor {
  int n, z, y, x;
  std::int32_t voxel;

  __device__ __forceinline__ PositionCursor(const WeightSums& s, std::int32_t position) {
    n = position / s.out_volume;
    voxel = position - n * s.out_volume;
    const int rows = voxel / s.axis[2].out;
    x = voxel - rows * s.axis[2].out;
    z = rows / s.axis[1].out;
    y = rows - z * s.axis[1].out;
  }
  __device__ __forceinline__ void advance(int count, const WeightSums& s) {
    voxel += count;
    x += count;
    while (x >= s.axis[2].out) {
      x -= s.axis[2].out;
      if (++y < s.axis[1].out) continue;
      y = 0;
      if (++z < s.axis[0].out) continue;
      z = 0;
      ++n;
      voxel -= s.out_volume;
    }
  }
};

// budget: <=168 registers, 14848 B shared, 128 threads, occupancy >= 0.18
template <int kRowsEach>
__global__ void __launch_bounds__(kThreads)
    conv3d_backward_weight_tile_kernel(const float* grad_output, const float* input, WeightSums s,
                                       float* partial) {
  constexpr int kAStage = kDepth * kRowPitch<kRowsEach>;
  constexpr int kBStage = kDepth * kColumnPitch;
  constexpr int kLoads = (kRows<kRowsEach> + 15) / 16;
  CINNABAR_SHARED(ColumnTap, taps, kColumns);
  alignas(16) CINNABAR_SHARED(float, a_tile, 2 * kAStage);
  alignas(16) CINNABAR_SHARED(float, b_tile, 2 * kBStage);
  const int k = static_cast<int>(threadIdx.x) % kDepth;        // the position of a stage this thread loads
  const int element = static_cast<int>(threadIdx.x) / kDepth;  // first of 16 rows and columns it loads
  const int first_row = static_cast<int>(blockIdx.y) * kRows<kRowsEach>;
  const int group = static_cast<int>(blockIdx.z) % s.groups;
  const int part = static_cast<int>(blockIdx.z) / s.groups;

  {
    const std::int64_t column = std::int64_t{blockIdx.x} * kColumns + threadIdx.x;
    ColumnTap tap{kOutside, 0, 0, 0};
    if (column < s.columns) {
      auto rest = static_cast<std::int32_t>(column);
      std::int32_t at[3];
#pragma unroll
      for (int axis = 2; axis >= 0; --axis) {
        at[axis] = s.axis[axis].source(0, rest % s.axis[axis].kernel);
        rest /= s.axis[axis].kernel;
      }
      tap = {at[0], at[1], at[2], rest * s.in_volume + (at[0] * s.axis[1].in + at[1]) * s.axis[2].in + at[2]};
    }
    taps[threadIdx.x] = tap;
  }
  __syncthreads();

  const std::int32_t begin = part * s.range;
  const std::int32_t end = s.positions - begin < s.range ? s.positions : begin + s.range;
  std::int32_t position = begin + k;
  PositionCursor cursor(s, position);
  float a_next[kLoads];
  float b_next[8];
  const auto load = [&] {
    const bool exists = position < end;
    const std::int64_t image = std::int64_t{cursor.n} * s.groups + group;
    const float* grads = grad_output + (image * s.rows + first_row) * s.out_volume + cursor.voxel;
#pragma unroll
    for (int i = 0; i < kLoads; ++i) {
      const int r = element + 16 * i;
      const bool inside = exists && r < kRows<kRowsEach> && first_row + r < s.rows;
      a_next[i] = inside ? grads[std::int64_t{r} * s.out_volume] : 0.0f;
    }
    const int z = cursor.z * s.axis[0].stride;
    const int y = cursor.y * s.axis[1].stride;
    const int x = cursor.x * s.axis[2].stride;
    const std::int64_t base = image * s.channels * s.in_volume + (z * s.axis[1].in + y) * s.axis[2].in + x;
#pragma unroll
    for (int j = 0; j < 8; ++j) {
      const ColumnTap tap = taps[element + 16 * j];
      const bool inside = exists && static_cast<unsigned>(z + tap.z) < static_cast<unsigned>(s.axis[0].in) &&
                          static_cast<unsigned>(y + tap.y) < static_cast<unsigned>(s.axis[1].in) &&
                          static_cast<unsigned>(x + tap.x) < static_cast<unsigned>(s.axis[2].in);
      b_next[j] = inside ? input[base + tap.offset] : 0.0f;
    }
    position += kDepth;
    cursor.advance(kDepth, s);
  };
  const auto store = [&](int stage) {
#pragma unroll
    for (int i = 0; i < kLoads; ++i) {
      const int r = element + 16 * i;
      if (r < kRows<kRowsEach>) a_tile[stage * kAStage + k * kRowPitch<kRowsEach> + r] = a_next[i];
    }
#pragma unroll
    for (int j = 0; j < 8; ++j) b_tile[stage * kBStage + k * kColumnPitch + element + 16 * j] = b_next[j];
  };

  float sums[kRowsEach][8] = {};
  const int stages = (end - begin + kDepth - 1) / kDepth;
  multiply_stages<kRowsEach>(stages, a_tile, b_tile, load, store, sums);

  float* mine = partial + (std::int64_t{part} * s.groups + group) * s.rows * s.columns;
#pragma unroll
  for (int j = 0; j < 8; ++j) {
    const std::int64_t column = std::int64_t{blockIdx.x} * kColumns + column_of_result(j);
#pragma unroll
    for (int i = 0; i < kRowsEach; ++i) {
      const int row = first_row + static_cast<int>(threadIdx.x) / 16 * kRowsEach + i;
      if (row < s.rows && column < s.columns) mine[std::int64_t{row} * s.columns + column] = sums[i][j];
    }
  }
}

// budget: <=40 registers, 0 B shared, 256 threads, occupancy >= 0.75
__global__ void conv3d_sum_parts_weight_kernel(const float* partial, std::int32_t parts, std::int64_t count,
                                               float* grad_weight) {
  const std::int64_t index = thread_index();
  if (index >= count) return;
  float sum = partial[index];
  for (std::int32_t part = 1; part < parts; ++part) sum += partial[part * count + index];
  grad_weight[index] = sum;
}

}  // namespace
}  // namespace cinnabar::cuda
