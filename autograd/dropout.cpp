#include "autograd/dropout.hpp"

namespace cinnabar {

Variable dropout(const Variable& x, double p, const RandomSequence& sequence) {
  const Tensor& input = x.value();
  const Dropout& kernels = dropout_on(input.device());
  Tensor output = Tensor::empty_like(input);
  kernels.apply(sequence, p, input, output);
  return record_one("dropout", output, {x}, [=, &kernels](const Tensor& grad) {
    Tensor grad_x = Tensor::empty_like(grad);
    kernels.apply(sequence, p, grad, grad_x);
    return std::vector<Tensor>{grad_x};
  });
}

}  // namespace cinnabar
