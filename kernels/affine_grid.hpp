#pragma once

#include "engine/host_device.hpp"
#include "kernels/op.hpp"

namespace cinnabar {

/// Normalised sampling grids of affine maps (Jaderberg et al., "Spatial transformer networks", NIPS 2015,
/// eq. 1, with the conventions of PyTorch's affine_grid): grid(p) = theta [x y (z) 1]^T.
///
/// Shapes: theta [N, 2, 3] with grid [N, H, W, 2], or theta [N, 3, 4] with grid [N, D, H, W, 3]; the last
/// axis is x, y(, z). Base coordinates run from -1 to 1 over the voxel centres (align_corners) or over the
/// outer faces (otherwise); on an axis of one voxel they are 0 either way. Kernels assign their outputs and
/// are deterministic.
struct AffineGrid {
  void (*forward)(const Tensor& theta, bool align_corners, Tensor& grid);
  /// grad_theta(r, c) = sum over p of grad_grid(p, r) base(p, c), added in float64 in a fixed order.
  void (*backward)(const Tensor& grad_grid, bool align_corners, Tensor& grad_theta);
};

CINNABAR_OP(AffineGrid, affine_grid);

/// Checks theta against grid (or their gradients) and returns the number of axes. Throws Error.
int affine_grid_dims(const Tensor& theta, const Tensor& grid);

/// Base coordinate of voxel i of an axis. The numerator is exact, so one rounding remains.
template <class T>
CINNABAR_HD T base_coordinate(std::int64_t i, std::int64_t size, bool align_corners) {
  if (size == 1) return T(0);
  if (align_corners) return static_cast<T>(2 * i - (size - 1)) / static_cast<T>(size - 1);
  return static_cast<T>(2 * i + 1 - size) / static_cast<T>(size);
}

/// The same from 0 to 1; 0.5 on an axis of one voxel.
template <class T>
CINNABAR_HD T unit_coordinate(std::int64_t i, std::int64_t size, bool align_corners) {
  if (size == 1) return T(0.5);
  if (align_corners) return static_cast<T>(i) / static_cast<T>(size - 1);
  return static_cast<T>(2 * i + 1) / static_cast<T>(2 * size);
}

}  // namespace cinnabar
