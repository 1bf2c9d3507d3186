#include "autograd/losses.hpp"

#include <gtest/gtest.h>

#include <functional>

#include "autograd/elementwise.hpp"
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

class LossesOn : public OnDevice {};

/// The loss of a batch is the mean of the losses of its entries, so the gradients of an entry are the same
/// but for the batch's size.
TEST_P(LossesOn, ABatchCountsAsTheMeanOfItsEntries) {
  using Loss = std::function<Variable(const Variable&, const Variable&)>;
  const std::pair<const char*, Loss> losses[] = {
      {"ncc", [](const Variable& a, const Variable& b) { return ncc_loss(a, b); }},
      {"lncc", [](const Variable& a, const Variable& b) { return lncc_loss(a, b, 2); }},
      {"dice", [](const Variable& a, const Variable& b) { return dice_loss(a, b); }},
      {"mse", [](const Variable& a, const Variable& b) { return mse_loss(a, b); }},
      {"gradient_penalty", [](const Variable& a, const Variable& b) { return gradient_penalty(a - b); }}};
  const std::int64_t batch = 3;
  const Shape entry{1, 2, 5, 7, 6};
  for (const auto& [name, loss] : losses) {
    const Tensor a = random_tensor(entry.with(0, batch), 5, 0, 1).to(device());
    const Tensor b = random_tensor(entry.with(0, batch), 6, 0, 1).to(device());
    const Variable prediction(a, true);
    const Variable whole = loss(prediction, Variable(b));
    whole.backward();
    double mean_of_entries = 0.0;
    for (std::int64_t n = 0; n < batch; ++n) {
      const Variable one(a.rows(n, 1), true);
      const Variable part = loss(one, Variable(b.rows(n, 1)));
      (part / static_cast<double>(batch)).backward();
      mean_of_entries += part.value().item() / static_cast<double>(batch);
      EXPECT_LE(relative_error(prediction.grad().rows(n, 1), one.grad()), 1e-5) << name << ' ' << n;
    }
    EXPECT_NEAR(whole.value().item(), mean_of_entries, 1e-6) << name;
  }
}

TEST_P(LossesOn, ImageLossesTakeSlicesAndVolumes) {
  for (const Shape& shape : {Shape{2, 1, 9, 11}, Shape{2, 1, 1, 9, 11}}) {
    const Variable a(random_tensor(shape, 7, 0, 1).to(device()));
    const Variable b(random_tensor(shape, 8, 0, 1).to(device()));
    for (const auto& [equal, other] :
         {std::pair{ncc_loss(a, a), ncc_loss(a, b)}, std::pair{lncc_loss(a, a, 2), lncc_loss(a, b, 2)}}) {
      EXPECT_NEAR(equal.value().item(), 0.0, 1e-4) << shape;
      EXPECT_GT(other.value().item(), 0.5) << shape;
    }
  }
}

CINNABAR_ON_EACH_DEVICE(LossesOn);

TEST(Losses, GradientsOfImageLosses) {
  const Tensor a = random_tensor({2, 2, 3, 4, 5}, 9, 0, 1, DType::f64);
  const Tensor b = random_tensor({2, 2, 3, 4, 5}, 10, 0, 1, DType::f64);
  using Inputs = std::vector<Variable>;
  const auto ncc = gradcheck([](const Inputs& v) { return ncc_loss(v[0], v[1]) * 10.0; }, {a, b});
  EXPECT_TRUE(ncc) << ncc.message;
  const auto lncc = gradcheck([](const Inputs& v) { return lncc_loss(v[0], v[1], 1) * 10.0; }, {a, b});
  EXPECT_TRUE(lncc) << lncc.message;
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
