#include "kernels/gaussian_smooth.hpp"

#include <cmath>

namespace cinnabar {

std::vector<double> gaussian_weights(double sigma_voxels) {
  const int radius = static_cast<int>(std::ceil(4.0 * sigma_voxels));
  std::vector<double> weights;
  double sum = 0.0;
  for (int k = 0; k <= radius; ++k) {
    const double scaled = k == 0 ? 0.0 : k / sigma_voxels;
    weights.push_back(std::exp(-0.5 * scaled * scaled));
    sum += k == 0 ? 1.0 : 2.0 * weights.back();
  }
  for (double& weight : weights) weight /= sum;
  return weights;
}

std::vector<SmoothedAxis> smoothed_axes(const Tensor& input, const GaussianSigma& sigma_voxels,
                                        const Tensor& output) {
  constexpr const char* kOp = "gaussian_smooth";
  CINNABAR_CHECK(input.rank() == 4 || input.rank() == 5, kOp, "input must be [N, C, (D,) H, W], got ", input);
  require_floating(kOp, input);
  require_same_shape(kOp, input, output);
  require_dtype(kOp, output, input.dtype());
  require_same_device(kOp, input, output);
  CINNABAR_CHECK(input.numel() == 0 || input.raw() != output.raw(), kOp, "cannot smooth in place");
  std::vector<SmoothedAxis> axes;
  SmoothedAxis axis;
  axis.outer = input.numel();
  for (int k = 0; k < input.rank() - 2; ++k) {
    const double sigma = sigma_voxels[static_cast<std::size_t>(k)];
    CINNABAR_CHECK(sigma >= 0.0 && sigma <= kLargestGaussianSigma, kOp, "sigma ", sigma,
                   " voxels is not in 0 to ", kLargestGaussianSigma);
    axis.inner *= axis.extent;
    axis.extent = input.shape(-1 - k);
    if (axis.extent == 0) return {};
    axis.outer /= axis.extent;
    axis.sigma_voxels = sigma;
    // One voxel, repeated beyond both faces, is its own average.
    if (sigma > 0.0 && axis.extent > 1) axes.push_back(axis);
  }
  return axes;
}

}  // namespace cinnabar
