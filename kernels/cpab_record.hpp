#pragma once

// What the walks along a CPAB field have in common, for CPU and CUDA. A walk is a sequence of moves of one
// point, each inside one cell. Three walks share one interface (`state`, `start`, `going`, `advance`,
// `finish`): CpabExactWalk in 2-D and 3-D, CpabLineWalk in 1-D, CpabStepWalk for the stepping scheme.
// `advance` does the same short work whatever the point meets, so that the points of a warp stay together; it
// returns true where it has completed a move. cpab_adjoint.hpp runs the moves backwards.
//
// A Field gives a walk its data: `grid`, `load(cell, record)` copies a cell's record, `map(cell)` points to
// its d (d+1) numbers.

#include <cmath>
#include <cstdint>

#include "kernels/cpab_cells.hpp"
#include "kernels/cpab_exponential.hpp"

namespace cinnabar {

/// Record of a cell. For the stepping scheme: the step S [d, d+1] and its time. For the exact flow: the map,
/// its norm (cpab_norm), and as one number a bit for each face through which points can leave. Padded to
/// whole float4.
template <int D>
struct CpabRecord {
  static constexpr int kTime = D * (D + 1);
  static constexpr int kNorm = kTime;
  static constexpr int kExits = kTime + 1;
  static constexpr int kSize = D == 1 ? 4 : D == 2 ? 8 : 16;
};

template <class T>
struct CpabLimits;
template <>
struct CpabLimits<float> {
  static constexpr float kTolerance = 4e-7f;  ///< how far beyond a face counts as outside, in cells
  static constexpr int kTerms = 10;           ///< of a path over norm * time <= 1: 1 / 11! is 3e-8
  static constexpr int kFewTerms = 6;         ///< up to norm * time = 1/4
  static constexpr float kJump = 1e-5f;       ///< relative difference of velocities that counts as a jump
};
template <>
struct CpabLimits<double> {
  static constexpr double kTolerance = 2e-15;
  static constexpr int kTerms = 18;  ///< 1 / 19! is 8e-18
  static constexpr int kFewTerms = 12;
  static constexpr double kJump = 1e-11;
};

template <int D>
constexpr int kCpabMostExits = D == 1 ? 4095 : 511;
/// Shortest time after which the exact walk begins a new series: 1 over the largest norm it promises, 512.
constexpr double kCpabShortest = 1.0 / 512;

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

/// Fills the record of a cell; `steps` is 0 for the exact flow.
template <class T, int D>
CINNABAR_HD void cpab_prepare(const CpabGrid& grid, std::int32_t cell, int steps, const T* map, T* record) {
  constexpr int kSize = D * (D + 1);
  double wide[kSize];
  for (int i = 0; i < kSize; ++i) wide[i] = static_cast<double>(map[i]);
  for (int i = 0; i < CpabRecord<D>::kSize; ++i) record[i] = i < kSize ? map[i] : T(0);
  if (steps == 0) {
    const std::int32_t box = cell / kCpabCellsPerBox<D>;
    const int parity =
        (box % grid.boxes[0] + box / grid.boxes[0] % grid.boxes[1] + box / grid.boxes[0] / grid.boxes[1]) & 1;
    record[CpabRecord<D>::kNorm] = cpab_norm<T, D>(map);
    record[CpabRecord<D>::kExits] =
        static_cast<T>(cpab_exits<T, D>(D == 3 ? parity : 0, cell % kCpabCellsPerBox<D>, wide));
    return;
  }
  double step[kSize];
  cpab_exponential<D>(wide, 1.0 / steps, step);
  for (int i = 0; i < kSize; ++i) record[i] = static_cast<T>(step[i]);
  record[CpabRecord<D>::kTime] = static_cast<T>(1.0 / steps);
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
  std::int32_t crossing;  ///< 0, or the face at its end (cpab_pack_crossing)
};

/// A face's normal and by how many boxes the point's box changes behind it, each -1, 0 or 1.
template <class T, int D>
CINNABAR_HD std::int32_t cpab_pack_crossing(const T* normal, const std::int32_t* box_change) {
  std::int32_t code = 1;
  CINNABAR_UNROLL
  for (int a = D - 1; a >= 0; --a)
    code = 16 * code + 4 * (box_change[a] + 1) + (normal[a] > T(0) ? 2 : normal[a] < T(0) ? 0 : 1);
  return code;
}

template <class T, int D>
CINNABAR_HD void cpab_unpack_crossing(std::int32_t code, T* normal, T* box_change) {
  CINNABAR_UNROLL
  for (int a = 0; a < D; ++a) {
    normal[a] = static_cast<T>((code & 3) - 1);
    box_change[a] = static_cast<T>((code >> 2 & 3) - 1);
    code >>= 4;
  }
}

/// Goes through a face of the place; returns the packed crossing.
template <class T, int D>
CINNABAR_HD std::int32_t cpab_go_through(const CpabGrid& grid, int face, CpabPlace<D>& place, T* u) {
  const CpabPlace<D> before = place;
  CpabFace<T, D> plane = cpab_face<T, D>(place.parity(), place.type, face);
  if (face > D || !place.inside() || !cpab_cross<T, D>(grid, face, place, u)) {
    CpabArrival<T, D> from{place, {}};
    CINNABAR_UNROLL
    for (int a = 0; a < D; ++a) from.point.u[a] = u[a];
    const CpabArrival<T, D> arrival =
        cpab_cross_outside<T, D>(grid, face, 4 * CpabLimits<T>::kTolerance, from);
    plane = cpab_face_at<T, D>(place, face);
    place = arrival.place;
    CINNABAR_UNROLL
    for (int a = 0; a < D; ++a) u[a] = arrival.point.u[a];
  }
  std::int32_t change[D];
  CINNABAR_UNROLL
  for (int a = 0; a < D; ++a) change[a] = place.box[a] - before.box[a];
  return cpab_pack_crossing<T, D>(plane.normal, change);
}

}  // namespace cinnabar
