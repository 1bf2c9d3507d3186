#pragma once

// conv3d's weight gradient on tensor cores, from packed operands (conv3d_packed.cuh): sums over positions p
// of grad[o][p] input[c][p + tap], a product of (chunk of input channels, tap) x output channels whose depth
// is positions. In shared memory both lie as in memory, channels side by side, and are transposed where
// fragments are read.

#include "kernels/cuda/conv3d_product.cuh"

namespace cinnabar::cuda {
namespace {

/// The shape of a weight gradient's product. A unit is one tap of a chunk of input channels; taps are
/// fastest.
struct WeightProduct {
  std::int32_t positions;  // of all images
  std::int32_t range;      // positions of one part, whole stages
  std::int32_t units;
  std::int32_t taps;
};

/// places[i] = the packed voxel that position i reads at distance 0.
// budget: <=40 registers, 0 B shared, 256 threads, occupancy >= 0.75
__global__ void conv3d_places_kernel(Gather gather, PackedVolume p, std::int32_t* places) {
  const std::int64_t index = thread_index();
  if (index < gather.columns) places[index] = packed_voxel(gather, p, static_cast<int>(index));
}

/// Reads fragments of a stage, [position][channel] with kPieces pieces of 16 bytes a position, for a warp
/// whose channels begin at a multiple of 32, or of all. As a product's rows, or (kRight) as its columns.
template <class Operand, int kPieces, bool kRight>
struct TransposedFragments {
  static constexpr bool kHalves = kInWord<Operand> == 2;
  int at;  // word of this lane's first

  __device__ __forceinline__ explicit TransposedFragments(int channel) {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    if constexpr (kHalves) {
      const int further = lane / 8 % 2, furthest = lane / 16;
      at = piece_at<kPieces>(lane % 8 + (kRight ? further : furthest) * 8,
                             channel / 8 + (kRight ? furthest : further));
    } else {
      at = piece_at<kPieces>(lane % 4, (channel + lane / 4) / 4) + lane / 4 % 4;
    }
  }

  /// Of positions `first` on and the 16 channels 16 i on: what piece_at() says, as bits that it exchanges.
  __device__ __forceinline__ void load(SharedPointer<std::uint32_t> stage, int first, int i,
                                       std::uint32_t (&words)[4]) const {
    constexpr int kRow = kPieces * 4;
    constexpr int kExchanged = (kRow < 32 ? kRow : 32) - 1;
    if constexpr (kHalves) {
      const int word = i * 8;
      load_matrices<true>(stage + (at ^ (word & kExchanged)) + (word & ~kExchanged) + first * kRow, words);
    } else {
#pragma unroll
      for (int k = 0; k < 4; ++k) {
        const int later = (kRight ? k % 2 : k / 2) * 4;  // positions
        const int word = i * 16 + (kRight ? k / 2 : k % 2) * 8;
        words[k] =
            stage[(at ^ ((word & kExchanged) + later)) + (word & ~kExchanged) + (first + later) * kRow];
      }
    }
  }
};

/// A block owns 128 / kChunkChannels units x kWide output channels and sums over one part of the positions.
// budget: <=255 registers, 49152 B shared, 128 threads, occupancy >= 0.12
template <class Operand, int kWide>
__global__ void __launch_bounds__(kThreads, kWide == 128 ? 2 : 3)
    conv3d_weight_product_mma_kernel(const uint4* source, const uint4* grads, const std::int32_t* places,
                                     Gather gather, PackedVolume p, PackedVolume g, WeightProduct w,
                                     float* partial) {
  using Tile = ProductTile<kWide>;
  constexpr int kStep = kChunkWords * kInWord<Operand>;  // positions of a stage
  constexpr int kPieces = kColumns / 4 / kInWord<Operand>;
  constexpr int kGradPieces = kWide / 4 / kInWord<Operand>;
  constexpr int kEvery = kThreads / kPieces;  // positions from one copy of a thread to its next
  constexpr int kGradEvery = kThreads / kGradPieces;
  constexpr int kCopies = kStep / kEvery;
  constexpr int kGradCopies = (kStep + kGradEvery - 1) / kGradEvery;
  alignas(16) CINNABAR_SHARED(std::uint32_t, ring, kStages * Tile::kStageWords);
  const int thread = static_cast<int>(threadIdx.x);
  const int group = static_cast<int>(blockIdx.z) % gather.groups;
  const int begin = static_cast<int>(blockIdx.z) / gather.groups * w.range;
  const int end = w.positions - begin < w.range ? w.positions : begin + w.range;

  const int piece = thread % kPieces, row = thread / kPieces;
  const int unit = static_cast<int>(blockIdx.x) * (kPieces / kChunkPieces) + piece / kChunkPieces;
  const bool unit_exists = unit < w.units;
  const uint4* from = source;
  if (unit_exists) {
    const int tap = unit % w.taps, rows = tap / gather.axis[2].taps;
    const int distance = tap_distance(gather, p, rows / gather.axis[1].taps, rows % gather.axis[1].taps,
                                      tap % gather.axis[2].taps);
    const std::int64_t chunk = std::int64_t{group} * p.chunks + unit / w.taps;
    from += (chunk * p.voxels + distance) * kChunkPieces + piece % kChunkPieces;
  }
  const int grad_row = thread / kGradPieces;
  const int grad_piece = static_cast<int>(blockIdx.y) * kGradPieces + thread % kGradPieces;
  const bool grads_exist = grad_piece / kChunkPieces < g.chunks && grad_row < kStep;
  const uint4* grads_from = grads;
  if (grads_exist) {
    const std::int64_t chunk = std::int64_t{group} * g.chunks + grad_piece / kChunkPieces;
    grads_from += chunk * g.voxels * kChunkPieces + grad_piece % kChunkPieces;
  }

  int first = begin;  // position of the stage to copy
  std::int32_t place[kCopies];
  const auto find = [&] {
#pragma unroll
    for (int i = 0; i < kCopies; ++i) {
      const int position = first + row + i * kEvery;
      place[i] = position < end ? places[position] : 0;
    }
  };
  find();
  const auto copy = [&](int slot) {
    const SharedPointer<std::uint32_t> stage = ring + slot * Tile::kStageWords;
#pragma unroll
    for (int i = 0; i < kCopies; ++i) {
      const bool reads = unit_exists && first + row + i * kEvery < end;
      start_copy(stage + piece_at<kPieces>(row + i * kEvery, piece),
                 reads ? from + std::int64_t{place[i]} * kChunkPieces : source, reads);
    }
    const SharedPointer<std::uint32_t> stage_grads = stage + kColumns * kChunkWords;
#pragma unroll
    for (int i = 0; i < kGradCopies; ++i) {
      const int position = first + grad_row + i * kGradEvery;
      const bool reads = grads_exist && position < end;
      if (kGradEvery <= kStep || grad_row < kStep) {
        start_copy(stage_grads + piece_at<kGradPieces>(grad_row + i * kGradEvery, thread % kGradPieces),
                   reads ? grads_from + std::int64_t{position} * kChunkPieces : grads, reads);
      }
    }
    first += kStep;
    find();  // for the next stage, in time
  };

  Tile tile;
  const TransposedFragments<Operand, kPieces, false> left_fragments(tile.row);
  const TransposedFragments<Operand, kGradPieces, true> right_fragments(tile.column);
  multiply_copied((end - begin + kStep - 1) / kStep, copy, [&](int slot, const auto& then) {
    const SharedPointer<std::uint32_t> stage = ring + slot * Tile::kStageWords;
    const SharedPointer<std::uint32_t> stage_grads = stage + kColumns * kChunkWords;
#pragma unroll
    for (int k = 0; k < kStep; k += kMmaWords * kInWord<Operand>) {
      std::uint32_t left[Tile::kDown][4], right[Tile::kAcross / 2][4];
#pragma unroll
      for (int i = 0; i < Tile::kDown; ++i) {
        left_fragments.load(stage, k, i, left[i]);
      }
#pragma unroll
      for (int j = 0; j < Tile::kAcross / 2; ++j) {
        right_fragments.load(stage_grads, k, j, right[j]);
      }
      if (k == 0) then();
      tile.template multiply<Operand>(left, right);
    }
  });

  // [part][group][output channel, padded][unit, padded][channel of its chunk]
  const std::int64_t pitch = std::int64_t{gridDim.x} * kColumns;
  float* to = partial + (std::int64_t{blockIdx.z} * gridDim.y + blockIdx.y) * kWide * pitch +
              std::int64_t{blockIdx.x} * kColumns;
  tile.for_each_result([&](int at, int channel, float value) { to[channel * pitch + at] = value; });
}

/// Adds up the parts in order and puts the sums where the weights lie.
// budget: <=48 registers, 0 B shared, 256 threads, occupancy >= 0.62
template <class Operand>
__global__ void conv3d_sum_units_kernel(const float* partial, std::int32_t parts, Gather gather,
                                        std::int32_t taps, std::int32_t padded_rows, std::int64_t pitch,
                                        std::int64_t count, float* grad_weight) {
  const std::int64_t index = thread_index();
  if (index >= count) return;
  const std::int64_t out = index / pitch;  // group, output channel
  const auto at = static_cast<std::int32_t>(index % pitch);
  const std::int32_t unit = at / kChunkChannels<Operand>;
  const std::int32_t channel = unit / taps * kChunkChannels<Operand> + at % kChunkChannels<Operand>;
  if (channel >= gather.channels) return;
  const std::int64_t group = out / gather.rows;
  const std::int64_t part_size = std::int64_t{gather.groups} * padded_rows * pitch;
  const float* from = partial + (group * padded_rows + out % gather.rows) * pitch + at;
  float sum = *from;
  for (std::int32_t part = 1; part < parts; ++part) sum += from[part * part_size];
  grad_weight[(out * gather.channels + channel) * taps + unit % taps] = sum;
}

}  // namespace
}  // namespace cinnabar::cuda
