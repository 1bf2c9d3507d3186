// Images and signals warped by CPAB flows, and flows recovered from images.

#include "layers/cpab_transformer.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <span>

#include "autograd/elementwise.hpp"
#include "autograd/gaussian_smooth.hpp"
#include "autograd/gradcheck.hpp"
#include "autograd/losses.hpp"
#include "layers/optimizer.hpp"
#include "tests/devices.hpp"
#include "tests/tensors.hpp"

namespace cinnabar::testing {
namespace {

using Boxes = std::vector<std::int32_t>;

Shape image_shape(std::int64_t batch, std::size_t dims, std::int64_t extent) {
  Shape shape{batch, 1};
  for (std::size_t i = 0; i < dims; ++i) shape = shape.append(extent + static_cast<std::int64_t>(i));
  return shape;
}

class CpabTransformerOn : public OnDevice {};
CINNABAR_ON_EACH_DEVICE(CpabTransformerOn);

TEST_P(CpabTransformerOn, ThetaZeroIsTheIdentityAndMinusThetaTheInverse) {
  for (const Boxes& boxes : {Boxes{4}, Boxes{3, 2}, Boxes{2, 2, 1}}) {
    const CpabTransformer warp(boxes, {}, {}, DType::f32, device());
    const Tensor image = random_tensor(image_shape(2, boxes.size(), 6), 1).to(device());
    const Variable zero(Tensor::zeros({2, warp.space().dim()}, DType::f32, device()));
    EXPECT_LE(relative_error(warp(Variable(image), zero).value(), image), 1e-6) << boxes.size();
    const Variable theta(random_tensor({2, warp.space().dim()}, 2, -0.3, 0.3).to(device()));
    const Shape spatial(std::span(image.shape().begin() + 2, image.shape().end()));
    const Tensor there = warp.grid(theta, spatial).value();
    const auto d = static_cast<std::int64_t>(boxes.size());
    const Tensor points =
        add_scalar(scale(Variable(there), 0.5), 0.5).value().reshape({2, there.numel() / (2 * d), d});
    const Variable back = cpab_flow(Variable(points), -theta, warp.space());
    const Tensor expected = cpab_grid_points({spatial.begin(), spatial.end()}, true, DType::f32, device());
    EXPECT_LE(relative_error(back.value().rows(0, 1).reshape(expected.shape()), expected), 1e-5);
  }
}

TEST_P(CpabTransformerOn, ASingleImageServesManyFields) {
  const CpabTransformer warp({3, 3}, {}, {}, DType::f32, device());
  const Tensor image = random_tensor({1, 2, 7, 9}, 3).to(device());
  const Variable theta(random_tensor({3, warp.space().dim()}, 4, -0.2, 0.2).to(device()));
  const Tensor all = warp(Variable(image), theta).value();
  ASSERT_EQ(all.shape(), (Shape{3, 2, 7, 9}));
  for (std::int64_t n = 0; n < 3; ++n) {
    const Tensor one = warp(Variable(image), Variable(theta.value().rows(n, 1))).value();
    EXPECT_TRUE(same_values(one, all.rows(n, 1))) << n;
  }
}

TEST(CpabTransformer, GradientsMatchDifferences) {
  for (const Boxes& boxes : {Boxes{3}, Boxes{2, 2}, Boxes{1, 2, 1}}) {
    const CpabTransformer warp(boxes, {.zero_boundary = false}, {}, DType::f64);
    const Tensor image = random_tensor(image_shape(1, boxes.size(), 5), 5, -1, 1, DType::f64);
    const Tensor theta = random_tensor({1, warp.space().dim()}, 6, -0.1, 0.1, DType::f64);
    EXPECT_TRUE(
        gradcheck([&](const std::vector<Variable>& in) { return warp(in[0], in[1]); }, {image, theta}))
        << boxes.size();
  }
}

/// Warps an image by a random flow and undoes it by gradient descent. Returns the share of the squared
/// difference that is left.
double recover(const Boxes& boxes, const Tensor& image, int steps) {
  const CpabTransformer warp(boxes);
  const Variable target(image);
  const Variable truth(warp.space().sample_prior(1, 0.4, 0.1, {.seed = 11}));
  const Variable moving = warp(target, truth).detach();
  Variable theta(Tensor::zeros({1, warp.space().dim()}), true);
  Adam adam({{"theta", theta}}, {.learning_rate = 0.05});
  const double before = mse_loss(moving, target).value().item();
  for (int step = 0; step < steps; ++step) {
    adam.set_rate_factor(cosine_schedule(steps)(step));
    adam.clear_gradients();
    mse_loss(warp(moving, theta), target).backward();
    adam.step();
  }
  return mse_loss(warp(moving, theta), target).value().item() / before;
}

TEST(CpabTransformer, AlignsASignal) {
  Tensor signal = Tensor::empty({1, 1, 200});
  for (std::int64_t i = 0; i < 200; ++i) {
    const double x = static_cast<double>(i) / 199.0;
    signal.data<float>()[i] =
        static_cast<float>(std::sin(14.0 * x) + 0.5 * std::cos(31.0 * x * x) * std::exp(-x));
  }
  EXPECT_LT(recover({10}, signal, 200), 0.02);
}

TEST(CpabTransformer, UndoesAWarpOfAnImage) {
  const Tensor noise = random_tensor({1, 1, 1, 40, 44}, 8);
  const Tensor image = gaussian_smooth(noise, {4.0, 4.0, 4.0}).reshape({1, 1, 40, 44});
  EXPECT_LT(recover({3, 3}, image, 150), 0.05);
}

TEST(CpabTransformer, UndoesAWarpOfAVolume) {
  const Tensor volume = gaussian_smooth(random_tensor({1, 1, 18, 20, 22}, 9), {2.0, 2.0, 2.0});
  EXPECT_LT(recover({2, 2, 2}, volume, 100), 0.05);
}

TEST(CpabTransformer, RefusesMisfits) {
  const CpabTransformer warp({3, 3});
  const Variable theta(Tensor::zeros({2, warp.space().dim()}));
  EXPECT_THROW(warp(Variable(Tensor::zeros({2, 1, 4, 5, 6})), theta), Error);
  EXPECT_THROW(warp(Variable(Tensor::zeros({3, 1, 5, 6})), theta), Error);
  EXPECT_THROW(warp(Variable(Tensor::zeros({2, 1, 5, 6})), Variable(Tensor::zeros({2, 1}))), Error);
  EXPECT_THROW(warp.grid(theta, {5, 6, 7}), Error);
}

}  // namespace
}  // namespace cinnabar::testing
