#include <gtest/gtest.h>

#include <cmath>
#include <memory>

#include "autograd/losses.hpp"
#include "layers/activation.hpp"
#include "layers/conv3d.hpp"
#include "layers/dropout.hpp"
#include "layers/linear.hpp"
#include "layers/norm.hpp"
#include "layers/optimizer.hpp"
#include "layers/pool3d.hpp"
#include "layers/sequential.hpp"
#include "layers/upsample.hpp"
#include "tests/devices.hpp"
#include "tests/scratch_folder.hpp"
#include "tests/tensors.hpp"

namespace cinnabar::testing {
namespace {

TEST(Linear, StartsWithinItsBoundAndComputes) {
  Generator generator(1);
  Linear layer(3, 2, generator);
  for (const Variable& p : layer.parameters()) {
    for (const double value : p.value().to_vector<double>()) EXPECT_LE(std::abs(value), 1 / std::sqrt(3.0));
  }
  layer.weight.set_value(Tensor::from<float>({1, 2, 3, -1, 0, 1}, {2, 3}));
  layer.bias.set_value(Tensor::from<float>({0.5, -0.5}, {2}));
  const Variable x(Tensor::from<float>({1, 10, 100}, {1, 3}));
  EXPECT_EQ(layer(x).value().to_vector<float>(), (std::vector<float>{321.5, 98.5}));
  Linear plain(3, 2, generator, false);
  EXPECT_EQ(plain.parameter_count(), 6);
}

TEST(ConvLayers, StartAsPyTorchDoes) {
  Generator generator(1);
  ConvWindow window = conv_cubes(3, 1, 2);
  window.options.groups = 2;
  window.output_padding = {1, 1, 1};
  Conv3dLayer layer(4, 6, window, generator);
  EXPECT_EQ(layer.weight.shape(), (Shape{6, 2, 3, 3, 3}));
  EXPECT_EQ(layer.named_parameters()[1].name, "bias");
  for (const Variable& p : layer.parameters()) {
    for (const double value : p.value().to_vector<double>()) EXPECT_LE(std::abs(value), 1 / std::sqrt(54.0));
  }
  EXPECT_EQ(layer(Variable(Tensor::zeros({1, 4, 5, 7, 6}))).shape(), (Shape{1, 6, 3, 4, 3}));
  // The fan of a transposed convolution is that of its outputs, as PyTorch counts it.
  ConvTranspose3dLayer transposed(6, 4, window, generator, false);
  EXPECT_EQ(transposed.weight.shape(), (Shape{6, 2, 3, 3, 3}));
  EXPECT_EQ(transposed.parameter_count(), 324);
  EXPECT_EQ(transposed(Variable(Tensor::zeros({1, 6, 3, 4, 3}))).shape(), (Shape{1, 4, 6, 8, 6}));
  Conv3dLayer flat(1, 2, conv_squares(5, 2), generator);
  EXPECT_EQ(flat(Variable(Tensor::zeros({3, 1, 1, 9, 8}))).shape(), (Shape{3, 2, 1, 9, 8}));
  EXPECT_THROW(Conv3dLayer(3, 6, window, generator), Error);
}

/// A row of convolutions with everything that can and cannot join them.
struct Row {
  Sequential net;
  std::vector<Layer*> layers;

  explicit Row(Device device) {
    Generator generator(3);
    layers = {&net.add<Conv3dLayer>(2, 6, conv_cubes(3, 1), generator),
              &net.add<PRelu>(6),
              &net.add<DropoutLayer>(0.25, 5, 0),
              &net.add<Relu>(),  // after dropout: not joined
              &net.add<Conv3dLayer>(6, 4, conv_cubes(2, 1, 2), generator, false),
              &net.add<LeakyRelu>(0.1),
              &net.add<LeakyRelu>(0.1),  // a second activation: not joined
              &net.add<ConvTranspose3dLayer>(4, 3, conv_cubes(2, 1, 2), generator),
              &net.add<DropoutLayer>(0.5, 5, 1)};
    net.to(device);
  }
};

TEST(Layers, RefuseToJoinWhatAnEpilogueCannotHold) {
  EpilogueInputs epilogue;
  LeakyRelu negative(-0.1);
  EXPECT_FALSE(negative.join(epilogue, 8));
  DropoutLayer dropout(0.5, 1, 0);
  EXPECT_TRUE(dropout.join(epilogue, 8));
  EXPECT_FALSE(dropout.join(epilogue, 8));
  EXPECT_FALSE(Relu().join(epilogue, 8));
  dropout.eval();
  EXPECT_TRUE(dropout.join(epilogue, 8));
  EXPECT_FALSE(Sigmoid().join(epilogue, 8));
}

TEST(Layers, SequentialNamesItsLayersAsPyTorchDoes) {
  Generator generator(2);
  Sequential net;
  net.add<Linear>(4, 3, generator);
  net.add<PRelu>(3);
  net.add<BatchNorm>(3);
  std::vector<std::string> names;
  for (const auto& [name, tensor] : net.state().tensors) names.push_back(name);
  EXPECT_EQ(names,
            (std::vector<std::string>{"0.bias", "0.weight", "1.weight", "2.bias", "2.num_batches_tracked",
                                      "2.running_mean", "2.running_var", "2.weight"}));
}

TEST(Layers, DropoutRestsInEvaluation) {
  DropoutLayer layer(0.5, 3, 4);
  const Variable x(random_tensor({1000}, 1));
  const Tensor first = layer(x).value();
  const Tensor second = layer(x).value();
  EXPECT_FALSE(same_values(first, x.value()));
  EXPECT_FALSE(same_values(first, second));
  DropoutLayer again(0.5, 3, 4);
  EXPECT_TRUE(same_values(again(x).value(), first));
  layer.eval();
  EXPECT_TRUE(same_values(layer(x).value(), x.value()));
  layer.always(true);
  EXPECT_FALSE(same_values(layer(x).value(), x.value()));
}

TEST(Layers, BatchNormUsesTheBatchThenItsMemory) {
  BatchNorm layer(2);
  const Variable x(random_tensor({64, 2, 3}, 2, 4, 6));
  Variable y = layer(x);
  double sum = 0.0;
  for (const double value : y.value().to_vector<double>()) sum += value;
  EXPECT_NEAR(sum, 0.0, 1e-3);
  EXPECT_EQ(layer.num_batches_tracked.value().item(), 1.0);
  EXPECT_NEAR(layer.running_mean.value().to_vector<double>()[0], 0.5, 0.02);
  layer.eval();
  const Tensor before = layer.running_mean.value().clone();
  y = layer(x);
  EXPECT_TRUE(same_values(layer.running_mean.value(), before));
  EXPECT_EQ(layer.num_batches_tracked.value().item(), 1.0);
}

TEST(Layers, ShapesFollowTheirOptions) {
  const Variable x(random_tensor({2, 4, 6, 6, 6}, 3));
  EXPECT_EQ(MaxPool3d().forward(x).shape(), (Shape{2, 4, 3, 3, 3}));
  EXPECT_EQ(AveragePool3d(pool_cubes(3)).forward(x).shape(), (Shape{2, 4, 2, 2, 2}));
  EXPECT_EQ(UpsampleLayer({2, 1, 1.5}).forward(x).shape(), (Shape{2, 4, 12, 6, 9}));
  EXPECT_EQ(GroupNorm(2, 4).parameter_count(), 8);
  EXPECT_EQ(InstanceNorm(4).parameter_count(), 0);
  EXPECT_EQ(LayerNorm({6, 6}).forward(x).shape(), x.shape());
  EXPECT_THROW(LayerNorm({6, 5}).forward(x), Error);
  EXPECT_THROW(GroupNorm(3, 4), Error);
  EXPECT_EQ(Softmax().forward(x).shape(), x.shape());
}

TEST(Layers, ImagesOfDepthOneArePooledBySquares) {
  const Variable image(Tensor::from<float>({1, 2, 3, 4, 5, 6, 7, 8}, {1, 1, 1, 2, 4}));
  EXPECT_EQ(MaxPool3d(pool_squares(2)).forward(image).value().to_vector<float>(), (std::vector<float>{6, 8}));
  EXPECT_EQ(AveragePool3d(pool_squares(2)).forward(image).value().to_vector<float>(),
            (std::vector<float>{3.5, 5.5}));
}

TEST(Layers, UpsamplingRepeatsOrInterpolates) {
  const Variable row(Tensor::from<float>({0, 4}, {1, 1, 1, 2}));
  EXPECT_EQ(UpsampleLayer({1, 2}).forward(row).value().to_vector<float>(), (std::vector<float>{0, 0, 4, 4}));
  EXPECT_EQ(UpsampleLayer({1, 2}, Interpolation::linear).forward(row).value().to_vector<float>(),
            (std::vector<float>{0, 1, 3, 4}));
}

TEST(Layers, EluBendsBelowZero) {
  const Variable x(Tensor::from<double>({-1, 0, 2}, {3}));
  EXPECT_EQ(Elu(0.5).forward(x).value().to_vector<double>(),
            (std::vector<double>{0.5 * std::expm1(-1.0), 0, 2}));
}

class TrainingOn : public OnDevice {};

TEST_P(TrainingOn, JoinedLayersHaveTheBitsOfSingleOnes) {
  Row joined(device()), single(device());
  for (const bool training : {true, false}) {
    joined.net.train(training);
    single.net.train(training);
    const Tensor image = random_tensor({2, 2, 5, 6, 7}, 4).to(device());
    const Variable x(image, true), other(image, true);
    const Variable y = joined.net(x);
    Variable expected = other;
    for (Layer* layer : single.layers) expected = (*layer)(expected);
    EXPECT_TRUE(same_values(y.value(), expected.value()));
    y.backward(Tensor::full(y.shape(), 1.0).to(device()));
    expected.backward(Tensor::full(y.shape(), 1.0).to(device()));
    EXPECT_TRUE(same_values(x.grad(), other.grad()));
  }
  const auto gradients = joined.net.parameters(), expected = single.net.parameters();
  for (std::size_t i = 0; i < gradients.size(); ++i) {
    EXPECT_LT(relative_error(gradients[i].grad(), expected[i].grad()), 1e-5) << i;
  }
}

/// Two classes of points, inside and outside a circle: not linearly separable.
struct Points {
  Tensor x, labels;
};
Points circle(std::int64_t count) {
  const Tensor x = random_tensor({count, 2}, 5);
  const auto values = x.to_vector<double>();
  std::vector<std::int64_t> labels;
  for (std::size_t i = 0; i < values.size(); i += 2) {
    labels.push_back(values[i] * values[i] + values[i + 1] * values[i + 1] < 0.5 ? 1 : 0);
  }
  return {x, Tensor::from(labels, {count})};
}

TEST_P(TrainingOn, ASmallNetworkLearnsACircleAndSurvivesAFile) {
  const Points points = circle(256);
  const Variable x(points.x.to(device()));
  const Tensor labels = points.labels.to(device());
  Generator generator(6);
  Sequential net;
  net.add<Linear>(2, 16, generator);
  net.add<BatchNorm>(16);
  net.add<PRelu>();
  net.add<Linear>(16, 2, generator);
  net.to(device());
  Adam adam(net.named_parameters(), AdamOptions{0.03});
  const Schedule schedule = warmup_schedule(5, cosine_schedule(115, 0.01));
  double first = 0.0;
  for (std::int64_t step = 0; step < 120; ++step) {
    adam.set_rate_factor(schedule(step));
    adam.clear_gradients();
    const Variable loss = cross_entropy_loss(net(x), labels);
    loss.backward();
    clip_gradient_norm(net.parameters(), 5.0);
    adam.step();
    if (step == 0) first = loss.value().item();
  }
  net.eval();
  const double last = cross_entropy_loss(net(x), labels).value().item();
  EXPECT_LT(last, 0.3 * first);

  const ScratchFolder folder;
  net.save(folder / "net.safetensors");
  Generator other(7);
  Sequential copy;
  copy.add<Linear>(2, 16, other);
  copy.add<BatchNorm>(16);
  copy.add<PRelu>();
  copy.add<Linear>(16, 2, other);
  copy.to(device());
  copy.load(folder / "net.safetensors");
  copy.eval();
  EXPECT_EQ(cross_entropy_loss(copy(x), labels).value().item(), last);
}

/// A classifier with everything that a resumed training must restore.
struct Training {
  Sequential net;
  std::unique_ptr<Adam> adam;

  Training(std::uint64_t seed, Device device) {
    Generator generator(seed);
    net.add<Linear>(2, 16, generator);
    net.add<BatchNorm>(16);
    net.add<PRelu>();
    net.add<DropoutLayer>(0.5, seed, 1);
    net.add<Linear>(16, 2, generator);
    net.add<DropoutLayer>(0.1, seed, 2);
    net.to(device);
    adam = std::make_unique<Adam>(net.named_parameters(), AdamOptions{0.03});
  }

  void run(int steps) {
    const Points points = circle(64);
    const Device device = net.parameters().front().value().device();
    for (int step = 0; step < steps; ++step) {
      adam->clear_gradients();
      cross_entropy_loss(net(Variable(points.x.to(device))), points.labels.to(device)).backward();
      adam->step();
    }
  }
};

TEST_P(TrainingOn, AResumedTrainingGoesOnWithTheSameBits) {
  Training whole(8, device());
  whole.run(3);
  const ScratchFolder folder;
  whole.net.save(folder / "net.safetensors");
  save_safetensors(folder / "adam.safetensors", whole.adam->state());
  save_safetensors(folder / "random.safetensors", whole.net.random_state());
  Training resumed(9, device());
  resumed.net.load(folder / "net.safetensors");
  resumed.adam->load_state(load_safetensors(folder / "adam.safetensors"));
  resumed.net.load_random_state(load_safetensors(folder / "random.safetensors"));
  whole.run(3);
  resumed.run(3);
  const SafeTensors expected = whole.net.state(), actual = resumed.net.state();
  for (const auto& [name, tensor] : expected.tensors) {
    EXPECT_TRUE(same_values(actual.tensors.at(name), tensor)) << name;
  }
}

TEST(Layers, RandomStatesAreApartFromPyTorchsNamesAndChecked) {
  Training training(8, Device::cpu());
  EXPECT_FALSE(training.net.state().tensors.contains("3.sequence"));
  SafeTensors state = training.net.random_state();
  ASSERT_EQ(state.tensors.size(), 2u);
  EXPECT_EQ(state.tensors.at("5.sequence").to_vector<std::int64_t>(), (std::vector<std::int64_t>{8, 2, 0}));
  SafeTensors other = state;
  other.tensors["6.sequence"] = other.tensors["5.sequence"];
  EXPECT_THROW(training.net.load_random_state(other), InputError);
  other.tensors.erase("5.sequence");
  EXPECT_THROW(training.net.load_random_state(other), InputError);
  state.tensors["5.sequence"] = Tensor::zeros({3});
  EXPECT_THROW(training.net.load_random_state(state), InputError);
  state.tensors["5.sequence"] = Tensor::from<std::int64_t>({0, 0, -1}, {3});
  EXPECT_THROW(training.net.load_random_state(state), InputError);
}

CINNABAR_ON_EACH_DEVICE(TrainingOn);

}  // namespace
}  // namespace cinnabar::testing
