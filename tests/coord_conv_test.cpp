#include "layers/coord_conv.hpp"

#include <gtest/gtest.h>

#include "autograd/gradcheck.hpp"
#include "autograd/layout.hpp"
#include "layers/activation.hpp"
#include "layers/sequential.hpp"
#include "tests/devices.hpp"
#include "tests/tensors.hpp"

namespace cinnabar::testing {
namespace {

TEST(CoordConv, ChannelsRunFromMinusOneToOneAlongTheirAxes) {
  const Tensor flat = coordinate_channels({1, 2, 3}, {.axes = 2, .with_radius = true});
  EXPECT_EQ(flat.shape(), (Shape{1, 3, 1, 2, 3}));
  const float r = std::sqrt(2.0f);
  EXPECT_EQ(flat.to_vector<float>(),
            (std::vector<float>{-1, 0, 1, -1, 0, 1, -1, -1, -1, 1, 1, 1, r, 1, r, r, 1, r}));
  const Tensor deep = coordinate_channels({2, 1, 2});
  EXPECT_EQ(deep.to_vector<float>(), (std::vector<float>{-1, 1, -1, 1, 0, 0, 0, 0, -1, -1, 1, 1}));
}

TEST(CoordConv, ConvolvesTheInputBesideItsCoordinates) {
  Generator generator(1), same(1);
  CoordConvLayer layer(2, 3, conv_cubes(3, 1), generator, {.with_radius = true});
  Conv3dLayer plain(6, 3, conv_cubes(3, 1), same);
  const Variable x(random_tensor({2, 2, 3, 4, 5}, 1));
  const Variable coordinates(
      expand_to(coordinate_channels({3, 4, 5}, {.with_radius = true}), {2, 4, 3, 4, 5}));
  EXPECT_TRUE(same_values(layer(x).value(), plain(concat({x, coordinates}, 1)).value()));
  EXPECT_EQ(layer.named_parameters()[0].name, "conv.weight");
  // Other extents and another dtype than those it has just seen.
  EXPECT_EQ(layer(Variable(random_tensor({1, 2, 2, 5, 3}, 2))).shape(), (Shape{1, 3, 2, 5, 3}));
  layer.to(DType::f64);
  const auto fn = [&](const std::vector<Variable>& in) { return layer(in[0]); };
  const GradcheckResult result = gradcheck(fn, {random_tensor({1, 2, 2, 3, 3}, 3, -1, 1, DType::f64)});
  EXPECT_TRUE(result) << result.message;
}

TEST(CoordConv, JoinsWhatFollowsInASequential) {
  Generator generator(1);
  Sequential net;
  CoordConvLayer& layer = net.add<CoordConvLayer>(1, 2, conv_squares(3, 1), generator, CoordConvOptions{2});
  LeakyRelu& activation = net.add<LeakyRelu>(0.1);
  const Variable x(random_tensor({1, 1, 1, 4, 5}, 1));
  EXPECT_TRUE(same_values(net(x).value(), activation(layer(x)).value()));
}

TEST(CoordConv, RefusesMisfits) {
  Generator generator(1);
  EXPECT_THROW(CoordConvLayer(1, 1, conv_cubes(3), generator, {.axes = 1}), Error);
  ConvWindow grouped = conv_cubes(3, 1);
  grouped.options.groups = 2;
  EXPECT_THROW(CoordConvLayer(1, 2, grouped, generator, {.axes = 3}), Error);
  CoordConvLayer flat(1, 1, conv_squares(3, 1), generator, {.axes = 2});
  EXPECT_THROW(flat(Variable(Tensor::zeros({1, 1, 2, 4, 4}))), Error);
  EXPECT_THROW(flat(Variable(Tensor::zeros({1, 1, 4, 4}))), Error);
}

class CoordConvOn : public OnDevice {};

TEST_P(CoordConvOn, AgreesWithTheCpu) {
  Generator generator(1);
  CoordConvLayer layer(1, 2, conv_cubes(3, 1), generator);
  const Tensor x = random_tensor({2, 1, 3, 5, 4}, 1);
  const Tensor expected = layer(Variable(x)).value();
  layer.to(device());
  EXPECT_LE(relative_error(layer(Variable(x.to(device()))).value(), expected), 2e-6);
}

CINNABAR_ON_EACH_DEVICE(CoordConvOn);

}  // namespace
}  // namespace cinnabar::testing
