#pragma once

// conv3d on tensor cores where neighbouring positions read neighbouring voxels (a step of 1): a block copies
// all that its positions can reach, some channels at a time, to shared memory once, rounded, and every tap
// multiplies from there. The taps are distances along the source's voxels in memory order. A position near
// the border has a bit for each tap that lies inside; the others read a zero.

#include "kernels/cuda/conv3d_gather.cuh"
#include "kernels/cuda/mma_tile.cuh"

namespace cinnabar::cuda {
namespace {

constexpr int kMostTaps = 32;          // bits of a mask
constexpr int kSlabPositions = 1440;   // of a source, in shared memory; the one behind them is zero
constexpr int kSlabWords = kMmaWords;  // of the depth, at every position

/// The taps of a gather whose source steps are 1.
struct SlabTaps {
  std::int32_t count;
  std::int32_t distance[kMostTaps];    // in voxels of the source
  std::int32_t kernel_tap[kMostTaps];  // index in the kernel
  std::int32_t least, most;            // of the distances
};

/// Bits of the taps through which the position with source coordinates z, y, x, at its first tap, reads
/// inside.
__device__ __forceinline__ std::uint32_t taps_inside(const Gather& gather, int z, int y, int x) {
  const auto inside = [](const GatherAxis& axis, int at, int tap) {
    return static_cast<unsigned>(at + tap * axis.source_tap) < static_cast<unsigned>(axis.source_extent);
  };
  std::uint32_t row = 0;
  for (int k = 0; k < gather.axis[2].taps; ++k) row |= inside(gather.axis[2], x, k) ? 1u << k : 0u;
  std::uint32_t mask = 0;
  int tap = 0;
  for (int i = 0; i < gather.axis[0].taps; ++i) {
    for (int j = 0; j < gather.axis[1].taps; ++j, tap += gather.axis[2].taps) {
      if (inside(gather.axis[0], z, i) && inside(gather.axis[1], y, j)) mask |= row << tap;
    }
  }
  return mask;
}

/// A position of one image, as the source sees it.
struct SlabPosition {
  std::int32_t base = 0;   // voxel of the source at distance 0, which may lie outside
  std::uint32_t mask = 0;  // taps that read inside; none where the position does not exist

  __device__ __forceinline__ SlabPosition(const Gather& gather, int position, int positions) {
    if (position >= positions) return;
    const ColumnPlace place = place_of_column(gather, position);
    const int z = place.z + gather.axis[0].source_first;
    const int y = place.y + gather.axis[1].source_first;
    const int x = place.x + gather.axis[2].source_first;
    base = (z * gather.axis[1].source_extent + y) * gather.axis[2].source_extent + x;
    mask = taps_inside(gather, z, y, x);
  }
};

/// Index in shared memory of a word at a position: the halves of every other four positions are exchanged, so
/// that a fragment's 8 positions x 4 words lie in 32 banks.
__device__ __forceinline__ int slab_index(int position, int word) {
  return position * kSlabWords + (word ^ (position & 4));
}

/// Weights as fragments: [group][rows / 16][chunk of channels][tap of the kernel][lane][a of mma_tile].
// budget: <=48 registers, 0 B shared, 256 threads, occupancy >= 0.62
template <class Operand>
__global__ void conv3d_pack_fragment_kernel(const float* weight, std::int32_t taps, std::int32_t channels,
                                            std::int32_t chunks, std::int32_t rows, std::int32_t row_tiles,
                                            std::int64_t channel_stride, std::int64_t row_stride,
                                            std::int64_t count, std::uint32_t* packed) {
  const std::int64_t index = thread_index();
  if (index >= count) return;
  const auto part = static_cast<int>(index % 4);
  const auto lane = static_cast<int>(index / 4 % 32);
  std::int64_t rest = index / 128;
  const auto tap = static_cast<std::int32_t>(rest % taps);
  rest /= taps;
  const auto chunk = static_cast<std::int32_t>(rest % chunks);
  rest /= chunks;
  const auto row = static_cast<std::int32_t>(rest % row_tiles) * kMmaRows + lane / 4 + part % 2 * 8;
  const float* from = weight + rest / row_tiles * taps * channels * rows;
  float values[kInWord<Operand>];
#pragma unroll
  for (int v = 0; v < kInWord<Operand>; ++v) {
    const std::int32_t channel = (chunk * kSlabWords + lane % 4 + part / 2 * 4) * kInWord<Operand> + v;
    values[v] =
        row < rows && channel < channels ? from[channel * channel_stride + row * row_stride + tap] : 0.0f;
  }
  packed[index] = operand_word<Operand>(values);
}

/// A block owns kTileRows channels x kColumns positions of one image of what is written.
// budget: <=168 registers, 46112 B shared, 128 threads, occupancy >= 0.12
template <class Operand, int kTileRows>
__global__ void __launch_bounds__(kThreads)
    conv3d_slab_mma_kernel(const float* source, const std::uint32_t* packed, EpilogueMath<float> epilogue,
                           Gather gather, SlabTaps taps, std::int32_t positions, std::int32_t kernel_taps,
                           float* target) {
  constexpr int kWarpsDown = kTileRows == 64 ? 2 : 1;
  constexpr int kDown = kTileRows / kWarpsDown / kMmaRows;  // products of a warp
  constexpr int kAcross = kColumns * kWarpsDown / (kThreads / 32) / kMmaColumns;
  constexpr int kInHalf = kSlabWords / 2;
  alignas(16) CINNABAR_SHARED(std::uint32_t, slab, (kSlabPositions + 1) * kSlabWords);
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int member = lane % 4;
  const int blocks = (positions + kColumns - 1) / kColumns;
  const int image = static_cast<int>(blockIdx.x) / blocks;
  const int first = (static_cast<int>(blockIdx.x) - image * blocks) * kColumns;
  const int group = static_cast<int>(blockIdx.z);
  const int last = first + kColumns <= positions ? first + kColumns - 1 : positions - 1;
  // Voxels of the source that some tap may read.
  const int begin = max(0, SlabPosition(gather, first, positions).base + taps.least);
  const int end = min(gather.source_volume, SlabPosition(gather, last, positions).base + taps.most + 1);

  const int warp_column = warp / kWarpsDown * (kAcross * kMmaColumns);
  int base[kAcross];
  std::uint32_t mask[kAcross];
#pragma unroll
  for (int j = 0; j < kAcross; ++j) {
    const SlabPosition at(gather, first + warp_column + j * kMmaColumns + lane / 4, positions);
    base[j] = at.base - begin;
    mask[j] = at.mask;
  }
  if (threadIdx.x < kSlabWords) slab[kSlabPositions * kSlabWords + threadIdx.x] = 0;

  const int chunks = (gather.channels + kSlabWords * kInWord<Operand> - 1) / (kSlabWords * kInWord<Operand>);
  const int row_tiles = gather.padded_rows / kMmaRows;
  const int first_tile = static_cast<int>(blockIdx.y) * (kTileRows / kMmaRows) + warp % kWarpsDown * kDown;
  const float* image_source =
      source + (std::int64_t{image} * gather.groups + group) * gather.channels * gather.source_volume;
  float sums[kDown][kAcross][4] = {};
  for (int chunk = 0; chunk < chunks; ++chunk) {
    __syncthreads();  // the chunk before is done with
    for (int half = 0; half < 2; ++half) {
      const int channel = (chunk * kSlabWords + half * kInHalf) * kInWord<Operand>;
      for (int s = static_cast<int>(threadIdx.x); s < end - begin; s += kThreads) {
        const float* from = image_source + std::int64_t{channel} * gather.source_volume + begin + s;
        std::uint32_t words[kInHalf];
#pragma unroll
        for (int w = 0; w < kInHalf; ++w) {
          float values[kInWord<Operand>];
#pragma unroll
          for (int v = 0; v < kInWord<Operand>; ++v) {
            const int c = w * kInWord<Operand> + v;
            values[v] = channel + c < gather.channels ? from[std::int64_t{c} * gather.source_volume] : 0.0f;
          }
          words[w] = operand_word<Operand>(values);
        }
        const int at = slab_index(s, half * kInHalf);
#pragma unroll
        for (int w = 0; w < kInHalf; ++w) slab[at + w] = words[w];
      }
    }
    __syncthreads();
    // A lane's four words lie together, those of the tiles of a warp a whole tile apart.
    const std::int64_t tile_words = std::int64_t{chunks} * kernel_taps * 128;
    const std::uint32_t* fragments = packed + (std::int64_t{group} * row_tiles + first_tile) * tile_words +
                                     std::int64_t{chunk} * kernel_taps * 128 + lane * 4;
    uint4 next[kDown];  // of the tap to come, on their way while this one is multiplied
    const auto fetch = [&](int t) {
#pragma unroll
      for (int i = 0; i < kDown; ++i) {
        next[i] = *reinterpret_cast<const uint4*>(fragments + i * tile_words +
                                                  std::int64_t{taps.kernel_tap[t]} * 128);
      }
    };
    if (taps.count > 0) fetch(0);
    for (int t = 0; t < taps.count; ++t) {
      std::uint32_t left[kDown][4];
#pragma unroll
      for (int i = 0; i < kDown; ++i) {
        left[i][0] = next[i].x;
        left[i][1] = next[i].y;
        left[i][2] = next[i].z;
        left[i][3] = next[i].w;
      }
      if (t + 1 < taps.count) fetch(t + 1);
      const int distance = taps.distance[t];
#pragma unroll
      for (int j = 0; j < kAcross; ++j) {
        const int at = (mask[j] >> t & 1u) != 0 ? base[j] + distance : kSlabPositions;
        const std::uint32_t right[2] = {slab[slab_index(at, member)], slab[slab_index(at, member + 4)]};
#pragma unroll
        for (int i = 0; i < kDown; ++i) mma_tile<Operand>(left[i], right, sums[i][j]);
      }
    }
  }

#pragma unroll
  for (int j = 0; j < kAcross; ++j) {
#pragma unroll
    for (int side = 0; side < 2; ++side) {
      const int position = first + warp_column + j * kMmaColumns + 2 * member + side;
      const GatheredColumn column(gather, group, image, position, positions);
#pragma unroll
      for (int i = 0; i < kDown; ++i) {
        const int row = (first_tile + i) * kMmaRows + lane / 4;
        column.write(gather, epilogue, group, row, sums[i][j][side], target);
        column.write(gather, epilogue, group, row + 8, sums[i][j][2 + side], target);
      }
    }
  }
}

// The weight gradient: sums over positions p of grad[o][p] input[c][p + tap]. A block owns some output
// channels x 8 input channels x all taps, which its warps share, and walks along the positions of some
// images. Of the input a ring of voxels stays in shared memory, as many as the taps reach at a time, so that
// each is read once. Operands were rounded to their precision and are multiplied as tf32, which holds all
// three exactly: neighbours along the depth are here neighbours in the image, which a word of two halves
// could hold for every other tap only.

constexpr int kWeightThreads = 256;
constexpr int kWeightChannels = kMmaColumns;  // of a block; a warp loads one
constexpr int kWeightStep = 32;               // positions multiplied at a time
constexpr int kGradPitch = kWeightStep + 4;   // both pitches are 4 banks from row to row
constexpr int kRing = 1188;                   // voxels of a channel
constexpr int kTapsOfWarp = kMostTaps / (kWeightThreads / 32);

/// How the positions of all images are shared among the blocks' parts.
struct SlabParts {
  std::int32_t positions;  // of an image
  std::int32_t range;      // positions of a unit, whole steps
  std::int32_t units_of_image;
  std::int32_t units;
  std::int32_t units_of_part;
};

/// A value rounded to Operand, as tf32.
template <class Operand>
__device__ __forceinline__ std::uint32_t exact_word(float value) {
  if constexpr (std::is_same_v<Operand, TensorFloat32>) {
    return TensorFloat32(value).bits;
  } else {
    return __float_as_uint(static_cast<float>(Operand(value)));
  }
}

// budget: <=128 registers, 47492 B shared, 256 threads, occupancy >= 0.12
template <class Operand, int kTileRows>
__global__ void __launch_bounds__(kWeightThreads, 2)
    conv3d_slab_weight_mma_kernel(const float* grad_output, const float* input, Gather gather, SlabTaps taps,
                                  SlabParts parts, std::int32_t kernel_taps, float* partial) {
  constexpr int kDown = kTileRows / kMmaRows;
  constexpr int kZero = kWeightChannels * kRing;
  CINNABAR_SHARED(std::uint32_t, grads, kTileRows * kGradPitch);
  CINNABAR_SHARED(std::uint32_t, ring, kZero + 1);
  CINNABAR_SHARED(std::int32_t, bases, kWeightStep);
  CINNABAR_SHARED(std::uint32_t, masks, kWeightStep);
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int member = lane % 4;
  const int fragment_row = lane / 4;
  const int group = static_cast<int>(blockIdx.z) % gather.groups;
  const int part = static_cast<int>(blockIdx.z) / gather.groups;
  const int first_row = static_cast<int>(blockIdx.y) * kTileRows;
  const int first_channel = static_cast<int>(blockIdx.x) * kWeightChannels;
  const bool channel_exists = first_channel + warp < gather.channels;
  if (threadIdx.x == 0) ring[kZero] = 0;

  float sums[kTapsOfWarp][kDown][4] = {};
  const int last_unit = min(parts.units, (part + 1) * parts.units_of_part);
  for (int unit = part * parts.units_of_part; unit < last_unit; ++unit) {
    const int image = unit / parts.units_of_image;
    const int unit_first = (unit - image * parts.units_of_image) * parts.range;
    const int unit_end = min(parts.positions, unit_first + parts.range);
    const std::int64_t volumes = std::int64_t{image} * gather.groups + group;
    const float* x = input + (volumes * gather.channels + first_channel + warp) * gather.source_volume;
    const float* y = grad_output + (volumes * gather.rows + first_row) * gather.target_volume;
    const int origin = SlabPosition(gather, unit_first, parts.positions).base + taps.least;  // slot 0
    int loaded = max(0, origin);
    for (int first = unit_first; first < unit_end; first += kWeightStep) {
      const int last = min(unit_end, first + kWeightStep) - 1;
      const int needed =
          min(gather.source_volume, SlabPosition(gather, last, parts.positions).base + taps.most + 1);
      __syncthreads();  // the step before is done with
      for (int voxel = loaded + lane; voxel < needed; voxel += 32) {
        ring[warp * kRing + (voxel - origin) % kRing] = channel_exists ? exact_word<Operand>(x[voxel]) : 0u;
      }
      loaded = max(loaded, needed);
      for (int r = warp; r < kTileRows; r += kWeightThreads / 32) {
        const bool exists = first + lane <= last && first_row + r < gather.rows;
        grads[r * kGradPitch + lane] =
            exists ? exact_word<Operand>(y[std::int64_t{r} * gather.target_volume + first + lane]) : 0u;
      }
      if (warp == 0) {
        const SlabPosition at(gather, first + lane, last + 1);
        bases[lane] = at.mask == 0 ? 0 : (at.base + taps.least - origin) % kRing;
        masks[lane] = at.mask;
      }
      __syncthreads();
#pragma unroll
      for (int k = 0; k < kWeightStep; k += kMmaWords) {
        std::uint32_t left[kDown][4];
#pragma unroll
        for (int i = 0; i < kDown; ++i) {
#pragma unroll
          for (int a = 0; a < 4; ++a) {
            left[i][a] =
                grads[(i * kMmaRows + fragment_row + a % 2 * 8) * kGradPitch + k + member + a / 2 * 4];
          }
        }
        const std::int32_t base[2] = {bases[k + member], bases[k + member + 4]};
        const std::uint32_t mask[2] = {masks[k + member], masks[k + member + 4]};
#pragma unroll
        for (int u = 0; u < kTapsOfWarp; ++u) {
          const int t = warp + u * (kWeightThreads / 32);
          if (t >= taps.count) break;
          std::uint32_t right[2];
#pragma unroll
          for (int b = 0; b < 2; ++b) {
            int slot = base[b] + taps.distance[t] - taps.least;
            if (slot >= kRing) slot -= kRing;
            right[b] = ring[(mask[b] >> t & 1u) != 0 ? fragment_row * kRing + slot : kZero];
          }
#pragma unroll
          for (int i = 0; i < kDown; ++i) mma_tile<TensorFloat32>(left[i], right, sums[u][i]);
        }
      }
    }
  }

  const std::int64_t rows = (std::int64_t{part} * gather.groups + group) * gather.rows;
#pragma unroll
  for (int u = 0; u < kTapsOfWarp; ++u) {
    const int t = warp + u * (kWeightThreads / 32);
    if (t >= taps.count) break;
#pragma unroll
    for (int i = 0; i < kDown; ++i) {
#pragma unroll
      for (int k = 0; k < 4; ++k) {
        const int row = first_row + i * kMmaRows + fragment_row + k / 2 * 8;
        const int channel = first_channel + 2 * member + k % 2;
        if (row >= gather.rows || channel >= gather.channels) continue;
        partial[(rows + row) * (std::int64_t{gather.channels} * kernel_taps) +
                std::int64_t{channel} * kernel_taps + taps.kernel_tap[t]] = sums[u][i][k];
      }
    }
  }
}

}  // namespace
}  // namespace cinnabar::cuda
