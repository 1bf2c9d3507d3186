#pragma once

#include <vector>

#include "autograd/variable.hpp"
#include "kernels/optimizer_step.hpp"

namespace cinnabar {

/// sqrt(sum of g^2) over the gradients of all parameters on one device; those without a gradient count
/// nothing. Waits for the device.
double gradient_norm(const std::vector<Variable>& parameters);

/// Scales all gradients by max_norm / (norm + 1e-6) where that is below 1, as PyTorch does, and returns the
/// norm before.
double clip_gradient_norm(const std::vector<Variable>& parameters, double max_norm);

/// The gradients of those parameters that have one.
std::vector<Tensor> gradients_of(const std::vector<Variable>& parameters);

/// Drops the gradients.
void clear_gradients(const std::vector<Variable>& parameters);

}  // namespace cinnabar
