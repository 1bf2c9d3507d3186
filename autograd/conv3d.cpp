#include "autograd/conv3d.hpp"

namespace cinnabar {

Variable conv3d(const Variable& input, const Variable& weight, const EpilogueInputs& epilogue,
                const Conv3dOptions& options) {
  const Tensor& x = input.value();
  const Tensor& w = weight.value();
  const Conv3d& kernels = conv3d_on(x.device());
  return record_with_epilogue(
      "conv3d", Tensor::empty(conv3d_output_shape(x.shape(), w.shape(), options), x.dtype(), x.device()),
      {input, weight}, epilogue,
      [&](const Epilogue& after, Tensor& output) { kernels.forward(x, w, after, options, output); },
      [x, w, options, &kernels, needs_input = input.requires_grad(),
       needs_weight = weight.requires_grad()](const Tensor& grad_output) {
        std::vector<Tensor> gradients(2);
        if (needs_input) {
          gradients[0] = Tensor::empty_like(x);
          kernels.backward_input(grad_output, w, {}, options, gradients[0]);
        }
        if (needs_weight) {
          gradients[1] = Tensor::empty_like(w);
          kernels.backward_weight(grad_output, x, options, gradients[1]);
        }
        return gradients;
      });
}

Variable conv_transpose3d(const Variable& input, const Variable& weight, const EpilogueInputs& epilogue,
                          const Conv3dOptions& options, const std::array<std::int64_t, 3>& output_padding) {
  // The transpose of the convolution that reads this output and writes this input.
  const Tensor& x = input.value();
  const Tensor& w = weight.value();
  const Conv3d& kernels = conv3d_on(x.device());
  const Shape shape = conv_transpose3d_output_shape(x.shape(), w.shape(), options, output_padding);
  return record_with_epilogue(
      "conv_transpose3d", Tensor::empty(shape, x.dtype(), x.device()), {input, weight}, epilogue,
      [&](const Epilogue& after, Tensor& output) { kernels.backward_input(x, w, after, options, output); },
      [x, w, options, &kernels, needs_input = input.requires_grad(),
       needs_weight = weight.requires_grad()](const Tensor& grad_output) {
        std::vector<Tensor> gradients(2);
        if (needs_input) {
          gradients[0] = Tensor::empty_like(x);
          kernels.forward(grad_output, w, {}, options, gradients[0]);
        }
        if (needs_weight) {
          gradients[1] = Tensor::empty_like(w);
          kernels.backward_weight(x, grad_output, options, gradients[1]);
        }
        return gradients;
      });
}

}  // namespace cinnabar
