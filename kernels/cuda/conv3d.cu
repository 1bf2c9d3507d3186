// Picks the way by which CUDA computes a convolution; the ways are in conv3d_direct.cu, conv3d_fft.cu and
// conv3d_cudnn.cu.

#include "kernels/conv3d.hpp"

#include "kernels/conv3d_choice.hpp"
#include "kernels/cuda/conv3d_backends.hpp"

namespace cinnabar::cuda {
namespace {

const Conv3d& table_of(Conv3dBackend backend) {
  switch (backend) {
    case Conv3dBackend::fft:
      return conv3d_fft;
    case Conv3dBackend::cudnn:
      return conv3d_cudnn;
    default:
      return conv3d_direct;
  }
}

/// Computes a pass by run(table).
template <class Run>
void compute(Conv3dPass pass, const Conv3dShape& shape, const Tensor& like, const Conv3dOptions& options,
             const Run& run) {
  const Conv3dBackend rule = Conv3dBackend::direct;
  run(table_of(choose_conv3d_backend(shape.batch == 0 ? rule : options.backend, rule, pass, shape, like,
                                     [&](Conv3dBackend backend) { run(table_of(backend)); })));
}

void forward(const Tensor& input, const Tensor& weight, const Epilogue& epilogue,
             const Conv3dOptions& options, Tensor& output) {
  compute(Conv3dPass::forward, conv3d_shape(input, weight, output, options), output, options,
          [&](const Conv3d& table) { table.forward(input, weight, epilogue, options, output); });
}

void backward_input(const Tensor& grad_output, const Tensor& weight, const Epilogue& epilogue,
                    const Conv3dOptions& options, Tensor& grad_input) {
  compute(
      Conv3dPass::backward_input, conv3d_shape(grad_input, weight, grad_output, options), grad_input, options,
      [&](const Conv3d& table) { table.backward_input(grad_output, weight, epilogue, options, grad_input); });
}

void backward_weight(const Tensor& grad_output, const Tensor& input, const Conv3dOptions& options,
                     Tensor& grad_weight) {
  compute(Conv3dPass::backward_weight, conv3d_shape(input, grad_weight, grad_output, options), grad_weight,
          options,
          [&](const Conv3d& table) { table.backward_weight(grad_output, input, options, grad_weight); });
}

}  // namespace

extern const Conv3d conv3d;
const Conv3d conv3d{forward, backward_input, backward_weight};

}  // namespace cinnabar::cuda
