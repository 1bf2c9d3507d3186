#include "autograd/optimizer_step.hpp"

#include <cmath>

#include "kernels/elementwise.hpp"
#include "kernels/reduce.hpp"

namespace cinnabar {

namespace {

double norm_of(const std::vector<Tensor>& gradients) {
  if (gradients.empty()) return 0.0;
  const Tensor& first = gradients.front();
  const auto count = static_cast<std::int64_t>(gradients.size());
  const Reduce& kernels = reduce_on(first.device());
  // One number a gradient and one copy to the host for all of them.
  Tensor squares = Tensor::empty({count}, first.dtype(), first.device());
  for (std::int64_t i = 0; i < count; ++i) {
    const Tensor& gradient = gradients[static_cast<std::size_t>(i)];
    require_same_device("gradient_norm", first, gradient);
    require_dtype("gradient_norm", gradient, first.dtype());
    Tensor square = squares.rows(i, 1);
    kernels.forward(Reduction::sum_squares, gradient.reshape({gradient.numel()}), {}, 1.0, square);
  }
  double sum = 0.0;
  for (const double square : squares.to_vector<double>()) sum += square;
  return std::sqrt(sum);
}

}  // namespace

std::vector<Tensor> gradients_of(const std::vector<Variable>& parameters) {
  std::vector<Tensor> gradients;
  for (const Variable& parameter : parameters) {
    if (parameter.grad().defined()) gradients.push_back(parameter.grad());
  }
  return gradients;
}

double gradient_norm(const std::vector<Variable>& parameters) {
  return norm_of(gradients_of(parameters));
}

double clip_gradient_norm(const std::vector<Variable>& parameters, double max_norm) {
  CINNABAR_CHECK(max_norm >= 0.0, "clip_gradient_norm", "largest norm ", max_norm, " is negative");
  const std::vector<Tensor> gradients = gradients_of(parameters);
  const double norm = norm_of(gradients);
  const double factor = max_norm / (norm + 1e-6);
  if (factor >= 1.0) return norm;
  for (Tensor gradient : gradients) {
    elementwise_on(gradient.device()).unary(Unary::affine, gradient, factor, 0.0, gradient);
  }
  return norm;
}

void clear_gradients(const std::vector<Variable>& parameters) {
  for (Variable parameter : parameters) parameter.clear_grad();
}

}  // namespace cinnabar
