#pragma once

#include "autograd/variable.hpp"

namespace cinnabar {

/// Inverses of small square matrices [..., n, n], differentiable. Computed in f64 on the host, whatever the
/// dtype and the device (Gauss-Jordan elimination with row pivots). Throws Error for a singular matrix.
Variable matrix_inverse(const Variable& matrices);

}  // namespace cinnabar
