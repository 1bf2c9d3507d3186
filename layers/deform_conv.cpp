#include "layers/deform_conv.hpp"

#include "autograd/elementwise.hpp"
#include "autograd/layout.hpp"

namespace cinnabar {

namespace {

constexpr const char* kOp = "deform_conv";

std::int64_t taps_of(std::int64_t in, const ConvWindow& window, const DeformConvLayerOptions& options) {
  const auto& [depth, height, width] = window.kernel;
  CINNABAR_CHECK(options.axes == 3 || (options.axes == 2 && depth == 1 && window.options.stride[0] == 1 &&
                                       window.options.padding[0] == 0),
                 kOp, "moves taps along 3 axes, or along 2 with a window of depth 1, got ", options.axes);
  CINNABAR_CHECK(options.offset_groups >= 1 && in % options.offset_groups == 0, kOp, options.offset_groups,
                 " offset groups do not divide ", in, " channels");
  return options.offset_groups * depth * height * width;
}

ConvWindow of_one_group(ConvWindow window) {
  window.options.groups = 1;
  return window;
}

}  // namespace

DeformConvLayer::DeformConvLayer(std::int64_t in, std::int64_t out, const ConvWindow& window,
                                 Generator& generator, const DeformConvLayerOptions& options)
    : ConvolutionLayer(convolution_weight_shape(kOp, out, in, window), out, window, generator,
                       options.with_bias),
      options_(options),
      taps_(taps_of(in, window, options)),
      offset_(in, taps_ * (options.axes + (options.masked ? 1 : 0)), of_one_group(window), generator) {
  offset_.weight.set_value(Tensor::zeros(offset_.weight.shape()));
  offset_.bias.set_value(Tensor::zeros(offset_.bias.shape()));
  add_child("offset", offset_);
}

Variable DeformConvLayer::forward_and(const Variable& x, const JoinEpilogue& join) {
  const bool flat = options_.axes == 2;
  CINNABAR_CHECK(x.shape().rank() == 5 && (!flat || x.shape()[2] == 1), kOp, "takes [N, C, ",
                 flat ? "1" : "D", ", H, W], got ", x.shape());
  const auto in_axes = [&](const Variable& variable) { return flat ? squeeze(variable, 2) : variable; };
  const Variable predicted = offset_(x);
  const std::int64_t offsets = options_.axes * taps_;
  const Variable offset = options_.masked ? slice(predicted, 1, 0, offsets) : predicted;
  Variable mask;
  if (options_.masked) mask = in_axes(2.0 * sigmoid(slice(predicted, 1, offsets, offsets + taps_)));
  EpilogueInputs epilogue(bias);
  const Shape& place = predicted.shape();
  if (join) join(epilogue, place[0] * weight.shape()[0] * place[2] * place[3] * place[4]);
  const DeformConvOptions options{window_.options.stride, window_.options.padding, window_.options.dilation,
                                  window_.options.groups};
  const Variable result = deform_conv(in_axes(x), in_axes(offset), in_axes(weight), mask, epilogue, options);
  return flat ? unsqueeze(result, 2) : result;
}

}  // namespace cinnabar
