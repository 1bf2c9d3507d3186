#include "autograd/lncc.hpp"

#include <vector>

#include "kernels/lncc.hpp"

namespace cinnabar {

Variable lncc_loss(const Variable& warped, const Variable& fixed, int radius, const Tensor& mask,
                   double epsilon) {
  const Tensor a = warped.value();
  const Tensor b = fixed.value();
  const LnccOptions options{radius, epsilon};
  Tensor sums = Tensor::empty({2}, DType::f64, a.device());
  Tensor loss = Tensor::empty({}, a.dtype(), a.device());
  lncc_on(a.device()).forward(a, b, mask, options, sums, loss);
  const bool wants_a = warped.requires_grad();
  const bool wants_b = fixed.requires_grad();
  return record_one("lncc_loss", loss, {warped, fixed}, [=](const Tensor& grad_loss) {
    std::vector<Tensor> grads(2);
    if (wants_a) grads[0] = Tensor::empty_like(a);
    if (wants_b) grads[1] = Tensor::empty_like(b);
    lncc_on(a.device()).backward(grad_loss, a, b, mask, options, sums, grads[0], grads[1]);
    return grads;
  });
}

}  // namespace cinnabar
