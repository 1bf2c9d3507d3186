#pragma once

#include <array>

#include "kernels/grid_sample.hpp"
#include "kernels/op.hpp"

namespace cinnabar {

/// Resizing of images and fields, with the conventions of PyTorch's interpolate.
///
/// Shapes: input [N, C, H, W] or [N, C, D, H, W], output with the same N and C and any extents of at least 1.
/// Source position of output i on an axis of n to m voxels, with s = 1 / factor where a factor is given and
/// n / m otherwise:
///   linear, align_corners:  i (n - 1) / (m - 1), 0 where m = 1
///   linear, otherwise:      max(0, (i + 1/2) s - 1/2), the neighbour above clamped to n - 1
///   nearest:                voxel min(floor(i s), n - 1), the product in float32 as in PyTorch
/// Linear weights are computed in float64 once per axis, so they do not lose accuracy on large grids. There
/// is no smoothing before shrinking: compose with gaussian_smooth for that. Kernels assign their outputs; the
/// gradient gathers and is deterministic.
struct UpsampleOptions {
  Interpolation interpolation = Interpolation::linear;
  bool align_corners = false;
  std::array<double, 3> factor{0, 0, 0};  ///< given scale factor along x, y, z; 0: from the extents
};

struct Upsample {
  void (*forward)(const Tensor& input, const UpsampleOptions& options, Tensor& output);
  /// The transpose of forward.
  void (*backward)(const Tensor& grad_output, const UpsampleOptions& options, Tensor& grad_input);
};

CINNABAR_OP(Upsample, upsample);

/// One axis of a resize.
struct ResizeAxis {
  std::int32_t in = 1;
  std::int32_t out = 1;
  double scale = 1.0;  ///< source voxels per output voxel
  bool align_corners = false;
  bool nearest = false;
};

/// What an output voxel reads on one axis: (1 - weight) input[low] + weight input[high].
struct ResizeSource {
  std::int32_t low;
  std::int32_t high;
  double weight;
};

CINNABAR_HD ResizeSource resize_source(const ResizeAxis& axis, std::int32_t i) {
  if (axis.nearest) {
    const float position = static_cast<float>(i) * static_cast<float>(axis.scale);
    const auto voxel = static_cast<std::int32_t>(position);
    const std::int32_t index = voxel < axis.in - 1 ? voxel : axis.in - 1;
    return {index, index, 0.0};
  }
  double position = axis.align_corners ? i * axis.scale : (i + 0.5) * axis.scale - 0.5;
  if (position < 0.0) position = 0.0;
  std::int32_t low = static_cast<std::int32_t>(position);
  if (low > axis.in - 1) low = axis.in - 1;
  const double weight = position - low;
  return {low, low < axis.in - 1 ? low + 1 : low, weight < 1.0 ? weight : 1.0};
}

/// Outputs first..last may read a voxel; it is an upper bound, found without a search.
struct ResizeTargets {
  std::int32_t first;
  std::int32_t last;
};

CINNABAR_HD ResizeTargets resize_targets(const ResizeAxis& axis, std::int32_t voxel) {
  if (axis.scale <= 0.0) return {0, axis.out - 1};
  const double shift = axis.nearest || axis.align_corners ? 0.0 : 0.5;
  const double below = (voxel - 1 + shift) / axis.scale - shift - 1.0;
  const double above = (voxel + 1 + shift) / axis.scale - shift + 1.0;
  const std::int32_t end = axis.out - 1;
  // Positions beyond the outer voxels are clamped to them, however far they lie.
  const bool from_start = voxel == 0 || below <= 0.0;
  const bool to_end = voxel == axis.in - 1 || above >= end;
  return {from_start     ? 0
          : below >= end ? end
                         : static_cast<std::int32_t>(below),
          to_end ? end : static_cast<std::int32_t>(above)};
}

/// Weight with which one source reads a voxel.
template <class T>
CINNABAR_HD T resize_weight(std::int32_t low, std::int32_t high, T weight, std::int32_t voxel) {
  return (low == voxel ? T(1) - weight : T(0)) + (high == voxel ? weight : T(0));
}

/// Checks both tensors and returns the axes x, y, z; 2-D has depth 1. Throws Error.
std::array<ResizeAxis, 3> resize_axes(const Tensor& input, const Tensor& output,
                                      const UpsampleOptions& options);

}  // namespace cinnabar
