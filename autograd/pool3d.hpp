#pragma once

#include "autograd/variable.hpp"
#include "kernels/pool3d.hpp"

namespace cinnabar {

/// Pooling of [N, C, D, H, W]; conventions of kernels/pool3d.hpp.
Variable max_pool3d(const Variable& input, const PoolOptions& options = {});
Variable average_pool3d(const Variable& input, const PoolOptions& options = {});

/// The maxima and, i32, where they were found.
struct PooledMaxima {
  Variable output;
  Tensor indices;
};
PooledMaxima max_pool3d_with_indices(const Variable& input, const PoolOptions& options = {});

}  // namespace cinnabar
