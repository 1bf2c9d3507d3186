#include "autograd/green_operator.hpp"

namespace cinnabar {

Variable smooth(const Variable& momentum, const FluidOperator& fluid, FftPadding padding) {
  Tensor velocity = Tensor::empty_like(momentum.value());
  green_operator_on(velocity.device()).smooth(momentum.value(), fluid, padding, velocity);
  return record_one("smooth", velocity, {momentum}, [=](const Tensor& grad_velocity) {
    Tensor grad_momentum = Tensor::empty_like(grad_velocity);
    green_operator_on(grad_velocity.device()).smooth(grad_velocity, fluid, padding, grad_momentum);
    return std::vector<Tensor>{grad_momentum};
  });
}

Variable sharpen(const Variable& velocity, const FluidOperator& fluid, FftPadding padding) {
  Tensor momentum = Tensor::empty_like(velocity.value());
  green_operator_on(momentum.device()).sharpen(velocity.value(), fluid, padding, momentum);
  return record_one("sharpen", momentum, {velocity}, [=](const Tensor& grad_momentum) {
    Tensor grad_velocity = Tensor::empty_like(grad_momentum);
    green_operator_on(grad_momentum.device()).sharpen(grad_momentum, fluid, padding, grad_velocity);
    return std::vector<Tensor>{grad_velocity};
  });
}

}  // namespace cinnabar
