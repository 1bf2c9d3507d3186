#pragma once

// conv3d's kernels on tensor cores: those of conv3d_gather.cuh and conv3d_weight.cuh with another product.

#include "kernels/cuda/conv3d_gather.cuh"
#include "kernels/cuda/conv3d_weight.cuh"
#include "kernels/cuda/mma_tile.cuh"

namespace cinnabar::cuda {
namespace {

constexpr int kMmaDepth = 16;  // of a stage, in operands

/// A tile of 64, 32 or 16 rows x kColumns among the four warps of a block, and how it lies in shared memory:
/// [word of the depth][row or column], 8 or 24 banks from word to word, so that the 32 words of a fragment,
/// 4 of the depth x 8, lie in 32 banks.
template <class Operand, int kTileRows>
struct MmaTile {
  static constexpr int kWords = kMmaDepth / kInWord<Operand>;
  static constexpr int kWarpsDown = kTileRows == 64 ? 2 : 1;
  static constexpr int kWarpRows = kTileRows / kWarpsDown;
  static constexpr int kWarpColumns = kColumns * kWarpsDown / (kThreads / 32);
  static constexpr int kDown = kWarpRows / kMmaRows;  // products of a warp
  static constexpr int kAcross = kWarpColumns / kMmaColumns;
  static constexpr int kRowPitch = kTileRows + 8;
  static constexpr int kColumnPitch = kColumns + 8;
  static constexpr int kAStage = kWords * kRowPitch;
  static constexpr int kBStage = kWords * kColumnPitch;

  float sums[kDown][kAcross][4] = {};
  int row, column;    // of the tile, where this warp's part begins
  int group, member;  // of this lane in fragments

  __device__ __forceinline__ MmaTile() {
    const int warp = static_cast<int>(threadIdx.x) / 32;
    const int lane = static_cast<int>(threadIdx.x) % 32;
    row = warp % kWarpsDown * kWarpRows;
    column = warp / kWarpsDown * kWarpColumns;
    group = lane / 4;
    member = lane % 4;
  }

  /// Adds the product of a stage: a [kWords][rows], b [kWords][columns].
  __device__ __forceinline__ void multiply(SharedPointer<std::uint32_t> a, SharedPointer<std::uint32_t> b) {
#pragma unroll
    for (int first = 0; first < kWords; first += kMmaWords) {
      std::uint32_t left[kDown][4];
#pragma unroll
      for (int i = 0; i < kDown; ++i) {
#pragma unroll
        for (int k = 0; k < 4; ++k) {
          left[i][k] = a[(first + member + k / 2 * 4) * kRowPitch + row + i * kMmaRows + k % 2 * 8 + group];
        }
      }
#pragma unroll
      for (int j = 0; j < kAcross; ++j) {
        std::uint32_t right[2];
#pragma unroll
        for (int k = 0; k < 2; ++k) {
          right[k] = b[(first + member + k * 4) * kColumnPitch + column + j * kMmaColumns + group];
        }
#pragma unroll
        for (int i = 0; i < kDown; ++i) mma_tile<Operand>(left[i], right, sums[i][j]);
      }
    }
  }

  /// Calls write(column of the tile), which gives a function of (row of the tile, result), for every column
  /// of which this thread has results.
  template <class Write>
  __device__ __forceinline__ void for_each_result(const Write& write) const {
#pragma unroll
    for (int j = 0; j < kAcross; ++j) {
#pragma unroll
      for (int side = 0; side < 2; ++side) {
        const auto write_row = write(column + j * kMmaColumns + 2 * member + side);
#pragma unroll
        for (int i = 0; i < kDown; ++i) {
          write_row(row + i * kMmaRows + group, sums[i][j][side]);
          write_row(row + i * kMmaRows + group + 8, sums[i][j][2 + side]);
        }
      }
    }
  }
};

// budget: <=168 registers, 26624 B shared, 128 threads, occupancy >= 0.18
template <class Operand, int kTileRows>
__global__ void __launch_bounds__(kThreads)
    conv3d_gather_mma_kernel(const float* source, const float* packed, EpilogueMath<float> epilogue,
                             Gather gather, float* target) {
  using Tile = MmaTile<Operand, kTileRows>;
  constexpr int kLoads = (kTileRows + 31) / 32;
  constexpr int kEach = kMmaDepth / (kThreads / 32);  // of a stage's depth, a warp loads
  constexpr int kWordsEach = kEach / kInWord<Operand>;
  CINNABAR_SHARED(std::uint32_t, a_tile, 2 * Tile::kAStage);
  CINNABAR_SHARED(std::uint32_t, b_tile, 2 * Tile::kBStage);
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int first_row = static_cast<int>(blockIdx.y) * kTileRows;
  const int group = static_cast<int>(blockIdx.z);
  const GatherColumns columns(gather, group, lane);
  const float* weights = weights_from(gather, packed, group, first_row);

  DepthCursor cursor;
  float a_next[kEach][kLoads];
  float b_next[kEach][4];
  const auto load = [&] {
#pragma unroll
    for (int k = 0; k < kEach; ++k) {
      columns.load(gather, source, cursor, b_next[k]);
      load_weights<kTileRows>(gather, weights, cursor, lane, a_next[k]);
      cursor.advance(k + 1 < kEach ? 1 : kMmaDepth - kEach + 1, gather);
    }
  };
  const auto store = [&](int stage) {
#pragma unroll
    for (int w = 0; w < kWordsEach; ++w) {
      const int word = warp * kWordsEach + w;
      float values[kInWord<Operand>];
#pragma unroll
      for (int j = 0; j < 4; ++j) {
#pragma unroll
        for (int v = 0; v < kInWord<Operand>; ++v) values[v] = b_next[w * kInWord<Operand> + v][j];
        b_tile[stage * Tile::kBStage + word * Tile::kColumnPitch + lane + 32 * j] =
            operand_word<Operand>(values);
      }
#pragma unroll
      for (int i = 0; i < kLoads; ++i) {
        const int r = lane + 32 * i;
#pragma unroll
        for (int v = 0; v < kInWord<Operand>; ++v) values[v] = a_next[w * kInWord<Operand> + v][i];
        if (r < kTileRows) {
          a_tile[stage * Tile::kAStage + word * Tile::kRowPitch + r] = operand_word<Operand>(values);
        }
      }
    }
  };

  Tile tile;
  const int stages = (depth_of(gather) + kMmaDepth - 1) / kMmaDepth;
  if (stages > 0) cursor.advance(warp * kEach, gather);
  multiply_stages(stages, load, store, [&](int stage) {
    tile.multiply(a_tile + stage * Tile::kAStage, b_tile + stage * Tile::kBStage);
  });
  tile.for_each_result([&](int in_tile) {
    return [&, column = GatheredColumn(gather, group, in_tile)](int row, float value) {
      column.write(gather, epilogue, group, first_row + row, value, target);
    };
  });
}

// budget: <=168 registers, 28672 B shared, 128 threads, occupancy >= 0.18
template <class Operand, int kTileRows>
__global__ void __launch_bounds__(kThreads)
    conv3d_backward_weight_mma_kernel(const float* grad_output, const float* input, WeightSums s,
                                      float* partial) {
  using Tile = MmaTile<Operand, kTileRows>;
  constexpr int kLoads = (kTileRows + 15) / 16;
  constexpr int kApart = kMmaDepth / 2;  // a thread loads two positions of a stage
  constexpr int kWordsEach = 2 / kInWord<Operand>;
  CINNABAR_SHARED(ColumnTap, taps, kColumns);
  CINNABAR_SHARED(std::uint32_t, a_tile, 2 * Tile::kAStage);
  CINNABAR_SHARED(std::uint32_t, b_tile, 2 * Tile::kBStage);
  const int word = static_cast<int>(threadIdx.x) % kApart;  // and this one + kApart, where a word holds one
  const WeightPlace place(s, kTileRows, static_cast<int>(threadIdx.x) / kApart);
  taps[threadIdx.x] = tap_of_column(s);
  __syncthreads();

  std::int32_t position = place.begin(s) + word * kInWord<Operand>;
  constexpr int kNext = kInWord<Operand> == 2 ? 1 : kApart;  // from the first of the two to the second
  PositionCursor cursor(s, position);
  float a_next[2][kLoads];
  float b_next[2][8];
  const auto load = [&] {
#pragma unroll
    for (int k = 0; k < 2; ++k) {
      load_position<kTileRows>(s, place, cursor, position < place.end, grad_output, input, taps, a_next[k],
                               b_next[k]);
      position += k == 0 ? kNext : kMmaDepth - kNext;
      cursor.advance(k == 0 ? kNext : kMmaDepth - kNext, s);
    }
  };
  const auto store = [&](int stage) {
#pragma unroll
    for (int w = 0; w < kWordsEach; ++w) {
      const int at = word + w * kApart;
      float values[kInWord<Operand>];
#pragma unroll
      for (int i = 0; i < kLoads; ++i) {
        const int r = place.element + 16 * i;
#pragma unroll
        for (int v = 0; v < kInWord<Operand>; ++v) values[v] = a_next[w + v][i];
        if (r < kTileRows) {
          a_tile[stage * Tile::kAStage + at * Tile::kRowPitch + r] = operand_word<Operand>(values);
        }
      }
#pragma unroll
      for (int j = 0; j < 8; ++j) {
#pragma unroll
        for (int v = 0; v < kInWord<Operand>; ++v) values[v] = b_next[w + v][j];
        b_tile[stage * Tile::kBStage + at * Tile::kColumnPitch + place.element + 16 * j] =
            operand_word<Operand>(values);
      }
    }
  };

  Tile tile;
  const int stages = (place.end - place.begin(s) + kMmaDepth - 1) / kMmaDepth;
  multiply_stages(stages, load, store, [&](int stage) {
    tile.multiply(a_tile + stage * Tile::kAStage, b_tile + stage * Tile::kBStage);
  });
  tile.for_each_result([&](int in_tile) {
    return [&, in_tile](int row, float value) {
      write_partial(s, place, place.first_row + row, in_tile, value, partial);
    };
  });
}

}  // namespace
}  // namespace cinnabar::cuda
