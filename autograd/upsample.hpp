#pragma once

#include <vector>

#include "autograd/variable.hpp"
#include "kernels/upsample.hpp"

namespace cinnabar {

/// Resizes [N, C, H, W] or [N, C, D, H, W] to the spatial extents (D,) H, W. Conventions of
/// kernels/upsample.hpp; also shrinks, without smoothing first.
Variable upsample_to(const Variable& input, const Shape& spatial,
                     Interpolation interpolation = Interpolation::linear, bool align_corners = false);

/// Resizes by one factor per spatial axis, (D,) H, W, to floor(extent * factor) voxels. The factors given,
/// not the ratios of extents, place the samples unless align_corners.
Variable upsample_by(const Variable& input, const std::vector<double>& factors,
                     Interpolation interpolation = Interpolation::linear, bool align_corners = false);

}  // namespace cinnabar
