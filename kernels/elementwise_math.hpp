#pragma once

#include <cmath>

#include "engine/host_device.hpp"
#include "kernels/elementwise.hpp"

namespace cinnabar {

/// f(x) of each Unary, one definition for both devices. A loop with a constant `op` keeps one branch.
template <class T>
CINNABAR_HD T unary_value(Unary op, T x, T a, T b) {
  switch (op) {
    case Unary::affine:
      return a * x + b;
    case Unary::exp:
      return std::exp(x);
    case Unary::expm1:
      return std::expm1(x);
    case Unary::log:
      return std::log(x);
    case Unary::log1p:
      return std::log1p(x);
    case Unary::sqrt:
      return std::sqrt(x);
    case Unary::rsqrt:
      return T(1) / std::sqrt(x);
    case Unary::reciprocal:
      return T(1) / x;
    case Unary::abs:
      return std::fabs(x);
    case Unary::square:
      return x * x;
    case Unary::pow:
      return std::pow(x, a);
    case Unary::sin:
      return std::sin(x);
    case Unary::cos:
      return std::cos(x);
    case Unary::tanh:
      return std::tanh(x);
    case Unary::sigmoid:
      return T(1) / (T(1) + std::exp(-x));
    case Unary::softplus:
      return (x > T(0) ? x : T(0)) + std::log1p(std::exp(-std::fabs(x)));
    case Unary::relu:
      return x < T(0) ? T(0) : x;  // keeps NaN
    case Unary::leaky_relu:
      return x > T(0) ? x : a * x;
    case Unary::elu:
      return x > T(0) ? x : a * std::expm1(x);
    case Unary::clamp:
      return x < a ? a : (x > b ? b : x);
  }
  return x;
}

/// f'(x) from `s`, which is f(x) where slope_uses_output(op) and x elsewhere.
template <class T>
CINNABAR_HD T unary_slope(Unary op, T s, T a, T b) {
  switch (op) {
    case Unary::affine:
      return a;
    case Unary::exp:
      return s;
    case Unary::expm1:
      return s + T(1);
    case Unary::log:
      return T(1) / s;
    case Unary::log1p:
      return T(1) / (T(1) + s);
    case Unary::sqrt:
      return T(0.5) / s;
    case Unary::rsqrt:
      return T(-0.5) * s * s * s;
    case Unary::reciprocal:
      return -s * s;
    case Unary::abs:
      return s > T(0) ? T(1) : (s < T(0) ? T(-1) : T(0));
    case Unary::square:
      return T(2) * s;
    case Unary::pow:
      return a == T(0) ? T(0) : a * std::pow(s, a - T(1));
    case Unary::sin:
      return std::cos(s);
    case Unary::cos:
      return -std::sin(s);
    case Unary::tanh:
      return T(1) - s * s;
    case Unary::sigmoid:
      return s * (T(1) - s);
    case Unary::softplus:
      return T(1) / (T(1) + std::exp(-s));
    case Unary::relu:
      return s > T(0) ? T(1) : T(0);
    case Unary::leaky_relu:
      return s > T(0) ? T(1) : a;
    case Unary::elu:
      return s > T(0) ? T(1) : a * std::exp(s);
    case Unary::clamp:
      return s >= a && s <= b ? T(1) : T(0);
  }
  return T(0);
}

template <class T>
CINNABAR_HD T binary_value(Binary op, T x, T y) {
  switch (op) {
    case Binary::add:
      return x + y;
    case Binary::sub:
      return x - y;
    case Binary::mul:
      return x * y;
    case Binary::div:
      return x / y;
    case Binary::pow:
      return std::pow(x, y);
    case Binary::maximum:
      return x > y || x != x ? x : y;  // NaN in either operand wins
    case Binary::minimum:
      return x < y || x != x ? x : y;
    case Binary::prelu:
      return x > T(0) ? x : y * x;
    case Binary::greater:
      return x > y ? T(1) : T(0);
    case Binary::greater_equal:
      return x >= y ? T(1) : T(0);
    case Binary::equal:
      return x == y ? T(1) : T(0);
  }
  return x;
}

/// df / dx (operand 0) or df / dy (operand 1), times the incoming gradient.
template <class T>
CINNABAR_HD T binary_gradient(Binary op, int operand, T grad, T x, T y) {
  const bool first = operand == 0;
  switch (op) {
    case Binary::add:
      return grad;
    case Binary::sub:
      return first ? grad : -grad;
    case Binary::mul:
      return grad * (first ? y : x);
    case Binary::div:
      return first ? grad / y : -grad * (x / y) / y;
    case Binary::pow:
      if (first) return y == T(0) ? T(0) : grad * y * std::pow(x, y - T(1));
      return x == T(0) && y >= T(0) ? T(0) : grad * std::pow(x, y) * std::log(x);
    case Binary::maximum:
      return x == y ? grad * T(0.5) : ((x > y) == first ? grad : T(0));
    case Binary::minimum:
      return x == y ? grad * T(0.5) : ((x < y) == first ? grad : T(0));
    case Binary::prelu:
      if (first) return x > T(0) ? grad : grad * y;
      return x > T(0) ? T(0) : grad * x;
    case Binary::greater:
    case Binary::greater_equal:
    case Binary::equal:
      return T(0);
  }
  return T(0);
}

}  // namespace cinnabar
