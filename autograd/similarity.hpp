#pragma once

#include "autograd/lncc.hpp"
#include "autograd/variable.hpp"

namespace cinnabar {

/// Losses between images [N, C, ...], differentiable in both (see kernels/similarity.hpp). `mask` may be
/// undefined, or [N or 1, C or 1, ...] with weights of at least 0. Results are scalars, lower is better.

/// Sum of squared differences, or with `mean` its weighted mean.
Variable ssd(const Variable& warped, const Variable& fixed, const Tensor& mask = {}, bool mean = false);

/// 1 - correlation coefficient, averaged over the batch.
Variable ncc_loss(const Variable& warped, const Variable& fixed, const Tensor& mask = {});

}  // namespace cinnabar
