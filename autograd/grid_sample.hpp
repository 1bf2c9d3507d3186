#pragma once

#include "autograd/variable.hpp"
#include "kernels/grid_sample.hpp"

namespace cinnabar {

/// Samples `input` at the normalised coordinates of `grid`, differentiable in both. Shapes, coordinates and
/// boundary rules are those of kernels/grid_sample.hpp.
Variable grid_sample(const Variable& input, const Variable& grid, const GridSampleOptions& options);

}  // namespace cinnabar
