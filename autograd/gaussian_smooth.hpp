#pragma once

#include "autograd/variable.hpp"
#include "kernels/gaussian_smooth.hpp"

namespace cinnabar {

/// Gaussian smoothing with one sigma per axis (x, y, z) in voxels; differentiable. The outermost voxels are
/// repeated beyond the faces.
Variable gaussian_smooth(const Variable& input, const GaussianSigma& sigma_voxels);

/// The same on a tensor, outside any graph.
Tensor gaussian_smooth(const Tensor& input, const GaussianSigma& sigma_voxels);

}  // namespace cinnabar
