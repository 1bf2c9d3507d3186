// Spatial transformers as layers, and the inverse-compositional one.

#include "layers/spatial_transformer.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "autograd/elementwise.hpp"
#include "autograd/gradcheck.hpp"
#include "autograd/losses.hpp"
#include "autograd/random.hpp"
#include "autograd/reduce.hpp"
#include "layers/activation.hpp"
#include "layers/conv3d.hpp"
#include "layers/matrix_warp.hpp"
#include "layers/optimizer.hpp"
#include "models/ic_stn.hpp"
#include "tests/devices.hpp"
#include "tests/scratch_folder.hpp"
#include "tests/tensors.hpp"

namespace cinnabar::testing {
namespace {

const LocalisationOptions kTiny{.channels = {2, 3}, .hidden = 4};

/// Gives the last linear layer weights that are not zero.
void stir(Layer& net, std::uint64_t seed) {
  for (const auto& [name, variable] : net.named_parameters()) {
    Variable parameter = variable;
    if (name.find("head.2") == std::string::npos) continue;
    const Tensor value = random_tensor(parameter.shape(), seed, -0.2, 0.2);
    parameter.set_value(value.to(parameter.value().dtype()).to(parameter.device()));
  }
}

class SpatialTransformerOn : public OnDevice {};
CINNABAR_ON_EACH_DEVICE(SpatialTransformerOn);

TEST_P(SpatialTransformerOn, BeginsAsTheIdentity) {
  Generator weights(1);
  for (const auto& [name, shape] :
       {std::pair{"affine", Shape{2, 3, 9, 8}}, std::pair{"tps", Shape{2, 3, 1, 9, 8}},
        std::pair{"velocity", Shape{2, 3, 5, 6, 7}}}) {
    const Shape whole = shape.without(0).without(0);
    const Shape spatial = whole[0] == 1 ? whole.without(0) : whole;
    SpatialTransformer layer(3, make_grid_generator(name, spatial), kTiny, weights);
    layer.to(device());
    const Variable x(random_tensor(shape, 2).to(device()));
    EXPECT_LE(relative_error(layer(x).value(), x.value()), 2e-6) << name;
    stir(layer, 3);
    EXPECT_EQ(layer(x).shape(), shape);
    EXPECT_GT(relative_error(layer(x).value(), x.value()), 1e-3) << name;
  }
}

TEST(SpatialTransformer, IsALayerOfASequentialAndOfItsState) {
  const auto make = [](std::uint64_t seed) {
    Generator weights(seed);
    auto net = std::make_unique<Sequential>();
    net->add<Conv3dLayer>(1, 2, conv_squares(3, 1), weights);
    net->add<PRelu>();
    net->add<SpatialTransformer>(2, make_grid_generator("homography", {8, 10}), kTiny, weights);
    net->add<Conv3dLayer>(2, 1, conv_squares(3, 1), weights);
    return net;
  };
  const auto net = make(1), other = make(2);
  stir(*net, 4);
  std::vector<std::string> names;
  for (const auto& [name, tensor] : net->state().tensors) names.push_back(name);
  EXPECT_NE(std::find(names.begin(), names.end(), "2.localisation.features.0.weight"), names.end());
  EXPECT_NE(std::find(names.begin(), names.end(), "2.localisation.head.2.bias"), names.end());
  const ScratchFolder folder;
  net->save(folder / "net.safetensors");
  other->load(folder / "net.safetensors");
  const Variable x(random_tensor({3, 1, 1, 8, 10}, 5));
  EXPECT_TRUE(same_values((*other)(x).value(), (*net)(x).value()));
  mean(square((*net)(x))).backward();
  for (const auto& [name, parameter] : net->named_parameters()) {
    ASSERT_TRUE(parameter.grad().defined()) << name;
    EXPECT_GT(norm(Variable(parameter.grad())).value().item(), 0.0) << name;
  }
}

TEST(SpatialTransformer, GradientsMatchDifferences) {
  Generator weights(6);
  SpatialTransformer layer(1, make_grid_generator("affine", {6, 7}), kTiny, weights);
  IcStn recursive(1, make_grid_generator("homography", {6, 7}), kTiny, weights, 3);
  for (Layer* net : {static_cast<Layer*>(&layer), static_cast<Layer*>(&recursive)}) {
    stir(*net, 7);
    net->to(DType::f64);
    const Tensor image = random_tensor({2, 1, 6, 7}, 8, -1, 1, DType::f64);
    EXPECT_TRUE(gradcheck([&](const std::vector<Variable>& in) { return net->forward(in[0]); }, {image}));
    // In a weight of the localisation, by hand.
    Variable weight = net->parameters().front();
    const Tensor value = weight.value().clone();
    const auto loss = [&](double shift) {
      Tensor moved = value.clone();
      moved.data<double>()[4] += shift;
      weight.set_value(moved);
      return sum(square(net->forward(Variable(image))));
    };
    const double eps = 1e-6, difference = (loss(eps).value().item() - loss(-eps).value().item()) / (2 * eps);
    net->clear_gradients();
    loss(0.0).backward();
    EXPECT_NEAR(weight.grad().to_vector<double>()[4], difference, 1e-5 + 1e-3 * std::abs(difference));
  }
}

TEST(SpatialTransformer, RefusesMisfits) {
  Generator weights(1);
  SpatialTransformer layer(1, make_grid_generator("affine", {6, 7}), kTiny, weights);
  EXPECT_THROW(layer(Variable(Tensor::zeros({1, 1, 7, 6}))), Error);
  EXPECT_THROW(SpatialTransformer(nullptr, make_grid_generator("affine", {6, 7})), Error);
  EXPECT_THROW(IcStn(1, make_grid_generator("tps", {6, 7}), kTiny, weights), Error);
  EXPECT_THROW(IcStn(1, make_grid_generator("affine", {6, 7}), kTiny, weights, 0), Error);
}

/// Says each time it is asked what the next step is to be.
class Script : public Layer {
 public:
  explicit Script(std::vector<std::vector<double>> steps) : steps_(std::move(steps)) {}
  Variable forward(const Variable&) override {
    const std::vector<double>& step = steps_[next_++ % steps_.size()];
    return Variable(Tensor::from(step, {1, static_cast<std::int64_t>(step.size())}));
  }

 private:
  std::vector<std::vector<double>> steps_;
  std::size_t next_ = 0;
};

TEST(IcStn, ComposesAsInThePaper) {
  const std::vector<double> first{0.1, -0.3, 0.2, 0.2, 0.0, -0.1}, second{-0.2, 0.1, 0.4, 0.0, 0.3, 0.2};
  const auto warp = std::make_shared<AffineWarp>(Shape{6, 7});
  const auto variable = [](const std::vector<double>& p) { return Variable(Tensor::from(p, {1, 6})); };
  IcStn net(std::make_unique<Script>(std::vector{first, second}), warp, 2);
  const Variable image(random_tensor({1, 1, 6, 7}, 9, -1, 1, DType::f64));
  // M <- M(dp) M(p).
  const Variable expected = warp->compose(variable(second), variable(first));
  EXPECT_LE(relative_error(net.transformation(image).value(), expected.value()), 1e-12);
  EXPECT_EQ(net.transformation(image, 1).value().to_vector<double>(), first);
}

TEST(IcStn, ResamplesTheOriginalImage) {
  // Half of the image is pushed out and comes back, which it could not from an image resampled twice.
  const std::vector<double> there{0, 0, 0.9, 0, 0, 0.33}, back{0, 0, -0.9, 0, 0, -0.33};
  IcStn net(std::make_unique<Script>(std::vector{there, back}), std::make_shared<AffineWarp>(Shape{9, 8}), 2);
  const Variable image(random_tensor({1, 1, 9, 8}, 10, -1, 1, DType::f64));
  EXPECT_LE(relative_error(net(image).value(), image.value()), 1e-12);
}

TEST(IcStn, WithOneRecursionIsASpatialTransformer) {
  Generator a(3), b(3);
  IcStn one(2, make_grid_generator("affine", {6, 7}), kTiny, a, 1);
  IcStn many(2, make_grid_generator("affine", {6, 7}), kTiny, a, 4);
  SpatialTransformer plain(2, make_grid_generator("affine", {6, 7}), kTiny, b);
  stir(one, 11);
  stir(plain, 11);
  const Variable x(random_tensor({3, 2, 6, 7}, 12));
  EXPECT_TRUE(same_values(one(x).value(), plain(x).value()));
  EXPECT_EQ(one.parameter_count(), many.parameter_count());
  EXPECT_EQ(one.parameter_count(), plain.parameter_count());
}

/// [count, 1, 24, 24]: a bright and a dark blob, moved by random affine maps, which are returned too.
struct Blobs {
  Tensor template_image, images, parameters;

  Blobs(std::int64_t count, std::uint64_t stream) {
    const AffineWarp warp({24, 24});
    std::vector<float> values;
    const std::vector<double> x = identity_points({24, 24}).to_vector<double>();
    for (std::size_t p = 0; p < x.size(); p += 2) {
      const auto blob = [&](double cx, double cy, double size) {
        return std::exp(-(std::pow(x[p] - cx, 2) + std::pow(x[p + 1] - cy, 2)) / (2 * size * size));
      };
      values.push_back(static_cast<float>(blob(-0.2, -0.1, 0.25) - 0.8 * blob(0.3, 0.2, 0.2)));
    }
    template_image = Tensor::from(values, {1, 1, 24, 24});
    parameters = random_uniform({count, 6}, -0.22, 0.22, 13, stream);
    images = transformed(expand_images(count), warp, Variable(parameters)).value();
  }
  Variable expand_images(std::int64_t count) const {
    return Variable(template_image) + Variable(Tensor::zeros({count, 1, 24, 24}));
  }
};

TEST(IcStn, FindsTheWayBackFromRandomWarps) {
  Generator weights(14);
  const auto warp = std::make_shared<AffineWarp>(Shape{24, 24});
  IcStn net(1, warp, {.channels = {4, 8}, .hidden = 16}, weights, 3);
  Adam adam(net.named_parameters(), {.learning_rate = 3e-3});
  constexpr std::int64_t kBatch = 16, kSteps = 250;
  for (std::int64_t step = 0; step < kSteps; ++step) {
    const Blobs batch(kBatch, static_cast<std::uint64_t>(step));
    adam.set_rate_factor(cosine_schedule(kSteps)(step));
    adam.clear_gradients();
    mse_loss(net(Variable(batch.images)), batch.expand_images(kBatch)).backward();
    adam.step();
  }
  // What is found and the warp that it undoes cancel: warp o found = id.
  const NoGrad quiet;
  const Blobs unseen(64, 100'000);
  const auto left = [&](const Variable& found) {
    const Variable both = warp->compose(Variable(unseen.parameters), found);
    return std::sqrt(mean(square(both)).value().item());
  };
  const Variable images(unseen.images);
  const double before = left(Variable(Tensor::zeros({64, 6})));
  const double once = left(net.transformation(images, 1)), thrice = left(net.transformation(images));
  EXPECT_LT(thrice, 0.4 * before) << once;
  EXPECT_LT(thrice, once);
}

}  // namespace
}  // namespace cinnabar::testing
