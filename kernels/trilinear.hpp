#pragma once

#include <cmath>
#include <cstdint>

#include "engine/host_device.hpp"

namespace cinnabar {

/// What lies outside the grid.
enum class Boundary {
  zeros,       ///< each corner outside counts as zero (torch "zeros", PyCA PARTIAL_ZERO)
  border,      ///< corner indices are clamped (torch "border", PyCA CLAMP)
  reflection,  ///< positions are mirrored at the faces (torch "reflection")
};

/// Cell and fraction of one axis: the position is cell + fraction with fraction in [0, 1).
template <class T>
struct AxisCell {
  std::int32_t cell;
  T fraction;
};

/// Cell of the position voxel + displacement. Taking the floor of the displacement alone keeps every bit of
/// its fraction on large grids. Displacements beyond +-2^30 count as 2^30, NaN stays in the fraction.
template <class T>
CINNABAR_HD AxisCell<T> displaced_cell(std::int32_t voxel, T displacement) {
  constexpr T kFar = static_cast<T>(1 << 30);
  const T whole = std::floor(displacement);
  if (whole >= -kFar && whole <= kFar)
    return {voxel + static_cast<std::int32_t>(whole), displacement - whole};
  if (whole > kFar) return {1 << 30, T(0)};
  if (whole < -kFar) return {-(1 << 30), T(0)};
  return {voxel, displacement};  // NaN
}

}  // namespace cinnabar
