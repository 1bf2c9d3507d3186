#include "autograd/deform_conv.hpp"

namespace cinnabar {

Variable deform_conv(const Variable& input, const Variable& offset, const Variable& weight,
                     const Variable& mask, const EpilogueInputs& epilogue, const DeformConvOptions& options) {
  const Tensor x = input.value(), moved = offset.value(), w = weight.value();
  const Tensor factors = mask.defined() ? mask.value() : Tensor();
  const DeformConv& kernels = deform_conv_on(x.device());
  std::vector<Variable> inputs{input, offset, weight};
  if (mask.defined()) inputs.push_back(mask);
  const auto wanted = [](const Variable& variable) { return variable.defined() && variable.requires_grad(); };
  return record_with_epilogue(
      "deform_conv",
      Tensor::empty(deform_conv_output_shape(x.shape(), w.shape(), options), x.dtype(), x.device()), inputs,
      epilogue,
      [&](const Epilogue& after, Tensor& output) {
        kernels.forward(x, moved, factors, w, after, options, output);
      },
      [=, &kernels, needs_input = wanted(input), needs_offset = wanted(offset), needs_weight = wanted(weight),
       needs_mask = wanted(mask)](const Tensor& grad_output) {
        Tensor grad_input, grad_offset, grad_weight, grad_mask;
        if (needs_input) grad_input = Tensor::empty_like(x);
        if (needs_offset) grad_offset = Tensor::empty_like(moved);
        if (needs_mask) grad_mask = Tensor::empty_like(factors);
        if (needs_input || needs_offset || needs_mask) {
          kernels.backward_sampling(grad_output, x, moved, factors, w, options, grad_input, grad_offset,
                                    grad_mask);
        }
        if (needs_weight) {
          grad_weight = Tensor::empty_like(w);
          kernels.backward_weight(grad_output, x, moved, factors, options, grad_weight);
        }
        std::vector<Tensor> gradients{grad_input, grad_offset, grad_weight};
        if (factors.defined()) gradients.push_back(grad_mask);
        return gradients;
      });
}

}  // namespace cinnabar
