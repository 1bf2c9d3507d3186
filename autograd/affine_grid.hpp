#pragma once

#include "autograd/variable.hpp"

namespace cinnabar {

/// Sampling grid of affine maps: theta [N, 2, 3] with spatial extents (H, W), or [N, 3, 4] with (D, H, W),
/// gives [N, (D,) H, W, 2 or 3] for grid_sample. Differentiable in theta.
Variable affine_grid(const Variable& theta, const Shape& spatial, bool align_corners);

}  // namespace cinnabar
