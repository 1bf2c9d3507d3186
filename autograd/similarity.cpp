#include "autograd/similarity.hpp"

#include <vector>

#include "kernels/similarity.hpp"

namespace cinnabar {

namespace {

/// Room for the gradients that are wanted; the others stay undefined.
std::vector<Tensor> gradients_like(const Tensor& image, bool wants_warped, bool wants_fixed) {
  std::vector<Tensor> grads(2);
  if (wants_warped) grads[0] = Tensor::empty_like(image);
  if (wants_fixed) grads[1] = Tensor::empty_like(image);
  return grads;
}

Tensor sums_for(const Tensor& image, int count) {
  CINNABAR_CHECK(image.rank() >= 3, "similarity", "images must be [N, C, ...], got ", image);
  return Tensor::empty({image.shape(0), count}, DType::f64, image.device());
}

}  // namespace

Variable ssd(const Variable& warped, const Variable& fixed, const Tensor& mask, bool mean) {
  const Tensor a = warped.value();
  const Tensor b = fixed.value();
  Tensor sums = sums_for(a, kSsdSums);
  Tensor loss = Tensor::empty({}, a.dtype(), a.device());
  similarity_on(a.device()).ssd(a, b, mask, mean, sums, loss);
  const bool wants_a = warped.requires_grad();
  const bool wants_b = fixed.requires_grad();
  return record_one("ssd", loss, {warped, fixed}, [=](const Tensor& grad_loss) {
    std::vector<Tensor> grads = gradients_like(a, wants_a, wants_b);
    similarity_on(a.device()).ssd_backward(grad_loss, a, b, mask, mean, sums, grads[0], grads[1]);
    return grads;
  });
}

Variable ncc_loss(const Variable& warped, const Variable& fixed, const Tensor& mask) {
  const Tensor a = warped.value();
  const Tensor b = fixed.value();
  Tensor sums = sums_for(a, kNccSums);
  Tensor loss = Tensor::empty({}, a.dtype(), a.device());
  similarity_on(a.device()).ncc(a, b, mask, sums, loss);
  const bool wants_a = warped.requires_grad();
  const bool wants_b = fixed.requires_grad();
  return record_one("ncc_loss", loss, {warped, fixed}, [=](const Tensor& grad_loss) {
    std::vector<Tensor> grads = gradients_like(a, wants_a, wants_b);
    similarity_on(a.device()).ncc_backward(grad_loss, a, b, mask, sums, grads[0], grads[1]);
    return grads;
  });
}

}  // namespace cinnabar
