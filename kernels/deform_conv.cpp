#include "kernels/deform_conv.hpp"

#include <limits>

namespace cinnabar {

namespace {

constexpr const char* kOp = "deform_conv";

void check_ranks(const Shape& input, const Shape& weight) {
  CINNABAR_CHECK((input.rank() == 4 || input.rank() == 5) && weight.rank() == input.rank(), kOp,
                 "needs an image [N, C, (D,) H, W] and a weight [O, C / groups, (kD,) kH, kW], got ", input,
                 " and ", weight);
}

/// [N, C, H, W] as [N, C, 1, H, W].
Shape with_depth(const Shape& shape) {
  return shape.rank() == 5 ? shape : Shape{shape[0], shape[1], 1, shape[2], shape[3]};
}

Tensor with_depth(const Tensor& tensor) {
  return tensor.reshape(with_depth(tensor.shape()));
}

/// The convolution with all offsets zero.
Conv3dOptions conv3d_options(const DeformConvOptions& options, int dims) {
  Conv3dOptions result;
  for (std::size_t axis = dims == 3 ? 0 : 1; axis < 3; ++axis) {
    result.stride[axis] = options.stride[axis];
    result.padding[axis] = options.padding[axis];
    result.dilation[axis] = options.dilation[axis];
  }
  result.groups = options.groups;
  return result;
}

/// Checks an offset or mask with `numbers` numbers for each tap and offset group, and returns the groups.
std::int64_t groups_of(const char* name, const Tensor& tensor, std::int64_t numbers, const Tensor& input,
                       const Tensor& output) {
  CINNABAR_CHECK(tensor.rank() == output.rank(), kOp, name, ' ', tensor, " does not fit output ", output);
  for (int axis = 0; axis < output.rank(); ++axis) {
    CINNABAR_CHECK(axis == 1 || tensor.shape(axis) == output.shape(axis), kOp, name, ' ', tensor,
                   " does not fit output ", output);
  }
  const std::int64_t groups = tensor.shape(1) / numbers;
  CINNABAR_CHECK(groups >= 1 && groups * numbers == tensor.shape(1), kOp, name, ' ', tensor, " needs ",
                 numbers, " channels for each offset group");
  CINNABAR_CHECK(input.shape(1) % groups == 0, kOp, groups, " offset groups do not divide the channels of ",
                 input);
  require_dtype(kOp, tensor, input.dtype());
  require_same_device(kOp, tensor, input);
  return groups;
}

void check_wanted(const Tensor& gradient, const Tensor& of) {
  if (!gradient.defined()) return;
  require_same_shape(kOp, gradient, of);
  require_dtype(kOp, gradient, of.dtype());
  require_same_device(kOp, gradient, of);
}

}  // namespace

DeformConvShape deform_conv_shape(const Tensor& input, const Tensor& offset, const Tensor& mask,
                                  const Tensor& weight, const Tensor& output,
                                  const DeformConvOptions& options) {
  const Shape expected = deform_conv_output_shape(input.shape(), weight.shape(), options);
  CINNABAR_CHECK(output.shape() == expected, kOp, "output must be ", expected, ", got ", output);
  DeformConvShape shape;
  shape.dims = input.rank() - 2;
  const Conv3dShape plain = conv3d_shape(with_depth(input), with_depth(weight), with_depth(output),
                                         conv3d_options(options, shape.dims));
  shape.batch = plain.batch;
  shape.groups = plain.groups;
  shape.in_channels = plain.groups * plain.in_channels;
  shape.out_channels = plain.groups * plain.out_channels;
  for (int axis = 0; axis < 3; ++axis) shape.axis[axis] = plain.axis[axis];
  shape.offset_groups = groups_of("offset", offset, shape.dims * shape.taps(), input, output);
  if (mask.defined()) {
    const std::int64_t groups = groups_of("mask", mask, shape.taps(), input, output);
    CINNABAR_CHECK(groups == shape.offset_groups, kOp, "mask ", mask, " has ", groups,
                   " offset groups, not those of offset ", offset);
  }
  constexpr std::int64_t kLargest = std::numeric_limits<std::int32_t>::max();
  CINNABAR_CHECK(shape.in_volume() <= kLargest && shape.out_volume() <= kLargest, kOp,
                 "one channel must be below 2^31 voxels, got ", input, " and ", output);
  return shape;
}

DeformConvShape deform_conv_backward_shape(const Tensor& grad_output, const Tensor& input,
                                           const Tensor& offset, const Tensor& mask, const Tensor& weight,
                                           const DeformConvOptions& options, const Tensor& grad_input,
                                           const Tensor& grad_offset, const Tensor& grad_mask) {
  const DeformConvShape shape = deform_conv_shape(input, offset, mask, weight, grad_output, options);
  CINNABAR_CHECK(mask.defined() || !grad_mask.defined(), kOp, "there is no mask to differentiate by");
  check_wanted(grad_input, input);
  check_wanted(grad_offset, offset);
  check_wanted(grad_mask, mask);
  return shape;
}

Shape deform_conv_output_shape(const Shape& input, const Shape& weight, const DeformConvOptions& options) {
  check_ranks(input, weight);
  const int dims = input.rank() - 2;
  const Shape output =
      conv3d_output_shape(with_depth(input), with_depth(weight), conv3d_options(options, dims));
  return dims == 3 ? output : output.without(2);
}

}  // namespace cinnabar
