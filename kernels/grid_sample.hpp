#pragma once

#include "kernels/op.hpp"
#include "kernels/trilinear.hpp"

namespace cinnabar {

enum class Interpolation {
  linear,   ///< bilinear in 2-D, trilinear in 3-D
  nearest,  ///< half positions go to the even voxel; no gradient for the grid
};

struct GridSampleOptions {
  Interpolation interpolation = Interpolation::linear;
  Boundary boundary = Boundary::zeros;
  bool align_corners = false;
};

/// Sampling at normalised coordinates (Jaderberg et al., "Spatial transformer networks", NIPS 2015, eq. 3 to
/// 7, with the conventions of PyTorch's grid_sample).
///
/// Shapes: input [N, C, H, W] with grid [N, Ho, Wo, 2], or input [N, C, D, H, W] with grid
/// [N, Do, Ho, Wo, 3]; output [N, C, Ho, Wo] or [N, C, Do, Ho, Wo]. The last axis of the grid is x, y(, z),
/// -1 to 1 over the image along W, H(, D). Spatial extents are at least 1.
///
/// zeros: every corner outside counts as zero. border: positions are clamped to the outer voxel centres.
/// reflection: mirrored there (align_corners) or at the outer faces, then clamped. At a kink the slope is
/// that of the cell above; where a position is clamped, centres included, it is zero. A NaN coordinate gives
/// a NaN output and a NaN grid gradient, and adds nothing to the input's gradient.
///
/// All kernels assign their outputs and are deterministic: the same bits for any number of threads.
struct GridSample {
  void (*forward)(const Tensor& input, const Tensor& grid, const GridSampleOptions& options, Tensor& output);
  /// The transpose in the input. The CPU sorts points by slab of the input and adds in the order of points.
  /// CUDA adds in 64-bit fixed point, whose power-of-two unit follows from max |grad_output| and the number
  /// of points: at most 2^-38 of the maximum at 2^24 points. A NaN or infinity in grad_output makes the whole
  /// grad_input NaN there.
  void (*backward_input)(const Tensor& grad_output, const Tensor& grid, const GridSampleOptions& options,
                         Tensor& grad_input);
  /// d output / d grid. All zero for Interpolation::nearest.
  void (*backward_grid)(const Tensor& grad_output, const Tensor& input, const Tensor& grid,
                        const GridSampleOptions& options, Tensor& grad_grid);
};

CINNABAR_OP(GridSample, grid_sample);

/// Extents of one call with 2-D written as depth 1, checked against each other.
struct GridSampleShape {
  int dims = 0;  ///< 2 or 3
  std::int64_t batch = 0;
  std::int64_t channels = 0;
  std::int32_t extent[3] = {1, 1, 1};  ///< of the input along x, y, z
  std::int64_t volume = 0;             ///< voxels of the input in one channel
  std::int64_t points = 0;             ///< sampled points in one batch entry
};

/// Checks ranks, extents, dtypes and devices of input, grid and output (or their gradients). Throws Error.
GridSampleShape grid_sample_shape(const Tensor& input, const Tensor& grid, const Tensor& output);

}  // namespace cinnabar
