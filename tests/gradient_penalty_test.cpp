#include "autograd/gradient_penalty.hpp"

#include <gtest/gtest.h>

#include <cmath>

#include "autograd/elementwise.hpp"
#include "autograd/gradcheck.hpp"
#include "autograd/layout.hpp"
#include "autograd/reduce.hpp"
#include "tests/devices.hpp"
#include "tests/tensors.hpp"

namespace cinnabar::testing {
namespace {

using Inputs = std::vector<Variable>;

/// The definition, axis by axis, by slices.
Variable by_slices(const Variable& field, const VoxelSpacing& spacing) {
  Variable total(Tensor::zeros({}, field.value().dtype(), field.device()));
  int axes = 0;
  for (int axis = 0; axis < 3; ++axis) {
    const std::int64_t extent = field.shape()[4 - axis];
    if (extent == 1) continue;
    const Variable d = slice(field, 4 - axis, 1, extent) - slice(field, 4 - axis, 0, extent - 1);
    const double distance = spacing[static_cast<std::size_t>(axis)];
    total = total + mean(square(d / distance));
    ++axes;
  }
  return axes == 0 ? total : total / axes;
}

/// Rows shorter and longer than a tile, more slices than a block walks, and axes of one voxel.
std::vector<Shape> field_shapes() {
  return {{2, 3, 5, 9, 33}, {1, 1, 19, 2, 2}, {3, 2, 1, 11, 40},
          {1, 3, 4, 1, 1},  {2, 3, 1, 1, 1},  {1, 1, 1, 1, 70}};
}

TEST(GradientPenalty, ByHand) {
  const Variable field(Tensor::from<double>({1, 3, 6, 4}, {1, 1, 1, 2, 2}));
  // Along x 2 and -2, along y 5 and 1, each a mean of two squares.
  EXPECT_DOUBLE_EQ(gradient_penalty(field).value().item(), (4.0 + 13.0) / 2);
  EXPECT_DOUBLE_EQ(gradient_penalty(field, {2, 0.5, 1}).value().item(), (1.0 + 52.0) / 2);
  EXPECT_EQ(gradient_penalty(Variable(Tensor::full({2, 3, 1, 1, 1}, 5.0))).value().item(), 0.0);
}

TEST(GradientPenalty, Gradient) {
  for (const Shape& shape : {Shape{2, 3, 3, 4, 5}, Shape{1, 2, 1, 2, 3}}) {
    const auto result = gradcheck(
        [](const Inputs& v) {
          return gradient_penalty(v[0], {0.5, 1, 2}) * 100.0;
        },
        {random_tensor(shape, 1, -1, 1, DType::f64)});
    EXPECT_TRUE(result) << result.message;
  }
}

TEST(GradientPenalty, GradcheckRefusesTheGradientOfAnotherSpacing) {
  const auto wrong = [](const Inputs& v) {
    return record_one("wrong", gradient_penalty(v[0]).value(), {v[0]},
                      [f = v[0].value()](const Tensor& grad) {
                        Tensor grad_field = Tensor::empty_like(f);
                        cpu::gradient_penalty.backward(grad, f, {1, 1, 1.1}, grad_field);
                        return std::vector<Tensor>{grad_field};
                      });
  };
  EXPECT_FALSE(gradcheck(wrong, {random_tensor({1, 1, 3, 3, 3}, 2, -1, 1, DType::f64)}));
}

TEST(GradientPenalty, RefusesMisfits) {
  const Tensor field = Tensor::zeros({1, 3, 2, 2, 2});
  Tensor loss = Tensor::zeros({});
  Tensor wide = Tensor::zeros({}, DType::f64);
  Tensor other = Tensor::zeros({1, 3, 2, 2, 3});
  EXPECT_THROW(cpu::gradient_penalty.forward(Tensor::zeros({3, 2, 2, 2}), {1, 1, 1}, loss), Error);
  EXPECT_THROW(cpu::gradient_penalty.forward(Tensor::zeros({0, 3, 2, 2, 2}), {1, 1, 1}, loss), Error);
  EXPECT_THROW(cpu::gradient_penalty.forward(field, {1, 0, 1}, loss), Error);
  EXPECT_THROW(cpu::gradient_penalty.forward(field, {1, 1, NAN}, loss), Error);
  EXPECT_THROW(cpu::gradient_penalty.forward(field, {1, 1, 1}, wide), Error);
  EXPECT_THROW(cpu::gradient_penalty.backward(loss, field, {1, 1, 1}, other), Error);
}

class GradientPenaltyOn : public OnDevice {};

TEST_P(GradientPenaltyOn, AgreesWithItsDefinitionAndAssigns) {
  const VoxelSpacing spacing{0.5, 1, 2};
  for (const Shape& shape : field_shapes()) {
    const Tensor values = random_tensor(shape, 3, 1, 2);
    const Variable expected_field(values.to(DType::f64), true);
    const Variable expected = by_slices(expected_field, spacing);
    const Tensor field = values.to(device());
    Tensor loss = poisoned({}, DType::f32, device());
    Tensor gradient = poisoned(shape, DType::f32, device());
    gradient_penalty_on(device()).forward(field, spacing, loss);
    gradient_penalty_on(device()).backward(Tensor::full({}, 3.0, DType::f32, device()), field, spacing,
                                           gradient);
    EXPECT_LE(relative_error(loss, expected.value()), 1e-6) << shape;
    if (!expected.requires_grad()) {
      EXPECT_LE(relative_error(gradient, Tensor::zeros(shape)), 0.0) << shape;
      continue;
    }
    expected.backward(Tensor::full({}, 3.0, DType::f64));
    EXPECT_LE(relative_error(gradient, expected_field.grad()), 2e-6) << shape;
  }
}

CINNABAR_ON_EACH_DEVICE(GradientPenaltyOn);

}  // namespace
}  // namespace cinnabar::testing
