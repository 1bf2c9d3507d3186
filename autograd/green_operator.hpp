#pragma once

#include "autograd/variable.hpp"
#include "kernels/green_operator.hpp"

namespace cinnabar {

/// velocity = K momentum and momentum = L velocity, differentiable (kernels/green_operator.hpp).
Variable smooth(const Variable& momentum, const FluidOperator& fluid, FftPadding padding);
Variable sharpen(const Variable& velocity, const FluidOperator& fluid, FftPadding padding);

}  // namespace cinnabar
