#pragma once

// Symmetric filters along one axis of a tensor seen as [outer, extent, inner].
//
// Along x (inner = 1) a block of 256 threads filters 64 voxels of 4 rows, along any other axis 32 columns of
// 32 voxels, 4 voxels a thread. The voxels within reach are staged in shared memory, 65 taps at a time, so
// any radius works with 2 KiB (x) and 12 KiB (others) of shared memory; at radii up to 32 every voxel is
// staged once per tile. Taps are kernel arguments, read through the constant cache.

#include "kernels/cuda/launch.cuh"

namespace cinnabar::cuda {

/// Weights for the distances 0..radius. Beyond a face lies either the face voxel again, or zero; in the
/// second case the face voxels themselves are filtered with `face_weight` instead of `weight`.
struct AxisTaps {
  static constexpr int kMaxRadius = 400;
  int radius;
  bool repeat_face;
  float weight[kMaxRadius + 1];
  float face_weight[kMaxRadius + 1];
};

struct FilteredAxis {
  std::int64_t outer;
  std::int64_t extent;
  std::int64_t inner;
};

constexpr int kFilterThreads = 256;
constexpr int kTapsStaged = 65;

/// Index into the axis of what lies at `i`, or -1 for zero.
__device__ __forceinline__ std::int64_t filter_index(std::int64_t i, std::int64_t extent, bool repeat_face) {
  if (i >= 0 && i < extent) return i;
  if (!repeat_face) return -1;
  return i < 0 ? 0 : extent - 1;
}

// budget: <=48 registers, 2048 B shared, 256 threads, occupancy >= 1.0
template <int kRows, int kWidth>
__global__ void __launch_bounds__(kFilterThreads)
    filter_along_x_tile_kernel(const float* input, FilteredAxis axis, AxisTaps taps, float* output) {
  constexpr int kStaged = kWidth + kTapsStaged - 1;
  CINNABAR_SHARED(float, tile, kRows* kStaged);
  const int column = static_cast<int>(threadIdx.x) % kWidth;
  const int row = static_cast<int>(threadIdx.x) / kWidth;
  const std::int64_t x = static_cast<std::int64_t>(blockIdx.y) * kWidth + column;
  const std::int64_t line = static_cast<std::int64_t>(blockIdx.x) * kRows + row;
  const float* in = input + line * axis.extent;
  const bool face = !taps.repeat_face && (x == 0 || x == axis.extent - 1);
  float sum = 0.0f;
  for (int first = -taps.radius; first <= taps.radius; first += kTapsStaged) {
    const int count = taps.radius - first + 1 < kTapsStaged ? taps.radius - first + 1 : kTapsStaged;
    __syncthreads();
    for (int k = column; k < kWidth + count - 1; k += kWidth) {
      const std::int64_t at = filter_index(x - column + first + k, axis.extent, taps.repeat_face);
      tile[row * kStaged + k] = line < axis.outer && at >= 0 ? in[at] : 0.0f;
    }
    __syncthreads();
    for (int k = 0; k < count; ++k) {
      const int distance = first + k < 0 ? -(first + k) : first + k;
      sum += (face ? taps.face_weight[distance] : taps.weight[distance]) * tile[row * kStaged + column + k];
    }
  }
  if (line < axis.outer && x < axis.extent) output[line * axis.extent + x] = sum;
}

// budget: <=64 registers, 12288 B shared, 256 threads, occupancy >= 0.5
template <int kColumns, int kHeight>
__global__ void __launch_bounds__(kFilterThreads)
    filter_across_rows_tile_kernel(const float* input, FilteredAxis axis, AxisTaps taps, float* output) {
  constexpr int kStaged = kHeight + kTapsStaged - 1;
  constexpr int kStep = kFilterThreads / kColumns;
  constexpr int kPerThread = kHeight / kStep;
  CINNABAR_SHARED(float, tile, kStaged* kColumns);
  const int column = static_cast<int>(threadIdx.x) % kColumns;
  const int row = static_cast<int>(threadIdx.x) / kColumns;
  const std::int64_t inner = static_cast<std::int64_t>(blockIdx.x) * kColumns + column;
  const std::int64_t start = static_cast<std::int64_t>(blockIdx.y) * kHeight;
  for (std::int64_t outer = blockIdx.z; outer < axis.outer; outer += gridDim.z) {
    const float* in = input + outer * axis.extent * axis.inner + inner;
    float* out = output + outer * axis.extent * axis.inner + inner;
    float sum[kPerThread] = {};
    for (int first = -taps.radius; first <= taps.radius; first += kTapsStaged) {
      const int count = taps.radius - first + 1 < kTapsStaged ? taps.radius - first + 1 : kTapsStaged;
      __syncthreads();
      for (int k = row; k < kHeight + count - 1; k += kStep) {
        const std::int64_t at = filter_index(start + first + k, axis.extent, taps.repeat_face);
        tile[k * kColumns + column] = inner < axis.inner && at >= 0 ? in[at * axis.inner] : 0.0f;
      }
      __syncthreads();
      for (int k = 0; k < count; ++k) {
        const int distance = first + k < 0 ? -(first + k) : first + k;
        const float weight = taps.weight[distance];
        const float face_weight = taps.face_weight[distance];
#pragma unroll
        for (int m = 0; m < kPerThread; ++m) {
          const std::int64_t i = start + row + m * kStep;
          const bool face = !taps.repeat_face && (i == 0 || i == axis.extent - 1);
          sum[m] += (face ? face_weight : weight) * tile[(row + m * kStep + k) * kColumns + column];
        }
      }
    }
#pragma unroll
    for (int m = 0; m < kPerThread; ++m) {
      const std::int64_t i = start + row + m * kStep;
      if (inner < axis.inner && i < axis.extent) out[i * axis.inner] = sum[m];
    }
  }
}

/// Filters one axis; assigns `output`, which must not overlap `input`.
inline void filter_axis(const char* op, const float* input, const FilteredAxis& axis, const AxisTaps& taps,
                        Device device, float* output) {
  const auto tiles = [&](std::int64_t count, std::int64_t size, std::int64_t most) {
    const std::int64_t needed = (count + size - 1) / size;
    CINNABAR_CHECK(needed <= most, op, count, " voxels along one axis are too many");
    return static_cast<unsigned>(needed);
  };
  constexpr std::int64_t kMostX = std::numeric_limits<std::int32_t>::max();
  constexpr std::int64_t kMostY = 65535;
  if (axis.outer * axis.extent * axis.inner == 0) return;
  if (axis.inner == 1) {
    constexpr int kRows = 4;
    constexpr int kWidth = kFilterThreads / kRows;
    const dim3 grid(tiles(axis.outer, kRows, kMostX), tiles(axis.extent, kWidth, kMostY));
    launch(op, filter_along_x_tile_kernel<kRows, kWidth>, {grid, dim3(kFilterThreads)}, device, input, axis,
           taps, output);
  } else {
    const dim3 grid(tiles(axis.inner, 32, kMostX), tiles(axis.extent, 32, kMostY),
                    static_cast<unsigned>(axis.outer < kMostY ? axis.outer : kMostY));
    launch(op, filter_across_rows_tile_kernel<32, 32>, {grid, dim3(kFilterThreads)}, device, input, axis,
           taps, output);
  }
}

}  // namespace cinnabar::cuda
