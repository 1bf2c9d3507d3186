#include "autograd/dropout.hpp"

#include <gtest/gtest.h>

#include <cmath>

#include "autograd/gradcheck.hpp"
#include "autograd/random.hpp"
#include "tests/devices.hpp"
#include "tests/tensors.hpp"

namespace cinnabar::testing {
namespace {

TEST(Dropout, Gradient) {
  const Tensor x = random_tensor({3, 5, 7}, 1, -1, 1, DType::f64);
  const auto right = gradcheck(
      [](const std::vector<Variable>& v) {
        return dropout(v[0], 0.3, {4, 5, 6});
      },
      {x});
  EXPECT_TRUE(right) << right.message;
  const auto wrong = [](const std::vector<Variable>& v) {
    return record_one("wrong", dropout(v[0], 0.3, {4, 5, 6}).value(), {v[0]}, [](const Tensor& grad) {
      Tensor other = Tensor::empty_like(grad);
      cpu::dropout.apply({4, 5, 7}, 0.3, grad, other);
      return std::vector<Tensor>{other};
    });
  };
  EXPECT_FALSE(gradcheck(wrong, {x}));
}

TEST(Dropout, KeepsTheShareAskedForAndTheMean) {
  const Variable ones(Tensor::full({1'000'000}, 1.0));
  for (const double p : {0.2, 0.5}) {
    double kept = 0.0;
    double sum = 0.0;
    for (const double value : dropout(ones, p, {7, 8, 0}).value().to_vector<double>()) {
      kept += value != 0.0 ? 1e-6 : 0.0;
      sum += 1e-6 * value;
    }
    EXPECT_NEAR(kept, 1 - p, 2.5e-3);  // five standard errors
    EXPECT_NEAR(sum, 1.0, 5e-3);
  }
}

TEST(Dropout, RefusesMisfits) {
  const Variable x(Tensor::zeros({3}));
  EXPECT_THROW(dropout(x, -0.1, {}), Error);
  EXPECT_THROW(dropout(x, 1.1, {}), Error);
  EXPECT_THROW(dropout(x, NAN, {}), Error);
  EXPECT_THROW(dropout(Variable(Tensor::zeros({3}, DType::i32)), 0.5, {}), Error);
  Tensor four = Tensor::zeros({4});
  EXPECT_THROW(cpu::dropout.apply({}, 0.5, x.value(), four), Error);
}

class DropoutOn : public OnDevice {};

TEST_P(DropoutOn, KeepsElementsByTheirNumberInTheSequence) {
  for (const std::int64_t count : {1, 3, 64, 257, 20011}) {
    for (const std::uint64_t offset : {0, 1, 2, 3, 30}) {
      const RandomSequence sequence{9, 10, offset};
      const Tensor x = random_tensor({count}, 2);
      Tensor y = poisoned({count}, DType::f32, device());
      dropout_on(device()).apply(sequence, 0.25, x.to(device()), y);
      const auto u = random_uniform({count}, 0.0, 1.0, sequence).to_vector<float>();
      const auto before = x.to_vector<float>();
      const auto after = y.to_vector<float>();
      for (std::size_t i = 0; i < u.size(); ++i) {
        ASSERT_EQ(after[i], u[i] >= 0.25f ? before[i] * (4.0f / 3.0f) : 0.0f) << i << ' ' << offset;
      }
    }
  }
}

TEST_P(DropoutOn, EndsOfTheRange) {
  const Tensor x = random_tensor({100}, 3).to(device());
  EXPECT_TRUE(same_values(dropout(Variable(x), 0.0, {1, 2, 3}).value(), x));
  EXPECT_TRUE(same_values(dropout(Variable(x), 1.0, {1, 2, 3}).value(), Tensor::zeros({100})));
}

CINNABAR_ON_EACH_DEVICE(DropoutOn);

}  // namespace
}  // namespace cinnabar::testing
