#pragma once

#include <array>
#include <cstdint>

#include "engine/host_device.hpp"
#include "kernels/op.hpp"

namespace cinnabar {

/// A window that moves over an image; axes in the order D, H, W. PyTorch's conventions.
struct PoolOptions {
  std::array<std::int64_t, 3> kernel{2, 2, 2};
  std::array<std::int64_t, 3> stride{2, 2, 2};
  std::array<std::int64_t, 3> padding{0, 0, 0};   ///< at most half the kernel
  std::array<std::int64_t, 3> dilation{1, 1, 1};  ///< maximum only
  bool ceil_mode = false;         ///< round the output's extents up; a window must start inside or in front
  bool count_include_pad = true;  ///< average only: padding counts as zeros
  std::int64_t divisor = 0;       ///< average only: divide by this where it is not 0
};

/// Windows of extent^3 voxels side by side, or of extent^2 pixels for 2-D images, which have depth 1.
PoolOptions pool_cubes(std::int64_t extent);
PoolOptions pool_squares(std::int64_t extent);

/// Maximum and average pooling.
///
/// Shapes: input [N, C, D, H, W], output [N, C, Do, Ho, Wo] with pooled_extent() on each axis, indices i32 of
/// the output's shape. Padding never wins a maximum. Of equal maxima the first in scan order (D, H, W) wins,
/// and NaN wins over numbers. An index is d H W + h W + w in the input's volume, -1 where dilation leaves a
/// window nothing. Averages divide by `divisor`, else by the number of voxels of the window, the padding (but
/// nothing beyond it) included or not. Kernels assign their outputs. Gradients gather on CUDA and go channel
/// by channel on the CPU: deterministic. f32 and f64 on the CPU, f32 on CUDA.
struct Pool3d {
  void (*max_forward)(const Tensor& input, const PoolOptions& options, Tensor& output, Tensor& indices);
  /// grad_input[index] sums grad_output over the windows that the voxel won.
  void (*max_backward)(const Tensor& grad_output, const Tensor& indices, const PoolOptions& options,
                       Tensor& grad_input);
  void (*average_forward)(const Tensor& input, const PoolOptions& options, Tensor& output);
  void (*average_backward)(const Tensor& grad_output, const PoolOptions& options, Tensor& grad_input);
};

CINNABAR_OP(Pool3d, pool3d);

/// Extent of the output on one axis: floor or ceil of (in + 2 padding - dilation (kernel - 1) - 1) / stride,
/// plus 1, less a last window that would start beyond the image and its front padding.
std::int64_t pooled_extent(const PoolOptions& options, int axis, std::int64_t in);
Shape pooled_shape(const Shape& input, const PoolOptions& options);

/// first <= i < end.
struct PoolRange {
  std::int32_t first, end;
};

/// Windows along one axis.
struct PoolAxis {
  std::int32_t in, out, kernel, stride, padding, dilation;

  /// First position of window o, possibly before the image.
  CINNABAR_HD std::int32_t start(std::int32_t o) const { return o * stride - padding; }
  /// What of window o lies inside the image: first, first + dilation, ... below end.
  CINNABAR_HD PoolRange inside(std::int32_t o) const {
    const std::int32_t begin = start(o);
    const std::int32_t skipped = begin < 0 ? (-begin + dilation - 1) / dilation : 0;
    const std::int32_t end = begin + dilation * (kernel - 1) + 1;
    return {begin + skipped * dilation, end < in ? end : in};
  }
  /// The windows that could reach voxel i.
  CINNABAR_HD PoolRange windows_over(std::int32_t i) const {
    const std::int32_t reach = i + padding - dilation * (kernel - 1);
    const std::int32_t end = (i + padding) / stride + 1;
    return {reach <= 0 ? 0 : (reach + stride - 1) / stride, end < out ? end : out};
  }
};

/// One call's extents: axes D, H, W.
struct PoolShape {
  PoolAxis axis[3];
  std::int64_t images;  ///< batch times channels
  std::int32_t in_volume, out_volume;
  bool count_include_pad;
  std::int32_t divisor;
};

/// What an average divides by on one axis: the voxels of window o inside the image or inside its padding.
CINNABAR_HD std::int32_t pool_window_size(const PoolAxis& axis, std::int32_t o, bool include_padding) {
  const std::int32_t start = axis.start(o);
  std::int32_t end = start + axis.kernel;
  const std::int32_t limit = axis.in + (include_padding ? axis.padding : 0);
  if (end > limit) end = limit;
  const std::int32_t first = include_padding || start > 0 ? start : 0;
  return end > first ? end - first : 0;
}

/// What the average over a window divides by; 1 where nothing counts.
template <class T>
CINNABAR_HD T pool_divisor(const PoolShape& shape, std::int32_t d, std::int32_t h, std::int32_t w) {
  if (shape.divisor != 0) return static_cast<T>(shape.divisor);
  const bool padded = shape.count_include_pad;
  const std::int32_t count = pool_window_size(shape.axis[0], d, padded) *
                             pool_window_size(shape.axis[1], h, padded) *
                             pool_window_size(shape.axis[2], w, padded);
  return count > 0 ? static_cast<T>(count) : T(1);
}

/// Check all tensors and options and return the extents. `indices` is null for averages. Throw Error.
PoolShape pool_shape(const Tensor& input, const Tensor& output, const Tensor* indices,
                     const PoolOptions& options);

}  // namespace cinnabar
