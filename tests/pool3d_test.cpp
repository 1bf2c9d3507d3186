#include "autograd/pool3d.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "autograd/gradcheck.hpp"
#include "tests/devices.hpp"
#include "tests/tensors.hpp"

namespace cinnabar::testing {
namespace {

struct PoolCase {
  Shape input;
  PoolOptions options;
};

std::vector<PoolCase> pool_cases() {
  const PoolOptions plain;
  PoolOptions ceil = plain;
  ceil.ceil_mode = true;
  PoolOptions overlapping{{3, 3, 3}, {2, 2, 2}, {1, 1, 1}};
  overlapping.ceil_mode = true;
  const PoolOptions uneven{{3, 2, 1}, {2, 1, 2}, {1, 0, 0}};
  const PoolOptions gaps{{2, 2, 2}, {5, 3, 4}, {0, 1, 1}};  // voxels between the windows
  return {{{2, 3, 5, 7, 6}, plain},
          {{1, 2, 5, 7, 31}, ceil},
          {{2, 1, 6, 5, 33}, overlapping},
          {{1, 3, 7, 6, 5}, uneven},
          {{1, 1, 1, 1, 1}, {{1, 1, 1}, {1, 1, 1}}},
          {{1, 2, 11, 13, 17}, gaps}};
}

/// Distinct values in random order, so that no difference quotient changes a winner.
Tensor distinct_values(const Shape& shape, std::uint64_t seed) {
  std::vector<std::pair<double, std::size_t>> order;
  for (const double value : random_tensor(shape, seed).to_vector<double>())
    order.emplace_back(value, order.size());
  std::sort(order.begin(), order.end());
  std::vector<double> values(order.size());
  for (std::size_t rank = 0; rank < order.size(); ++rank) {
    values[order[rank].second] = 0.01 * static_cast<double>(rank) - 1.0;
  }
  return Tensor::from(values, shape);
}

TEST(Pool3d, FirstOfEqualMaximaWinsAndNanWins) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const Variable row(Tensor::from<float>({1, 1, 5, nan, -2, -3}, {1, 1, 1, 1, 6}));
  const auto [output, indices] = max_pool3d_with_indices(row, {{1, 1, 2}, {1, 1, 2}});
  const auto values = output.value().to_vector<float>();
  EXPECT_EQ(values[0], 1.0f);
  EXPECT_TRUE(std::isnan(values[1]));
  EXPECT_EQ(values[2], -2.0f);
  EXPECT_EQ(indices.to_vector<std::int32_t>(), (std::vector<std::int32_t>{0, 3, 4}));
}

TEST(Pool3d, AveragesDivideByWhatCounts) {
  const Variable row(Tensor::from<float>({2, 4, 6}, {1, 1, 1, 1, 3}));
  PoolOptions options{{1, 1, 3}, {1, 1, 2}, {0, 0, 1}};
  const auto average = [&] { return average_pool3d(row, options).value().to_vector<float>(); };
  EXPECT_EQ(average(), (std::vector<float>{2, 10.0f / 3}));
  options.count_include_pad = false;
  EXPECT_EQ(average(), (std::vector<float>{3, 5}));
  options.divisor = 2;
  EXPECT_EQ(average(), (std::vector<float>{3, 5}));
  options.divisor = 4;
  EXPECT_EQ(average(), (std::vector<float>{1.5, 2.5}));
}

TEST(Pool3d, ExtentsRoundUpOnlyForWindowsThatStartInside) {
  PoolOptions options{{2, 2, 2}, {2, 2, 2}, {1, 1, 1}};
  options.ceil_mode = true;
  EXPECT_EQ(pooled_extent(options, 0, 5), 3);  // a fourth window would start behind the image
  EXPECT_EQ(pooled_extent(options, 0, 6), 4);
  options.padding = {0, 0, 0};
  EXPECT_EQ(pooled_extent(options, 0, 5), 3);
  options.ceil_mode = false;
  EXPECT_EQ(pooled_extent(options, 0, 5), 2);
}

TEST(Pool3d, Gradients) {
  for (const auto& [shape, options] : pool_cases()) {
    GradcheckOptions few;
    few.max_entries = 60;
    const Tensor input = distinct_values(shape, 3);
    const auto maximum = gradcheck(
        [&o = options](const std::vector<Variable>& v) { return max_pool3d(v[0], o); }, {input}, few);
    EXPECT_TRUE(maximum) << shape << '\n' << maximum.message;
    for (const std::int64_t divisor : {0, 5}) {
      for (const bool padded : {true, false}) {
        PoolOptions changed = options;
        changed.divisor = divisor;
        changed.count_include_pad = padded;
        const auto average = gradcheck(
            [&](const std::vector<Variable>& v) { return average_pool3d(v[0], changed); }, {input}, few);
        EXPECT_TRUE(average) << shape << '\n' << average.message;
      }
    }
  }
  PoolOptions dilated{{2, 3, 2}, {1, 1, 2}, {1, 1, 1}, {2, 1, 3}};
  const auto maximum = gradcheck([&](const std::vector<Variable>& v) { return max_pool3d(v[0], dilated); },
                                 {distinct_values({1, 2, 5, 4, 6}, 4)});
  EXPECT_TRUE(maximum) << maximum.message;
}

TEST(Pool3d, GradcheckRefusesAWrongGradient) {
  const auto doubled = [](const std::vector<Variable>& v) {
    const Variable right = max_pool3d(v[0]);
    return record_one("wrong", right.value(), {v[0]}, [v, right](const Tensor& grad) {
      Tensor wrong = Tensor::full(v[0].shape(), 0.5, DType::f64);
      (void)grad;
      return std::vector<Tensor>{wrong};
    });
  };
  EXPECT_FALSE(gradcheck(doubled, {distinct_values({1, 1, 2, 4, 4}, 5)}));
}

TEST(Pool3d, RefusesMisfits) {
  const Variable image(Tensor::zeros({1, 1, 4, 4, 4}));
  EXPECT_THROW(max_pool3d(Variable(Tensor::zeros({1, 4, 4, 4}))), Error);
  EXPECT_THROW(max_pool3d(image, {{5, 2, 2}}), Error);
  EXPECT_THROW(max_pool3d(image, {{2, 2, 2}, {0, 1, 1}}), Error);
  EXPECT_THROW(max_pool3d(image, {{2, 2, 2}, {1, 1, 1}, {2, 0, 0}}), Error);
  EXPECT_THROW(average_pool3d(image, {{2, 2, 2}, {1, 1, 1}, {0, 0, 0}, {2, 1, 1}}), Error);
  EXPECT_THROW(max_pool3d(Variable(Tensor::zeros({1, 1, 4, 4, 4}, DType::i32))), Error);
  Tensor output = Tensor::zeros({1, 1, 2, 2, 2});
  Tensor wide = Tensor::zeros({1, 1, 2, 2, 2}, DType::i64);
  EXPECT_THROW(cpu::pool3d.max_forward(image.value(), {}, output, wide), Error);
  Tensor odd = Tensor::zeros({1, 1, 2, 2, 3});
  EXPECT_THROW(cpu::pool3d.average_forward(image.value(), {}, odd), Error);
}

class Pool3dOn : public OnDevice {};

TEST_P(Pool3dOn, AgreesWithFloat64AndAssigns) {
  for (const auto& [shape, options] : pool_cases()) {
    const Shape pooled = pooled_shape(shape, options);
    const Tensor input = random_tensor(shape, 6);
    const Tensor grad = random_tensor(pooled, 7);
    const auto run = [&, &o = options, &s = shape](Device on, DType dtype) {
      const Tensor x = input.to(dtype).to(on);
      const Tensor g = grad.to(dtype).to(on);
      Tensor maxima = poisoned(pooled, dtype, on);
      Tensor indices = Tensor::full(pooled, -7, DType::i32, on);
      Tensor grad_maxima = poisoned(s, dtype, on);
      Tensor averages = poisoned(pooled, dtype, on);
      Tensor grad_averages = poisoned(s, dtype, on);
      const Pool3d& kernels = pool3d_on(on);
      kernels.max_forward(x, o, maxima, indices);
      kernels.max_backward(g, indices, o, grad_maxima);
      kernels.average_forward(x, o, averages);
      kernels.average_backward(g, o, grad_averages);
      return std::vector<Tensor>{maxima, indices, grad_maxima, averages, grad_averages};
    };
    const auto expected = run(Device::cpu(), DType::f64);
    const auto actual = run(device(), DType::f32);
    for (std::size_t k = 0; k < expected.size(); ++k) {
      EXPECT_LE(relative_error(actual[k], expected[k]), 1e-6) << k << ' ' << shape;
    }
  }
}

CINNABAR_ON_EACH_DEVICE(Pool3dOn);

}  // namespace
}  // namespace cinnabar::testing
