#include "autograd/cross_entropy.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "autograd/gradcheck.hpp"
#include "kernels/cpu/vector_exp.hpp"
#include "tests/devices.hpp"
#include "tests/tensors.hpp"

namespace cinnabar::testing {
namespace {

Tensor random_labels(const Shape& shape, std::int64_t classes, std::uint64_t seed, bool some_ignored) {
  std::vector<std::int64_t> labels;
  for (const double value : random_tensor(shape, seed, 0, static_cast<double>(classes)).to_vector<double>()) {
    const auto label = static_cast<std::int64_t>(value);
    labels.push_back(some_ignored && labels.size() % 5 == 2 ? -100 : std::min(label, classes - 1));
  }
  return Tensor::from(labels, shape);
}

TEST(CrossEntropy, ByHand) {
  const Variable logits(Tensor::from<double>({0, std::log(3.0), 1, 1}, {2, 2}));
  const Tensor labels = Tensor::from<std::int64_t>({0, 1}, {2});
  const auto terms = cross_entropy_loss(logits, labels, {}, LossReduction::none).value().to_vector<double>();
  EXPECT_NEAR(terms[0], std::log(4.0), 1e-12);
  EXPECT_NEAR(terms[1], std::log(2.0), 1e-12);
  const Tensor weight = Tensor::from<double>({3, 1}, {2});
  EXPECT_NEAR(cross_entropy_loss(logits, labels, weight).value().item(),
              (3 * std::log(4.0) + std::log(2.0)) / 4, 1e-12);
  const Variable huge(Tensor::from<double>({1e4, -1e4}, {1, 2}));
  EXPECT_NEAR(cross_entropy_loss(huge, Tensor::from<std::int64_t>({1}, {1})).value().item(), 2e4, 1e-8);
}

TEST(CrossEntropy, Gradients) {
  const Tensor logits = random_tensor({2, 4, 3, 2}, 1, -2, 2, DType::f64);
  const Tensor weight = random_tensor({4}, 2, 0.5, 2, DType::f64);
  const Tensor labels = random_labels({2, 3, 2}, 4, 3, true);
  for (const auto reduction : {LossReduction::none, LossReduction::sum, LossReduction::mean}) {
    for (const double smoothing : {0.0, 0.2}) {
      for (const Tensor& weights : {Tensor{}, weight}) {
        const auto result = gradcheck(
            [&](const std::vector<Variable>& v) {
              return cross_entropy_loss(v[0], labels, weights, reduction, {smoothing});
            },
            {logits});
        EXPECT_TRUE(result) << smoothing << '\n' << result.message;
      }
    }
  }
}

TEST(CrossEntropy, GradcheckRefusesTheGradientOfOtherLabels) {
  const Tensor logits = random_tensor({3, 4}, 4, -2, 2, DType::f64);
  const Tensor labels = Tensor::from<std::int64_t>({0, 1, 2}, {3});
  const Tensor others = Tensor::from<std::int64_t>({0, 1, 3}, {3});
  const auto wrong = [&](const std::vector<Variable>& v) {
    const Tensor terms = cross_entropy_loss(v[0], labels, {}, LossReduction::none).value();
    return record_one("wrong", terms, {v[0]}, [x = v[0].value(), others](const Tensor& grad) {
      Tensor grad_logits = Tensor::empty_like(x);
      cpu::cross_entropy.backward(grad, x, others, {}, {}, grad_logits);
      return std::vector<Tensor>{grad_logits};
    });
  };
  EXPECT_FALSE(gradcheck(wrong, {logits}));
}

TEST(CrossEntropy, RefusesMisfits) {
  const Variable logits(Tensor::zeros({2, 3, 4}));
  const Tensor labels = Tensor::zeros({2, 4}, DType::i64);
  EXPECT_NO_THROW(cross_entropy_loss(logits, labels));
  EXPECT_THROW(cross_entropy_loss(logits, Tensor::zeros({2, 3}, DType::i64)), Error);
  EXPECT_THROW(cross_entropy_loss(logits, Tensor::zeros({2, 4}, DType::i32)), Error);
  EXPECT_THROW(cross_entropy_loss(logits, labels, Tensor::zeros({4})), Error);
  EXPECT_THROW(cross_entropy_loss(logits, labels, {}, LossReduction::sum, {1.5}), Error);
  EXPECT_THROW(cross_entropy_loss(logits, Tensor::full({2, 4}, 3, DType::i64)), Error);
  EXPECT_THROW(cross_entropy_loss(logits, Tensor::full({2, 4}, -1, DType::i64)), Error);
}

TEST(VectorExp, IsExpToARoundingAndZeroFarBelow) {
  for (float x = -87.3f; x < 88.0f; x += 0.0137f) {
    const double expected = std::exp(static_cast<double>(x));
    EXPECT_NEAR(cpu::vector_exp(x) / expected, 1.0, 1.5e-7) << x;
  }
  EXPECT_EQ(cpu::vector_exp(0.0f), 1.0f);
  EXPECT_EQ(cpu::vector_exp(-88.0f), 0.0f);
  EXPECT_EQ(cpu::vector_exp(-INFINITY), 0.0f);
  EXPECT_TRUE(std::isnan(cpu::vector_exp(NAN)));
}

class CrossEntropyOn : public OnDevice {};

TEST_P(CrossEntropyOn, ClassesRuledOutByMinusInfinityTakeNoPart) {
  const Variable logits(Tensor::from<float>({1, -INFINITY, 1, 2}, {1, 4}).to(device()), true);
  const Tensor labels = Tensor::from<std::int64_t>({0}, {1}).to(device());
  const Variable loss = cross_entropy_loss(logits, labels);
  EXPECT_NEAR(loss.value().item(), std::log(2 + std::exp(1.0)), 1e-6);
  loss.backward();
  EXPECT_EQ(logits.grad().to_vector<float>()[1], 0.0f);
}

TEST_P(CrossEntropyOn, AgreesWithFloat64AndAssigns) {
  for (const Shape& shape : {Shape{67, 5}, Shape{2, 3, 5, 7, 11}, Shape{1, 33, 31}, Shape{3, 1, 4}}) {
    const Tensor labels = random_labels(shape.without(1), shape[1], 5, true);
    const auto run = [&](Device on, DType dtype) {
      const Tensor x = random_tensor(shape, 6, -3, 3).to(dtype).to(on);
      const Tensor weight = random_tensor({shape[1]}, 7, 0.5, 2).to(dtype).to(on);
      const Tensor grad = random_tensor(labels.shape(), 8).to(dtype).to(on);
      const Tensor targets = labels.to(on);
      Tensor losses = poisoned(labels.shape(), dtype, on);
      Tensor weights = poisoned(labels.shape(), dtype, on);
      Tensor grad_x = poisoned(shape, dtype, on);
      const CrossEntropyOptions options{0.1};
      cross_entropy_on(on).forward(x, targets, weight, options, losses, weights);
      cross_entropy_on(on).backward(grad, x, targets, weight, options, grad_x);
      return std::vector<Tensor>{losses, weights, grad_x};
    };
    const auto expected = run(Device::cpu(), DType::f64);
    const auto actual = run(device(), DType::f32);
    for (std::size_t k = 0; k < expected.size(); ++k) {
      EXPECT_LE(relative_error(actual[k], expected[k]), 2e-6) << k << ' ' << shape;
    }
  }
}

TEST_P(CrossEntropyOn, LogitsFarFromZeroLoseNothing) {
  std::vector<float> values;  // representable, so that only the op rounds
  for (const double value : random_tensor({300}, 12, -2, 2).to_vector<double>()) {
    values.push_back(static_cast<float>(std::round(value * 64) / 64 - 1000));
  }
  const Tensor logits = Tensor::from(values, {60, 5});
  const Tensor labels = random_labels({60}, 5, 13, false);
  const auto run = [&](const Tensor& x) {
    const Variable input(x, true);
    const Variable loss = cross_entropy_loss(input, labels.to(x.device()), {}, LossReduction::none, {0.1});
    loss.backward(Tensor::full({60}, 1.0, x.dtype()).to(x.device()));
    return std::pair(loss.value(), input.grad());
  };
  const auto [loss, gradient] = run(logits.to(device()));
  const auto [precise_loss, precise_gradient] = run(logits.to(DType::f64));
  EXPECT_LT(relative_error(loss, precise_loss), 1e-6);
  EXPECT_LT(relative_error(gradient, precise_gradient), 1e-6);
}

TEST_P(CrossEntropyOn, LabelsOutOfRangeGiveNanOnCuda) {
  if (device().is_cpu()) GTEST_SKIP() << "the CPU throws";
  const Variable logits(Tensor::zeros({2, 3}).to(device()), true);
  const Tensor labels = Tensor::from<std::int64_t>({1, 3}, {2}).to(device());
  const Variable terms = cross_entropy_loss(logits, labels, {}, LossReduction::none);
  const auto losses = terms.value().to_vector<float>();
  EXPECT_FALSE(std::isnan(losses[0]));
  EXPECT_TRUE(std::isnan(losses[1]));
  EXPECT_TRUE(std::isnan(cross_entropy_loss(logits, labels).value().item()));
  terms.backward(Tensor::full({2}, 1.0).to(device()));
  const auto gradient = logits.grad().to_vector<float>();
  for (std::size_t i = 0; i < 6; ++i) EXPECT_EQ(std::isnan(gradient[i]), i >= 3) << i;
}

CINNABAR_ON_EACH_DEVICE(CrossEntropyOn);

}  // namespace
}  // namespace cinnabar::testing
