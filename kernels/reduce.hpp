#pragma once

#include "engine/host_device.hpp"
#include "kernels/op.hpp"

namespace cinnabar {

/// What is accumulated over the reduced axes; r is the reference.
enum class Reduction {
  sum,
  prod,
  nonzero_prod,  ///< product of the x that are not 0
  maximum,       ///< NaN wins
  minimum,
  sum_abs,
  sum_squares,
  sum_squared_deviation,  ///< sum (x - r)^2
  sum_exp,                ///< sum e^(x - r), with r = 0 where r is infinite
  count_equal,            ///< how many x == r
  sum_products,           ///< sum x r, r of x's shape
};

CINNABAR_HD bool uses_reference(Reduction op) {
  return op == Reduction::sum_squared_deviation || op == Reduction::sum_exp || op == Reduction::count_equal ||
         op == Reduction::sum_products;
}

/// Reductions over any set of axes. The reduced form of x has x's rank and extent 1 on the reduced axes;
/// `output`, `grad` and `reference` have that form unless said otherwise. f32 and f64 on the CPU (accumulated
/// in f64), f32 on CUDA (compensated f32). Sums run in an order fixed by the shape, so the bits do not depend
/// on threads. Outputs are assigned. The sum over no elements is 0, the product 1; maximum and minimum of no
/// elements throw.
struct Reduce {
  /// output = scale * (op over the reduced axes). An undefined reference is allowed where none is used.
  void (*forward)(Reduction op, const Tensor& x, const Tensor& reference, double scale, Tensor& output);
  /// grad_x, with g = grad and r = reference repeated along the reduced axes:
  ///   sum: g; maximum, minimum: g where x == r, else 0; sum_abs: g sign(x); sum_squares: 2 g x;
  ///   sum_squared_deviation: 2 g (x - r); sum_exp: g e^(x - r); prod: r where x == 0, else g / x.
  void (*backward)(Reduction op, const Tensor& grad, const Tensor& x, const Tensor& reference,
                   Tensor& grad_x);
  /// y[i] = x[0] + ... + x[i] along an axis, or from the other end.
  void (*cumsum)(const Tensor& x, int axis, bool reverse, Tensor& y);
};

CINNABAR_OP(Reduce, reduce);

}  // namespace cinnabar
