#include "layers/coord_conv.hpp"

#include <cmath>

#include "autograd/layout.hpp"

namespace cinnabar {

namespace {

constexpr const char* kOp = "coord_conv";

std::int64_t channels_of(const CoordConvOptions& options) {
  CINNABAR_CHECK(options.axes == 2 || options.axes == 3, kOp, "has 2 or 3 axes, got ", options.axes);
  return options.axes + (options.with_radius ? 1 : 0);
}

double coordinate(std::int64_t voxel, std::int64_t extent) {
  return extent == 1 ? 0.0 : -1.0 + 2.0 * static_cast<double>(voxel) / static_cast<double>(extent - 1);
}

}  // namespace

Tensor coordinate_channels(const Shape& extents, const CoordConvOptions& options) {
  CINNABAR_CHECK(extents.rank() == 3, kOp, "needs extents (D, H, W), got ", extents);
  const std::int64_t volume = extents.numel();
  Tensor channels = Tensor::empty({1, channels_of(options), extents[0], extents[1], extents[2]});
  float* value = channels.data<float>();
  for (std::int64_t voxel = 0; voxel < volume; ++voxel, ++value) {
    double squares = 0.0;
    std::int64_t rest = voxel;
    for (int axis = 0; axis < options.axes; ++axis) {
      const std::int64_t extent = extents[2 - axis];
      const double along = coordinate(rest % extent, extent);
      value[axis * volume] = static_cast<float>(along);
      squares += along * along;
      rest /= extent;
    }
    if (options.with_radius) value[options.axes * volume] = static_cast<float>(std::sqrt(squares));
  }
  return channels;
}

CoordConvLayer::CoordConvLayer(std::int64_t in, std::int64_t out, const ConvWindow& window,
                               Generator& generator, const CoordConvOptions& options)
    : options_(options), conv_(in + channels_of(options), out, window, generator, options.with_bias) {
  CINNABAR_CHECK(window.options.groups == 1, kOp, "takes one group, got ", window.options.groups);
  add_child("conv", conv_);
}

Variable CoordConvLayer::forward_and(const Variable& x, const JoinEpilogue& join) {
  const Shape& shape = x.shape();
  CINNABAR_CHECK(shape.rank() == 5 && (options_.axes == 3 || shape[2] == 1), kOp, "takes [N, C, ",
                 options_.axes == 3 ? "D" : "1", ", H, W], got ", shape);
  const Shape extents = shape.without(0).without(0);
  const bool fits = coordinates_.defined() && coordinates_.shape().without(0).without(0) == extents &&
                    coordinates_.dtype() == x.value().dtype() && coordinates_.device() == x.device();
  if (!fits) coordinates_ = coordinate_channels(extents, options_).to(x.value().dtype()).to(x.device());
  const Variable coordinates(expand_to(coordinates_, coordinates_.shape().with(0, shape[0])));
  return conv_.forward_and(concat({x, coordinates}, 1), join);
}

}  // namespace cinnabar
