#include "kernels/pool3d.hpp"

#include <limits>
#include <vector>

namespace cinnabar {

namespace {
constexpr const char* kOp = "pool3d";
}

PoolOptions pool_cubes(std::int64_t extent) {
  PoolOptions options;
  options.kernel = options.stride = {extent, extent, extent};
  return options;
}

PoolOptions pool_squares(std::int64_t extent) {
  PoolOptions options;
  options.kernel = options.stride = {1, extent, extent};
  return options;
}

std::int64_t pooled_extent(const PoolOptions& options, int axis, std::int64_t in) {
  const auto a = static_cast<std::size_t>(axis);
  const std::int64_t stride = options.stride[a];
  const std::int64_t span = in + 2 * options.padding[a] - options.dilation[a] * (options.kernel[a] - 1) - 1;
  if (span < 0) return 0;
  std::int64_t out = (options.ceil_mode ? (span + stride - 1) / stride : span / stride) + 1;
  if ((out - 1) * stride >= in + options.padding[a]) --out;
  return out;
}

Shape pooled_shape(const Shape& input, const PoolOptions& options) {
  CINNABAR_CHECK(input.rank() == 5, kOp, "input must be [N, C, D, H, W], got ", input);
  constexpr std::int64_t kLargest = std::numeric_limits<std::int32_t>::max() / 8;
  Shape shape = input;
  for (int axis = 0; axis < 3; ++axis) {
    const auto a = static_cast<std::size_t>(axis);
    for (const std::int64_t number : {options.kernel[a], options.stride[a], options.dilation[a]}) {
      CINNABAR_CHECK(number >= 1 && number <= (1 << 14), kOp, "kernel, stride and dilation must be 1 to ",
                     1 << 14, ", got ", number);
    }
    CINNABAR_CHECK(options.padding[a] >= 0 && options.padding[a] <= options.kernel[a] / 2, kOp, "padding ",
                   options.padding[a], " is not in 0 to half the kernel ", options.kernel[a]);
    CINNABAR_CHECK(input[axis + 2] >= 1 && input[axis + 2] <= kLargest, kOp, "input ", input,
                   " has an extent out of range");
    const std::int64_t extent = pooled_extent(options, axis, input[axis + 2]);
    CINNABAR_CHECK(extent >= 1, kOp, "no window fits input ", input, " along axis ", axis + 2);
    shape = shape.with(axis + 2, extent);
  }
  return shape;
}

PoolShape pool_shape(const Tensor& input, const Tensor& output, const Tensor* indices,
                     const PoolOptions& options) {
  require_floating(kOp, input);
  require_dtype(kOp, output, input.dtype());
  require_same_device(kOp, input, output);
  const Shape expected = pooled_shape(input.shape(), options);
  CINNABAR_CHECK(output.shape() == expected, kOp, "output must be ", expected, ", got ", output);
  if (indices != nullptr) {
    require_dtype(kOp, *indices, DType::i32);
    require_same_device(kOp, input, *indices);
    require_same_shape(kOp, output, *indices);
  } else {
    for (const std::int64_t dilation : options.dilation) {
      CINNABAR_CHECK(dilation == 1, kOp, "averages take no dilation, got ", dilation);
    }
  }
  constexpr std::int64_t kLargest = std::numeric_limits<std::int32_t>::max();
  CINNABAR_CHECK(options.divisor >= 0 && options.divisor <= kLargest, kOp, "divisor ", options.divisor,
                 " must be positive");
  PoolShape shape{};
  std::int64_t in_volume = 1;
  std::int64_t out_volume = 1;
  for (int axis = 0; axis < 3; ++axis) {
    const auto a = static_cast<std::size_t>(axis);
    const auto narrow = [](std::int64_t number) { return static_cast<std::int32_t>(number); };
    shape.axis[axis] = {narrow(input.shape(axis + 2)), narrow(output.shape(axis + 2)),
                        narrow(options.kernel[a]),     narrow(options.stride[a]),
                        narrow(options.padding[a]),    narrow(options.dilation[a])};
    in_volume *= input.shape(axis + 2);
    out_volume *= output.shape(axis + 2);
  }
  CINNABAR_CHECK(in_volume <= kLargest && out_volume <= kLargest, kOp,
                 "one channel must be below 2^31 voxels, got ", input, " and ", output);
  shape.in_volume = static_cast<std::int32_t>(in_volume);
  shape.out_volume = static_cast<std::int32_t>(out_volume);
  shape.images = input.shape(0) * input.shape(1);
  shape.count_include_pad = options.count_include_pad;
  shape.divisor = static_cast<std::int32_t>(options.divisor);
  return shape;
}

}  // namespace cinnabar
