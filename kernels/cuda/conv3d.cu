// Picks the way by which CUDA computes a convolution; the ways are in conv3d_direct.cu, conv3d_mma.cu,
// conv3d_fft.cu and conv3d_cudnn.cu.

#include "kernels/conv3d.hpp"

#include "kernels/conv3d_choice.hpp"
#include "kernels/conv3d_precision.hpp"
#include "kernels/cuda/conv3d_backends.hpp"

namespace cinnabar::cuda {
namespace {

const Conv3d& table_of(Conv3dBackend backend) {
  switch (backend) {
    case Conv3dBackend::mma:
      return conv3d_mma;
    case Conv3dBackend::fft:
      return conv3d_fft;
    case Conv3dBackend::cudnn:
      return conv3d_cudnn;
    default:
      return conv3d_direct;
  }
}

/// An operand as a backend takes it: tensor cores round what they load, the others multiply as they find it.
Tensor operand_for(Conv3dBackend backend, const Tensor& operand, Conv3dPrecision precision) {
  return backend == Conv3dBackend::mma ? operand : rounded_operand(operand, precision);
}

Conv3dBackend by_rule(Device device, Conv3dPrecision precision) {
  return conv3d_has_mma(device, precision) ? Conv3dBackend::mma : Conv3dBackend::direct;
}

/// Computes a pass by run(table, a, b), where a and b are the operands as the table takes them.
template <class Run>
void compute(Conv3dPass pass, const Conv3dShape& shape, const Tensor& left, const Tensor& right,
             const Conv3dOptions& options, const Run& run) {
  const auto run_by = [&](Conv3dBackend backend) {
    run(table_of(backend), operand_for(backend, left, options.precision),
        operand_for(backend, right, options.precision));
  };
  const Conv3dBackend rule = by_rule(left.device(), options.precision);
  run_by(shape.batch == 0 ? rule : choose_conv3d_backend(options, rule, pass, shape, left, run_by));
}

void forward(const Tensor& input, const Tensor& weight, const Epilogue& epilogue,
             const Conv3dOptions& options, Tensor& output) {
  compute(Conv3dPass::forward, conv3d_shape(input, weight, output, options), input, weight, options,
          [&](const Conv3d& table, const Tensor& x, const Tensor& w) {
            table.forward(x, w, epilogue, options, output);
          });
}

void backward_input(const Tensor& grad_output, const Tensor& weight, const Epilogue& epilogue,
                    const Conv3dOptions& options, Tensor& grad_input) {
  compute(Conv3dPass::backward_input, conv3d_shape(grad_input, weight, grad_output, options), grad_output,
          weight, options, [&](const Conv3d& table, const Tensor& g, const Tensor& w) {
            table.backward_input(g, w, epilogue, options, grad_input);
          });
}

void backward_weight(const Tensor& grad_output, const Tensor& input, const Conv3dOptions& options,
                     Tensor& grad_weight) {
  compute(Conv3dPass::backward_weight, conv3d_shape(input, grad_weight, grad_output, options), grad_output,
          input, options, [&](const Conv3d& table, const Tensor& g, const Tensor& x) {
            table.backward_weight(g, x, options, grad_weight);
          });
}

}  // namespace

extern const Conv3d conv3d;
const Conv3d conv3d{forward, backward_input, backward_weight};

}  // namespace cinnabar::cuda
