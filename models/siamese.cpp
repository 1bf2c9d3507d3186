#include "models/siamese.hpp"

#include <cmath>

#include "autograd/elementwise.hpp"
#include "autograd/layout.hpp"
#include "autograd/reduce.hpp"
#include "layers/activation.hpp"
#include "layers/conv3d.hpp"
#include "layers/correlation.hpp"
#include "layers/linear.hpp"

namespace cinnabar {

namespace {

constexpr const char* kOp = "siamese";
constexpr double kSlope = 0.2;

/// Features of length one in every voxel; those of length zero stay so.
Variable of_length_one(const Variable& features) {
  constexpr double kLeast = 1e-6;
  return features / maximum(norm(features, 2, {1}, true),
                            Variable(Tensor::full({}, kLeast, features.value().dtype(), features.device())));
}

}  // namespace

Siamese::Siamese(const SiameseOptions& options) : options_(options) {
  CINNABAR_CHECK(options.axes == 2 || options.axes == 3, kOp, "has 2 or 3 axes, got ", options.axes);
  CINNABAR_CHECK(!options.channels.empty(), kOp, "needs at least one level");
  Generator generator(options.seed);
  std::int64_t channels = options.in;
  for (const std::int64_t next : options.channels) {
    const auto window = options.axes == 2 ? conv_squares : conv_cubes;
    Conv3dLayer& layer =
        encoder_.add<Conv3dLayer>(channels, next, window(3, 1, encoder_.size() == 0 ? 1 : 2), generator);
    layer.weight.set_value(kaiming_normal(layer.weight.shape(), generator, kSlope));
    layer.bias.set_value(Tensor::zeros(layer.bias.shape()));
    encoder_.add<LeakyRelu>(kSlope);
    channels = next;
  }
  head_.add<Linear>(channels, options.embedding, generator);
  add_child("encoder", encoder_);
  add_child("head", head_);
}

void Siamese::check_pair(const Variable& a, const Variable& b) const {
  CINNABAR_CHECK(a.shape() == b.shape(), kOp, "takes pairs of equal shape, got ", a.shape(), " and ",
                 b.shape());
}

Variable Siamese::features(const Variable& images) {
  const Shape& shape = images.shape();
  CINNABAR_CHECK(shape.rank() == 5 && shape[1] == options_.in && (options_.axes == 3 || shape[2] == 1), kOp,
                 "takes [N, ", options_.in, ", ", options_.axes == 3 ? "D" : "1", ", H, W], got ", shape);
  return encoder_(images);
}

Siamese::Pair Siamese::features(const Variable& a, const Variable& b) {
  check_pair(a, b);
  const std::int64_t batch = a.shape()[0];
  const Variable both = features(concat({a, b}, 0));
  return {slice(both, 0, 0, batch), slice(both, 0, batch, 2 * batch)};
}

Variable Siamese::embedded(const Variable& images) {
  return head_(mean(features(images), {2, 3, 4}));
}

Siamese::Pair Siamese::embeddings(const Variable& a, const Variable& b) {
  check_pair(a, b);
  const std::int64_t batch = a.shape()[0];
  const Variable both = embedded(concat({a, b}, 0));
  return {slice(both, 0, 0, batch), slice(both, 0, batch, 2 * batch)};
}

Variable Siamese::correlation(const Variable& a, const Variable& b,
                              const std::array<std::int64_t, 3>& radius) {
  const auto [first, second] = features(a, b);
  return correlated(first, second, radius);
}

Variable Siamese::correlated(const Variable& a, const Variable& b,
                             const std::array<std::int64_t, 3>& radius) {
  const auto channels = static_cast<double>(a.shape()[1]);
  return channels * local_correlation(of_length_one(a), of_length_one(b), radius);
}

Variable Siamese::correlation(const Variable& a, const Variable& b) {
  const auto [first, second] = features(a, b);
  const auto channels = static_cast<double>(first.shape()[1]);
  return std::sqrt(channels) * all_pairs_correlation(of_length_one(first), of_length_one(second));
}

Variable contrastive_loss(const Variable& a, const Variable& b, const Tensor& same, double margin) {
  CINNABAR_CHECK(a.shape().rank() == 2 && a.shape() == b.shape() && same.shape() == Shape{a.shape()[0]},
                 "contrastive_loss", "needs embeddings [N, E] and labels [N], got ", a.shape(), ", ",
                 b.shape(), " and ", same);
  CINNABAR_CHECK(margin > 0.0, "contrastive_loss", "needs a margin above 0, got ", margin);
  const Variable difference = a - b, together(same.to(a.value().dtype()).to(a.device()));
  const Variable attracts = sum(square(difference), {1});
  const Variable repels = square(relu(margin - norm(difference, 2, {1})));
  return 0.5 * mean(together * attracts + (1.0 - together) * repels);
}

}  // namespace cinnabar
