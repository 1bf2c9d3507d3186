#pragma once

#include <algorithm>
#include <cmath>
#include <functional>

#include "autograd/variable.hpp"
#include "tests/tensors.hpp"

namespace cinnabar::testing {

/// Relative error of <gradient, direction>, for a fixed random direction, against differences of the loss
/// when one parameter moves along it. In f64.
inline double error_along(const std::function<Variable()>& loss, Variable parameter, const Tensor& gradient) {
  constexpr double kStep = 1e-6;
  const NoGrad off;
  const Tensor start = parameter.value().clone();
  const auto values = start.to_vector<double>();
  const auto direction = random_tensor(start.shape(), 9).to_vector<double>();
  const auto loss_at = [&](double step) {
    std::vector<double> moved = values;
    for (std::size_t i = 0; i < moved.size(); ++i) moved[i] += step * direction[i];
    parameter.set_value(Tensor::from(moved, start.shape()));
    return loss().value().item();
  };
  const double numeric = (loss_at(kStep) - loss_at(-kStep)) / (2 * kStep);
  parameter.set_value(start);
  double analytic = 0.0;
  const auto slopes = gradient.to_vector<double>();
  for (std::size_t i = 0; i < slopes.size(); ++i) analytic += slopes[i] * direction[i];
  return std::abs(numeric - analytic) / std::max(std::abs(numeric), 1e-9);
}

}  // namespace cinnabar::testing
