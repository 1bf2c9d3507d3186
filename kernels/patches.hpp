#pragma once

#include "kernels/field_shape.hpp"
#include "kernels/op.hpp"

namespace cinnabar {

/// Patches of volumes: cut out at a list of places, put back, and averaged where they overlap, as networks
/// that see one patch at a time need it (Yang et al., "Quicksilver", NeuroImage 2017, section 2.4).
///
/// Shapes: volumes [V, C, D, H, W]; patches [N, C, d, h, w], N may be 0; starts [N, 4] i32, for every patch
/// the index of its volume and the z, y, x of its first voxel; counts [V, 1, D, H, W]. All on one device.
/// Boundary rule: a patch may lie anywhere. Its voxels outside the volume read 0 and are dropped when they
/// are put back; all voxels of a patch whose volume does not exist lie outside.
/// Determinism: every voxel adds up its patches in the order of the list, without atomics.
/// f32 and f64 on the CPU, f32 on CUDA; gather also takes u8 (labels) on both.
struct Patches {
  /// Assigns patches.
  void (*gather)(const Tensor& volumes, const Tensor& starts, Tensor& patches);
  /// Adds patches to volumes, the transpose of gather. A list put back piece by piece gives the same bits as
  /// all at once.
  void (*scatter)(const Tensor& patches, const Tensor& starts, Tensor& volumes);
  /// Adds to counts the number of patches of extents (d, h, w) that cover each voxel.
  void (*count)(const Tensor& starts, const Shape& extents, Tensor& counts);
  /// Divides the volumes by counts; a voxel that no patch covers becomes 0.
  void (*average)(const Tensor& counts, Tensor& volumes);
};

CINNABAR_OP(Patches, patches);

/// One row of starts.
struct alignas(16) PatchStart {
  std::int32_t volume, z, y, x;
};

/// Extents of volumes (n of them) and of patches (n as well), both with the channels to handle.
struct PatchGeometry {
  FieldShape volumes;
  FieldShape patches;
};

/// Check the arguments of gather and scatter, of count, and of average. Throw Error.
PatchGeometry patch_geometry(const Tensor& volumes, const Tensor& starts, const Tensor& patches);
PatchGeometry patch_count_geometry(const Tensor& starts, const Shape& extents, const Tensor& counts);
FieldShape patch_average_shape(const Tensor& counts, const Tensor& volumes);

}  // namespace cinnabar
