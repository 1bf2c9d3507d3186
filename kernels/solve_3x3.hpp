#pragma once

#include "engine/host_device.hpp"

namespace cinnabar {

/// Solves a 3x3 system (rows of `matrix`) by cofactors; a singular one gives infinities or NaN.
template <class T>
CINNABAR_HD void solve_3x3(const T (&m)[9], const T (&right)[3], T (&solution)[3]) {
  const T c00 = m[4] * m[8] - m[5] * m[7], c01 = m[5] * m[6] - m[3] * m[8], c02 = m[3] * m[7] - m[4] * m[6];
  const T c10 = m[2] * m[7] - m[1] * m[8], c11 = m[0] * m[8] - m[2] * m[6], c12 = m[1] * m[6] - m[0] * m[7];
  const T c20 = m[1] * m[5] - m[2] * m[4], c21 = m[2] * m[3] - m[0] * m[5], c22 = m[0] * m[4] - m[1] * m[3];
  const T scale = T(1) / (m[0] * c00 + m[1] * c01 + m[2] * c02);
  solution[0] = scale * (c00 * right[0] + c10 * right[1] + c20 * right[2]);
  solution[1] = scale * (c01 * right[0] + c11 * right[1] + c21 * right[2]);
  solution[2] = scale * (c02 * right[0] + c12 * right[1] + c22 * right[2]);
}

}  // namespace cinnabar
