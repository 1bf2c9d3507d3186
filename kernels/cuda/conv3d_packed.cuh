#pragma once

// Operands of conv3d as its products on tensor cores read them: rounded, channels last, in chunks of 64 bytes
// a voxel, and with a halo of zeros, so that a tap is a constant distance in memory and never leaves it.

#include "kernels/cuda/conv3d_gather.cuh"
#include "kernels/cuda/mma_tile.cuh"

namespace cinnabar::cuda {
namespace {

constexpr int kChunkWords = 16;
constexpr int kChunkPieces = kChunkWords / 4;  // of 16 bytes, in which everything is copied

/// Channels of a chunk.
template <class Operand>
constexpr int kChunkChannels = kChunkWords* kInWord<Operand>;

/// A packed volume: [group][chunk][image][z][y][x][kChunkWords], the axes with their halo.
struct PackedVolume {
  std::int32_t source[3];  // extents without the halo
  std::int32_t extent[3];  // and with it
  std::int32_t before[3];  // voxels of it before the source's first
  std::int32_t voxels;     // of all images
  std::int32_t channels;   // of a group
  std::int32_t chunks;     // of a group
  std::int32_t groups;
};

constexpr int kPackThreads = 256;
constexpr int kPackVoxels = kPackThreads / kChunkPieces;
constexpr int kPackPitch = kPackVoxels + 2;  // 8 neighbouring pieces of 16 bytes lie in 32 banks

/// A block packs kPackVoxels voxels of a group: it reads along the voxels and writes along the channels.
// budget: <=48 registers, 8448 B shared, 256 threads, occupancy >= 0.62
template <class Operand>
__global__ void __launch_bounds__(kPackThreads)
    conv3d_pack_volume_kernel(const float* source, PackedVolume p, uint4* packed) {
  constexpr int kStage = kChunkPieces * kPackPitch;
  alignas(16) CINNABAR_SHARED(uint4, tile, 2 * kStage);
  const int thread = static_cast<int>(threadIdx.x);
  const int group = static_cast<int>(blockIdx.y);
  const std::int64_t first = std::int64_t{blockIdx.x} * kPackVoxels;
  const int piece = thread / kPackVoxels;
  auto rest = static_cast<unsigned>(first) + static_cast<unsigned>(thread % kPackVoxels);
  bool inside = rest < static_cast<unsigned>(p.voxels);
  std::int32_t at[3];
#pragma unroll
  for (int axis = 2; axis >= 0; --axis) {
    const unsigned quotient = rest / static_cast<unsigned>(p.extent[axis]);
    at[axis] = static_cast<int>(rest - quotient * static_cast<unsigned>(p.extent[axis])) - p.before[axis];
    inside = inside && static_cast<unsigned>(at[axis]) < static_cast<unsigned>(p.source[axis]);
    rest = quotient;
  }
  const std::int64_t volume = std::int64_t{p.source[0]} * p.source[1] * p.source[2];
  const float* from = source;
  if (inside) {
    from += (std::int64_t{rest} * p.groups + group) * p.channels * volume +
            (at[0] * p.source[1] + at[1]) * p.source[2] + at[2];
  }
  const int out_voxel = thread / kChunkPieces, out_piece = thread % kChunkPieces;
  uint4* to =
      packed + (std::int64_t{group} * p.chunks * p.voxels + first + out_voxel) * kChunkPieces + out_piece;
  for (int chunk = 0; chunk < p.chunks; ++chunk, to += std::int64_t{p.voxels} * kChunkPieces) {
    const int channel = (chunk * kChunkWords + piece * 4) * kInWord<Operand>;
    std::uint32_t words[4];
#pragma unroll
    for (int w = 0; w < 4; ++w) {
      float values[kInWord<Operand>];
#pragma unroll
      for (int v = 0; v < kInWord<Operand>; ++v) {
        const int c = channel + w * kInWord<Operand> + v;
        values[v] = inside && c < p.channels ? from[c * volume] : 0.0f;
      }
      words[w] = operand_word<Operand>(values);
    }
    const SharedPointer<uint4> stage = tile + chunk % 2 * kStage;
    stage[piece * kPackPitch + thread % kPackVoxels] = uint4{words[0], words[1], words[2], words[3]};
    __syncthreads();  // the one before the next also lets the other stage be written again
    const uint4 out = stage[out_piece * kPackPitch + out_voxel];
    if (first + out_voxel < p.voxels) *to = out;
  }
}

/// Weights as [group][chunk of channels read][tap][channel written, padded with zeros][kChunkWords].
// budget: <=48 registers, 0 B shared, 256 threads, occupancy >= 0.62
template <class Operand>
__global__ void conv3d_pack_taps_kernel(const float* weight, std::int32_t taps, std::int32_t channels,
                                        std::int32_t chunks, std::int32_t rows, std::int32_t padded_rows,
                                        std::int64_t channel_stride, std::int64_t row_stride,
                                        std::int64_t count, std::uint32_t* packed) {
  const std::int64_t index = thread_index();
  if (index >= count) return;
  const auto word = static_cast<std::int32_t>(index % kChunkWords);
  std::int64_t rest = index / kChunkWords;
  const auto row = static_cast<std::int32_t>(rest % padded_rows);
  rest /= padded_rows;
  const auto tap = static_cast<std::int32_t>(rest % taps);
  rest /= taps;
  const auto chunk = static_cast<std::int32_t>(rest % chunks);
  const float* from = weight + rest / chunks * taps * channels * rows;
  float values[kInWord<Operand>];
#pragma unroll
  for (int v = 0; v < kInWord<Operand>; ++v) {
    const std::int32_t channel = (chunk * kChunkWords + word) * kInWord<Operand> + v;
    values[v] =
        row < rows && channel < channels ? from[channel * channel_stride + row * row_stride + tap] : 0.0f;
  }
  packed[index] = operand_word<Operand>(values);
}

}  // namespace
}  // namespace cinnabar::cuda
