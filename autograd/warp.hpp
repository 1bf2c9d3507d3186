#pragma once

#include "autograd/variable.hpp"
#include "kernels/trilinear.hpp"

namespace cinnabar {

/// input(x + displacement(x)), differentiable in both (see kernels/warp.hpp for shapes and boundary rules).
Variable warp(const Variable& input, const Variable& displacement, Boundary boundary);

/// Displacement of (id + outer) o (id + inner), differentiable in both.
Variable compose(const Variable& outer, const Variable& inner);

}  // namespace cinnabar
