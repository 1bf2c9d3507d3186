#pragma once

#include "engine/host_device.hpp"

namespace cinnabar {

/// The symbol A of L = A^power at one frequency, a real symmetric 3x3 matrix: `diagonal` holds L_xx, L_yy,
/// L_zz and `mixed` L_xy, L_xz, L_yz (kernels/green_operator.hpp).
template <class T>
struct GreenSymbol {
  T diagonal[3];
  T mixed[3];
};

/// c and s of the three axes, x first.
template <class T>
CINNABAR_HD GreenSymbol<T> green_symbol(const T (&c)[3], const T (&s)[3], T alpha, T beta, T gamma) {
  const T lambda = gamma - alpha * (c[0] + c[1] + c[2]);
  return {{lambda - beta * c[0], lambda - beta * c[1], lambda - beta * c[2]},
          {beta * s[0] * s[1], beta * s[0] * s[2], beta * s[1] * s[2]}};
}

/// Inverse by cofactors; the zero matrix for the one singular symbol, frequency 0 with gamma = 0.
template <class T>
CINNABAR_HD GreenSymbol<T> inverse_symbol(const GreenSymbol<T>& l) {
  const T xx = l.diagonal[0], yy = l.diagonal[1], zz = l.diagonal[2];
  const T xy = l.mixed[0], xz = l.mixed[1], yz = l.mixed[2];
  const T co_xx = yy * zz - yz * yz;
  const T co_xy = xz * yz - xy * zz;
  const T co_xz = xy * yz - xz * yy;
  const T determinant = xx * co_xx + xy * co_xy + xz * co_xz;
  const T scale = determinant > T(0) ? T(1) / determinant : T(0);
  return {{co_xx * scale, (xx * zz - xz * xz) * scale, (xx * yy - xy * xy) * scale},
          {co_xy * scale, co_xz * scale, (xy * xz - xx * yz) * scale}};
}

}  // namespace cinnabar
