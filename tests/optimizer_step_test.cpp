#include "autograd/optimizer_step.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "tests/devices.hpp"
#include "tests/tensors.hpp"

namespace cinnabar::testing {
namespace {

/// Sizes of a small network's parameters: more than one launch takes, one element, empty, and across chunks.
std::vector<std::int64_t> sizes() {
  std::vector<std::int64_t> all{1, 0, 31, 4096, 4097, 9001};
  for (std::int64_t k = 0; k < 45; ++k) all.push_back(k % 7 + 1);
  return all;
}

std::vector<AdamParameter> adam_parameters(Device device, DType dtype, bool amsgrad) {
  std::vector<AdamParameter> parameters;
  std::uint64_t seed = 1;
  for (const std::int64_t size : sizes()) {
    const auto make = [&](double low, double high) {
      return random_tensor({size}, seed++, low, high).to(dtype).to(device);
    };
    parameters.push_back({make(-1, 1), make(-1, 1), make(-0.1, 0.1), make(0, 0.1),
                          amsgrad ? make(0, 0.1) : Tensor{}, static_cast<std::int64_t>(seed % 5 + 1)});
  }
  return parameters;
}

std::vector<SgdParameter> sgd_parameters(Device device, DType dtype, bool momentum) {
  std::vector<SgdParameter> parameters;
  for (const AdamParameter& p : adam_parameters(device, dtype, false)) {
    parameters.push_back({p.value, p.grad, momentum ? p.first_moment : Tensor{}});
  }
  return parameters;
}

TEST(OptimizerStep, FirstAdamStepMovesByTheRateAgainstTheGradient) {
  const Tensor zero = Tensor::zeros({3}, DType::f64);
  std::vector<AdamParameter> parameters{{Tensor::from<double>({1, 2, 3}, {3}),
                                         Tensor::from<double>({5, -0.01, 0}, {3}),
                                         zero.clone(),
                                         zero.clone(),
                                         {},
                                         1}};
  AdamOptions options;
  options.learning_rate = 0.1;
  cpu::optimizer_step.adam(parameters, options);
  const auto value = parameters[0].value.to_vector<double>();
  EXPECT_NEAR(value[0], 0.9, 1e-8);
  EXPECT_NEAR(value[1], 2.1, 1e-6);
  EXPECT_EQ(value[2], 3.0);
}

TEST(OptimizerStep, SgdByHand) {
  std::vector<SgdParameter> parameters{
      {Tensor::from<double>({1}, {1}), Tensor::from<double>({2}, {1}), Tensor::from<double>({3}, {1})}};
  cpu::optimizer_step.sgd(parameters, {0.1, 0.5, true, 0.25});
  // g = 2 + 0.25, b = 1.5 + g, value = 1 - 0.1 (g + 0.5 b)
  EXPECT_DOUBLE_EQ(parameters[0].momentum.item(), 3.75);
  EXPECT_DOUBLE_EQ(parameters[0].value.item(), 1 - 0.1 * (2.25 + 0.5 * 3.75));
}

TEST(OptimizerStep, DampeningLeavesTheFirstStepAlone) {
  const Tensor value = Tensor::from<double>({1}, {1});
  const Tensor momentum = Tensor::zeros({1}, DType::f64);
  SgdOptions options{0.1, 0.5};
  options.dampening = 0.25;
  const auto step = [&](double gradient, bool first) {
    std::vector<SgdParameter> one{{value, Tensor::full({1}, gradient, DType::f64), momentum, first}};
    cpu::optimizer_step.sgd(one, options);
  };
  step(2, true);
  EXPECT_DOUBLE_EQ(momentum.item(), 2.0);
  step(4, false);
  EXPECT_DOUBLE_EQ(momentum.item(), 0.5 * 2 + 0.75 * 4);
  EXPECT_DOUBLE_EQ(value.item(), 1 - 0.1 * 2 - 0.1 * 4);
}

TEST(OptimizerStep, RefusesMisfits) {
  const Tensor three = Tensor::zeros({3});
  const Tensor four = Tensor::zeros({4});
  const auto sgd = [](SgdParameter parameter, const SgdOptions& options) {
    std::vector<SgdParameter> one{std::move(parameter)};
    cpu::optimizer_step.sgd(one, options);
  };
  const auto adam = [](AdamParameter parameter, const AdamOptions& options) {
    std::vector<AdamParameter> one{std::move(parameter)};
    cpu::optimizer_step.adam(one, options);
  };
  EXPECT_THROW(sgd({three, four, {}}, {}), Error);
  EXPECT_THROW(sgd({three, {}, {}}, {}), Error);
  EXPECT_THROW(sgd({three, Tensor::zeros({3}, DType::f64), {}}, {}), Error);
  EXPECT_THROW(sgd({three, three, {}}, {0.1, 0.9}), Error);
  EXPECT_THROW(sgd({three, three, three}, {0.1, 0.0}), Error);
  EXPECT_THROW(sgd({three, three, {}}, {0.1, 0.0, true}), Error);
  EXPECT_THROW(sgd({three, three, {}}, {-0.1}), Error);
  EXPECT_THROW(sgd({three, three, {}}, {NAN}), Error);
  EXPECT_THROW(sgd({three, three, three}, {0.1, 0.9, true, 0.0, 0.5}), Error);
  EXPECT_THROW(adam({three, three, three, four, {}, 1}, {}), Error);
  EXPECT_THROW(adam({three, three, three, three, {}, 0}, {}), Error);
  EXPECT_THROW(adam({three, three, three, three, three, 1}, {}), Error);
  std::vector<Tensor> mixed{three, Tensor::zeros({3}, DType::f64)};
  Tensor overflow = Tensor::zeros({1}, DType::i32);
  EXPECT_THROW(cpu::optimizer_step.unscale(mixed, 1.0, overflow), Error);
  mixed.pop_back();
  EXPECT_THROW(cpu::optimizer_step.unscale(mixed, INFINITY, overflow), Error);
  Tensor flag = Tensor::zeros({1});
  EXPECT_THROW(cpu::optimizer_step.unscale(mixed, 1.0, flag), Error);
  AdamOptions options;
  options.beta2 = 1.0;
  EXPECT_THROW(adam({three, three, three, three, {}, 1}, options), Error);
}

/// max |a - b|; all values here are about 1 or, of averages, 0.1, and small tensors may cancel to almost 0.
double difference(const Tensor& a, const Tensor& b) {
  const auto p = a.to_vector<double>();
  const auto q = b.to_vector<double>();
  double largest = p.size() == q.size() ? 0.0 : INFINITY;
  for (std::size_t i = 0; i < std::min(p.size(), q.size()); ++i) {
    const double apart = std::abs(p[i] - q[i]);
    if (std::isnan(apart)) return apart;
    largest = std::max(largest, apart);
  }
  return largest;
}

class OptimizerStepOn : public OnDevice {};

TEST_P(OptimizerStepOn, AdamAgreesWithFloat64) {
  for (const bool amsgrad : {false, true}) {
    for (const bool decoupled : {false, true}) {
      const AdamOptions options{0.01, 0.9, 0.99, 1e-6, 0.1, decoupled, amsgrad};
      auto expected = adam_parameters(Device::cpu(), DType::f64, amsgrad);
      auto actual = adam_parameters(device(), DType::f32, amsgrad);
      optimizer_step_on(Device::cpu()).adam(expected, options);
      optimizer_step_on(device()).adam(actual, options);
      for (std::size_t k = 0; k < actual.size(); ++k) {
        EXPECT_LE(difference(actual[k].value, expected[k].value), 1e-6) << k;
        EXPECT_LE(difference(actual[k].first_moment, expected[k].first_moment), 1e-7) << k;
        EXPECT_LE(difference(actual[k].second_moment, expected[k].second_moment), 1e-7) << k;
        EXPECT_LE(relative_error(actual[k].grad, expected[k].grad), 1e-7) << k;
        if (!amsgrad) continue;
        EXPECT_LE(difference(actual[k].largest, expected[k].largest), 1e-7) << k;
      }
    }
  }
}

TEST_P(OptimizerStepOn, SgdAgreesWithFloat64) {
  for (const SgdOptions& options : {SgdOptions{0.1}, SgdOptions{0.1, 0.9}, SgdOptions{0.1, 0.9, true, 0.3},
                                    SgdOptions{0.1, 0.9, false, 0.3, 0.5}}) {
    auto expected = sgd_parameters(Device::cpu(), DType::f64, options.momentum > 0);
    auto actual = sgd_parameters(device(), DType::f32, options.momentum > 0);
    optimizer_step_on(Device::cpu()).sgd(expected, options);
    optimizer_step_on(device()).sgd(actual, options);
    for (std::size_t k = 0; k < actual.size(); ++k) {
      EXPECT_LE(difference(actual[k].value, expected[k].value), 1e-6) << k;
      if (options.momentum == 0) continue;
      EXPECT_LE(difference(actual[k].momentum, expected[k].momentum), 1e-6) << k;
    }
  }
}

TEST_P(OptimizerStepOn, UnscalingFindsWhatIsNotFinite) {
  const auto gradients = [&] {
    std::vector<Tensor> all;
    for (const AdamParameter& p : adam_parameters(device(), DType::f32, false)) all.push_back(p.grad);
    return all;
  };
  const std::vector<Tensor> before = gradients();
  std::vector<Tensor> after = gradients();
  Tensor overflow = Tensor::full({1}, 7, DType::i32, device());
  optimizer_step_on(device()).unscale(after, 0.25, overflow);
  EXPECT_EQ(overflow.item(), 0);
  for (std::size_t k = 0; k < before.size(); ++k) {
    std::vector<float> expected = before[k].to_vector<float>();
    for (float& value : expected) value *= 0.25f;
    EXPECT_EQ(after[k].to_vector<float>(), expected) << k;
  }
  for (const float bad : {INFINITY, -INFINITY, NAN}) {
    for (const std::size_t k : {std::size_t{0}, std::size_t{5}, before.size() - 1}) {
      after = gradients();
      Tensor last = after[k].rows(after[k].numel() - 1, 1);
      last.copy_from(Tensor::full({1}, bad));
      overflow.fill(0);
      optimizer_step_on(device()).unscale(after, 0.25, overflow);
      EXPECT_EQ(overflow.item(), 1) << bad << ' ' << k;
    }
  }
  optimizer_step_on(device()).unscale({}, 0.25, overflow);
  EXPECT_EQ(overflow.item(), 0);
}

TEST_P(OptimizerStepOn, ClippingScalesAllGradientsToTheNorm) {
  std::vector<Variable> parameters;
  for (const double value : {3.0, 4.0}) {
    parameters.emplace_back(Tensor::full({1, 1}, 1.0).to(device()), true);
    parameters.back().backward(Tensor::full({1, 1}, value).to(device()));
  }
  parameters.emplace_back(Tensor::zeros({2}).to(device()), true);  // without a gradient
  EXPECT_NEAR(gradient_norm(parameters), 5.0, 1e-6);
  EXPECT_NEAR(clip_gradient_norm(parameters, 10.0), 5.0, 1e-6);
  EXPECT_EQ(parameters[1].grad().item(), 4.0);
  EXPECT_NEAR(clip_gradient_norm(parameters, 1.0), 5.0, 1e-6);
  EXPECT_NEAR(parameters[0].grad().item(), 0.6, 1e-6);
  EXPECT_NEAR(parameters[1].grad().item(), 0.8, 1e-6);
  clear_gradients(parameters);
  EXPECT_FALSE(parameters[0].grad().defined());
  EXPECT_EQ(gradient_norm(parameters), 0.0);
}

CINNABAR_ON_EACH_DEVICE(OptimizerStepOn);

}  // namespace
}  // namespace cinnabar::testing
