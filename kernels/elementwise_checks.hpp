#pragma once

#include "engine/tensor.hpp"

namespace cinnabar {

/// Argument checks shared by both tables of kernels/elementwise.hpp; broadcasting itself is checked by
/// broadcast_loop.
inline void check_unary(const Tensor& x, const Tensor& y) {
  require_floating("elementwise", x);
  require_same_device("elementwise", x, y);
  require_same_shape("elementwise", x, y);
  require_dtype("elementwise", y, x.dtype());
}

inline void check_binary(const Tensor& x, const Tensor& y, const Tensor& z) {
  require_floating("elementwise", x);
  require_same_device("elementwise", x, y);
  require_same_device("elementwise", x, z);
  require_dtype("elementwise", y, x.dtype());
  require_dtype("elementwise", z, x.dtype());
}

inline void check_select(const Tensor& condition, const Tensor& x, const Tensor& y, const Tensor& output) {
  check_binary(x, y, output);
  require_same_device("elementwise", x, condition);
  require_dtype("elementwise", condition, x.dtype());
}

}  // namespace cinnabar
