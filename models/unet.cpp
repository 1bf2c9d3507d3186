#include "models/unet.hpp"

#include <string>

#include "autograd/elementwise.hpp"
#include "autograd/layout.hpp"
#include "autograd/pool3d.hpp"
#include "autograd/upsample.hpp"
#include "layers/activation.hpp"
#include "layers/conv3d.hpp"

namespace cinnabar {

namespace {

constexpr const char* kOp = "unet";
constexpr double kSlope = 0.2;

void check(const UnetOptions& options) {
  CINNABAR_CHECK(!options.encoder.empty(), kOp, "needs at least one level");
  CINNABAR_CHECK(options.decoder.empty() || options.decoder.size() + 1 == options.encoder.size(), kOp,
                 options.encoder.size(), " levels have ", options.encoder.size() - 1, " on the way up, not ",
                 options.decoder.size());
  CINNABAR_CHECK(
      options.output_level >= 0 && options.output_level < static_cast<std::int64_t>(options.encoder.size()),
      kOp, "has no level ", options.output_level, " for the output among its ", options.encoder.size());
  CINNABAR_CHECK(options.convolutions >= 1, kOp, "levels need a convolution, got ", options.convolutions);
  CINNABAR_CHECK(options.kernel >= 1 && options.kernel % 2 == 1, kOp, "needs an odd kernel, got ",
                 options.kernel);
  CINNABAR_CHECK(options.axes == 2 || options.axes == 3, kOp, "has 2 or 3 axes, got ", options.axes);
}

ConvWindow window_of(const UnetOptions& options, std::int64_t stride) {
  const auto make = options.axes == 2 ? conv_squares : conv_cubes;
  return make(options.kernel, options.kernel / 2, stride);
}

/// Normal weights that keep the size of activations, and no bias.
void initialise(Conv3dLayer& layer, Generator& generator) {
  layer.weight.set_value(kaiming_normal(layer.weight.shape(), generator, kSlope));
  layer.bias.set_value(Tensor::zeros(layer.bias.shape()));
}

/// Adds the convolutions of one level and their activations.
void add_level(Sequential& level, std::int64_t in, std::int64_t out, std::int64_t first_stride,
               const UnetOptions& options, Generator& generator) {
  for (std::int64_t i = 0; i < options.convolutions; ++i) {
    const ConvWindow window = window_of(options, i == 0 ? first_stride : 1);
    initialise(level.add<Conv3dLayer>(i == 0 ? in : out, out, window, generator), generator);
    if (options.activation == UnetActivation::prelu) {
      level.add<PRelu>(1, kSlope);
    } else {
      level.add<LeakyRelu>(kSlope);
    }
  }
}

/// The maximum of windows of 2 voxels; an axis of one voxel keeps it.
class HalvingMaximum : public Layer {
 public:
  Variable forward(const Variable& x) override {
    PoolOptions options;
    options.ceil_mode = true;
    for (std::size_t axis = 0; axis < 3; ++axis) {
      const bool halves = x.shape()[static_cast<int>(axis) + 2] > 1;
      options.kernel[axis] = options.stride[axis] = halves ? 2 : 1;
    }
    return max_pool3d(x, options);
  }
};

/// Twice the extents, cut to those of the features it is to be joined with.
Variable doubled(const Variable& x, const Shape& like, const UnetOptions& options) {
  const Variable larger = upsample_by(x, {options.axes == 2 ? 1.0 : 2.0, 2.0, 2.0}, options.upsampling);
  if (larger.shape().with(1, like[1]) == like) return larger;
  return slice(larger, {{}, {}, {0, like[2]}, {0, like[3]}, {0, like[4]}});
}

}  // namespace

Unet::Unet(const UnetOptions& options) : options_(options) {
  check(options);
  Generator generator(options.seed);
  const std::vector<std::int64_t>& down = options.encoder;
  const std::vector<std::int64_t>& up = options.decoder.empty() ? down : options.decoder;
  std::int64_t channels = options.in;
  for (std::size_t level = 0; level < down.size(); ++level) {
    auto encoder = std::make_unique<Sequential>();
    const bool strides = options.downsampling == UnetDownsampling::stride;
    if (level > 0 && !strides) encoder->add<HalvingMaximum>();
    add_level(*encoder, channels, down[level], level > 0 && strides ? 2 : 1, options, generator);
    channels = down[level];
    add_child("encoder" + std::to_string(level), *encoder);
    encoders_.push_back(std::move(encoder));
  }
  decoders_.resize(down.size() - 1);
  const auto finest = static_cast<std::size_t>(options.output_level);
  for (std::size_t level = decoders_.size(); level-- > finest;) {
    auto decoder = std::make_unique<Sequential>();
    add_level(*decoder, channels + down[level], up[level], 1, options, generator);
    channels = up[level];
    add_child("decoder" + std::to_string(level), *decoder);
    decoders_[level] = std::move(decoder);
  }
  auto output = std::make_unique<Conv3dLayer>(channels, options.out, conv_cubes(1), generator);
  initialise(*output, generator);
  const NoGrad quiet;
  output->weight.set_value((options.output_scale * output->weight).value());
  add_child("output", *output);
  output_ = std::move(output);
}

Variable Unet::forward(const Variable& x) {
  const Shape& shape = x.shape();
  CINNABAR_CHECK(shape.rank() == 5 && shape[1] == options_.in && (options_.axes == 3 || shape[2] == 1), kOp,
                 "takes [N, ", options_.in, ", ", options_.axes == 3 ? "D" : "1", ", H, W], got ", shape);
  std::vector<Variable> skipped;
  Variable features = x;
  for (const auto& encoder : encoders_) {
    features = encoder->forward(features);
    skipped.push_back(features);
  }
  const auto finest = static_cast<std::size_t>(options_.output_level);
  for (std::size_t level = decoders_.size(); level-- > finest;) {
    const Variable& skip = skipped[level];
    features = decoders_[level]->forward(concat({doubled(features, skip.shape(), options_), skip}, 1));
  }
  return output_->forward(features);
}

}  // namespace cinnabar
