#pragma once

#include <cmath>
#include <limits>

#include "engine/host_device.hpp"
#include "kernels/reduce.hpp"
#include "kernels/strided.hpp"

namespace cinnabar {

/// The family of an accumulation: how two partial results combine.
CINNABAR_HD bool combines_by_sum(Reduction op) {
  return op != Reduction::prod && op != Reduction::nonzero_prod && op != Reduction::maximum &&
         op != Reduction::minimum;
}

template <class T>
CINNABAR_HD T reduction_identity(Reduction op) {
  if (op == Reduction::maximum) return -std::numeric_limits<T>::infinity();
  if (op == Reduction::minimum) return std::numeric_limits<T>::infinity();
  return op == Reduction::prod || op == Reduction::nonzero_prod ? T(1) : T(0);
}

/// e^(x - r) in the elements' own precision.
template <class T>
CINNABAR_HD T shifted_exp(T x, T r) {
  return std::exp(std::isinf(r) ? x : x - r);
}

/// The term of one element. T is the accumulator's type, so products and squares are exact to it.
template <class T, class Element>
CINNABAR_HD T reduction_term(Reduction op, Element element, Element reference) {
  const T x = static_cast<T>(element);
  const T r = static_cast<T>(reference);
  switch (op) {
    case Reduction::nonzero_prod:
      return x == T(0) ? T(1) : x;
    case Reduction::sum_abs:
      return std::fabs(x);
    case Reduction::sum_squares:
      return x * x;
    case Reduction::sum_squared_deviation:
      return (x - r) * (x - r);
    case Reduction::sum_exp:
      return static_cast<T>(shifted_exp<Element>(element, reference));
    case Reduction::count_equal:
      return x == r ? T(1) : T(0);
    case Reduction::sum_products:
      return x * r;
    default:
      return x;
  }
}

/// Combines two partial results (not compensated).
template <class T>
CINNABAR_HD T reduction_combine(Reduction op, T a, T b) {
  switch (op) {
    case Reduction::prod:
    case Reduction::nonzero_prod:
      return a * b;
    case Reduction::maximum:
      return a > b || a != a ? a : b;
    case Reduction::minimum:
      return a < b || a != a ? a : b;
    default:
      return a + b;
  }
}

template <class T>
CINNABAR_HD T reduction_gradient(Reduction op, T g, T x, T r) {
  switch (op) {
    case Reduction::prod:
      return x == T(0) ? r : g / x;
    case Reduction::maximum:
    case Reduction::minimum:
      return x == r ? g : T(0);
    case Reduction::sum_abs:
      return x > T(0) ? g : (x < T(0) ? -g : T(0));
    case Reduction::sum_squares:
      return T(2) * g * x;
    case Reduction::sum_squared_deviation:
      return T(2) * g * (x - r);
    case Reduction::sum_exp:
      return g * shifted_exp<T>(x, r);
    default:
      return g;
  }
}

/// The kept axes and the reduced axes of x as two walks over x.
struct ReductionAxes {
  StridedLoop<1> kept;
  StridedLoop<1> reduced;
};

inline ReductionAxes reduction_axes(const Shape& x, const Shape& output) {
  CINNABAR_CHECK(output.rank() == x.rank(), "reduce", "output ", output, " has another rank than ", x);
  ReductionAxes axes;
  std::int64_t stride = x.numel();
  for (int axis = 0; axis < x.rank(); ++axis) {
    stride = x[axis] == 0 ? 0 : stride / x[axis];
    CINNABAR_CHECK(output[axis] == x[axis] || output[axis] == 1, "reduce", "output ", output,
                   " is no reduced form of ", x);
    (output[axis] == x[axis] ? axes.kept : axes.reduced).append(x[axis], {stride});
  }
  return axes;
}

inline void check_reduce(Reduction op, const Tensor& x, const Tensor& reference, const Tensor& output) {
  require_floating("reduce", x);
  require_same_device("reduce", x, output);
  require_dtype("reduce", output, x.dtype());
  const bool is_extremum = op == Reduction::maximum || op == Reduction::minimum;
  CINNABAR_CHECK(!is_extremum || x.numel() > 0 || output.numel() == 0, "reduce",
                 "the maximum or minimum of no elements does not exist: ", x);
  if (!reference.defined()) {
    CINNABAR_CHECK(!uses_reference(op), "reduce", "this reduction needs a reference");
    return;
  }
  require_same_device("reduce", x, reference);
  require_dtype("reduce", reference, x.dtype());
  require_same_shape("reduce", reference, op == Reduction::sum_products ? x : output);
}

inline void check_reduce_backward(Reduction op, const Tensor& grad, const Tensor& x, const Tensor& reference,
                                  const Tensor& grad_x) {
  CINNABAR_CHECK(
      op != Reduction::nonzero_prod && op != Reduction::count_equal && op != Reduction::sum_products,
      "reduce", "this reduction has no backward kernel");
  require_floating("reduce", x);
  require_same_device("reduce", x, grad);
  require_same_device("reduce", x, reference);
  require_same_device("reduce", x, grad_x);
  require_dtype("reduce", grad, x.dtype());
  require_dtype("reduce", reference, x.dtype());
  require_dtype("reduce", grad_x, x.dtype());
  require_same_shape("reduce", x, grad_x);
  require_same_shape("reduce", grad, reference);
}

inline void check_cumsum(const Tensor& x, const Tensor& y) {
  require_floating("cumsum", x);
  require_same_device("cumsum", x, y);
  require_same_shape("cumsum", x, y);
  require_dtype("cumsum", y, x.dtype());
}

/// x as [outer, length, inner] around an axis.
struct AxisView {
  std::int64_t outer = 1;
  std::int64_t length = 1;
  std::int64_t inner = 1;
};

inline AxisView axis_view(const Shape& shape, int axis) {
  AxisView view;
  const int resolved = shape.axis(axis);
  for (int a = 0; a < shape.rank(); ++a) {
    (a < resolved ? view.outer : a == resolved ? view.length : view.inner) *= shape[a];
  }
  return view;
}

}  // namespace cinnabar
