#pragma once

#include "autograd/variable.hpp"

namespace cinnabar {

/// Differentiable forms of kernels/epdiff.hpp, which states shapes and definitions.
Variable image_gradient(const Variable& image);
Variable jacobian(const Variable& displacement);
Variable jacobian_determinant(const Variable& displacement);
Variable coad(const Variable& displacement, const Variable& momentum);
Variable coad_inf(const Variable& velocity, const Variable& momentum);
Variable jacobian_times_vector(const Variable& velocity, const Variable& vector);

}  // namespace cinnabar
