#pragma once

#include <array>
#include <vector>

#include "kernels/op.hpp"

namespace cinnabar {

/// Standard deviations along x, y, z in voxels; 0 leaves an axis as it is.
using GaussianSigma = std::array<double, 3>;

/// Separable Gaussian smoothing: along each axis
///   out(i) = sum over |k| <= r of w_k in(clamp(i + k, 0, n - 1)),  r = ceil(4 sigma),
///   w_k = exp(-k^2 / (2 sigma^2)) / sum of all,
/// so the outermost voxels are repeated beyond the faces ("border") and a constant stays a constant.
///
/// Shapes: [N, C, H, W] or [N, C, D, H, W]; every channel is smoothed alike, so fields keep their units.
/// Errors: sigma below 0 or above kLargestGaussianSigma. Kernels assign their outputs and are deterministic.
struct GaussianSmooth {
  void (*forward)(const Tensor& input, const GaussianSigma& sigma_voxels, Tensor& output);
  /// The transpose of forward: the weights that fell on a face voxel by clamping are gathered there.
  void (*backward)(const Tensor& grad_output, const GaussianSigma& sigma_voxels, Tensor& grad_input);
};

CINNABAR_OP(GaussianSmooth, gaussian_smooth);

inline constexpr double kLargestGaussianSigma = 100.0;

/// Weights w_0..w_r of one axis.
std::vector<double> gaussian_weights(double sigma_voxels);

/// One axis of a tensor as [outer, extent, inner] and its sigma.
struct SmoothedAxis {
  std::int64_t outer = 1;
  std::int64_t extent = 1;
  std::int64_t inner = 1;
  double sigma_voxels = 0;
};

/// Checks the tensors and returns the axes that change anything, x first. Throws Error.
std::vector<SmoothedAxis> smoothed_axes(const Tensor& input, const GaussianSigma& sigma_voxels,
                                        const Tensor& output);

}  // namespace cinnabar
