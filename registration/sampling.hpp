#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>

#include "registration/matrix4.hpp"

namespace cinnabar::registration {

/// Where a position in voxel coordinates lies in a grid: the eight neighbours and their weights. ITK's rule:
/// the grid reaches half a voxel beyond the outer centres (upper end excluded), and in that margin the outer
/// voxels are repeated.
struct Neighbours {
  std::array<std::int64_t, 8> index;
  std::array<double, 8> weight;
};

/// Position of the voxel with an index in memory order.
inline Point voxel_position(const std::array<std::int64_t, 3>& extent, std::int64_t index) {
  const std::int64_t x = index % extent[0];
  const std::int64_t y = index / extent[0] % extent[1];
  const std::int64_t z = index / (extent[0] * extent[1]);
  return {static_cast<double>(x), static_cast<double>(y), static_cast<double>(z)};
}

inline bool is_inside(const std::array<std::int64_t, 3>& extent, const Point& voxel) {
  // Written so that NaN is outside.
  return voxel[0] >= -0.5 && voxel[0] < static_cast<double>(extent[0]) - 0.5 && voxel[1] >= -0.5 &&
         voxel[1] < static_cast<double>(extent[1]) - 0.5 && voxel[2] >= -0.5 &&
         voxel[2] < static_cast<double>(extent[2]) - 0.5;
}

/// Needs `is_inside`.
inline Neighbours neighbours(const std::array<std::int64_t, 3>& extent, const Point& voxel) {
  std::array<std::int64_t, 3> lower{}, upper{};
  Point fraction{};
  for (std::size_t axis = 0; axis < 3; ++axis) {
    const double below = std::floor(voxel[axis]);
    const auto cell = static_cast<std::int64_t>(below);
    fraction[axis] = voxel[axis] - below;
    lower[axis] = std::max<std::int64_t>(cell, 0);
    upper[axis] = std::min<std::int64_t>(cell + 1, extent[axis] - 1);
  }
  Neighbours result{};
  for (std::size_t corner = 0; corner < 8; ++corner) {
    const bool up_x = (corner & 1) != 0, up_y = (corner & 2) != 0, up_z = (corner & 4) != 0;
    const std::int64_t x = up_x ? upper[0] : lower[0];
    const std::int64_t y = up_y ? upper[1] : lower[1];
    const std::int64_t z = up_z ? upper[2] : lower[2];
    result.index[corner] = (z * extent[1] + y) * extent[0] + x;
    result.weight[corner] = (up_x ? fraction[0] : 1.0 - fraction[0]) *
                            (up_y ? fraction[1] : 1.0 - fraction[1]) *
                            (up_z ? fraction[2] : 1.0 - fraction[2]);
  }
  return result;
}

/// Index of the voxel whose centre is nearest; halves go up. Needs `is_inside`.
inline std::int64_t nearest_index(const std::array<std::int64_t, 3>& extent, const Point& voxel) {
  const auto x = static_cast<std::int64_t>(std::floor(voxel[0] + 0.5));
  const auto y = static_cast<std::int64_t>(std::floor(voxel[1] + 0.5));
  const auto z = static_cast<std::int64_t>(std::floor(voxel[2] + 0.5));
  return (z * extent[1] + y) * extent[0] + x;
}

template <class T>
double weighted_sum(const Neighbours& at, const T* values) {
  double sum = 0.0;
  for (std::size_t corner = 0; corner < 8; ++corner) {
    sum += at.weight[corner] * static_cast<double>(values[at.index[corner]]);
  }
  return sum;
}

}  // namespace cinnabar::registration
