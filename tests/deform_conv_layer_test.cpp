#include <gtest/gtest.h>

#include "autograd/elementwise.hpp"
#include "autograd/gradcheck.hpp"
#include "autograd/reduce.hpp"
#include "layers/activation.hpp"
#include "layers/deform_conv.hpp"
#include "layers/sequential.hpp"
#include "tests/devices.hpp"
#include "tests/parameter_gradients.hpp"
#include "tests/tensors.hpp"

namespace cinnabar::testing {
namespace {

/// Moves the predicting convolution away from its start at zero.
void disturb(Module& layer) {
  for (const auto& [name, variable] : layer.named_parameters()) {
    Variable parameter = variable;
    if (name.find("offset.") == std::string::npos) continue;
    parameter.set_value(random_tensor(parameter.shape(), 7, -0.4, 0.4, parameter.value().dtype()));
  }
}

TEST(DeformConvLayer, StartsAsThePlainConvolution) {
  ConvWindow window = conv_cubes(3, 1, 2);
  window.options.groups = 2;
  Generator generator(3), same(3);
  DeformConvLayer layer(4, 6, window, generator, {.offset_groups = 2});
  Conv3dLayer plain(4, 6, window, same);
  const Variable x(random_tensor({2, 4, 5, 6, 7}, 1));
  EXPECT_LE(relative_error(layer(x).value(), plain(x).value()), 2e-6);
  disturb(layer);
  EXPECT_GE(relative_error(layer(x).value(), plain(x).value()), 1e-2);
}

TEST(DeformConvLayer, HasItsOwnPredictingConvolution) {
  Generator generator(1);
  const auto shape_of_offset = [&](const ConvWindow& window, const DeformConvLayerOptions& options) {
    const DeformConvLayer layer(4, 2, window, generator, options);
    const auto parameters = layer.named_parameters();
    EXPECT_EQ(parameters[0].name, "weight");
    EXPECT_EQ(parameters[options.with_bias ? 2 : 1].name, "offset.weight");
    return parameters[options.with_bias ? 2 : 1].variable.shape();
  };
  EXPECT_EQ(shape_of_offset(conv_cubes(3, 1), {}), (Shape{27 * 4, 4, 3, 3, 3}));
  EXPECT_EQ(shape_of_offset(conv_cubes(3, 1), {.masked = false, .with_bias = false}),
            (Shape{27 * 3, 4, 3, 3, 3}));
  EXPECT_EQ(shape_of_offset(conv_squares(3, 1), {.axes = 2, .offset_groups = 2}),
            (Shape{9 * 3 * 2, 4, 1, 3, 3}));
}

TEST(DeformConvLayer, GradientsMatchDifferences) {
  for (const int axes : {2, 3}) {
    Generator generator(2);
    const ConvWindow window = axes == 2 ? conv_squares(3, 1, 2) : conv_cubes(2, 1);
    DeformConvLayer layer(2, 3, window, generator, {.axes = axes, .offset_groups = 2});
    layer.to(DType::f64);
    disturb(layer);
    const Tensor x = random_tensor({2, 2, axes == 2 ? 1 : 3, 5, 4}, 4, -1, 1, DType::f64);
    const auto fn = [&](const std::vector<Variable>& in) { return layer(in[0]); };
    const GradcheckResult result = gradcheck(fn, {x}, {.max_entries = 40});
    EXPECT_TRUE(result) << axes << '\n' << result.message;
    const auto loss = [&] { return sum(layer(Variable(x)) * layer(Variable(x))); };
    layer.clear_gradients();
    loss().backward();
    for (const auto& [name, parameter] : layer.named_parameters()) {
      EXPECT_LE(error_along(loss, parameter, parameter.grad()), 1e-5) << axes << ' ' << name;
    }
  }
}

TEST(DeformConvLayer, JoinsWhatFollowsInASequential) {
  Generator generator(1);
  Sequential net;
  DeformConvLayer& layer =
      net.add<DeformConvLayer>(1, 2, conv_squares(3, 1), generator, DeformConvLayerOptions{.axes = 2});
  PRelu& activation = net.add<PRelu>();
  disturb(net);
  const Variable x(random_tensor({1, 1, 1, 4, 5}, 1));
  EXPECT_TRUE(same_values(net(x).value(), activation(layer(x)).value()));
}

TEST(DeformConvLayer, RefusesMisfits) {
  Generator generator(1);
  EXPECT_THROW(DeformConvLayer(2, 2, conv_cubes(3, 1), generator, {.axes = 2}), Error);
  EXPECT_THROW(DeformConvLayer(2, 2, conv_cubes(3, 1), generator, {.axes = 1}), Error);
  EXPECT_THROW(DeformConvLayer(4, 2, conv_cubes(3, 1), generator, {.offset_groups = 3}), Error);
  DeformConvLayer flat(2, 2, conv_squares(3, 1), generator, {.axes = 2});
  EXPECT_THROW(flat(Variable(Tensor::zeros({1, 2, 3, 4, 4}))), Error);
}

class DeformConvLayerOn : public OnDevice {};

TEST_P(DeformConvLayerOn, AgreesWithTheCpu) {
  Generator generator(1);
  DeformConvLayer layer(2, 3, conv_cubes(3, 1), generator);
  disturb(layer);
  const Tensor x = random_tensor({1, 2, 4, 3, 5}, 1);
  const auto run = [&](Device device) {
    layer.to(device);
    layer.clear_gradients();
    const Variable output = layer(Variable(x.to(device)));
    output.backward(random_tensor(output.shape(), 8).to(device));
    std::vector<Tensor> results{output.value().to(Device::cpu())};
    for (const Variable& parameter : layer.parameters()) {
      results.push_back(parameter.grad().to(Device::cpu()));
    }
    return results;
  };
  const std::vector<Tensor> expected = run(Device::cpu()), actual = run(device());
  for (std::size_t i = 0; i < actual.size(); ++i) {
    EXPECT_LE(relative_error(actual[i], expected[i]), 1e-5) << i;
  }
}

CINNABAR_ON_EACH_DEVICE(DeformConvLayerOn);

}  // namespace
}  // namespace cinnabar::testing
