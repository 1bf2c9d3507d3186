#include "autograd/conv3d.hpp"

#include "autograd/reduce.hpp"

namespace cinnabar {

namespace {

Tensor value_or_undefined(const Variable& variable) {
  return variable.defined() ? variable.value() : Tensor();
}

/// Records a convolution. `gradients` gives those of input and weight; a bias is a sum over images and
/// positions.
Variable record_convolution(const char* op, const Tensor& output, const Variable& input,
                            const Variable& weight, const Variable& bias,
                            std::function<std::vector<Tensor>(const Tensor&)> gradients) {
  if (!bias.defined()) return record_one(op, output, {input, weight}, std::move(gradients));
  return record_one(
      op, output, {input, weight, bias},
      [gradients = std::move(gradients), shape = bias.shape(),
       needs_bias = bias.requires_grad()](const Tensor& grad_output) {
        std::vector<Tensor> all = gradients(grad_output);
        all.push_back(needs_bias ? sum_to(grad_output, {1, shape[0], 1, 1, 1}).reshape(shape) : Tensor());
        return all;
      });
}

}  // namespace

Variable conv3d(const Variable& input, const Variable& weight, const Variable& bias,
                const Conv3dOptions& options) {
  const Tensor& x = input.value();
  const Tensor& w = weight.value();
  Tensor output = Tensor::empty(conv3d_output_shape(x.shape(), w.shape(), options), x.dtype(), x.device());
  conv3d_on(x.device()).forward(x, w, value_or_undefined(bias), options, output);
  return record_convolution("conv3d", output, input, weight, bias,
                            [x, w, options, needs_input = input.requires_grad(),
                             needs_weight = weight.requires_grad()](const Tensor& grad_output) {
                              std::vector<Tensor> gradients(2);
                              const Conv3d& kernels = conv3d_on(x.device());
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

Variable conv_transpose3d(const Variable& input, const Variable& weight, const Variable& bias,
                          const Conv3dOptions& options, const std::array<std::int64_t, 3>& output_padding) {
  // The transpose of the convolution that reads this output and writes this input.
  const Tensor& x = input.value();
  const Tensor& w = weight.value();
  const Shape shape = conv_transpose3d_output_shape(x.shape(), w.shape(), options, output_padding);
  Tensor output = Tensor::empty(shape, x.dtype(), x.device());
  conv3d_on(x.device()).backward_input(x, w, value_or_undefined(bias), options, output);
  return record_convolution("conv_transpose3d", output, input, weight, bias,
                            [x, w, options, needs_input = input.requires_grad(),
                             needs_weight = weight.requires_grad()](const Tensor& grad_output) {
                              std::vector<Tensor> gradients(2);
                              const Conv3d& kernels = conv3d_on(x.device());
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
