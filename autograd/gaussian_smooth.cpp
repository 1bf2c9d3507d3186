#include "autograd/gaussian_smooth.hpp"

namespace cinnabar {

Tensor gaussian_smooth(const Tensor& input, const GaussianSigma& sigma_voxels) {
  Tensor output = Tensor::empty_like(input);
  gaussian_smooth_on(input.device()).forward(input, sigma_voxels, output);
  return output;
}

Variable gaussian_smooth(const Variable& input, const GaussianSigma& sigma_voxels) {
  return record_one(
      "gaussian_smooth", gaussian_smooth(input.value(), sigma_voxels), {input},
      [=](const Tensor& grad_output) {
        Tensor grad_input = Tensor::empty_like(grad_output);
        gaussian_smooth_on(grad_output.device()).backward(grad_output, sigma_voxels, grad_input);
        return std::vector<Tensor>{grad_input};
      });
}

}  // namespace cinnabar
