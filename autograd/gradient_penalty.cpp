#include "autograd/gradient_penalty.hpp"

namespace cinnabar {

Variable gradient_penalty(const Variable& field, const VoxelSpacing& spacing) {
  const Tensor f = field.value();
  const GradientPenalty& kernels = gradient_penalty_on(f.device());
  Tensor loss = Tensor::empty({}, f.dtype(), f.device());
  kernels.forward(f, spacing, loss);
  return record_one("gradient_penalty", loss, {field}, [=, &kernels](const Tensor& grad_loss) {
    Tensor grad_field = Tensor::empty_like(f);
    kernels.backward(grad_loss, f, spacing, grad_field);
    return std::vector<Tensor>{grad_field};
  });
}

}  // namespace cinnabar
