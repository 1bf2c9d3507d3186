#include "autograd/update_inverse.hpp"

#include "kernels/update_inverse.hpp"

namespace cinnabar {

Variable update_inverse(const Variable& psi, const Variable& increment, int iterations) {
  const Tensor u = psi.value();
  const Tensor w = increment.value();
  Tensor updated = Tensor::empty_like(u);
  update_inverse_on(u.device()).forward(u, w, iterations, updated);
  return record_one("update_inverse", updated, {psi, increment}, [=](const Tensor& grad_updated) {
    std::vector<Tensor> grads{Tensor::empty_like(u), Tensor::empty_like(w)};
    update_inverse_on(u.device()).backward(grad_updated, u, w, updated, grads[0], grads[1]);
    return grads;
  });
}

}  // namespace cinnabar
