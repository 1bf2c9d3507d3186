#pragma once

// conv3d's forward and backward_input on tensor cores, from packed operands (conv3d_packed.cuh): a product of
// positions x channels written, whose depth is chunks of channels read, and of each all taps, one after the
// other: neighbouring taps read much the same voxels, which L1 then has.

#include "kernels/cuda/conv3d_packed.cuh"
#include "kernels/cuda/shared_copy.cuh"

namespace cinnabar::cuda {
namespace {

constexpr int kStages = 3;       // in shared memory: one is multiplied, two are on their way
constexpr int kTilePitch = 132;  // of results in shared memory: 8 positions x 4 channels lie in 32 banks

/// A tile of 128 rows x kWide columns (128, 64, 32 or 16) among the four warps of a block.
template <int kWide>
struct ProductTile {
  static constexpr int kWarpsAcross = kWide >= 64 ? 2 : 1;
  static constexpr int kWarpsDown = kThreads / 32 / kWarpsAcross;
  static constexpr int kDown = kColumns / kWarpsDown / kMmaRows;  // products of a warp
  static constexpr int kAcross = kWide / kWarpsAcross / kMmaColumns;
  static constexpr int kStageWords = (kColumns + kWide) * kChunkWords;

  float sums[kDown][kAcross][4] = {};
  int row, column;  // of the tile, where this warp's part begins

  __device__ __forceinline__ ProductTile() {
    const int warp = static_cast<int>(threadIdx.x) / 32;
    row = warp % kWarpsDown * (kDown * kMmaRows);
    column = warp / kWarpsDown * (kAcross * kMmaColumns);
  }

  /// Adds a product 8 words deep; right[j] are the fragments of columns 16 j on.
  template <class Operand>
  __device__ __forceinline__ void multiply(const std::uint32_t (&left)[kDown][4],
                                           const std::uint32_t (&right)[kAcross / 2][4]) {
#pragma unroll
    for (int j = 0; j < kAcross; ++j) {
      const std::uint32_t b[2] = {right[j / 2][j % 2 * 2], right[j / 2][j % 2 * 2 + 1]};
#pragma unroll
      for (int i = 0; i < kDown; ++i) mma_tile<Operand>(left[i], b, sums[i][j]);
    }
  }

  /// Calls write(row, column, result).
  template <class Write>
  __device__ __forceinline__ void for_each_result(const Write& write) const {
    const int lane = static_cast<int>(threadIdx.x) % 32;
#pragma unroll
    for (int i = 0; i < kDown; ++i) {
#pragma unroll
      for (int j = 0; j < kAcross; ++j) {
#pragma unroll
        for (int k = 0; k < 4; ++k) {
          write(row + i * kMmaRows + lane / 4 + k / 2 * 8, column + j * kMmaColumns + lane % 4 * 2 + k % 2,
                sums[i][j][k]);
        }
      }
    }
  }
};

/// Word at which a piece of 16 bytes of a row lies in shared memory, with so many pieces a row. The order of
/// a row's pieces follows from the row's number, so that the same piece of 8 rows lies in 32 banks, and so do
/// two pieces of 4 rows, 0 to 3 or 4 to 7 of 8.
template <int kPieces>
__device__ __forceinline__ int piece_at(int row, int piece) {
  const int third = row / 4 % 2;
  const int order = kPieces >= 8 ? row % 4 * 2 + third : kPieces == 4 ? row / 2 % 2 * 2 + third : third;
  return (row * kPieces + (piece ^ order)) * 4;
}

/// Keeps kStages - 1 stages on their way: copy(slot) starts the next one's copies into a slot of the ring,
/// multiply(slot, then) has one there and calls then() once, when its first fragments are on their way.
template <class Copy, class Multiply>
__device__ __forceinline__ void multiply_copied(int stages, const Copy& copy, const Multiply& multiply) {
#pragma unroll
  for (int stage = 0; stage < kStages - 1; ++stage) {
    if (stage < stages) copy(stage);
    end_copies();
  }
  int slot = 0;
  for (int stage = 0; stage < stages; ++stage) {
    wait_for_copies<kStages - 2>();
    __syncthreads();  // all have come, and the slot before is done with
    multiply(slot, [&] {
      if (stage + kStages - 1 < stages) copy(slot == 0 ? kStages - 1 : slot - 1);
      end_copies();
    });
    slot = slot + 1 == kStages ? 0 : slot + 1;
  }
}

/// The voxel of a packed volume that a column's position reads through a tap at distance 0.
__device__ __forceinline__ std::int32_t packed_voxel(const Gather& gather, const PackedVolume& p,
                                                     int column) {
  const ColumnPlace place = place_of_column(gather, column);
  const std::int32_t at[3] = {place.z, place.y, place.x};
  std::int32_t voxel = place.n;
#pragma unroll
  for (int axis = 0; axis < 3; ++axis) {
    voxel = voxel * p.extent[axis] + at[axis] * gather.axis[axis].source_step +
            gather.axis[axis].source_first + p.before[axis];
  }
  return voxel;
}

/// Distance of a tap in voxels of a packed volume.
__device__ __forceinline__ int tap_distance(const Gather& gather, const PackedVolume& p, int z, int y,
                                            int x) {
  return (z * gather.axis[0].source_tap * p.extent[1] + y * gather.axis[1].source_tap) * p.extent[2] +
         x * gather.axis[2].source_tap;
}

/// A place in the depth of a product: x fastest, then y, z, and the chunk. It may go on behind the end.
struct TapCursor {
  int x = 0, y = 0, z = 0;
  std::int64_t distance = 0;  // in voxels of the packed volume, chunks being one behind the other
  int tap;                    // index in the kernel, the chunks' likewise

  __device__ __forceinline__ explicit TapCursor(const Gather& gather)
      : tap((gather.axis[0].tap_first * gather.axis[1].kernel + gather.axis[1].tap_first) *
                gather.axis[2].kernel +
            gather.axis[2].tap_first) {}

  __device__ __forceinline__ void advance(const Gather& gather, const PackedVolume& p) {
    const GatherAxis& depth = gather.axis[0];
    const GatherAxis& height = gather.axis[1];
    const GatherAxis& width = gather.axis[2];
    distance += width.source_tap;
    tap += width.tap_step;
    if (++x < width.taps) return;
    x = 0;
    distance += tap_distance(gather, p, 0, 1, -width.taps);
    tap += height.tap_step * width.kernel - width.taps * width.tap_step;
    if (++y < height.taps) return;
    y = 0;
    distance += tap_distance(gather, p, 1, -height.taps, 0);
    tap += (depth.tap_step * height.kernel - height.taps * height.tap_step) * width.kernel;
    if (++z < depth.taps) return;
    z = 0;
    distance += p.voxels + tap_distance(gather, p, -depth.taps, 0, 0);
    tap += (depth.kernel - depth.taps * depth.tap_step) * height.kernel * width.kernel;
  }
};

constexpr int kMostGathers = 8;

/// Gathers from one packed volume, and the first of each one's blocks.
struct Gathers {
  std::int32_t count;
  std::int32_t first_block[kMostGathers];
  Gather each[kMostGathers];
};

/// A block owns 128 positions of all images x kWide channels of what a gather writes.
// budget: <=255 registers, 49152 B shared, 128 threads, occupancy >= 0.12
template <class Operand, int kWide>
__global__ void __launch_bounds__(kThreads, kWide == 128 ? 2 : 3)
    conv3d_product_mma_kernel(const uint4* source, const uint4* weights, EpilogueMath<float> epilogue,
                              Gathers gathers, PackedVolume p, float* target) {
  using Tile = ProductTile<kWide>;
  constexpr int kCopies = kColumns * kChunkPieces / kThreads;  // of a thread, of a stage's voxels
  constexpr int kRowsOfCopy = kThreads / kChunkPieces;
  alignas(16) CINNABAR_SHARED(std::uint32_t, ring, kStages * Tile::kStageWords);
  int which = 0;
  while (which + 1 < gathers.count && static_cast<int>(blockIdx.x) >= gathers.first_block[which + 1]) ++which;
  const Gather& gather = gathers.each[which];
  const int block = static_cast<int>(blockIdx.x) - gathers.first_block[which];
  const int thread = static_cast<int>(threadIdx.x), lane = thread % 32;
  const int group = static_cast<int>(blockIdx.z);
  const int first_row = static_cast<int>(blockIdx.y) * kWide;

  const int copy_row = thread / kChunkPieces;
  const int copy_to = piece_at<kChunkPieces>(copy_row, thread % kChunkPieces);
  const uint4* from[kCopies];
#pragma unroll
  for (int i = 0; i < kCopies; ++i) {
    const std::int64_t column = std::int64_t{block} * kColumns + copy_row + i * kRowsOfCopy;
    // Those that do not exist read what the first one does; nothing is written for them.
    const int voxel = packed_voxel(gather, p, column < gather.columns ? static_cast<int>(column) : 0);
    from[i] =
        source + (std::int64_t{group} * p.chunks * p.voxels + voxel) * kChunkPieces + thread % kChunkPieces;
  }
  const int kernel_taps = gather.axis[0].kernel * gather.axis[1].kernel * gather.axis[2].kernel;
  const std::int64_t stage_pieces = std::int64_t{gather.padded_rows} * kChunkPieces;
  const uint4* weights_from =
      weights + group * p.chunks * kernel_taps * stage_pieces + first_row * kChunkPieces + thread;

  TapCursor cursor(gather);
  const auto copy = [&](int slot) {
    const SharedPointer<std::uint32_t> voxels = ring + slot * Tile::kStageWords;
    const std::int64_t distance = cursor.distance * kChunkPieces;
#pragma unroll
    for (int i = 0; i < kCopies; ++i) {
      start_copy(voxels + copy_to + i * kRowsOfCopy * kChunkWords, from[i] + distance);
    }
    const SharedPointer<std::uint32_t> rows = voxels + kColumns * kChunkWords;
    const uint4* stage_weights = weights_from + cursor.tap * stage_pieces;
#pragma unroll
    for (int i = 0; i < (kWide + kRowsOfCopy - 1) / kRowsOfCopy; ++i) {
      if (kWide % kRowsOfCopy == 0 || copy_row < kWide) {
        start_copy(rows + copy_to + i * kRowsOfCopy * kChunkWords, stage_weights + i * kThreads);
      }
    }
    cursor.advance(gather, p);
  };

  Tile tile;
  const int left_row = tile.row + lane % 16, left_piece = lane / 16;
  const int right_row = tile.column + lane % 8 + lane / 16 * 8, right_piece = lane / 8 % 2;
  const int stages = p.chunks * gather.axis[0].taps * gather.axis[1].taps * gather.axis[2].taps;
  multiply_copied(stages, copy, [&](int slot, const auto& then) {
    const SharedPointer<std::uint32_t> voxels = ring + slot * Tile::kStageWords;
    const SharedPointer<std::uint32_t> rows = voxels + kColumns * kChunkWords;
#pragma unroll
    for (int k = 0; k < kChunkPieces; k += 2) {
      std::uint32_t left[Tile::kDown][4], right[Tile::kAcross / 2][4];
#pragma unroll
      for (int i = 0; i < Tile::kDown; ++i) {
        load_matrices<false>(
            voxels + piece_at<kChunkPieces>(left_row, left_piece + k) + i * kMmaRows * kChunkWords, left[i]);
      }
#pragma unroll
      for (int j = 0; j < Tile::kAcross / 2; ++j) {
        load_matrices<false>(rows + piece_at<kChunkPieces>(right_row, right_piece + k) + j * 16 * kChunkWords,
                             right[j]);
      }
      if (k == 0) then();
      tile.template multiply<Operand>(left, right);
    }
  });

  // Results go through shared memory, 64 channels at a time, so that a warp writes 32 positions of one.
  constexpr int kPass = kWide < 64 ? kWide : 64;
  const GatheredColumn column(gather, group, thread, block);
#pragma unroll 1
  for (int pass = 0; pass < kWide; pass += kPass) {
    __syncthreads();
    if (tile.column / kPass * kPass == pass) {
      tile.for_each_result([&](int position, int channel, float value) {
        ring[(channel - pass) * kTilePitch + position] = __float_as_uint(value);
      });
    }
    __syncthreads();
    const int rows = min(kPass, gather.rows - first_row - pass);
#pragma unroll 2
    for (int r = 0; r < rows; ++r) {
      const std::uint32_t value = ring[r * kTilePitch + thread];
      column.write(gather, epilogue, group, first_row + pass + r, __uint_as_float(value), target);
    }
  }
}

}  // namespace
}  // namespace cinnabar::cuda
