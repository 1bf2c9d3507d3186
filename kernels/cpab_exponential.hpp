#pragma once

// Exponentials of the affine maps of CPAB cells, for CPU and CUDA. A map M = [L g] with d rows moves u by
// du/dt = L u + g; over a time t it takes u to u + S [u; 1] with S = exp(t [L g; 0 0]) - 1, d rows. Keeping
// the difference from the identity keeps the digits of small steps.

#include <cmath>

#include "engine/host_device.hpp"

namespace cinnabar {

/// a b + c, rounded once where the hardware can: always in kernels, on the CPU with the FMA instructions.
template <class T>
CINNABAR_HD T cpab_multiply_add(T a, T b, T c) {
#if defined(__CUDA_ARCH__) || defined(__FMA__)
  return std::fma(a, b, c);
#else
  return a * b + c;
#endif
}

/// a / b and sqrt(a) where a few last digits do not count: in kernels by the hardware's approximations, which
/// take numbers below 1e-38 for 0 and give NaN for the root of 0.
template <class T>
CINNABAR_HD T cpab_rough_quotient(T a, T b) {
#if defined(__CUDA_ARCH__)
  if constexpr (sizeof(T) == 4) {
    float inverse;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(inverse) : "f"(b));
    return a * inverse;
  }
#endif
  return a / b;
}
template <class T>
CINNABAR_HD T cpab_rough_root(T a) {
#if defined(__CUDA_ARCH__)
  if constexpr (sizeof(T) == 4) {
    float inverse;
    asm("rsqrt.approx.ftz.f32 %0, %1;" : "=f"(inverse) : "f"(a));
    return a * inverse;
  }
#endif
  return std::sqrt(a);
}

/// Largest absolute row sum of L.
template <class T, int D>
CINNABAR_HD T cpab_norm(const T* map) {
  T norm = T(0);
  CINNABAR_UNROLL
  for (int r = 0; r < D; ++r) {
    T sum = T(0);
    CINNABAR_UNROLL
    for (int k = 0; k < D; ++k) sum += std::abs(map[r * (D + 1) + k]);
    norm = sum > norm ? sum : norm;
  }
  return norm;
}

/// target = map [u; 1].
template <class T, int D>
CINNABAR_HD void cpab_apply(const T* map, const T* u, T* target) {
  CINNABAR_UNROLL
  for (int r = 0; r < D; ++r) {
    T sum = map[r * (D + 1) + D];
    CINNABAR_UNROLL
    for (int k = 0; k < D; ++k) sum = cpab_multiply_add(map[r * (D + 1) + k], u[k], sum);
    target[r] = sum;
  }
}

/// product = a b of two affine matrices without last row, whose last entry counts as zero.
template <int D>
CINNABAR_HD void cpab_product(const double* a, const double* b, double* product) {
  for (int r = 0; r < D; ++r) {
    for (int c = 0; c <= D; ++c) {
      double sum = 0.0;
      for (int k = 0; k < D; ++k) sum += a[r * (D + 1) + k] * b[k * (D + 1) + c];
      product[r * (D + 1) + c] = sum;
    }
  }
}

/// Halvings of the time that bring norm * time to 1/2, at most 20.
CINNABAR_HD int cpab_halvings(double norm, double time) {
  int halvings = 0;
  while (norm * time > 0.5 && halvings < 20) {
    time *= 0.5;
    ++halvings;
  }
  return halvings;
}

constexpr int kCpabSeriesTerms = 14;  // (1/2)^14 / 15! is 5e-17

/// step = exp(time M) - 1 by the Taylor series of time / 2^s and s squarings, in float64.
template <int D>
CINNABAR_HD void cpab_exponential(const double* map, double time, double* step) {
  constexpr int kSize = D * (D + 1);
  const int halvings = cpab_halvings(cpab_norm<double, D>(map), time);
  const double scale = std::ldexp(time, -halvings);
  double term[kSize];
  double next[kSize];
  for (int i = 0; i < kSize; ++i) step[i] = term[i] = scale * map[i];
  for (int k = 2; k <= kCpabSeriesTerms; ++k) {
    cpab_product<D>(map, term, next);
    for (int i = 0; i < kSize; ++i) step[i] += term[i] = next[i] * (scale / k);
  }
  for (int k = 0; k < halvings; ++k) {  // (1 + S)^2 - 1 = 2 S + S^2
    cpab_product<D>(step, step, next);
    for (int i = 0; i < kSize; ++i) step[i] = 2.0 * step[i] + next[i];
  }
}

/// Adds the gradients of product = a b with respect to a and b.
template <int D>
CINNABAR_HD void cpab_product_backward(const double* a, const double* b, const double* grad, double* grad_a,
                                       double* grad_b) {
  for (int r = 0; r < D; ++r) {
    for (int c = 0; c <= D; ++c) {
      const double g = grad[r * (D + 1) + c];
      for (int k = 0; k < D; ++k) {
        grad_a[r * (D + 1) + k] += g * b[k * (D + 1) + c];
        grad_b[k * (D + 1) + c] += g * a[r * (D + 1) + k];
      }
    }
  }
}

/// Adds to grad_map the gradient with respect to M of step = exp(time M) - 1.
template <int D>
CINNABAR_HD void cpab_exponential_backward(const double* map, double time, const double* grad_step,
                                           double* grad_map) {
  constexpr int kSize = D * (D + 1);
  const int halvings = cpab_halvings(cpab_norm<double, D>(map), time);
  const double scale = std::ldexp(time, -halvings);
  double grad[kSize];
  for (int i = 0; i < kSize; ++i) grad[i] = grad_step[i];
  for (int k = halvings; k > 0; --k) {
    double root[kSize];  // the step before squaring k
    cpab_exponential<D>(map, std::ldexp(scale, k - 1), root);
    double before[kSize];
    for (int i = 0; i < kSize; ++i) before[i] = 2.0 * grad[i];
    cpab_product_backward<D>(root, root, grad, before, before);
    for (int i = 0; i < kSize; ++i) grad[i] = before[i];
  }
  // Powers B_n = sum over i + j = n of L^T^i grad [L g]^j^T, summed with the weights scale^(n+1) / (n+1)!.
  double row[kSize];   // grad times transposed powers of the square matrix [L g; 0 0]
  double both[kSize];  // B_n
  for (int i = 0; i < kSize; ++i) row[i] = both[i] = grad[i];
  double weight = scale;
  for (int n = 0;; ++n) {
    for (int i = 0; i < kSize; ++i) grad_map[i] += weight * both[i];
    if (n == kCpabSeriesTerms) break;
    weight *= scale / (n + 2);
    double next_row[kSize] = {};
    double next_both[kSize];
    for (int r = 0; r < D; ++r) {
      for (int k = 0; k < D; ++k) {
        for (int c = 0; c <= D; ++c) next_row[r * (D + 1) + k] += row[r * (D + 1) + c] * map[k * (D + 1) + c];
      }
    }
    for (int r = 0; r < D; ++r) {
      for (int c = 0; c <= D; ++c) {
        double sum = next_row[r * (D + 1) + c];
        for (int k = 0; k < D; ++k) sum += map[k * (D + 1) + r] * both[k * (D + 1) + c];
        next_both[r * (D + 1) + c] = sum;
      }
    }
    for (int i = 0; i < kSize; ++i) {
      row[i] = next_row[i];
      both[i] = next_both[i];
    }
  }
}

}  // namespace cinnabar
