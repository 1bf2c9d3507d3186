// Patches cut out of volumes, put back and averaged.
// Work split: gather gives a thread one voxel of a patch in all channels, so the start is one load for a
// whole block. scatter and count gather too: a block owns a tile of 32 x 8 x 4 voxels of one volume in up to
// 3 channels, with 4 x 3 sums a thread in registers. It walks the list of starts 256 at a time: a ballot and
// 8 counters keep those that touch the tile, in their order, in which every thread adds them. No atomics, no
// sort; every tile reads the list (16 bytes a patch) again, from L2.
// Shared memory: 1 KiB + 32 B. Launch: 256 threads; blockIdx.y walks patches, or volumes times groups of
// channels. Limiting resource: memory (gather: 8 bytes a voxel; scatter: each patch read once, volumes read
// and written once); L2 for the list where few patches touch a tile.

#include "kernels/patches.hpp"

#include "kernels/cuda/launch.cuh"

namespace cinnabar::cuda {
namespace {

constexpr int kBlock = 256;
constexpr int kTileX = 32;
constexpr int kTileY = kBlock / kTileX;
constexpr int kTileZ = 4;
constexpr int kChannels = 3;  // of one block: a momentum; with 4, ptxas spills
constexpr const char* kOp = "patches";

/// What the kernels need to know of a PatchGeometry. One channel of a volume or patch is below 2^31 voxels.
struct Sizes {
  std::int32_t volumes, patches, channels;
  std::int32_t depth, height, width;  // of a volume
  std::int32_t d, h, w;               // of a patch

  __device__ __forceinline__ std::int64_t volume_voxels() const {
    return static_cast<std::int64_t>(depth) * height * width;
  }
  __device__ __forceinline__ std::int64_t patch_voxels() const {
    return static_cast<std::int64_t>(d) * h * w;
  }
};

/// Whether 0 <= a - b < extent, for any a and b.
__device__ __forceinline__ bool within(std::int32_t a, std::int32_t b, std::int32_t extent) {
  return static_cast<unsigned>(a) - static_cast<unsigned>(b) < static_cast<unsigned>(extent);
}

/// a + b for any a; wraps as `within` expects it.
__device__ __forceinline__ std::int32_t wrapped_sum(std::int32_t a, std::int32_t b) {
  return static_cast<std::int32_t>(static_cast<unsigned>(a) + static_cast<unsigned>(b));
}

// budget: <=48 registers, 0 B shared, 256 threads, occupancy >= 0.625
template <class T>
__global__ void __launch_bounds__(kBlock)
    patches_gather_voxel_kernel(const T* volumes, const PatchStart* starts, Sizes size, T* patches) {
  const std::int64_t voxel = thread_index();
  if (voxel >= size.patch_voxels()) return;
  auto rest = static_cast<unsigned>(voxel);
  const auto i = static_cast<std::int32_t>(rest % static_cast<unsigned>(size.w));
  rest /= static_cast<unsigned>(size.w);
  const auto j = static_cast<std::int32_t>(rest % static_cast<unsigned>(size.h));
  const auto k = static_cast<std::int32_t>(rest / static_cast<unsigned>(size.h));
  for (std::int32_t n = static_cast<std::int32_t>(blockIdx.y); n < size.patches;
       n += static_cast<std::int32_t>(gridDim.y)) {
    const PatchStart start = starts[n];
    const std::int32_t z = wrapped_sum(start.z, k);
    const std::int32_t y = wrapped_sum(start.y, j);
    const std::int32_t x = wrapped_sum(start.x, i);
    const bool inside = within(start.volume, 0, size.volumes) && within(z, 0, size.depth) &&
                        within(y, 0, size.height) && within(x, 0, size.width);
    const std::int64_t first_channel = static_cast<std::int64_t>(start.volume) * size.channels;
    const std::int64_t source = (static_cast<std::int64_t>(z) * size.height + y) * size.width + x;
    for (std::int32_t c = 0; c < size.channels; ++c) {
      const T value = inside ? volumes[(first_channel + c) * size.volume_voxels() + source] : T(0);
      patches[(static_cast<std::int64_t>(n) * size.channels + c) * size.patch_voxels() + voxel] = value;
    }
  }
}

/// The tile and channels a block owns.
struct Tile {
  std::int32_t volume, first_channel, z, y, x;
};

/// Whether a patch from `start` on `extent` voxels long touches a tile `tile` voxels long from `first` on.
__device__ __forceinline__ bool touches(std::int32_t start, std::int32_t extent, std::int32_t first,
                                        std::int32_t tile) {
  const std::int64_t end = std::int64_t{start} + extent;
  const std::int32_t tile_end = first + tile;
  return start < tile_end && end > first;
}

/// Numbers, in ascending order, of those patches among first .. first + 255 that touch the tile. All threads
/// of the block call it and get the count. `hits` may be read until a thread calls again: no thread writes it
/// before all have come that far.
__device__ __forceinline__ int list_hits(const PatchStart* starts, const Sizes& size, const Tile& tile,
                                         std::int32_t first, SharedPointer<int> warp_hits,
                                         SharedPointer<int> hits) {
  const std::int32_t n = first + static_cast<std::int32_t>(threadIdx.x);
  bool hit = false;
  if (n < size.patches) {
    const PatchStart start = starts[n];
    hit = start.volume == tile.volume && touches(start.z, size.d, tile.z, kTileZ) &&
          touches(start.y, size.h, tile.y, kTileY) && touches(start.x, size.w, tile.x, kTileX);
  }
  const unsigned lanes = __ballot_sync(0xFFFFFFFFu, hit);
  const unsigned lane = threadIdx.x % 32;
  const int warp = static_cast<int>(threadIdx.x / 32);
  if (lane == 0) warp_hits[warp] = __popc(lanes);
  __syncthreads();
  int before = 0;
  int total = 0;
#pragma unroll
  for (int w = 0; w < kBlock / 32; ++w) {
    const int count = warp_hits[w];
    before += w < warp ? count : 0;
    total += count;
  }
  if (hit) hits[before + __popc(lanes & ((1u << lane) - 1u))] = n;
  __syncthreads();
  return total;
}

/// Adds to the sums of the column at (x, y) what patch n, or a patch of ones where kCount, has there.
template <bool kCount, int kSums>
__device__ __forceinline__ void add_patch(const float* patches, const PatchStart& start, std::int32_t n,
                                          const Sizes& size, const Tile& tile, std::int32_t y, std::int32_t x,
                                          float (&sum)[kSums][kTileZ]) {
  if (!within(x, start.x, size.w) || !within(y, start.y, size.h)) return;
  const std::int32_t plane = size.h * size.w;
  // Plane tile.z of the patch's channel; may lie before the patch, where `within` skips the load.
  const std::int64_t channel = static_cast<std::int64_t>(n) * size.channels + tile.first_channel;
  std::int64_t source =
      ((channel * size.d + (tile.z - start.z)) * size.h + (y - start.y)) * size.w + (x - start.x);
#pragma unroll
  for (int c = 0; c < kSums; ++c) {
    if (tile.first_channel + c >= size.channels) break;
#pragma unroll
    for (int z = 0; z < kTileZ; ++z) {
      if (!within(tile.z + z, start.z, size.d)) continue;
      sum[c][z] += kCount ? 1.0f : patches[source + z * plane];
    }
    source += size.patch_voxels();
  }
}

/// Adds patches, or ones where kCount, to the volumes.
// budget: <=80 registers, 1056 B shared, 256 threads, occupancy >= 0.375
template <bool kCount>
__global__ void __launch_bounds__(kBlock, 3)
    patches_scatter_tile_kernel(const float* patches, const PatchStart* starts, Sizes size, float* volumes) {
  CINNABAR_SHARED(int, warp_hits, kBlock / 32);
  CINNABAR_SHARED(int, hits, kBlock);
  constexpr int kSums = kCount ? 1 : kChannels;
  const auto tiles_x = static_cast<unsigned>((size.width + kTileX - 1) / kTileX);
  const auto tiles_y = static_cast<unsigned>((size.height + kTileY - 1) / kTileY);
  const std::int32_t groups = (size.channels + kSums - 1) / kSums;
  Tile tile;
  tile.x = static_cast<std::int32_t>(blockIdx.x % tiles_x) * kTileX;
  tile.y = static_cast<std::int32_t>(blockIdx.x / tiles_x % tiles_y) * kTileY;
  tile.z = static_cast<std::int32_t>(blockIdx.x / tiles_x / tiles_y) * kTileZ;
  const std::int32_t x = tile.x + static_cast<std::int32_t>(threadIdx.x % kTileX);
  const std::int32_t y = tile.y + static_cast<std::int32_t>(threadIdx.x / kTileX);
  const bool owns_column = x < size.width && y < size.height;
  for (std::int32_t item = static_cast<std::int32_t>(blockIdx.y); item < size.volumes * groups;
       item += static_cast<std::int32_t>(gridDim.y)) {
    tile.volume = item / groups;
    tile.first_channel = item % groups * kSums;
    const std::int64_t channel = static_cast<std::int64_t>(tile.volume) * size.channels + tile.first_channel;
    float* column = volumes + ((channel * size.depth + tile.z) * size.height + y) * size.width + x;
    const auto for_each_owned = [&](const auto& visit) {
#pragma unroll
      for (int c = 0; c < kSums; ++c) {
#pragma unroll
        for (int z = 0; z < kTileZ; ++z) {
          if (!owns_column || tile.z + z >= size.depth || tile.first_channel + c >= size.channels) continue;
          visit(c, z, column[c * size.volume_voxels() + z * (size.height * size.width)]);
        }
      }
    };
    float sum[kSums][kTileZ] = {};
    for_each_owned([&](int c, int z, const float& value) { sum[c][z] = value; });
    for (std::int32_t first = 0; first < size.patches; first += kBlock) {
      const int total = list_hits(starts, size, tile, first, warp_hits, hits);
      for (int hit = 0; hit < total; ++hit) {
        const int n = hits[hit];
        add_patch<kCount>(patches, starts[n], n, size, tile, y, x, sum);
      }
    }
    for_each_owned([&](int c, int z, float& value) { value = sum[c][z]; });
  }
}

// budget: <=40 registers, 0 B shared, 256 threads, occupancy >= 0.75
__global__ void __launch_bounds__(kBlock)
    patches_average_voxel_kernel(const float* counts, std::int64_t voxels, std::int64_t volume_count,
                                 std::int64_t channels, float* volumes) {
  const std::int64_t voxel = thread_index();
  if (voxel >= voxels) return;
  for (std::int64_t n = blockIdx.y; n < volume_count; n += gridDim.y) {
    const float count = counts[n * voxels + voxel];
    for (std::int64_t c = 0; c < channels; ++c) {
      float* value = volumes + (n * channels + c) * voxels + voxel;
      *value = count > 0.0f ? *value / count : 0.0f;
    }
  }
}

Sizes sizes_of(const PatchGeometry& geometry) {
  const auto& [volumes, patches] = geometry;
  constexpr std::int64_t kLargest = std::numeric_limits<std::int32_t>::max();
  CINNABAR_CHECK(volumes.voxels() <= kLargest && patches.voxels() <= kLargest, kOp,
                 "one channel must be below 2^31 voxels");
  CINNABAR_CHECK(volumes.n * volumes.c <= kLargest, kOp, "too many volumes and channels");
  const auto narrow = [](std::int64_t extent) { return static_cast<std::int32_t>(extent); };
  return {narrow(volumes.n), narrow(patches.n), narrow(volumes.c), narrow(volumes.d), narrow(volumes.h),
          narrow(volumes.w), narrow(patches.d), narrow(patches.h), narrow(patches.w)};
}

const PatchStart* rows_of(const Tensor& starts) {
  return static_cast<const PatchStart*>(starts.raw());
}

template <class T>
void run_gather(const Tensor& volumes, const Tensor& starts, const PatchGeometry& geometry, Tensor& patches) {
  launch(kOp, patches_gather_voxel_kernel<T>,
         cover_rows(geometry.patches.voxels(), geometry.patches.n, kBlock), volumes.device(),
         volumes.data<T>(), rows_of(starts), sizes_of(geometry), patches.data<T>());
}

void gather(const Tensor& volumes, const Tensor& starts, Tensor& patches) {
  const PatchGeometry geometry = patch_geometry(volumes, starts, patches);
  if (patches.numel() == 0) return;
  if (volumes.dtype() == DType::u8) return run_gather<std::uint8_t>(volumes, starts, geometry, patches);
  require_dtype(kOp, volumes, DType::f32);
  run_gather<float>(volumes, starts, geometry, patches);
}

LaunchShape tiles_of(const FieldShape& volumes, int channels_of_block) {
  const std::int64_t tiles = ((volumes.w + kTileX - 1) / kTileX) * ((volumes.h + kTileY - 1) / kTileY) *
                             ((volumes.d + kTileZ - 1) / kTileZ);
  const std::int64_t groups = (volumes.c + channels_of_block - 1) / channels_of_block;
  LaunchShape shape = cover_rows(tiles, volumes.n * groups, 1);
  shape.block = dim3(kBlock);
  return shape;
}

void scatter(const Tensor& patches, const Tensor& starts, Tensor& volumes) {
  const PatchGeometry geometry = patch_geometry(volumes, starts, patches);
  require_dtype(kOp, volumes, DType::f32);
  if (patches.numel() == 0 || volumes.numel() == 0) return;
  launch(kOp, patches_scatter_tile_kernel<false>, tiles_of(geometry.volumes, kChannels), volumes.device(),
         patches.data<float>(), rows_of(starts), sizes_of(geometry), volumes.data<float>());
}

void count(const Tensor& starts, const Shape& extents, Tensor& counts) {
  const PatchGeometry geometry = patch_count_geometry(starts, extents, counts);
  require_dtype(kOp, counts, DType::f32);
  if (geometry.patches.n == 0 || counts.numel() == 0) return;
  launch(kOp, patches_scatter_tile_kernel<true>, tiles_of(geometry.volumes, 1), counts.device(),
         static_cast<const float*>(nullptr), rows_of(starts), sizes_of(geometry), counts.data<float>());
}

void average(const Tensor& counts, Tensor& volumes) {
  const FieldShape shape = patch_average_shape(counts, volumes);
  require_dtype(kOp, volumes, DType::f32);
  if (volumes.numel() == 0) return;
  launch(kOp, patches_average_voxel_kernel, cover_rows(shape.voxels(), shape.n, kBlock), volumes.device(),
         counts.data<float>(), shape.voxels(), shape.n, shape.c, volumes.data<float>());
}

}  // namespace

extern const Patches patches;
const Patches patches{gather, scatter, count, average};

}  // namespace cinnabar::cuda
