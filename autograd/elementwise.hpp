#pragma once

#include "autograd/variable.hpp"
#include "kernels/elementwise.hpp"

namespace cinnabar {

/// Pointwise ops with their gradients; kernels/elementwise.hpp states the formulas, and the slopes at kinks.
/// Two Variables broadcast against each other, and gradients are summed back over the broadcast axes.

Variable unary(Unary op, const Variable& x, double a = 0.0, double b = 0.0);
Variable binary(Binary op, const Variable& x, const Variable& y);

Variable add(const Variable& x, const Variable& y);
Variable sub(const Variable& x, const Variable& y);
Variable mul(const Variable& x, const Variable& y);
Variable div(const Variable& x, const Variable& y);
Variable pow(const Variable& x, const Variable& y);
Variable maximum(const Variable& x, const Variable& y);
Variable minimum(const Variable& x, const Variable& y);

/// factor x + shift.
Variable affine(const Variable& x, double factor, double shift);
Variable neg(const Variable& x);
Variable scale(const Variable& x, double factor);
Variable add_scalar(const Variable& x, double shift);
Variable exp(const Variable& x);
Variable expm1(const Variable& x);
Variable log(const Variable& x);
Variable log1p(const Variable& x);
Variable sqrt(const Variable& x);
Variable rsqrt(const Variable& x);
Variable reciprocal(const Variable& x);
Variable abs(const Variable& x);
Variable square(const Variable& x);
Variable pow(const Variable& x, double exponent);
Variable sin(const Variable& x);
Variable cos(const Variable& x);
Variable tanh(const Variable& x);
Variable sigmoid(const Variable& x);
Variable softplus(const Variable& x);
Variable relu(const Variable& x);
Variable leaky_relu(const Variable& x, double slope = 0.01);
Variable elu(const Variable& x, double alpha = 1.0);
Variable clamp(const Variable& x, double low, double high);

/// x where x > 0, else weight x. The weight has one element, or one per channel (axis 1 of x).
Variable prelu(const Variable& x, const Variable& weight);

/// 1 where the comparison holds, else 0, in the dtype of x; constants in the graph.
Variable greater(const Variable& x, const Variable& y);
Variable greater_equal(const Variable& x, const Variable& y);
Variable equal(const Variable& x, const Variable& y);
/// x where condition is not 0, else y.
Variable where(const Tensor& condition, const Variable& x, const Variable& y);

inline Variable operator+(const Variable& x, const Variable& y) {
  return add(x, y);
}
inline Variable operator-(const Variable& x, const Variable& y) {
  return sub(x, y);
}
inline Variable operator*(const Variable& x, const Variable& y) {
  return mul(x, y);
}
inline Variable operator/(const Variable& x, const Variable& y) {
  return div(x, y);
}
inline Variable operator-(const Variable& x) {
  return neg(x);
}
inline Variable operator+(const Variable& x, double y) {
  return add_scalar(x, y);
}
inline Variable operator+(double x, const Variable& y) {
  return add_scalar(y, x);
}
inline Variable operator-(const Variable& x, double y) {
  return add_scalar(x, -y);
}
inline Variable operator-(double x, const Variable& y) {
  return affine(y, -1.0, x);
}
inline Variable operator*(const Variable& x, double y) {
  return scale(x, y);
}
inline Variable operator*(double x, const Variable& y) {
  return scale(y, x);
}
inline Variable operator/(const Variable& x, double y) {
  return scale(x, 1.0 / y);
}
inline Variable operator/(double x, const Variable& y) {
  return scale(reciprocal(y), x);
}

}  // namespace cinnabar
