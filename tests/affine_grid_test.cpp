#include "autograd/affine_grid.hpp"

#include <gtest/gtest.h>

#include "autograd/gradcheck.hpp"
#include "kernels/affine_grid.hpp"
#include "tests/devices.hpp"
#include "tests/tensors.hpp"
#include "tests/threads.hpp"

namespace cinnabar::testing {
namespace {

std::vector<Tensor> run_all(Device device, DType dtype, const Tensor& theta, const Tensor& grad_grid,
                            bool align) {
  Tensor grid = poisoned(grad_grid.shape(), dtype, device);
  Tensor grad_theta = poisoned(theta.shape(), dtype, device);
  affine_grid_on(device).forward(theta.to(dtype).to(device), align, grid);
  affine_grid_on(device).backward(grad_grid.to(dtype).to(device), align, grad_theta);
  return {grid, grad_theta};
}

TEST(AffineGrid, IdentityReachesTheOuterCentresOrFaces) {
  const Variable identity(Tensor::from<float>({1, 0, 0, 0, 1, 0}, {1, 2, 3}));
  const auto corners = affine_grid(identity, {1, 2}, true).value().to_vector<float>();
  EXPECT_EQ(corners, (std::vector<float>{-1, 0, 1, 0}));  // one row: y is 0
  const auto inner = affine_grid(identity, {2, 4}, false).value().to_vector<float>();
  EXPECT_EQ(inner[0], -0.75f);
  EXPECT_EQ(inner[1], -0.5f);
  EXPECT_EQ(inner[15], 0.5f);
}

TEST(AffineGrid, GradientsMatchDifferences) {
  for (const bool align : {false, true}) {
    const auto flat = [&](const std::vector<Variable>& in) { return affine_grid(in[0], {3, 4}, align); };
    const auto deep = [&](const std::vector<Variable>& in) { return affine_grid(in[0], {3, 1, 5}, align); };
    EXPECT_TRUE(gradcheck(flat, {random_tensor({2, 2, 3}, 1, -1, 1, DType::f64)}));
    EXPECT_TRUE(gradcheck(deep, {random_tensor({2, 3, 4}, 2, -1, 1, DType::f64)}));
  }
}

TEST(AffineGrid, GradcheckRejectsTheOtherAlignment) {
  const auto wrong = [](const std::vector<Variable>& in) {
    const Tensor theta = in[0].value();
    return record_one("wrong", affine_grid(in[0], {3, 4}, true).value(), in, [=](const Tensor& grad) {
      return std::vector<Tensor>{run_all(Device::cpu(), DType::f64, theta, grad, false)[1]};
    });
  };
  EXPECT_FALSE(gradcheck(wrong, {random_tensor({1, 2, 3}, 3, -1, 1, DType::f64)}));
}

TEST(AffineGrid, RefusesMisfits) {
  const Variable theta(Tensor::zeros({1, 3, 4}));
  EXPECT_THROW(affine_grid(theta, {3, 4}, true), Error);
  EXPECT_THROW(affine_grid(theta, {3}, true), Error);
  EXPECT_THROW(affine_grid(Variable(Tensor::zeros({3, 4})), {3, 4, 5}, true), Error);
}

TEST(AffineGrid, BitsDoNotDependOnTheNumberOfThreads) {
  const Tensor theta = random_tensor({2, 3, 4}, 4);
  const Tensor grad = random_tensor({2, 20, 21, 22, 3}, 5);
  const auto compute = [&] { return run_all(Device::cpu(), DType::f32, theta, grad, true); };
  const auto one = on_threads(1, compute);
  const auto three = on_threads(3, compute);
  EXPECT_TRUE(same_values(one[0], three[0]) && same_values(one[1], three[1]));
}

class AffineGridOn : public OnDevice {};

TEST_P(AffineGridOn, AgreesWithFloat64AndAssigns) {
  for (const bool align : {false, true}) {
    const Tensor theta_3d = random_tensor({2, 3, 4}, 6);
    const Tensor grad_3d = random_tensor({2, 7, 31, 33, 3}, 7);
    const Tensor theta_2d = random_tensor({3, 2, 3}, 8);
    const Tensor grad_2d = random_tensor({3, 1, 37, 2}, 9);
    for (const auto& [theta, grad] : {std::pair{theta_3d, grad_3d}, std::pair{theta_2d, grad_2d}}) {
      const auto expected = run_all(Device::cpu(), DType::f64, theta, grad, align);
      const auto actual = run_all(device(), DType::f32, theta, grad, align);
      EXPECT_LE(relative_error(actual[0], expected[0]), 1e-6);
      EXPECT_LE(relative_error(actual[1], expected[1]), 2e-6);
      EXPECT_TRUE(same_values(actual[1], run_all(device(), DType::f32, theta, grad, align)[1]));
    }
  }
}

CINNABAR_ON_EACH_DEVICE(AffineGridOn);

}  // namespace
}  // namespace cinnabar::testing
