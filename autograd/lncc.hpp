#pragma once

#include "autograd/variable.hpp"

namespace cinnabar {

/// 1 - mean local squared cross correlation over windows of (2 radius + 1)^3 voxels, differentiable in both
/// images (see kernels/lncc.hpp for the formula). `epsilon` suits intensities of about 0 to 1. Voxels count
/// where `mask`, undefined or [N or 1, C or 1, ...], is above 0.
Variable lncc_loss(const Variable& warped, const Variable& fixed, int radius = 4, const Tensor& mask = {},
                   double epsilon = 1e-8);

}  // namespace cinnabar
