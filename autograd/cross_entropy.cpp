#include "autograd/cross_entropy.hpp"

#include "autograd/elementwise.hpp"
#include "autograd/reduce.hpp"

namespace cinnabar {

Variable cross_entropy_loss(const Variable& logits, const Tensor& labels, const Tensor& class_weight,
                            LossReduction reduction, const CrossEntropyOptions& options) {
  const Tensor x = logits.value();
  const CrossEntropy& kernels = cross_entropy_on(x.device());
  Tensor losses = Tensor::empty(labels.shape(), x.dtype(), x.device());
  Tensor weights = Tensor::empty_like(losses);
  kernels.forward(x, labels, class_weight, options, losses, weights);
  const Variable terms = record_one("cross_entropy", losses, {logits}, [=, &kernels](const Tensor& grad) {
    Tensor grad_logits = Tensor::empty_like(x);
    kernels.backward(grad, x, labels, class_weight, options, grad_logits);
    return std::vector<Tensor>{grad_logits};
  });
  if (reduction == LossReduction::none) return terms;
  if (reduction == LossReduction::sum) return sum(terms);
  return sum(terms) / sum(Variable(weights));
}

}  // namespace cinnabar
