#pragma once

// conv3d's forward and backward_input: each written position gathers what its taps read. A position computes
// where a tap reads and takes a zero beyond the border. Here are the parts that all products share, and the
// kernel in fp32, where a block owns 64 channels x 128 positions and walks the products' depth, taps times
// channels read, 8 at a time.

#include "kernels/cuda/conv3d_tile.cuh"
#include "kernels/epilogue_math.hpp"

namespace cinnabar::cuda {
namespace {

/// One axis of a gather. Position j is written at target_first + j target_step and reads, through its q-th
/// tap (kernel index tap_first + q tap_step), at j source_step + source_first + q source_tap.
struct GatherAxis {
  std::int32_t positions;
  std::int32_t target_first, target_step, target_extent;
  std::int32_t source_first, source_step, source_tap, source_extent;
  std::int32_t taps, tap_first, tap_step, kernel;
};

struct Gather {
  GatherAxis axis[3];
  std::int32_t columns;   // positions of all images
  std::int32_t channels;  // read, in a group
  std::int32_t rows;      // channels written, in a group
  std::int32_t padded_rows;
  std::int32_t groups;
  std::int32_t source_volume;
  std::int32_t target_volume;
};

/// A place in the depth of the products: channel fastest, then the taps.
struct DepthCursor {
  int channel = 0, x = 0, y = 0, z = 0;

  __device__ __forceinline__ void advance(int count, const Gather& gather) {
    channel += count;
    while (channel >= gather.channels) {
      channel -= gather.channels;
      if (++x < gather.axis[2].taps) continue;
      x = 0;
      if (++y < gather.axis[1].taps) continue;
      y = 0;
      ++z;
    }
  }
};

/// Image and position of a column.
struct ColumnPlace {
  int n, z, y, x;
};

__device__ __forceinline__ ColumnPlace place_of_column(const Gather& gather, int column) {
  auto rest = static_cast<unsigned>(column);
  const auto take = [&rest](std::int32_t extent) {
    const unsigned quotient = rest / static_cast<unsigned>(extent);
    const auto index = static_cast<int>(rest - quotient * static_cast<unsigned>(extent));
    rest = quotient;
    return index;
  };
  ColumnPlace place{};
  place.x = take(gather.axis[2].positions);
  place.y = take(gather.axis[1].positions);
  place.z = take(gather.axis[0].positions);
  place.n = static_cast<int>(rest);
  return place;
}

/// The columns of a tile that a lane loads, 32 apart: what they read through a tap at offset 0.
struct GatherColumns {
  int z[4], y[4], x[4];
  std::int64_t base[4];

  __device__ __forceinline__ GatherColumns(const Gather& gather, int group, int lane) {
    const GatherAxis& depth = gather.axis[0];
    const GatherAxis& height = gather.axis[1];
    const GatherAxis& width = gather.axis[2];
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const std::int64_t column = std::int64_t{blockIdx.x} * kColumns + lane + 32 * j;
      const bool exists = column < gather.columns;
      const ColumnPlace place = place_of_column(gather, exists ? static_cast<int>(column) : 0);
      z[j] = exists ? place.z * depth.source_step + depth.source_first : kOutside;
      y[j] = place.y * height.source_step + height.source_first;
      x[j] = place.x * width.source_step + width.source_first;
      base[j] = (std::int64_t{place.n} * gather.groups + group) * gather.channels * gather.source_volume +
                (std::int64_t{z[j]} * height.source_extent + y[j]) * width.source_extent + x[j];
    }
  }

  /// What they read at a place in the depth.
  __device__ __forceinline__ void load(const Gather& gather, const float* source, const DepthCursor& at,
                                       float (&values)[4]) const {
    const GatherAxis& depth = gather.axis[0];
    const GatherAxis& height = gather.axis[1];
    const GatherAxis& width = gather.axis[2];
    const int dz = at.z * depth.source_tap;
    const int dy = at.y * height.source_tap;
    const int dx = at.x * width.source_tap;
    const bool in_depth = at.z < depth.taps;
    const std::int64_t offset = std::int64_t{at.channel} * gather.source_volume +
                                (std::int64_t{dz} * height.source_extent + dy) * width.source_extent + dx;
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const bool inside = in_depth &&
                          static_cast<unsigned>(z[j] + dz) < static_cast<unsigned>(depth.source_extent) &&
                          static_cast<unsigned>(y[j] + dy) < static_cast<unsigned>(height.source_extent) &&
                          static_cast<unsigned>(x[j] + dx) < static_cast<unsigned>(width.source_extent);
      values[j] = inside ? source[base[j] + offset] : 0.0f;
    }
  }
};

/// Packed weights of a group, from a row on.
__device__ __forceinline__ const float* weights_from(const Gather& gather, const float* packed, int group,
                                                     int row) {
  const int taps = gather.axis[0].kernel * gather.axis[1].kernel * gather.axis[2].kernel;
  return packed + std::int64_t{group} * taps * gather.channels * gather.padded_rows + row;
}

/// The weights at a place in the depth, of the rows of a tile that a lane loads, 32 apart.
template <int kTileRows>
__device__ __forceinline__ void load_weights(const Gather& gather, const float* weights,
                                             const DepthCursor& at, int lane,
                                             float (&values)[(kTileRows + 31) / 32]) {
  const GatherAxis& depth = gather.axis[0];
  const GatherAxis& height = gather.axis[1];
  const GatherAxis& width = gather.axis[2];
  const int tap = ((depth.tap_first + at.z * depth.tap_step) * height.kernel + height.tap_first +
                   at.y * height.tap_step) *
                      width.kernel +
                  width.tap_first + at.x * width.tap_step;
  const float* row = weights + (std::int64_t{tap} * gather.channels + at.channel) * gather.padded_rows;
#pragma unroll
  for (int i = 0; i < (kTileRows + 31) / 32; ++i) {
    const int r = lane + 32 * i;
    values[i] = at.z < depth.taps && r < kTileRows ? row[r] : 0.0f;
  }
}

/// Products summed into one result.
__device__ __forceinline__ int depth_of(const Gather& gather) {
  return gather.channels * gather.axis[0].taps * gather.axis[1].taps * gather.axis[2].taps;
}

/// Writes results of one column, where it exists, ended by the epilogue.
struct GatheredColumn {
  bool exists;
  std::int64_t image = 0, voxel = 0;

  /// Of this block's tile.
  __device__ __forceinline__ GatheredColumn(const Gather& gather, int group, int in_tile) {
    find(gather, group, std::int64_t{blockIdx.x} * kColumns + in_tile);
  }
  /// Of any tile.
  __device__ __forceinline__ GatheredColumn(const Gather& gather, int group, int in_tile, int tile) {
    find(gather, group, std::int64_t{tile} * kColumns + in_tile);
  }

  __device__ __forceinline__ void find(const Gather& gather, int group, std::int64_t column) {
    exists = column < gather.columns;
    if (exists) place_at(gather, group, place_of_column(gather, static_cast<int>(column)));
  }
  __device__ __forceinline__ void place_at(const Gather& gather, int group, const ColumnPlace& place) {
    const GatherAxis& depth = gather.axis[0];
    const GatherAxis& height = gather.axis[1];
    const GatherAxis& width = gather.axis[2];
    voxel = ((place.z * depth.target_step + depth.target_first) * std::int64_t{height.target_extent} +
             place.y * height.target_step + height.target_first) *
                width.target_extent +
            place.x * width.target_step + width.target_first;
    image = std::int64_t{place.n} * gather.groups + group;
  }

  __device__ __forceinline__ void write(const Gather& gather, const EpilogueMath<float>& epilogue, int group,
                                        int row, float value, float* target) const {
    if (!exists || row >= gather.rows) return;
    const std::int64_t index = (image * gather.rows + row) * gather.target_volume + voxel;
    UniformCursor uniform;
    target[index] = epilogue_value(epilogue, std::int64_t{group} * gather.rows + row, index, value, uniform);
  }
};

/// Weights as [group][tap][channel read][channel written, padded with zeros].
// budget: <=40 registers, 0 B shared, 256 threads, occupancy >= 0.75
__global__ void conv3d_pack_weight_kernel(const float* weight, std::int32_t taps, std::int32_t channels,
                                          std::int32_t rows, std::int32_t padded_rows,
                                          std::int64_t channel_stride, std::int64_t row_stride,
                                          std::int64_t count, float* packed) {
  const std::int64_t index = thread_index();
  if (index >= count) return;
  const auto row = static_cast<std::int32_t>(index % padded_rows);
  std::int64_t rest = index / padded_rows;
  const auto channel = static_cast<std::int32_t>(rest % channels);
  rest /= channels;
  const auto tap = static_cast<std::int32_t>(rest % taps);
  const std::int64_t group = rest / taps;
  const float* from = weight + group * taps * channels * rows;
  packed[index] = row < rows ? from[channel * channel_stride + row * row_stride + tap] : 0.0f;
}

// budget: <=168 registers, 12800 B shared, 128 threads, occupancy >= 0.18
template <int kRowsEach>
__global__ void __launch_bounds__(kThreads)
    conv3d_gather_tile_kernel(const float* source, const float* packed, EpilogueMath<float> epilogue,
                              Gather gather, float* target) {
  constexpr int kAStage = kDepth * kRowPitch<kRowsEach>;
  constexpr int kBStage = kDepth * kColumnPitch;
  constexpr int kLoads = (kRows<kRowsEach> + 31) / 32;
  alignas(16) CINNABAR_SHARED(float, a_tile, 2 * kAStage);
  alignas(16) CINNABAR_SHARED(float, b_tile, 2 * kBStage);
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int first_k = static_cast<int>(threadIdx.x) / 32 * 2;  // a warp loads two rows of a stage's depth
  const int first_row = static_cast<int>(blockIdx.y) * kRows<kRowsEach>;
  const int group = static_cast<int>(blockIdx.z);
  const GatherColumns columns(gather, group, lane);
  const float* weights = weights_from(gather, packed, group, first_row);

  DepthCursor cursor;
  float a_next[2][kLoads];
  float b_next[2][4];
  const auto load = [&] {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      columns.load(gather, source, cursor, b_next[half]);
      load_weights<kRows<kRowsEach>>(gather, weights, cursor, lane, a_next[half]);
      cursor.advance(half == 0 ? 1 : kDepth - 1, gather);
    }
  };
  const auto store = [&](int stage) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int k = first_k + half;
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        b_tile[stage * kBStage + k * kColumnPitch + lane + 32 * j] = b_next[half][j];
      }
#pragma unroll
      for (int i = 0; i < kLoads; ++i) {
        const int r = lane + 32 * i;
        if (r < kRows<kRowsEach>) a_tile[stage * kAStage + k * kRowPitch<kRowsEach> + r] = a_next[half][i];
      }
    }
  };

  float sums[kRowsEach][8] = {};
  const int stages = (depth_of(gather) + kDepth - 1) / kDepth;
  if (stages > 0) cursor.advance(first_k, gather);
  multiply_stages(stages, load, store, [&](int stage) {
    multiply_stage<kRowsEach>(a_tile + stage * kAStage, b_tile + stage * kBStage, sums);
  });

#pragma unroll
  for (int j = 0; j < 8; ++j) {
    const GatheredColumn column(gather, group, column_of_result(j));
#pragma unroll
    for (int i = 0; i < kRowsEach; ++i) {
      const int row = first_row + static_cast<int>(threadIdx.x) / 16 * kRowsEach + i;
      column.write(gather, epilogue, group, row, sums[i][j], target);
    }
  }
}

}  // namespace
}  // namespace cinnabar::cuda
