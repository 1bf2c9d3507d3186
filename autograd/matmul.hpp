#pragma once

#include "autograd/variable.hpp"

namespace cinnabar {

/// op(a) op(b) over the two innermost axes, op a transposition where asked for; the batch axes before them
/// broadcast. A vector on the left is a row, on the right a column, and the axis it stood for is dropped from
/// the result (vectors take no transposition).
Variable matmul(const Variable& a, const Variable& b, bool transpose_a = false, bool transpose_b = false);

/// x weight^T + bias: x [..., in], weight [out, in], bias [out] or undefined, result [..., out].
Variable linear(const Variable& x, const Variable& weight, const Variable& bias = {});

}  // namespace cinnabar
