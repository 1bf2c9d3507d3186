#pragma once

#include "autograd/variable.hpp"
#include "kernels/gradient_penalty.hpp"

namespace cinnabar {

/// Mean squared difference of neighbouring voxels of a field [N, C, D, H, W], divided by the spacing along x,
/// y, z and averaged over the axes (see kernels/gradient_penalty.hpp): the smoothness term of displacement
/// and velocity fields.
Variable gradient_penalty(const Variable& field, const VoxelSpacing& spacing = {1, 1, 1});

}  // namespace cinnabar
