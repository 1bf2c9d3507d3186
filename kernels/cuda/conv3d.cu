// Picks the way by which CUDA computes a convolution; the ways are in conv3d_direct.cu, conv3d_fft.cu and
// conv3d_cudnn.cu.

#include "kernels/conv3d.hpp"

#include "kernels/cuda/conv3d_backends.hpp"

namespace cinnabar::cuda {
namespace {

const Conv3d& table_of(const Conv3dOptions& options) {
  switch (options.backend) {
    case Conv3dBackend::automatic:
    case Conv3dBackend::direct:
      return conv3d_direct;
    case Conv3dBackend::fft:
      return conv3d_fft;
    case Conv3dBackend::cudnn:
      return conv3d_cudnn;
    default:
      fail("conv3d", "CUDA has the backends direct, fft and cudnn");
  }
}

void forward(const Tensor& input, const Tensor& weight, const Epilogue& epilogue,
             const Conv3dOptions& options, Tensor& output) {
  table_of(options).forward(input, weight, epilogue, options, output);
}

void backward_input(const Tensor& grad_output, const Tensor& weight, const Epilogue& epilogue,
                    const Conv3dOptions& options, Tensor& grad_input) {
  table_of(options).backward_input(grad_output, weight, epilogue, options, grad_input);
}

void backward_weight(const Tensor& grad_output, const Tensor& input, const Conv3dOptions& options,
                     Tensor& grad_weight) {
  table_of(options).backward_weight(grad_output, input, options, grad_weight);
}

}  // namespace

extern const Conv3d conv3d;
const Conv3d conv3d{forward, backward_input, backward_weight};

}  // namespace cinnabar::cuda
