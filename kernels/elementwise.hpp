#pragma once

#include "kernels/op.hpp"

namespace cinnabar {

/// y = f(x), with up to two numbers a and b.
enum class Unary {
  affine,  ///< a x + b: negation, scaling and adding a number
  exp,
  expm1,
  log,
  log1p,
  sqrt,
  rsqrt,
  reciprocal,
  abs,
  square,
  pow,  ///< x^a
  sin,
  cos,
  tanh,
  sigmoid,
  softplus,    ///< log(1 + e^x)
  relu,        ///< x where x > 0, else 0
  leaky_relu,  ///< x where x > 0, else a x
  elu,         ///< x where x > 0, else a (e^x - 1)
  clamp,       ///< x limited to [a, b]; the slope is 1 on the closed interval
};

/// z = f(x, y).
enum class Binary {
  add,
  sub,
  mul,
  div,
  pow,      ///< x^y
  maximum,  ///< equal operands share the gradient half and half
  minimum,
  prelu,          ///< x where x > 0, else y x
  greater,        ///< 1 where x > y, else 0; no gradient
  greater_equal,  ///< 1 where x >= y, else 0; no gradient
  equal,          ///< 1 where x == y, else 0; no gradient
};

/// Whether the slope of f is computed from y = f(x) instead of x; the caller keeps that one.
inline bool slope_uses_output(Unary op) {
  switch (op) {
    case Unary::exp:
    case Unary::expm1:
    case Unary::sqrt:
    case Unary::rsqrt:
    case Unary::reciprocal:
    case Unary::tanh:
    case Unary::sigmoid:
    case Unary::relu:
      return true;
    default:
      return false;
  }
}

/// Pointwise arithmetic. Operands of `binary` and `select` broadcast to the output's shape (aligned at the
/// innermost axis, extents equal or 1); otherwise shapes are equal. f32 and f64 on the CPU, f32 on CUDA.
/// Every output is assigned, except the target of axpy, and may not overlap an input unless it is the same
/// tensor.
struct Elementwise {
  void (*unary)(Unary op, const Tensor& x, double a, double b, Tensor& y);
  /// grad_x = grad_y f'(x); `saved` is y where slope_uses_output(op), else x.
  void (*unary_backward)(Unary op, const Tensor& grad_y, const Tensor& saved, double a, double b,
                         Tensor& grad_x);
  void (*binary)(Binary op, const Tensor& x, const Tensor& y, Tensor& z);
  /// The gradient of operand 0 (x) or 1 (y) before it is summed over broadcast axes: all of grad_z's shape.
  void (*binary_backward)(Binary op, const Tensor& grad_z, const Tensor& x, const Tensor& y, int operand,
                          Tensor& grad);
  /// output = condition != 0 ? x : y.
  void (*select)(const Tensor& condition, const Tensor& x, const Tensor& y, Tensor& output);
  /// target += a x: adds.
  void (*axpy)(double a, const Tensor& x, Tensor& target);
};

CINNABAR_OP(Elementwise, elementwise);

}  // namespace cinnabar
