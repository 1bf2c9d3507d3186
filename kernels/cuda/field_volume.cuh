#pragma once

// Voxels of [N, C, D, H, W] tensors as a launch, their neighbours, and trilinear samples at displaced voxels:
// what warp, epdiff, gradient_penalty and update_inverse share. A block covers 32 x 8 voxels of one z slice,
// so a warp is a run of a row and the rows above and below come from the block's own cache lines.

#include "kernels/cuda/launch.cuh"
#include "kernels/field_shape.hpp"
#include "kernels/stencil.hpp"
#include "kernels/trilinear.hpp"

namespace cinnabar::cuda {

constexpr int kTileX = 32;
constexpr int kTileY = 8;
constexpr int kTileThreads = kTileX * kTileY;

/// Offsets inside one channel are 32-bit.
struct Volume {
  int w, h, d;
  int row, plane;       ///< strides of y and z
  int voxels;           ///< stride of a channel
  std::int64_t slices;  ///< N * D
};

inline Volume volume_of(const char* op, const FieldShape& shape, DType dtype) {
  CINNABAR_CHECK(dtype == DType::f32, op, "runs in f32 on CUDA, got ", dtype);
  CINNABAR_CHECK(shape.voxels() < (std::int64_t{1} << 31), op, "one channel must be below 2^31 voxels, got ",
                 shape.voxels());
  const auto narrow = [](std::int64_t value) { return static_cast<int>(value); };
  return {narrow(shape.w),           narrow(shape.h),        narrow(shape.d),  narrow(shape.w),
          narrow(shape.h * shape.w), narrow(shape.voxels()), shape.n * shape.d};
}

/// A launch whose blocks walk the slices: blockIdx.z, blockIdx.z + gridDim.z, ...
inline LaunchShape cover_volume(const Volume& volume) {
  const auto tiles = [](int extent, int tile) { return static_cast<unsigned>((extent + tile - 1) / tile); };
  const unsigned slices = volume.slices < 65535 ? static_cast<unsigned>(volume.slices) : 65535u;
  CINNABAR_CHECK(tiles(volume.h, kTileY) <= 65535u, "launch", "H is too long: ", volume.h);
  return {dim3(tiles(volume.w, kTileX), tiles(volume.h, kTileY), slices), dim3(kTileX, kTileY)};
}

/// One voxel: its indices, the batch item and its offset inside a channel.
struct VoxelIndex {
  int x, y, z;
  std::int64_t n;
  int offset;
};

/// The voxel of this thread in a slice; false outside the volume.
__device__ __forceinline__ bool voxel_of_thread(const Volume& volume, std::int64_t slice, VoxelIndex& at) {
  at.x = static_cast<int>(blockIdx.x) * kTileX + static_cast<int>(threadIdx.x);
  at.y = static_cast<int>(blockIdx.y) * kTileY + static_cast<int>(threadIdx.y);
  at.n = slice / volume.d;
  at.z = static_cast<int>(slice - at.n * volume.d);
  at.offset = at.z * volume.plane + at.y * volume.row + at.x;
  return at.x < volume.w && at.y < volume.h;
}

__device__ __forceinline__ Stencil<float> stencil_at(const Volume& volume, const VoxelIndex& at) {
  Stencil<float> near;
  near.set_axis(0, at.x, volume.w, 1);
  near.set_axis(1, at.y, volume.h, volume.row);
  near.set_axis(2, at.z, volume.d, volume.plane);
  return near;
}

/// Calls body(stencil, voxel) for this thread's voxel of every slice its block walks over.
template <class Body>
__device__ __forceinline__ void for_each_slice(const Volume& volume, const Body& body) {
  for (std::int64_t slice = blockIdx.z; slice < volume.slices; slice += gridDim.z) {
    VoxelIndex at;
    if (voxel_of_thread(volume, slice, at)) body(stencil_at(volume, at), at);
  }
}

struct Vector3 {
  float x, y, z;
};

__device__ __forceinline__ Vector3 load_vector(const float* field, int voxels) {
  return {field[0], field[voxels], field[2 * static_cast<std::int64_t>(voxels)]};
}
__device__ __forceinline__ void store_vector(float* field, int voxels, const Vector3& value) {
  field[0] = value.x;
  field[voxels] = value.y;
  field[2 * static_cast<std::int64_t>(voxels)] = value.z;
}

/// The cell of a sample. Corner k = x + 2 y + 4 z of it lies inside the volume where bit k of `corners` is
/// set.
struct SampleCell {
  BoundedCell<float> x, y, z;
  int offset;
  unsigned corners;
  float outside_value;  ///< the sample where all corners are outside: zero, or NaN for a NaN position
};

template <Boundary kBoundary>
__device__ __forceinline__ SampleCell sample_cell(const Volume& volume, const VoxelIndex& at,
                                                  const Vector3& u) {
  SampleCell cell;
  cell.x = bounded_cell<kBoundary>(displaced_cell(at.x, u.x), volume.w);
  cell.y = bounded_cell<kBoundary>(displaced_cell(at.y, u.y), volume.h);
  cell.z = bounded_cell<kBoundary>(displaced_cell(at.z, u.z), volume.d);
  const bool inside = cell.x.inside && cell.y.inside && cell.z.inside;
  // Where it is not inside, no corner is read and the offset is not used.
  cell.offset = inside ? cell.z.cell * volume.plane + cell.y.cell * volume.row + cell.x.cell : 0;
  const unsigned along_x = (cell.x.cell >= 0 ? 0x55u : 0u) | (cell.x.cell + 1 < volume.w ? 0xAAu : 0u);
  const unsigned along_y = (cell.y.cell >= 0 ? 0x33u : 0u) | (cell.y.cell + 1 < volume.h ? 0xCCu : 0u);
  const unsigned along_z = (cell.z.cell >= 0 ? 0x0Fu : 0u) | (cell.z.cell + 1 < volume.d ? 0xF0u : 0u);
  cell.corners = inside ? along_x & along_y & along_z : 0u;
  const float sum = u.x + u.y + u.z;
  cell.outside_value = isnan(sum) ? sum : 0.0f;
  return cell;
}

__device__ __forceinline__ int corner_offset(const Volume& volume, int k) {
  return (k & 1) + ((k >> 1) & 1) * volume.row + (k >> 2) * volume.plane;
}

__device__ __forceinline__ void load_corners(const float* channel, const Volume& volume,
                                             const SampleCell& cell, float (&corner)[8]) {
#pragma unroll
  for (int k = 0; k < 8; ++k) {
    corner[k] =
        ((cell.corners >> k) & 1u) != 0 ? __ldg(channel + cell.offset + corner_offset(volume, k)) : 0.0f;
  }
}

__device__ __forceinline__ float linear(float a, float b, float fraction) {
  return a + fraction * (b - a);
}

/// Linear along z, then y, then x, as on the CPU.
__device__ __forceinline__ float blend(const float (&corner)[8], const SampleCell& cell) {
  float edge[2];
#pragma unroll
  for (int x = 0; x < 2; ++x) {
    edge[x] = linear(linear(corner[x], corner[4 + x], cell.z.fraction),
                     linear(corner[2 + x], corner[6 + x], cell.z.fraction), cell.y.fraction);
  }
  return cell.corners == 0 ? cell.outside_value : linear(edge[0], edge[1], cell.x.fraction);
}

/// d sample / d displacement.
__device__ __forceinline__ Vector3 blend_slopes(const float (&corner)[8], const SampleCell& cell) {
  if (cell.corners == 0) return {cell.outside_value, cell.outside_value, cell.outside_value};
  float low[2], high[2], rise[2];  // at y, y + 1, and their difference along z
#pragma unroll
  for (int x = 0; x < 2; ++x) {
    low[x] = linear(corner[x], corner[4 + x], cell.z.fraction);
    high[x] = linear(corner[2 + x], corner[6 + x], cell.z.fraction);
    rise[x] = linear(corner[4 + x] - corner[x], corner[6 + x] - corner[2 + x], cell.y.fraction);
  }
  const float left = linear(low[0], high[0], cell.y.fraction);
  const float right = linear(low[1], high[1], cell.y.fraction);
  return {cell.x.slope * (right - left),
          cell.y.slope * linear(high[0] - low[0], high[1] - low[1], cell.x.fraction),
          cell.z.slope * linear(rise[0], rise[1], cell.x.fraction)};
}

__device__ __forceinline__ float corner_weight(const SampleCell& cell, int k) {
  return ((k & 1) != 0 ? cell.x.fraction : 1.0f - cell.x.fraction) *
         ((k & 2) != 0 ? cell.y.fraction : 1.0f - cell.y.fraction) *
         ((k & 4) != 0 ? cell.z.fraction : 1.0f - cell.z.fraction);
}

}  // namespace cinnabar::cuda
