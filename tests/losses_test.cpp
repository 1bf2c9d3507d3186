#include "autograd/losses.hpp"

#include <gtest/gtest.h>

#include "autograd/gradcheck.hpp"
#include "tests/devices.hpp"
#include "tests/tensors.hpp"

namespace cinnabar::testing {
namespace {

constexpr LossReduction kReductions[] = {LossReduction::none, LossReduction::sum, LossReduction::mean};

TEST(Losses, ByHand) {
  const Variable a(Tensor::from<double>({1, 2, 5}, {3}));
  const Variable b(Tensor::from<double>({1, 2.5, 2}, {3}));
  EXPECT_DOUBLE_EQ(l1_loss(a, b, LossReduction::sum).value().item(), 3.5);
  EXPECT_DOUBLE_EQ(mse_loss(a, b).value().item(), 9.25 / 3);
  EXPECT_EQ(smooth_l1_loss(a, b, 1.0, LossReduction::none).value().to_vector<double>(),
            (std::vector<double>{0, 0.125, 2.5}));
  const Variable p(Tensor::from<double>({1, 0, 0.5, 0.5}, {1, 2, 2}));
  const Variable t(Tensor::from<double>({1, 0, 1, 0}, {1, 2, 2}));
  EXPECT_DOUBLE_EQ(dice_loss(p, t, 0.0).value().item(), 0.25);
}

TEST(Losses, Gradients) {
  const Tensor a = random_tensor({2, 3, 5}, 1, -1, 1, DType::f64);
  const Tensor b = random_tensor({2, 3, 5}, 2, -1, 1, DType::f64);
  using Inputs = std::vector<Variable>;
  for (const LossReduction reduction : kReductions) {
    const auto l1 = gradcheck([=](const Inputs& v) { return l1_loss(v[0], v[1], reduction); }, {a, b});
    EXPECT_TRUE(l1) << l1.message;
    const auto mse = gradcheck([=](const Inputs& v) { return mse_loss(v[0], v[1], reduction); }, {a, b});
    EXPECT_TRUE(mse) << mse.message;
    const auto smooth =
        gradcheck([=](const Inputs& v) { return smooth_l1_loss(v[0], v[1], 0.4, reduction); }, {a, b});
    EXPECT_TRUE(smooth) << smooth.message;
  }
  const Tensor p = random_tensor({2, 3, 5}, 3, 0, 1, DType::f64);
  const Tensor t = random_tensor({2, 3, 5}, 4, 0, 1, DType::f64);
  const auto dice = gradcheck([](const Inputs& v) { return dice_loss(v[0], v[1], 0.1); }, {p, t});
  EXPECT_TRUE(dice) << dice.message;
}

TEST(Losses, EqualElementsHaveNoSlope) {
  const Variable a(Tensor::from<float>({1, 2}, {2}), true);
  const Variable b(Tensor::from<float>({1, 0}, {2}));
  l1_loss(a, b, LossReduction::sum).backward();
  EXPECT_EQ(a.grad().to_vector<float>(), (std::vector<float>{0, 1}));
}

TEST(Losses, RefuseMisfits) {
  const Variable three(Tensor::zeros({3}));
  const Variable one(Tensor::zeros({1}));
  EXPECT_THROW(l1_loss(three, one), Error);
  EXPECT_THROW(mse_loss(three, one), Error);
  EXPECT_THROW(smooth_l1_loss(three, three, 0.0), Error);
  EXPECT_THROW(dice_loss(three, three), Error);
}

}  // namespace
}  // namespace cinnabar::testing
