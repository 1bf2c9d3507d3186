#pragma once

#include "autograd/variable.hpp"

namespace cinnabar {

/// Displacement of the inverse map after an increment, differentiable in both (kernels/update_inverse.hpp).
Variable update_inverse(const Variable& psi, const Variable& increment, int iterations);

}  // namespace cinnabar
