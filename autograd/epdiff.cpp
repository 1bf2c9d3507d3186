#include "autograd/epdiff.hpp"

#include "kernels/epdiff.hpp"

namespace cinnabar {

namespace {

Tensor with_channels(const char* op, const Tensor& like, std::int64_t channels) {
  CINNABAR_CHECK(like.rank() == 5, op, "needs an [N, C, D, H, W] tensor, got ", like);
  return Tensor::empty(like.shape().with(1, channels), like.dtype(), like.device());
}

/// Records an op of two fields whose gradient kernel writes both gradients.
using Backward2 = void (*)(const Tensor&, const Tensor&, const Tensor&, Tensor&, Tensor&);
Variable record_two(const char* op, const Tensor& result, const Variable& a, const Variable& b,
                    Backward2 backward) {
  const Tensor first = a.value();
  const Tensor second = b.value();
  return record_one(op, result, {a, b}, [=](const Tensor& grad_result) {
    std::vector<Tensor> grads{Tensor::empty_like(first), Tensor::empty_like(second)};
    backward(grad_result, first, second, grads[0], grads[1]);
    return grads;
  });
}

}  // namespace

Variable image_gradient(const Variable& image) {
  Tensor gradient = with_channels("image_gradient", image.value(), 3);
  epdiff_on(gradient.device()).image_gradient(image.value(), gradient);
  return record_one("image_gradient", gradient, {image}, [](const Tensor& grad_gradient) {
    Tensor grad_image = with_channels("image_gradient", grad_gradient, 1);
    epdiff_on(grad_gradient.device()).image_gradient_backward(grad_gradient, grad_image);
    return std::vector<Tensor>{grad_image};
  });
}

Variable jacobian(const Variable& displacement) {
  Tensor result = with_channels("jacobian", displacement.value(), 9);
  epdiff_on(result.device()).jacobian(displacement.value(), result);
  return record_one("jacobian", result, {displacement}, [](const Tensor& grad_jacobian) {
    Tensor grad_displacement = with_channels("jacobian", grad_jacobian, 3);
    epdiff_on(grad_jacobian.device()).jacobian_backward(grad_jacobian, grad_displacement);
    return std::vector<Tensor>{grad_displacement};
  });
}

Variable jacobian_determinant(const Variable& displacement) {
  const Tensor u = displacement.value();
  Tensor determinant = with_channels("jacobian_determinant", u, 1);
  epdiff_on(u.device()).jacobian_determinant(u, determinant);
  return record_one("jacobian_determinant", determinant, {displacement}, [=](const Tensor& grad_determinant) {
    Tensor grad_displacement = Tensor::empty_like(u);
    epdiff_on(u.device()).jacobian_determinant_backward(grad_determinant, u, grad_displacement);
    return std::vector<Tensor>{grad_displacement};
  });
}

Variable coad(const Variable& displacement, const Variable& momentum) {
  const Epdiff& kernels = epdiff_on(displacement.device());
  Tensor result = Tensor::empty_like(displacement.value());
  kernels.coad(displacement.value(), momentum.value(), result);
  return record_two("coad", result, displacement, momentum, kernels.coad_backward);
}

Variable coad_inf(const Variable& velocity, const Variable& momentum) {
  const Epdiff& kernels = epdiff_on(velocity.device());
  Tensor result = Tensor::empty_like(velocity.value());
  kernels.coad_inf(velocity.value(), momentum.value(), result);
  return record_two("coad_inf", result, velocity, momentum, kernels.coad_inf_backward);
}

Variable jacobian_times_vector(const Variable& velocity, const Variable& vector) {
  const Epdiff& kernels = epdiff_on(velocity.device());
  Tensor result = Tensor::empty_like(velocity.value());
  kernels.jacobian_times_vector(velocity.value(), vector.value(), result);
  return record_two("jacobian_times_vector", result, velocity, vector,
                    kernels.jacobian_times_vector_backward);
}

}  // namespace cinnabar
