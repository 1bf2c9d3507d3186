#include "models/unet.hpp"

#include <gtest/gtest.h>

#include "autograd/elementwise.hpp"
#include "autograd/gradcheck.hpp"
#include "autograd/losses.hpp"
#include "autograd/reduce.hpp"
#include "layers/optimizer.hpp"
#include "tests/devices.hpp"
#include "tests/parameter_gradients.hpp"
#include "tests/scratch_folder.hpp"
#include "tests/tensors.hpp"

namespace cinnabar::testing {
namespace {

using enum UnetDownsampling;

const UnetOptions kTiny{.in = 2, .out = 2, .encoder = {2, 3, 2}, .decoder = {3, 2}, .convolutions = 1};

std::map<std::string, Variable> by_name(const Module& module) {
  std::map<std::string, Variable> found;
  for (const auto& [name, variable] : module.named_parameters()) found[name] = variable;
  return found;
}

TEST(Unet, KeepsExtentsOfAnySize) {
  const NoGrad off;
  for (const UnetDownsampling downsampling : {stride, max_pool}) {
    for (const std::int64_t n : {1, 2, 3, 5, 6, 7, 8, 9, 13}) {
      Unet deep({.in = 1, .out = 3, .encoder = {1, 2, 1, 2}, .downsampling = downsampling});
      EXPECT_EQ(deep(Variable(random_tensor({2, 1, n, 4, n + 3}, 1))).shape(), (Shape{2, 3, n, 4, n + 3}));
      Unet flat({.encoder = {2, 1, 3}, .axes = 2, .downsampling = downsampling});
      EXPECT_EQ(flat(Variable(random_tensor({1, 1, 1, n, 6}, 1))).shape(), (Shape{1, 1, 1, n, 6}));
    }
  }
}

TEST(Unet, HasTheWidthsItIsAskedFor) {
  const Unet net({.in = 2, .out = 3, .encoder = {4, 8, 16}, .decoder = {5, 6}, .convolutions = 2});
  const auto parameters = by_name(net);
  const auto shape = [&](const std::string& name) { return parameters.at(name).shape(); };
  EXPECT_EQ(shape("encoder0.0.weight"), (Shape{4, 2, 3, 3, 3}));
  EXPECT_EQ(shape("encoder2.0.weight"), (Shape{16, 8, 3, 3, 3}));
  EXPECT_EQ(shape("encoder2.2.weight"), (Shape{16, 16, 3, 3, 3}));
  EXPECT_EQ(shape("decoder1.0.weight"), (Shape{6, 16 + 8, 3, 3, 3}));
  EXPECT_EQ(shape("decoder0.0.weight"), (Shape{5, 6 + 4, 3, 3, 3}));
  EXPECT_EQ(shape("output.weight"), (Shape{3, 5, 1, 1, 1}));
  EXPECT_EQ(parameters.size(), 22u);
  const Unet flat({.encoder = {4}, .kernel = 5, .axes = 2, .activation = UnetActivation::prelu});
  EXPECT_EQ(by_name(flat).at("encoder0.2.weight").shape(), (Shape{4, 4, 1, 5, 5}));
  EXPECT_EQ(by_name(flat).at("encoder0.3.weight").shape(), (Shape{1}));
}

/// A kernel of 3^3 taps that hands channel `from` on to channel 0.
Tensor hands_on(const Shape& weight, std::int64_t from) {
  Tensor taps = Tensor::zeros(weight);
  taps.data<float>()[from * 27 + 13] = 1.0f;
  return taps;
}

TEST(Unet, SkipsBringTheInputToTheOutputUnchanged) {
  Unet net({.encoder = {1, 1, 1}, .convolutions = 1});
  const auto parameters = by_name(net);
  const auto set = [&](const std::string& name, std::int64_t from) {
    Variable weight = parameters.at(name);
    weight.set_value(hands_on(weight.shape(), from));
  };
  set("encoder0.0.weight", 0);
  set("decoder0.0.weight", 1);  // behind the doubled features
  Variable output = parameters.at("output.weight");
  output.set_value(Tensor::full({1, 1, 1, 1, 1}, 1.0));
  const Tensor positive = random_tensor({2, 1, 5, 7, 6}, 1, 0.1, 1);
  EXPECT_TRUE(same_values(net(Variable(positive)).value(), positive));
  // And by way of the coarser levels what is constant.
  for (const char* name : {"encoder1.0.weight", "encoder2.0.weight", "decoder1.0.weight"}) set(name, 0);
  set("decoder0.0.weight", 0);
  const Tensor constant = Tensor::full({1, 1, 5, 7, 6}, 0.75);
  EXPECT_TRUE(same_values(net(Variable(constant)).value(), constant));
}

TEST(Unet, GradientsMatchDifferences) {
  for (const UnetDownsampling downsampling : {stride, max_pool}) {
    UnetOptions options = kTiny;
    options.downsampling = downsampling;
    options.activation = downsampling == stride ? UnetActivation::leaky_relu : UnetActivation::prelu;
    Unet net(options);
    net.to(DType::f64);
    const Tensor x = random_tensor({1, 2, 3, 5, 4}, 2, -1, 1, DType::f64);
    const auto fn = [&](const std::vector<Variable>& in) { return net(in[0]); };
    const GradcheckResult result = gradcheck(fn, {x}, {.max_entries = 40});
    EXPECT_TRUE(result) << result.message;
    const auto loss = [&] { return sum(square(net(Variable(x)))); };
    net.clear_gradients();
    loss().backward();
    for (const auto& [name, parameter] : net.named_parameters()) {
      EXPECT_LE(error_along(loss, parameter, parameter.grad()), 1e-5) << name;
      Tensor wrong = parameter.grad().clone();
      for (std::int64_t i = 0; i < wrong.numel(); ++i) wrong.data<double>()[i] *= 1.01;
      EXPECT_GE(error_along(loss, parameter, wrong), 5e-3) << name << ": a wrong gradient passed";
    }
  }
}

TEST(Unet, StateReturnsFromAFile) {
  const ScratchFolder folder;
  UnetOptions options = kTiny;
  options.seed = 3;
  Unet net(options), other(kTiny);
  const Variable x(random_tensor({1, 2, 4, 4, 4}, 1));
  EXPECT_FALSE(same_values(net(x).value(), other(x).value()));
  net.save(folder / "unet.safetensors");
  other.load(folder / "unet.safetensors");
  EXPECT_TRUE(same_values(net(x).value(), other(x).value()));
  Unet wider({.in = 2, .out = 2, .encoder = {3, 3, 2}, .convolutions = 1});
  EXPECT_THROW(wider.load(folder / "unet.safetensors"), InputError);
}

TEST(Unet, LearnsToFindABallInAFewSteps) {
  Unet net({.encoder = {4, 8}, .convolutions = 1, .seed = 1});
  // A bright ball under noise, and where it is.
  constexpr std::int64_t kExtent = 9;
  Tensor truth = Tensor::zeros({1, 1, kExtent, kExtent, kExtent});
  for (std::int64_t i = 0; i < truth.numel(); ++i) {
    const std::int64_t x = i % kExtent - 3, y = i / kExtent % kExtent - 5, z = i / kExtent / kExtent - 4;
    truth.data<float>()[i] = x * x + y * y + z * z <= 9 ? 1.0f : 0.0f;
  }
  const Variable target(truth), scan = target + Variable(random_tensor(truth.shape(), 2, -0.6, 0.6));
  Adam adam(net.named_parameters(), {.learning_rate = 2e-2});
  const auto loss = [&] { return dice_loss(sigmoid(net(scan)), target); };
  const double before = loss().value().item();
  for (int step = 0; step < 40; ++step) {
    adam.clear_gradients();
    loss().backward();
    adam.step();
  }
  EXPECT_LT(loss().value().item(), 0.2) << "before: " << before;
  EXPECT_GT(before, 0.5);
}

TEST(Unet, StartsNearZeroWhereAskedTo) {
  UnetOptions options = kTiny;
  Unet net(options);
  options.output_scale = 1e-3;
  Unet quiet(options);
  const Variable x(random_tensor({1, 2, 4, 4, 4}, 1));
  EXPECT_LE(relative_error(quiet(x).value(), (1e-3 * net(x)).value()), 1e-5);
}

TEST(Unet, RefusesBadOptionsAndShapes) {
  EXPECT_THROW(Unet({.encoder = {}}), Error);
  EXPECT_THROW(Unet({.encoder = {2, 2}, .decoder = {2, 2}}), Error);
  EXPECT_THROW(Unet({.encoder = {2, 0}}), Error);
  EXPECT_THROW(Unet({.convolutions = 0}), Error);
  EXPECT_THROW(Unet({.kernel = 4}), Error);
  EXPECT_THROW(Unet({.axes = 4}), Error);
  Unet net(kTiny), flat({.encoder = {1}, .axes = 2});
  EXPECT_THROW(net(Variable(Tensor::zeros({1, 1, 4, 4, 4}))), Error);
  EXPECT_THROW(net(Variable(Tensor::zeros({2, 4, 4, 4}))), Error);
  EXPECT_THROW(flat(Variable(Tensor::zeros({1, 1, 2, 4, 4}))), Error);
}

class UnetOn : public OnDevice {};

TEST_P(UnetOn, AgreesWithTheCpu) {
  Unet net(kTiny);
  const Tensor x = random_tensor({1, 2, 3, 5, 4}, 1);
  const auto run = [&](Device device) {
    net.to(device);
    net.clear_gradients();
    const Variable output = net(Variable(x.to(device)));
    output.backward(random_tensor(output.shape(), 8).to(device));
    std::vector<Tensor> results{output.value().to(Device::cpu())};
    for (const Variable& parameter : net.parameters()) {
      results.push_back(parameter.grad().to(Device::cpu()));
    }
    return results;
  };
  const std::vector<Tensor> expected = run(Device::cpu()), actual = run(device());
  for (std::size_t i = 0; i < actual.size(); ++i) {
    EXPECT_LE(relative_error(actual[i], expected[i]), 1e-5) << i;
  }
}

CINNABAR_ON_EACH_DEVICE(UnetOn);

}  // namespace
}  // namespace cinnabar::testing
