#pragma once

// conv3d's weight gradient: a block owns some output channels x 128 weights (input channel and tap) and sums
// over a range of positions of all images; the ranges' partial sums are added in order by a second kernel.
// Here are the parts that all products share, and the kernels in fp32: 64 output channels, 8 positions at a
// time.

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

/// What this thread's column of the block's tile reads.
__device__ __forceinline__ ColumnTap tap_of_column(const WeightSums& s) {
  const std::int64_t column = std::int64_t{blockIdx.x} * kColumns + threadIdx.x;
  if (column >= s.columns) return {kOutside, 0, 0, 0};
  auto rest = static_cast<std::int32_t>(column);
  std::int32_t at[3];
#pragma unroll
  for (int axis = 2; axis >= 0; --axis) {
    at[axis] = s.axis[axis].source(0, rest % s.axis[axis].kernel);
    rest /= s.axis[axis].kernel;
  }
  return {at[0], at[1], at[2], rest * s.in_volume + (at[0] * s.axis[1].in + at[1]) * s.axis[2].in + at[2]};
}

/// The part of the work that a block has, and the rows and columns that a thread loads, 16 apart.
struct WeightPlace {
  int group, part;
  int first_row, element;
  std::int32_t end;  // of the part's positions

  __device__ __forceinline__ WeightPlace(const WeightSums& s, int tile_rows, int first_element)
      : group(static_cast<int>(blockIdx.z) % s.groups),
        part(static_cast<int>(blockIdx.z) / s.groups),
        first_row(static_cast<int>(blockIdx.y) * tile_rows),
        element(first_element),
        end(s.positions - begin(s) < s.range ? s.positions : begin(s) + s.range) {}

  __device__ __forceinline__ std::int32_t begin(const WeightSums& s) const { return part * s.range; }
};

/// The gradients (of 16 kLoads rows at most kTileRows) and inputs that meet at a position; zeros where it
/// does not `exist`.
template <int kTileRows, int kLoads>
__device__ __forceinline__ void load_position(const WeightSums& s, const WeightPlace& place,
                                              const PositionCursor& at, bool exists, const float* grad_output,
                                              const float* input, SharedPointer<ColumnTap> taps,
                                              float (&a)[kLoads], float (&b)[8]) {
  const std::int64_t image = std::int64_t{at.n} * s.groups + place.group;
  const float* grads = grad_output + (image * s.rows + place.first_row) * s.out_volume + at.voxel;
#pragma unroll
  for (int i = 0; i < kLoads; ++i) {
    const int r = place.element + 16 * i;
    const bool inside = exists && r < kTileRows && place.first_row + r < s.rows;
    a[i] = inside ? grads[std::int64_t{r} * s.out_volume] : 0.0f;
  }
  const int z = at.z * s.axis[0].stride;
  const int y = at.y * s.axis[1].stride;
  const int x = at.x * s.axis[2].stride;
  const std::int64_t base = image * s.channels * s.in_volume + (z * s.axis[1].in + y) * s.axis[2].in + x;
#pragma unroll
  for (int j = 0; j < 8; ++j) {
    const ColumnTap tap = taps[place.element + 16 * j];
    const bool inside = exists && static_cast<unsigned>(z + tap.z) < static_cast<unsigned>(s.axis[0].in) &&
                        static_cast<unsigned>(y + tap.y) < static_cast<unsigned>(s.axis[1].in) &&
                        static_cast<unsigned>(x + tap.x) < static_cast<unsigned>(s.axis[2].in);
    b[j] = inside ? input[base + tap.offset] : 0.0f;
  }
}

/// Writes a result of the block's part, where the row and the column of its tile exist.
__device__ __forceinline__ void write_partial(const WeightSums& s, const WeightPlace& place, int row,
                                              int in_tile, float value, float* partial) {
  const std::int64_t column = std::int64_t{blockIdx.x} * kColumns + in_tile;
  if (row >= s.rows || column >= s.columns) return;
  const std::int64_t rows = (std::int64_t{place.part} * s.groups + place.group) * s.rows;
  partial[(rows + row) * s.columns + column] = value;
}

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
  const int k = static_cast<int>(threadIdx.x) % kDepth;  // the position of a stage this thread loads
  const WeightPlace place(s, kRows<kRowsEach>, static_cast<int>(threadIdx.x) / kDepth);
  taps[threadIdx.x] = tap_of_column(s);
  __syncthreads();

  std::int32_t position = place.begin(s) + k;
  PositionCursor cursor(s, position);
  float a_next[kLoads];
  float b_next[8];
  const auto load = [&] {
    load_position<kRows<kRowsEach>>(s, place, cursor, position < place.end, grad_output, input, taps, a_next,
                                    b_next);
    position += kDepth;
    cursor.advance(kDepth, s);
  };
  const auto store = [&](int stage) {
#pragma unroll
    for (int i = 0; i < kLoads; ++i) {
      const int r = place.element + 16 * i;
      if (r < kRows<kRowsEach>) a_tile[stage * kAStage + k * kRowPitch<kRowsEach> + r] = a_next[i];
    }
#pragma unroll
    for (int j = 0; j < 8; ++j) {
      b_tile[stage * kBStage + k * kColumnPitch + place.element + 16 * j] = b_next[j];
    }
  };

  float sums[kRowsEach][8] = {};
  const int stages = (place.end - place.begin(s) + kDepth - 1) / kDepth;
  multiply_stages(stages, load, store, [&](int stage) {
    multiply_stage<kRowsEach>(a_tile + stage * kAStage, b_tile + stage * kBStage, sums);
  });

#pragma unroll
  for (int j = 0; j < 8; ++j) {
#pragma unroll
    for (int i = 0; i < kRowsEach; ++i) {
      const int row = place.first_row + static_cast<int>(threadIdx.x) / 16 * kRowsEach + i;
      write_partial(s, place, row, column_of_result(j), sums[i][j], partial);
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
