#pragma once

#include <cmath>
#include <cstdint>

#include "engine/host_device.hpp"
#include "kernels/trilinear.hpp"

namespace cinnabar {

/// Where a normalised coordinate falls on one axis. `slope` is d position / d coordinate.
template <class T>
struct GridPosition {
  T position;
  T slope;
};

/// A product rounded on its own. nvcc would fuse it with the subtraction that follows, and a point that lies
/// on a face on the CPU would then lie beside it on the GPU.
CINNABAR_HD float rounded_product(float a, float b) {
#ifdef __CUDA_ARCH__
  return __fmul_rn(a, b);
#else
  return a * b;
#endif
}
CINNABAR_HD double rounded_product(double a, double b) {
  return a * b;
}

/// Voxel position of a coordinate in [-1, 1]: with align_corners -1 and 1 are the centres of the outer
/// voxels, without it they are the outer faces.
template <class T>
CINNABAR_HD GridPosition<T> voxel_position(T coordinate, std::int32_t size, bool align_corners) {
  const T extent = static_cast<T>(size);
  if (align_corners) {
    return {rounded_product((coordinate + T(1)) * T(0.5), extent - T(1)), (extent - T(1)) * T(0.5)};
  }
  return {(rounded_product(coordinate + T(1), extent) - T(1)) * T(0.5), extent * T(0.5)};
}

/// Clamps to the voxel centres 0..size-1. The slope is zero at and beyond them.
template <class T>
CINNABAR_HD GridPosition<T> clamped_position(GridPosition<T> at, std::int32_t size) {
  const T last = static_cast<T>(size - 1);
  const T position = at.position <= T(0) ? T(0) : at.position;
  return {position >= last ? last : position, at.position <= T(0) || at.position >= last ? T(0) : at.slope};
}

/// Mirrors at the outer voxel centres (align_corners) or outer faces (otherwise), as often as needed.
template <class T>
CINNABAR_HD GridPosition<T> reflected_position(GridPosition<T> at, std::int32_t size, bool align_corners) {
  const T low = align_corners ? T(0) : T(-0.5);
  const T span = static_cast<T>(align_corners ? size - 1 : size);
  if (span == T(0)) return {T(0), T(0)};
  T distance = at.position - low;
  T sign = T(1);
  if (distance < T(0)) {
    distance = -distance;
    sign = T(-1);
  }
  const T remainder = std::fmod(distance, span);
  const T flips = std::floor(distance / span);
  const bool even = flips - T(2) * std::floor(flips * T(0.5)) == T(0);
  if (even) return {remainder + low, at.slope * sign};
  return {span - remainder + low, -at.slope * sign};
}

template <class T>
CINNABAR_HD GridPosition<T> bounded_position(T coordinate, std::int32_t size, Boundary boundary,
                                             bool align_corners) {
  const GridPosition<T> at = voxel_position(coordinate, size, align_corners);
  if (boundary == Boundary::zeros) return at;
  if (boundary == Boundary::border) return clamped_position(at, size);
  return clamped_position(reflected_position(at, size, align_corners), size);
}

/// Cell and fraction of a position. Positions beyond +-2^30 count as 2^30; a NaN stays in the fraction, with
/// cell 0. Free of branches, so that loops over it vectorise.
template <class T>
CINNABAR_HD AxisCell<T> cell_at(T position) {
  constexpr T kFar = static_cast<T>(1 << 30);
  position = position > kFar ? kFar : position;
  position = position < -kFar ? -kFar : position;
  const T whole = std::floor(position);
  return {static_cast<std::int32_t>(whole == whole ? whole : T(0)), position - whole};
}

/// The nearest voxel, half positions to the even one; the fraction is 0, or NaN at a NaN position.
template <class T>
CINNABAR_HD AxisCell<T> nearest_at(T position) {
  const AxisCell<T> found = cell_at(std::rint(position));
  return {found.cell, found.fraction == found.fraction ? T(0) : found.fraction};
}

}  // namespace cinnabar
