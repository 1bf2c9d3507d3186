#pragma once

#include <cstdint>

#include "kernels/cpu/lattice.hpp"
#include "kernels/trilinear.hpp"

namespace cinnabar::cpu {

/// Finds cells along one axis; voxel_of(i) is the index of voxel i on it. `inside` is and-ed, 1 or 0. A loop
/// per axis with plain arrays is the form that GCC vectorises.
template <Boundary kBoundary, class T, class VoxelOf>
inline void locate_axis(const T* u, std::int64_t count, std::int64_t extent, const VoxelOf& voxel_of,
                        std::int32_t* cell, T* fraction, T* slope, std::int32_t* inside) {
  const auto length = static_cast<std::int32_t>(extent);
#pragma GCC ivdep
  for (std::int64_t i = 0; i < count; ++i) {
    const auto at = bounded_cell<kBoundary>(displaced_cell(voxel_of(i), u[i]), length);
    cell[i] = at.cell;
    fraction[i] = at.fraction;
    slope[i] = at.slope;
    inside[i] &= at.inside;
  }
}

/// Cells, fractions and slopes of up to kLength voxels of a row, found before the samples are gathered one by
/// one. Needs 32-bit offsets into the lattice.
template <class T>
struct PlaceRow {
  static constexpr std::int64_t kLength = 64;

  std::int32_t offset[kLength];
  T fraction[3][kLength];
  T slope[3][kLength];
  std::int32_t inside[kLength];

  Place<T> operator[](std::int64_t i) const {
    return {offset[i], fraction[0][i], fraction[1][i], fraction[2][i]};
  }

  /// The value of a voxel that is not inside: zero, or NaN where the displacement is.
  T outside_value(std::int64_t i) const {
    const T sum = fraction[0][i] + fraction[1][i] + fraction[2][i];
    return sum == sum ? T(0) : sum;
  }

  /// Places voxels (x_of(i), y, z), i < count, displaced by (ux[i], uy[i], uz[i]). `lattice` is any of the
  /// lattices to be sampled.
  template <Boundary kBoundary, int kLanes, class VoxelOf>
  void locate(const Lattice<T, kLanes>& lattice, const VoxelOf& x_of, std::int64_t y, std::int64_t z,
              const T* ux, const T* uy, const T* uz, std::int64_t count) {
    std::int32_t cell[3][kLength];
    for (std::int64_t i = 0; i < count; ++i) inside[i] = 1;
    const auto at_y = [y](std::int64_t) { return static_cast<std::int32_t>(y); };
    const auto at_z = [z](std::int64_t) { return static_cast<std::int32_t>(z); };
    locate_axis<kBoundary>(ux, count, lattice.width(), x_of, cell[0], fraction[0], slope[0], inside);
    locate_axis<kBoundary>(uy, count, lattice.height(), at_y, cell[1], fraction[1], slope[1], inside);
    locate_axis<kBoundary>(uz, count, lattice.depth(), at_z, cell[2], fraction[2], slope[2], inside);
    const auto row = static_cast<std::int32_t>(lattice.row());
    const auto plane = static_cast<std::int32_t>(lattice.plane());
#pragma GCC ivdep
    for (std::int64_t i = 0; i < count; ++i) {
      // Cells that are not inside may be anywhere; their offset must not overflow.
      const std::int32_t mask = -inside[i];
      offset[i] =
          ((cell[2][i] + 1) & mask) * plane + ((cell[1][i] + 1) & mask) * row + ((cell[0][i] + 1) & mask);
    }
  }

  /// Whether all of the first `count` voxels are inside.
  bool all_inside(std::int64_t count) const {
    std::int32_t all = 1;
    for (std::int64_t i = 0; i < count; ++i) all &= inside[i];
    return all != 0;
  }
};

}  // namespace cinnabar::cpu
