#pragma once

#include "autograd/variable.hpp"
#include "kernels/trilinear.hpp"

namespace cinnabar {

/// input(x + displacement(x)), differentiable in both (see kernels/warp.hpp for shapes and boundary rules).
Variable warp(const Variable& input, const Variable& displacement, Boundary boundary);

/// The transpose of `warp` in its input: each value is spread over the corners of the cell it is displaced
/// to, with the trilinear weights, and not normalised (PyCA's Splat). Differentiable in both.
Variable splat(const Variable& values, const Variable& displacement, Boundary boundary);

/// Displacement of (id + outer) o (id + inner), differentiable in both.
Variable compose(const Variable& outer, const Variable& inner);

}  // namespace cinnabar
