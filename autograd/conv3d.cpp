#include "autograd/conv3d.hpp"

namespace cinnabar {

namespace {

/// A transposed convolution is the transpose of the convolution that reads its output and writes its input:
/// the functions for output and input exchange their roles, and so do the tensors of the weight's gradient.
Variable record_convolution(const char* op, const Shape& shape, const Variable& input, const Variable& weight,
                            const EpilogueInputs& epilogue, const Conv3dOptions& options, bool transposed) {
  const Tensor& x = input.value();
  const Tensor& w = weight.value();
  const Conv3d& kernels = conv3d_on(x.device());
  const auto compute = transposed ? kernels.backward_input : kernels.forward;
  const auto compute_back = transposed ? kernels.forward : kernels.backward_input;
  return record_with_epilogue(
      op, Tensor::empty(shape, x.dtype(), x.device()), {input, weight}, epilogue,
      [&](const Epilogue& after, Tensor& output) { compute(x, w, after, options, output); },
      [=, &kernels, needs_input = input.requires_grad(),
       needs_weight = weight.requires_grad()](const Tensor& grad_output) {
        std::vector<Tensor> gradients(2);
        if (needs_input) {
          gradients[0] = Tensor::empty_like(x);
          compute_back(grad_output, w, {}, options, gradients[0]);
        }
        if (needs_weight) {
          gradients[1] = Tensor::empty_like(w);
          kernels.backward_weight(transposed ? x : grad_output, transposed ? grad_output : x, options,
                                  gradients[1]);
        }
        return gradients;
      });
}

}  // namespace

Variable conv3d(const Variable& input, const Variable& weight, const EpilogueInputs& epilogue,
                const Conv3dOptions& options) {
  return record_convolution("conv3d", conv3d_output_shape(input.shape(), weight.shape(), options), input,
                            weight, epilogue, options, false);
}

Variable conv_transpose3d(const Variable& input, const Variable& weight, const EpilogueInputs& epilogue,
                          const Conv3dOptions& options, const std::array<std::int64_t, 3>& output_padding) {
  return record_convolution(
      "conv_transpose3d",
      conv_transpose3d_output_shape(input.shape(), weight.shape(), options, output_padding), input, weight,
      epilogue, options, true);
}

}  // namespace cinnabar
