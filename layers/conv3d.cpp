#include "layers/conv3d.hpp"

namespace cinnabar {

namespace {

ConvWindow window_of(std::array<std::int64_t, 3> kernel, std::array<std::int64_t, 3> padding,
                     std::array<std::int64_t, 3> stride) {
  ConvWindow window;
  window.kernel = kernel;
  window.options.padding = padding;
  window.options.stride = stride;
  return window;
}

/// The epilogue that `join` makes of a bias, for an output of this shape.
EpilogueInputs joined(const Variable& bias, const JoinEpilogue& join, const Shape& output) {
  EpilogueInputs epilogue(bias);
  if (join) join(epilogue, output.numel());
  return epilogue;
}

}  // namespace

Shape convolution_weight_shape(const char* op, std::int64_t outer, std::int64_t inner,
                               const ConvWindow& window) {
  const std::int64_t groups = window.options.groups;
  CINNABAR_CHECK(outer >= 1 && inner >= 1 && groups >= 1 && outer % groups == 0 && inner % groups == 0, op,
                 outer, " and ", inner, " channels in ", groups, " groups");
  return {outer, inner / groups, window.kernel[0], window.kernel[1], window.kernel[2]};
}

ConvWindow conv_cubes(std::int64_t kernel, std::int64_t padding, std::int64_t stride) {
  return window_of({kernel, kernel, kernel}, {padding, padding, padding}, {stride, stride, stride});
}

ConvWindow conv_squares(std::int64_t kernel, std::int64_t padding, std::int64_t stride) {
  return window_of({1, kernel, kernel}, {0, padding, padding}, {1, stride, stride});
}

ConvolutionLayer::ConvolutionLayer(const Shape& shape, std::int64_t out, const ConvWindow& window,
                                   Generator& generator, bool with_bias)
    : window_(window) {
  weight = add_parameter("weight", uniform_by_fan(shape, fan_in(shape), generator));
  if (with_bias) bias = add_parameter("bias", uniform_by_fan({out}, fan_in(shape), generator));
}

Conv3dLayer::Conv3dLayer(std::int64_t in, std::int64_t out, const ConvWindow& window, Generator& generator,
                         bool with_bias)
    : ConvolutionLayer(convolution_weight_shape("conv3d", out, in, window), out, window, generator,
                       with_bias) {}

Variable Conv3dLayer::forward_and(const Variable& x, const JoinEpilogue& join) {
  const Shape output = conv3d_output_shape(x.shape(), weight.shape(), window_.options);
  return conv3d(x, weight, joined(bias, join, output), window_.options);
}

ConvTranspose3dLayer::ConvTranspose3dLayer(std::int64_t in, std::int64_t out, const ConvWindow& window,
                                           Generator& generator, bool with_bias)
    : ConvolutionLayer(convolution_weight_shape("conv_transpose3d", in, out, window), out, window, generator,
                       with_bias) {}

Variable ConvTranspose3dLayer::forward_and(const Variable& x, const JoinEpilogue& join) {
  const Shape output =
      conv_transpose3d_output_shape(x.shape(), weight.shape(), window_.options, window_.output_padding);
  return conv_transpose3d(x, weight, joined(bias, join, output), window_.options, window_.output_padding);
}

}  // namespace cinnabar
