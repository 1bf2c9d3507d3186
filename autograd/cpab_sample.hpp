#pragma once

#include "autograd/cpab.hpp"
#include "kernels/grid_sample.hpp"

namespace cinnabar {

/// An image warped by CPAB flows: result(x) = image(phi_theta(x)), so theta = 0 gives the image itself.
///
/// Shapes: image [N, C, W], [N, C, H, W] or [N, C, D, H, W] for spaces of 1, 2 or 3 dimensions, theta [N,
/// dim]; the result is shaped like the image. The unit interval of the flow is the image between the centres
/// of its outer voxels (options.align_corners) or between its outer faces (otherwise); interpolation and
/// boundary rule are those of kernels/grid_sample.hpp, on an axis y of one voxel in 1-D.
///
/// One kernel follows the flow and samples (kernels/cpab_sample.hpp): the grid of moved points is never made,
/// and the backward pass follows the flow again. Differentiable in image and theta.
Variable cpab_sample(const Variable& image, const Variable& theta, const CpabSpace& space,
                     const GridSampleOptions& options = {}, const CpabOptions& flow = {});

}  // namespace cinnabar
