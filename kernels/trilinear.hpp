#pragma once

#include <cmath>
#include <cstdint>
#include <type_traits>

#include "engine/host_device.hpp"

namespace cinnabar {

/// What lies outside the grid.
enum class Boundary {
  zeros,       ///< each corner outside counts as zero (torch "zeros", PyCA PARTIAL_ZERO)
  border,      ///< corner indices are clamped (torch "border", PyCA CLAMP)
  reflection,  ///< positions are mirrored at the faces (torch "reflection")
};

/// Cell and fraction of one axis: the position is cell + fraction with fraction in [0, 1]; exactly 1 only
/// where a tiny negative displacement rounds up to it.
template <class T>
struct AxisCell {
  std::int32_t cell;
  T fraction;
};

/// Cell of the position voxel + displacement. Taking the floor of the displacement alone keeps every bit of
/// its fraction on large grids. Displacements beyond +-2^30 count as 2^30, NaN stays in the fraction. Made of
/// selects only, so a loop over a row vectorises.
template <class T>
CINNABAR_HD AxisCell<T> displaced_cell(std::int32_t voxel, T displacement) {
  constexpr T kFar = static_cast<T>(1 << 30);
  const T whole = std::floor(displacement);
  const T at_least = whole >= -kFar ? whole : -kFar;
  const T bounded = at_least <= kFar ? at_least : kFar;
  const T finite = displacement == displacement ? bounded : T(0);
  const T fraction = displacement - finite;
  return {voxel + static_cast<std::int32_t>(finite), fraction > T(1) || fraction < T(0) ? T(0) : fraction};
}

/// A cell after the boundary rule: its lower corner is in [-1, extent - 1], corners -1 and extent count as
/// zero. `slope` is d fraction / d displacement: 1, 0 where the rule holds the position, -1 where it mirrors.
/// Not `inside`: both corners are outside and the sample is zero (NaN if the displacement is).
template <class T>
struct BoundedCell {
  std::int32_t cell;
  T fraction;
  T slope;
  std::int32_t inside;  ///< 1 or 0; a bool here keeps GCC 12 from vectorising
};

/// Applies a boundary rule along an axis. Mirrors lie at the outermost voxel centres (torch's
/// align_corners = true).
template <Boundary kBoundary, class T>
CINNABAR_HD BoundedCell<T> bounded_cell(const AxisCell<T>& at, std::int32_t extent) {
  if constexpr (kBoundary == Boundary::zeros) {
    const auto from_rim = static_cast<std::uint32_t>(at.cell + 1);
    return {at.cell, at.fraction, T(1), from_rim <= static_cast<std::uint32_t>(extent) ? 1 : 0};
  } else if constexpr (kBoundary == Boundary::border) {
    const std::int32_t not_high = at.cell < extent - 1 ? at.cell : extent - 1;
    // One comparison holds both ends: a negative cell is a large unsigned number.
    const bool held = static_cast<std::uint32_t>(at.cell) >= static_cast<std::uint32_t>(extent - 1);
    // The difference is 0, or NaN for a NaN.
    return {not_high > 0 ? not_high : 0, held ? at.fraction - at.fraction : at.fraction, held ? T(0) : T(1),
            1};
  } else {
    if (extent == 1) return {0, at.fraction - at.fraction, T(0), 1};
    const std::int32_t period = 2 * (extent - 1);
    const std::int32_t remainder = at.cell % period;
    const std::int32_t cell = remainder < 0 ? remainder + period : remainder;
    if (cell < extent - 1) return {cell, at.fraction, T(1), 1};
    return {period - cell - 1, T(1) - at.fraction, T(-1), 1};
  }
}

/// Calls fn with a `std::integral_constant` of the boundary.
template <class Function>
decltype(auto) dispatch_boundary(Boundary boundary, Function&& fn) {
  switch (boundary) {
    case Boundary::border:
      return fn(std::integral_constant<Boundary, Boundary::border>{});
    case Boundary::reflection:
      return fn(std::integral_constant<Boundary, Boundary::reflection>{});
    default:
      return fn(std::integral_constant<Boundary, Boundary::zeros>{});
  }
}

}  // namespace cinnabar
