// Work split: one pass per smoothed axis with the tiled filter of axis_filter.cuh: blocks of 256 threads, 64
//   voxels of 4 rows along x, 32 columns of 32 voxels along y and z. The gradient is the same filter with
//   zeros beyond the faces and summed weights on the face voxels.
// Shared memory: 2 KiB along x, 12 KiB along y and z. Launch: one block per tile.
// Limiting resource: memory, 8 bytes per voxel and pass, up to radii of about 16 (sigma 4); then the
//   multiply-adds of the taps, 2 radius + 1 per voxel and pass.

#include "kernels/gaussian_smooth.hpp"

#include "kernels/cuda/axis_filter.cuh"
#include "kernels/cuda/launch.cuh"

namespace cinnabar::cuda {
namespace {

constexpr const char* kOp = "gaussian_smooth";
static_assert(AxisTaps::kMaxRadius >= 4 * kLargestGaussianSigma);

AxisTaps taps_of(double sigma_voxels, bool transposed) {
  const std::vector<double> weights = gaussian_weights(sigma_voxels);
  AxisTaps taps{};
  taps.radius = static_cast<int>(weights.size()) - 1;
  taps.repeat_face = !transposed;
  double tail = 0.0;
  for (int k = taps.radius; k >= 0; --k) {
    tail += weights[static_cast<std::size_t>(k)];
    taps.weight[k] = static_cast<float>(weights[static_cast<std::size_t>(k)]);
    taps.face_weight[k] = static_cast<float>(tail);
  }
  return taps;
}

void smooth(const Tensor& input, const GaussianSigma& sigma_voxels, bool transposed, Tensor& output) {
  require_dtype(kOp, input, DType::f32);
  const std::vector<SmoothedAxis> axes = smoothed_axes(input, sigma_voxels, output);
  if (axes.empty()) return output.copy_from(input);
  Tensor spare = axes.size() > 1 ? Tensor::empty_like(input) : Tensor{};
  const float* source = input.data<float>();
  for (std::size_t k = 0; k < axes.size(); ++k) {
    // The last pass must end in the output, so the targets alternate backwards from it.
    Tensor& target = (axes.size() - 1 - k) % 2 == 0 ? output : spare;
    filter_axis(kOp, source, {axes[k].outer, axes[k].extent, axes[k].inner},
                taps_of(axes[k].sigma_voxels, transposed), input.device(), target.data<float>());
    source = target.data<float>();
  }
}

void forward(const Tensor& input, const GaussianSigma& sigma_voxels, Tensor& output) {
  smooth(input, sigma_voxels, false, output);
}

void backward(const Tensor& grad_output, const GaussianSigma& sigma_voxels, Tensor& grad_input) {
  smooth(grad_output, sigma_voxels, true, grad_input);
}

}  // namespace

extern const GaussianSmooth gaussian_smooth;
const GaussianSmooth gaussian_smooth{forward, backward};

}  // namespace cinnabar::cuda
