#pragma once

#include <cmath>

#include "registration/geometry.hpp"

namespace cinnabar::testing {

/// Voxel axes turned by three Euler angles (radians) with the given spacing; a negative spacing mirrors the
/// axis, so one or three of them make a left-handed grid.
inline registration::Geometry oblique_grid(const std::array<std::int64_t, 3>& extent,
                                           const registration::Point& spacing,
                                           const registration::Point& angles,
                                           const registration::Point& origin) {
  const double cx = std::cos(angles[0]), sx = std::sin(angles[0]);
  const double cy = std::cos(angles[1]), sy = std::sin(angles[1]);
  const double cz = std::cos(angles[2]), sz = std::sin(angles[2]);
  const registration::Matrix4 x{1, 0, 0, 0, 0, cx, -sx, 0, 0, sx, cx, 0, 0, 0, 0, 1};
  const registration::Matrix4 y{cy, 0, sy, 0, 0, 1, 0, 0, -sy, 0, cy, 0, 0, 0, 0, 1};
  const registration::Matrix4 z{cz, -sz, 0, 0, sz, cz, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1};
  registration::Geometry grid = registration::axis_aligned_grid(extent, spacing, {0, 0, 0});
  grid.voxel_to_world =
      registration::multiply(z, registration::multiply(y, registration::multiply(x, grid.voxel_to_world)));
  for (std::size_t row = 0; row < 3; ++row) grid.voxel_to_world[row * 4 + 3] = origin[row];
  return grid;
}

/// Oblique, anisotropic and left-handed at once.
inline registration::Geometry awkward_grid() {
  return oblique_grid({9, 7, 5}, {-1.5, 0.8, 2.5}, {0.3, -0.4, 0.7}, {31.25, -17.5, 8.75});
}

}  // namespace cinnabar::testing
