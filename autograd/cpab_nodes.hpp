#pragma once

#include "autograd/variable.hpp"
#include "kernels/cpab_nodes.hpp"

namespace cinnabar {

/// Maps [N, cells, d, d+1] of the fields whose vertices move as theta [N, dim] says; see
/// kernels/cpab_nodes.hpp for `places`. Differentiable in theta.
Variable cpab_maps_of_nodes(const Variable& theta, const Tensor& places, const CpabGrid& grid);

}  // namespace cinnabar
