#pragma once

// What the walks along a CPAB field have in common, for CPU and CUDA. A walk is a sequence of moves of one
// point, each inside one cell: a whole step, whose exponential is tabulated in the cell's record, or a part
// of one. Three walks share one interface (`state`, `start`, `next`, `finish`): CpabExactWalk in 2-D and 3-D,
// CpabLineWalk in 1-D, CpabStepWalk for the stepping scheme. cpab_adjoint.hpp runs them backwards.
//
// A Field gives a walk its data: `grid`, `load(cell, record)` copies a cell's record, `map(cell)` points to
// its d (d+1) numbers. A record holds what a whole step needs, so a point that stays in a cell reads nothing.

#include <cmath>
#include <cstdint>

#include "kernels/cpab_cells.hpp"
#include "kernels/cpab_exponential.hpp"

namespace cinnabar {

/// Record of a cell: the step S [d, d+1], its time, and as one number a bit for each face through which
/// points can leave plus the fraction cpab_bend. Padded to whole float4.
template <int D>
struct CpabRecord {
  static constexpr int kTime = D * (D + 1);
  static constexpr int kExits = kTime + 1;
  static constexpr int kSize = D == 1 ? 4 : D == 2 ? 8 : 16;
};

template <class T>
struct CpabLimits;
template <>
struct CpabLimits<float> {
  static constexpr float kTolerance = 4e-7f;  ///< how far beyond a face counts as outside, in cells
  static constexpr int kTerms = 8;            ///< (1/2)^8 / 9! is 1e-8
  static constexpr float kJump = 1e-5f;       ///< relative difference of velocities that counts as a jump
};
template <>
struct CpabLimits<double> {
  static constexpr double kTolerance = 2e-15;
  static constexpr int kTerms = 14;
  static constexpr double kJump = 1e-11;
};

template <int D>
constexpr int kCpabMostExits = D == 1 ? 4095 : 511;
/// The exact walk's whole steps are 2^-9 of the time or longer: 1/2 over the largest norm it promises, 256.
constexpr int kCpabMostHalvings = 9;

/// Faces of a cell that some point can leave through: the outward velocity at one of the face's corners is
/// positive by more than rounding.
template <class T, int D>
CINNABAR_HD int cpab_exits(int parity, int type, const double* map) {
  double corner[D + 1][D];
  double velocity[D + 1][D];
  double fastest = 0.0;
  for (int k = 0; k <= D; ++k) {
    cpab_corner<double, D>(parity, type, k, corner[k]);
    cpab_apply<double, D>(map, corner[k], velocity[k]);
    for (int a = 0; a < D; ++a) fastest = std::fmax(fastest, std::abs(velocity[k][a]));
  }
  const double rounding = fastest * (sizeof(T) == 4 ? 2e-7 : 1e-15);
  int exits = 0;
  for (int face = 0; face <= D; ++face) {
    const CpabFace<double, D> plane = cpab_face<double, D>(parity, type, face);
    for (int k = 0; k <= D; ++k) {
      if (plane(corner[k]) == 0.0 && !(plane.along(velocity[k]) >= -rounding)) exits |= 1 << face;
    }
  }
  return exits;
}

/// How far the path of a whole step can be from its chord, as a share of the chord's largest coordinate, for
/// norm |L| time: at most |u''| time^2 / 8 <= norm e^norm |u'| time / 8, and the chord is longer than
/// (1 - (e^norm - 1 - norm) / norm) |u'| time. Rounded up, and below 1 whatever the norm.
CINNABAR_HD double cpab_bend(double norm) {
  if (!(norm > 1e-6)) return 1e-6;
  if (norm > 0.75) return 0.96875;  // 0.5 where the halvings suffice
  const double chord = 1.0 - (std::exp(norm) - 1.0 - norm) / norm;
  return 1.01 * norm * std::exp(norm) / (8.0 * chord) + 1e-6;
}

/// Fills the record of a cell; `steps` is 0 for the exact walk, which chooses the longest step of 2^-k over
/// which the map's norm stays below 1/2.
template <class T, int D>
CINNABAR_HD void cpab_prepare(const CpabGrid& grid, std::int32_t cell, int steps, const T* map, T* record) {
  constexpr int kSize = D * (D + 1);
  double wide[kSize];
  double step[kSize];
  for (int i = 0; i < kSize; ++i) wide[i] = static_cast<double>(map[i]);
  double time = steps > 0 ? 1.0 / steps : 1.0;
  if (steps == 0) {
    const int halvings = cpab_halvings(cpab_norm<double, D>(wide), 1.0);
    time = std::ldexp(1.0, -(halvings < kCpabMostHalvings ? halvings : kCpabMostHalvings));
  }
  cpab_exponential<D>(wide, time, step);
  for (int i = 0; i < kSize; ++i) record[i] = static_cast<T>(step[i]);
  record[CpabRecord<D>::kTime] = static_cast<T>(time);
  const std::int32_t box = cell / kCpabCellsPerBox<D>;
  const int parity =
      (box % grid.boxes[0] + box / grid.boxes[0] % grid.boxes[1] + box / grid.boxes[0] / grid.boxes[1]) & 1;
  const int exits = cpab_exits<T, D>(D == 3 ? parity : 0, cell % kCpabCellsPerBox<D>, wide);
  record[CpabRecord<D>::kExits] = static_cast<T>(exits + cpab_bend(cpab_norm<double, D>(wide) * time));
  for (int i = CpabRecord<D>::kExits + 1; i < CpabRecord<D>::kSize; ++i) record[i] = T(0);
}

/// Velocity at a point, both in domain units.
template <class T, int D>
CINNABAR_HD void cpab_velocity(const CpabGrid& grid, const T* maps, const T* point, T* velocity) {
  T s[D];
  T u[D];
  CINNABAR_UNROLL
  for (int a = 0; a < D; ++a) s[a] = point[a] * static_cast<T>(grid.boxes[a]);
  const CpabPlace<D> place = cpab_locate<T, D>(grid, s, u);
  cpab_apply<T, D>(maps + static_cast<std::int64_t>(place.cell(grid)) * D * (D + 1), u, velocity);
  CINNABAR_UNROLL
  for (int a = 0; a < D; ++a) velocity[a] /= static_cast<T>(grid.boxes[a]);
}

/// One move, as the backward sweep needs it.
template <class T, int D>
struct CpabMove {
  T u[D];  ///< where it starts, in the box of the cell
  T time;  ///< how long it takes
  std::int32_t cell;
  std::int16_t whole;     ///< 1: the cell's tabulated step
  std::int16_t crossing;  ///< 0, or the normal of the face at its end: 1 + normal in base 3, plus 64
};

template <class T, int D>
CINNABAR_HD std::int16_t cpab_pack_normal(const CpabFace<T, D>& face) {
  int code = 64;
  CINNABAR_UNROLL
  for (int a = D - 1; a >= 0; --a)
    code += (face.normal[a] > T(0) ? 2 : face.normal[a] < T(0) ? 0 : 1) * (a == 0 ? 1 : a == 1 ? 3 : 9);
  return static_cast<std::int16_t>(code);
}

template <class T, int D>
CINNABAR_HD void cpab_unpack_normal(int code, T* normal) {
  code -= 64;
  CINNABAR_UNROLL
  for (int a = 0; a < D; ++a) {
    normal[a] = static_cast<T>(code % 3 - 1);
    code /= 3;
  }
}

}  // namespace cinnabar
