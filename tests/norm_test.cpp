#include "autograd/norm.hpp"

#include <gtest/gtest.h>

#include <cmath>

#include "autograd/elementwise.hpp"
#include "autograd/gradcheck.hpp"
#include "tests/devices.hpp"
#include "tests/tensors.hpp"

namespace cinnabar::testing {
namespace {

/// Many and few voxels, chunks of one set, groups of several channels, and odd extents.
std::vector<NormShape> norm_shapes() {
  return {{3, 5, 31, 5, true},  {2, 3, 20011, 3, true}, {67, 33, 1, 33, true},  {2, 6, 97, 2, false},
          {3, 4, 33, 4, false}, {1, 2, 9001, 1, false}, {130, 65, 1, 1, false}, {5, 12, 7, 3, false}};
}

std::vector<Tensor> run_all(Device device, DType dtype, const NormShape& shape, bool affine, bool constant) {
  const Shape full{shape.images, shape.channels, shape.voxels};
  const auto make = [&](const Shape& extents, std::uint64_t seed, double low, double high) {
    return random_tensor(extents, seed, low, high).to(dtype).to(device);
  };
  const Tensor x = make(full, 1, 3, 5);
  const Tensor grad = make(full, 2, -1, 1);
  const Tensor weight = affine ? make({shape.channels}, 3, 0.5, 2) : Tensor{};
  const Tensor bias = affine ? make({shape.channels}, 4, -1, 1) : Tensor{};
  Tensor mean = poisoned({shape.sets()}, DType::f64, device);
  Tensor variance = poisoned({shape.sets()}, DType::f64, device);
  Tensor y = poisoned(full, dtype, device);
  Tensor grad_x = poisoned(full, dtype, device);
  Tensor grad_weight = poisoned({shape.channels}, dtype, device);
  Tensor grad_bias = poisoned({shape.channels}, dtype, device);
  const Norm& kernels = norm_on(device);
  kernels.statistics(x, shape, mean, variance);
  kernels.forward(x, mean, variance, weight, bias, 1e-5, shape, y);
  kernels.backward(grad, x, mean, variance, weight, 1e-5, constant, shape, grad_x, grad_weight, grad_bias);
  return {mean, variance, y, grad_x, grad_weight, grad_bias};
}

TEST(Norm, NormalisesByHand) {
  const Variable x(Tensor::from<double>({1, 3, 10, 30}, {1, 2, 2}));
  const auto y = instance_norm(x, {}, {}, 0.0).value().to_vector<double>();
  EXPECT_EQ(y, (std::vector<double>{-1, 1, -1, 1}));
  const Variable rows(Tensor::from<double>({1, 3, 10, 30}, {2, 2}));
  EXPECT_EQ(layer_norm(rows, 1, {}, {}, 0.0).value().to_vector<double>(), y);
  EXPECT_EQ(group_norm(x, 2, {}, {}, 0.0).value().to_vector<double>(), y);
}

TEST(Norm, BatchNormMovesItsRunningStatistics) {
  RunningStatistics running{Tensor::full({1}, 1.0, DType::f64), Tensor::full({1}, 2.0, DType::f64), {}};
  const Variable x(Tensor::from<double>({1, 3, 5, 7}, {4, 1}));
  batch_norm(x, {}, {}, running, true, 0.25);
  EXPECT_DOUBLE_EQ(running.mean.item(), 0.75 * 1 + 0.25 * 4);
  EXPECT_DOUBLE_EQ(running.variance.item(), 0.75 * 2 + 0.25 * 20.0 / 3.0);
  const double mean = running.mean.item();
  const double deviation = std::sqrt(running.variance.item() + 1e-5);
  const auto y = batch_norm(x, {}, {}, running, false).value().to_vector<double>();
  EXPECT_NEAR(y[3], (7 - mean) / deviation, 1e-12);
  EXPECT_EQ(running.mean.item(), mean);
}

TEST(Norm, Gradients) {
  const Tensor x = random_tensor({3, 4, 2, 3}, 5, -1, 1, DType::f64);
  const Tensor weight = random_tensor({4}, 6, 0.5, 2, DType::f64);
  const Tensor bias = random_tensor({4}, 7, -1, 1, DType::f64);
  using Inputs = std::vector<Variable>;
  for (const bool training : {true, false}) {
    const auto batch = gradcheck(
        [&](const Inputs& v) {
          RunningStatistics running{
              Tensor::full({4}, 0.25, DType::f64), Tensor::full({4}, 0.5, DType::f64), {}};
          return batch_norm(v[0], v[1], v[2], running, training);
        },
        {x, weight, bias});
    EXPECT_TRUE(batch) << training << '\n' << batch.message;
  }
  const auto group =
      gradcheck([](const Inputs& v) { return group_norm(v[0], 2, v[1], v[2]); }, {x, weight, bias});
  EXPECT_TRUE(group) << group.message;
  const auto instance =
      gradcheck([](const Inputs& v) { return instance_norm(v[0], v[1], v[2]); }, {x, weight, bias});
  EXPECT_TRUE(instance) << instance.message;
  const auto plain = gradcheck([](const Inputs& v) { return instance_norm(v[0]); }, {x});
  EXPECT_TRUE(plain) << plain.message;
  const auto layer = gradcheck(
      [](const Inputs& v) { return layer_norm(v[0], 2, v[1], v[2]); },
      {x, random_tensor({2, 3}, 8, 0.5, 2, DType::f64), random_tensor({2, 3}, 9, -1, 1, DType::f64)});
  EXPECT_TRUE(layer) << layer.message;
}

TEST(Norm, GradcheckRefusesTheGradientOfConstantStatistics) {
  const Tensor x = random_tensor({2, 3, 7}, 10, -1, 1, DType::f64);
  const auto wrong = [](const std::vector<Variable>& v) {
    return record_one("wrong", instance_norm(v[0]).value(), {v[0]}, [x = v[0].value()](const Tensor& grad) {
      const NormShape shape{2, 3, 7, 3, false};
      Tensor mean = Tensor::empty({6}, DType::f64);
      Tensor variance = Tensor::empty({6}, DType::f64);
      Tensor grad_x = Tensor::empty_like(x);
      Tensor none;
      cpu::norm.statistics(x, shape, mean, variance);
      cpu::norm.backward(grad, x, mean, variance, {}, 1e-5, true, shape, grad_x, none, none);
      return std::vector<Tensor>{grad_x};
    });
  };
  EXPECT_FALSE(gradcheck(wrong, {x}));
}

TEST(Norm, RefusesMisfits) {
  const Variable x(Tensor::zeros({2, 4, 3}));
  const Variable three(Tensor::zeros({3}));
  EXPECT_THROW(group_norm(x, 3), Error);
  EXPECT_THROW(group_norm(x, 2, three, three), Error);
  EXPECT_THROW(group_norm(x, 2, Variable(Tensor::zeros({4}))), Error);
  EXPECT_THROW(instance_norm(Variable(Tensor::zeros({2, 4}))), Error);
  EXPECT_THROW(layer_norm(x, 4), Error);
  EXPECT_THROW(layer_norm(x, 1, Variable(Tensor::zeros({4})), Variable(Tensor::zeros({4}))), Error);
  EXPECT_THROW(layer_norm(x, 1, {}, {}, -1.0), Error);
  RunningStatistics running{Tensor::zeros({4}), Tensor::zeros({4}), {}};
  EXPECT_THROW(batch_norm(Variable(Tensor::zeros({1, 4})), {}, {}, running, true), Error);
  EXPECT_THROW(batch_norm(x, {}, {}, running, true, 1.5), Error);
  RunningStatistics other{Tensor::zeros({3}), Tensor::zeros({3}), {}};
  EXPECT_THROW(batch_norm(x, {}, {}, other, false), Error);
  running.batches = Tensor::zeros({1});  // not i64
  EXPECT_THROW(batch_norm(x, {}, {}, running, true), Error);
}

class NormOn : public OnDevice {};

TEST_P(NormOn, AgreesWithFloat64AndAssigns) {
  for (const NormShape& shape : norm_shapes()) {
    for (const bool affine : {true, false}) {
      for (const bool constant : {true, false}) {
        const auto expected = run_all(Device::cpu(), DType::f64, shape, affine, constant);
        const auto actual = run_all(device(), DType::f32, shape, affine, constant);
        for (std::size_t k = 0; k < expected.size(); ++k) {
          EXPECT_LE(relative_error(actual[k], expected[k]), 2e-6)
              << k << ' ' << shape.images << ' ' << shape.channels << ' ' << shape.voxels << ' '
              << shape.groups << ' ' << affine << ' ' << constant;
        }
      }
    }
  }
}

TEST_P(NormOn, LosesNothingFarFromZero) {
  const Shape shape{1, 2, 4099};
  const Tensor near = random_tensor(shape, 11, -1, 1, DType::f64);
  std::vector<float> shifted;
  for (const double value : near.to_vector<double>()) shifted.push_back(static_cast<float>(value + 1e4));
  const Tensor far = Tensor::from(shifted, shape);
  const Tensor expected = instance_norm(Variable(far.to(DType::f64))).value();
  EXPECT_LE(relative_error(instance_norm(Variable(far.to(device()))).value(), expected), 2e-6);
}

TEST_P(NormOn, RunningStatisticsFollowTheBatch) {
  const Tensor x = random_tensor({3, 5, 17}, 12, 2, 4);
  RunningStatistics expected{Tensor::zeros({5}, DType::f64), Tensor::full({5}, 1.0, DType::f64), {}};
  RunningStatistics actual{Tensor::zeros({5}).to(device()), Tensor::full({5}, 1.0).to(device()),
                           Tensor::full({}, 4, DType::i64).to(device())};
  batch_norm(Variable(x.to(DType::f64)), {}, {}, expected, true, 0.3);
  batch_norm(Variable(x.to(device())), {}, {}, actual, true, 0.3);
  EXPECT_EQ(actual.batches.item(), 5);
  EXPECT_LE(relative_error(actual.mean, expected.mean), 1e-6);
  EXPECT_LE(relative_error(actual.variance, expected.variance), 1e-6);
}

CINNABAR_ON_EACH_DEVICE(NormOn);

}  // namespace
}  // namespace cinnabar::testing
