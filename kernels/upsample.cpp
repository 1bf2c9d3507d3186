#include "kernels/upsample.hpp"

#include <limits>

namespace cinnabar {

namespace {

ResizeAxis resize_axis(std::int64_t in, std::int64_t out, double factor, const UpsampleOptions& options) {
  ResizeAxis axis;
  axis.in = static_cast<std::int32_t>(in);
  axis.out = static_cast<std::int32_t>(out);
  axis.nearest = options.interpolation == Interpolation::nearest;
  axis.align_corners = options.align_corners && !axis.nearest;
  if (in == out) {
    axis.scale = 1.0;
  } else if (axis.align_corners) {
    axis.scale = out > 1 ? static_cast<double>(in - 1) / static_cast<double>(out - 1) : 0.0;
  } else if (axis.nearest && out == 2 * in) {
    axis.scale = 0.5;
  } else {
    axis.scale = factor > 0.0 ? 1.0 / factor : static_cast<double>(in) / static_cast<double>(out);
  }
  return axis;
}

}  // namespace

std::array<ResizeAxis, 3> resize_axes(const Tensor& input, const Tensor& output,
                                      const UpsampleOptions& options) {
  constexpr const char* kOp = "upsample";
  const int rank = input.rank();
  CINNABAR_CHECK(rank == 4 || rank == 5, kOp, "input must be [N, C, (D,) H, W], got ", input);
  CINNABAR_CHECK(
      output.rank() == rank && output.shape(0) == input.shape(0) && output.shape(1) == input.shape(1), kOp,
      "output ", output, " does not fit input ", input);
  require_floating(kOp, input);
  require_dtype(kOp, output, input.dtype());
  require_same_device(kOp, input, output);
  std::array<ResizeAxis, 3> axes;
  for (int axis = 0; axis < rank - 2; ++axis) {
    const std::int64_t in = input.shape(-1 - axis);
    const std::int64_t out = output.shape(-1 - axis);
    const double factor = options.factor[static_cast<std::size_t>(axis)];
    constexpr std::int64_t kLargest = std::numeric_limits<std::int32_t>::max() / 4;
    CINNABAR_CHECK(in >= 1 && out >= 1 && in <= kLargest && out <= kLargest, kOp,
                   "spatial extents must be at least 1, got ", input, " and ", output);
    CINNABAR_CHECK(factor >= 0.0 && factor < 1e9, kOp, "scale factor ", factor, " must be positive");
    axes[static_cast<std::size_t>(axis)] = resize_axis(in, out, factor, options);
  }
  return axes;
}

}  // namespace cinnabar
