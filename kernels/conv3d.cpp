#include "kernels/conv3d.hpp"

#include <algorithm>
#include <iterator>

#ifdef CINNABAR_HAS_CUDA
#include "kernels/cuda/conv3d_backends.hpp"
#include "kernels/cuda/vendor/cudnn.hpp"
#endif

namespace cinnabar {

namespace {

constexpr const char* kOp = "conv3d";
constexpr std::int64_t kLargest = 1 << 28;  // of any extent or option, so that sums stay in 32 bits

void check_options(const Shape& image, const Shape& weight, const Conv3dOptions& options) {
  CINNABAR_CHECK(image.rank() == 5 && weight.rank() == 5, kOp,
                 "needs an image [N, C, D, H, W] and a weight [O, C / groups, kD, kH, kW], got ", image,
                 " and ", weight);
  CINNABAR_CHECK(image[1] >= 1 && weight.numel() > 0, kOp, "needs channels and taps, got ", image,
                 " and weight ", weight);
  CINNABAR_CHECK(options.groups >= 1 && weight[0] % options.groups == 0, kOp, options.groups,
                 " groups do not divide weight ", weight);
  for (std::size_t i = 0; i < 3; ++i) {
    const std::int64_t kernel = weight[static_cast<int>(i) + 2];
    CINNABAR_CHECK(options.stride[i] >= 1 && options.dilation[i] >= 1 && options.padding[i] >= 0, kOp,
                   "stride ", options.stride[i], ", dilation ", options.dilation[i], ", padding ",
                   options.padding[i], " on axis ", i, " are not possible");
    CINNABAR_CHECK(options.stride[i] < kLargest && options.dilation[i] < kLargest &&
                       options.padding[i] < kLargest && kernel < kLargest &&
                       image[static_cast<int>(i) + 2] < kLargest,
                   kOp, "an extent or option is too large: ", image, " and weight ", weight);
  }
}

/// Positions the kernel has on an axis of the padded input; 0 or less where it does not fit.
std::int64_t positions(std::int64_t in, std::int64_t kernel, const Conv3dOptions& options, std::size_t axis) {
  const std::int64_t room = in + 2 * options.padding[axis] - options.dilation[axis] * (kernel - 1) - 1;
  return room < 0 ? 0 : room / options.stride[axis] + 1;
}

}  // namespace

Shape conv3d_output_shape(const Shape& input, const Shape& weight, const Conv3dOptions& options) {
  check_options(input, weight, options);
  CINNABAR_CHECK(input[1] == weight[1] * options.groups, kOp, "input ", input, " does not fit weight ",
                 weight, " in ", options.groups, " groups");
  Shape output = input.with(1, weight[0]);
  for (int axis = 2; axis < 5; ++axis) {
    const std::int64_t extent =
        positions(input[axis], weight[axis], options, static_cast<std::size_t>(axis - 2));
    CINNABAR_CHECK(extent >= 1, kOp, "weight ", weight, " does not fit into the padded input ", input);
    output = output.with(axis, extent);
  }
  return output;
}

Shape conv_transpose3d_output_shape(const Shape& input, const Shape& weight, const Conv3dOptions& options,
                                    const std::array<std::int64_t, 3>& output_padding) {
  check_options(input, weight, options);
  CINNABAR_CHECK(input[1] == weight[0], "conv_transpose3d", "input ", input, " does not fit weight ", weight);
  Shape output = input.with(1, weight[1] * options.groups);
  for (std::size_t i = 0; i < 3; ++i) {
    const int axis = static_cast<int>(i) + 2;
    const std::int64_t extra = output_padding[i];
    CINNABAR_CHECK(extra >= 0 && (extra < options.stride[i] || extra < options.dilation[i]),
                   "conv_transpose3d", "output padding ", extra, " must be below the stride or the dilation");
    const std::int64_t extent = (input[axis] - 1) * options.stride[i] - 2 * options.padding[i] +
                                options.dilation[i] * (weight[axis] - 1) + extra + 1;
    CINNABAR_CHECK(input[axis] >= 1 && extent >= 1, "conv_transpose3d", "no output is left of input ", input,
                   " and weight ", weight);
    output = output.with(axis, extent);
  }
  return output;
}

Conv3dShape conv3d_shape(const Tensor& input, const Tensor& weight, const Tensor& output,
                         const Conv3dOptions& options) {
  const Shape largest = conv3d_output_shape(input.shape(), weight.shape(), options);
  CINNABAR_CHECK(output.rank() == 5 && output.shape(0) == largest[0] && output.shape(1) == largest[1], kOp,
                 "output ", output, " does not fit input ", input, " and weight ", weight);
  require_floating(kOp, input);
  require_dtype(kOp, weight, input.dtype());
  require_dtype(kOp, output, input.dtype());
  require_same_device(kOp, input, weight);
  require_same_device(kOp, input, output);
  CINNABAR_CHECK(options.precision == Conv3dPrecision::fp32 || input.dtype() == DType::f32, kOp,
                 "rounds operands of f32 only, got ", input, " with a precision other than fp32");
  Conv3dShape shape;
  shape.batch = input.shape(0);
  shape.groups = options.groups;
  shape.in_channels = weight.shape(1);
  shape.out_channels = weight.shape(0) / options.groups;
  for (std::size_t i = 0; i < 3; ++i) {
    const int axis = static_cast<int>(i) + 2;
    CINNABAR_CHECK(output.shape(axis) >= 1 && output.shape(axis) <= largest[axis], kOp, "output ", output,
                   " has more positions than ", largest);
    const auto narrow = [](std::int64_t value) { return static_cast<std::int32_t>(value); };
    shape.axis[i] = {narrow(input.shape(axis)), narrow(output.shape(axis)), narrow(weight.shape(axis)),
                     narrow(options.stride[i]), narrow(options.padding[i]), narrow(options.dilation[i])};
  }
  return shape;
}

bool conv3d_has_backend(Device device, Conv3dBackend backend, [[maybe_unused]] Conv3dPrecision precision) {
  switch (backend) {
    case Conv3dBackend::reference:
    case Conv3dBackend::gemm:
      return device.is_cpu();
    case Conv3dBackend::mma:
#ifdef CINNABAR_HAS_CUDA
      return device.is_cuda() && cuda::conv3d_has_mma(device, precision);
#else
      return false;
#endif
    case Conv3dBackend::cudnn:
#ifdef CINNABAR_HAS_CUDA
      return device.is_cuda() && cuda::vendor::has_cudnn();
#else
      return false;
#endif
    default:
      return true;
  }
}

bool conv3d_is_eligible(Conv3dBackend backend, Device device, const Conv3dShape& shape) {
  const bool cpu_direct = backend == Conv3dBackend::direct && device.is_cpu();
  if (backend != Conv3dBackend::fft && !cpu_direct) return true;
  return std::all_of(std::begin(shape.axis), std::end(shape.axis), [&](const Conv3dAxis& axis) {
    return axis.stride == 1 && axis.dilation == 1 && (!cpu_direct || axis.padding < axis.kernel);
  });
}

}  // namespace cinnabar
