#pragma once

#include "autograd/variable.hpp"
#include "kernels/patches.hpp"

namespace cinnabar {

/// Cuts patches of extents (d, h, w) out of volumes [V, C, D, H, W]: [N, C, d, h, w]. `starts` [N, 4] i32 on
/// the volumes' device holds volume, z, y, x of each; what lies outside is 0 (kernels/patches.hpp).
Variable gather_patches(const Variable& volumes, const Tensor& starts, const Shape& extents);

/// What a voxel under several patches becomes; under none it becomes 0.
enum class PatchOverlap { sum, average };

/// Puts patches [N, C, d, h, w] back into volumes of shape [V, C, D, H, W].
Variable scatter_patches(const Variable& patches, const Tensor& starts, const Shape& volumes,
                         PatchOverlap overlap = PatchOverlap::average);

}  // namespace cinnabar
