#include <gtest/gtest.h>

#include <cmath>
#include <numbers>

#include "autograd/gradcheck.hpp"
#include "autograd/green_operator.hpp"
#include "tests/devices.hpp"
#include "tests/tensors.hpp"
#include "tests/threads.hpp"

namespace cinnabar {
namespace {

using testing::poisoned;
using testing::random_tensor;
using testing::relative_error;

constexpr FluidOperator kFluid{};

double inner_product(const Tensor& a, const Tensor& b) {
  const auto x = a.to_vector<double>();
  const auto y = b.to_vector<double>();
  double sum = 0.0;
  for (std::size_t i = 0; i < x.size(); ++i) sum += x[i] * y[i];
  return sum;
}

class GreenOperatorOnDevice : public testing::OnDevice {
 protected:
  Tensor sent(const Tensor& tensor) const { return tensor.to(device()); }
  Tensor smoothed(const Tensor& m, FftPadding padding, const FluidOperator& fluid = kFluid) const {
    Tensor v = poisoned(m.shape(), m.dtype(), device());
    green_operator_on(device()).smooth(sent(m), fluid, padding, v);
    return v.to(Device::cpu());
  }
  Tensor sharpened(const Tensor& v, FftPadding padding, const FluidOperator& fluid = kFluid) const {
    Tensor m = poisoned(v.shape(), v.dtype(), device());
    green_operator_on(device()).sharpen(sent(v), fluid, padding, m);
    return m.to(Device::cpu());
  }
};

/// L by its definition, as periodic finite differences in space: -alpha Lap - beta grad div + gamma, where
/// the second difference along one axis has symbol c and the mixed one -s_d s_e.
Tensor sharpen_by_differences(const Tensor& v, const FluidOperator& fluid) {
  const std::int64_t d = v.shape(2), h = v.shape(3), w = v.shape(4);
  const auto values = v.to_vector<double>();
  std::vector<double> result(values.size());
  const std::int64_t extent[3] = {w, h, d};
  const auto at = [&](std::int64_t n, std::int64_t c, std::int64_t(&p)[3]) {
    std::int64_t wrapped[3];
    for (int a = 0; a < 3; ++a) wrapped[a] = (p[a] % extent[a] + extent[a]) % extent[a];
    return values[static_cast<std::size_t>((((n * 3 + c) * d + wrapped[2]) * h + wrapped[1]) * w +
                                           wrapped[0])];
  };
  for (std::int64_t i = 0; i < v.numel(); ++i) {
    const std::int64_t n = i / (3 * d * h * w), c = i / (d * h * w) % 3;
    std::int64_t p[3] = {i % w, i / w % h, i / w / h % d};
    const auto second = [&](std::int64_t of, std::int64_t axis) {
      const double here = at(n, of, p);
      p[axis] += 1;
      const double next = at(n, of, p);
      p[axis] -= 2;
      const double before = at(n, of, p);
      p[axis] += 1;
      return next - 2.0 * here + before;
    };
    const auto mixed = [&](std::int64_t of, std::int64_t a, std::int64_t b) {
      double sum = 0.0;
      for (const int sa : {-1, 1}) {
        for (const int sb : {-1, 1}) {
          std::int64_t q[3] = {p[0], p[1], p[2]};
          q[a] += sa;
          q[b] += sb;
          sum += 0.25 * sa * sb * at(n, of, q);
        }
      }
      return sum;
    };
    double value = fluid.gamma * at(n, c, p) - fluid.beta * second(c, c);
    for (std::int64_t axis = 0; axis < 3; ++axis) {
      value -= fluid.alpha * second(c, axis);
      if (axis != c) value -= fluid.beta * mixed(axis, c, axis);
    }
    result[static_cast<std::size_t>(i)] = value;
  }
  return Tensor::from(result, v.shape());
}

TEST_P(GreenOperatorOnDevice, SharpenIsTheFiniteDifferenceOperator) {
  for (const Shape& shape : {Shape{1, 3, 6, 7, 9}, Shape{2, 3, 5, 4, 11}, Shape{1, 3, 1, 13, 8}}) {
    const Tensor v = random_tensor(shape, 1);
    EXPECT_LT(relative_error(sharpened(v, FftPadding::exact), sharpen_by_differences(v, kFluid)), 3e-6)
        << shape;
  }
}

TEST_P(GreenOperatorOnDevice, SmoothUndoesSharpen) {
  for (const Shape& shape : {Shape{1, 3, 7, 11, 13}, Shape{2, 3, 8, 6, 31}, Shape{3, 3, 1, 9, 5}}) {
    const Tensor v = random_tensor(shape, 2);
    EXPECT_LT(relative_error(smoothed(sharpened(v, FftPadding::exact), FftPadding::exact), v), 3e-5) << shape;
  }
}

TEST_P(GreenOperatorOnDevice, PowersRepeatTheFirst) {
  const FluidOperator once{0.1, 0.05, 0.2}, thrice{0.1, 0.05, 0.2, 3};
  const Tensor m = random_tensor({2, 3, 7, 11, 13}, 10);
  Tensor smooth_thrice = m, sharp_thrice = m;
  for (int i = 0; i < 3; ++i) {
    smooth_thrice = smoothed(smooth_thrice, FftPadding::exact, once);
    sharp_thrice = sharpened(sharp_thrice, FftPadding::exact, once);
  }
  EXPECT_LT(relative_error(smoothed(m, FftPadding::exact, thrice), smooth_thrice), 3e-6);
  EXPECT_LT(relative_error(sharpened(m, FftPadding::exact, thrice), sharp_thrice), 3e-6);
}

TEST_P(GreenOperatorOnDevice, ConstantMomentumIsDividedByGamma) {
  const Tensor m = Tensor::full({1, 3, 5, 6, 7}, 2.0);
  const Tensor expected = Tensor::full(m.shape(), 2000.0);
  EXPECT_LT(relative_error(smoothed(m, FftPadding::exact), expected), 1e-6);
}

TEST_P(GreenOperatorOnDevice, ZeroGammaDropsTheMean) {
  const FluidOperator fluid{0.01, 0.01, 0.0};
  const Tensor m = Tensor::full({1, 3, 4, 6, 5}, 3.0);
  EXPECT_LT(relative_error(smoothed(m, FftPadding::exact, fluid), Tensor::zeros(m.shape())), 1e-3);
}

TEST_P(GreenOperatorOnDevice, BothPaddingsAreSelfAdjoint) {
  const Tensor a = random_tensor({1, 3, 9, 11, 13}, 3);
  const Tensor b = random_tensor({1, 3, 9, 11, 13}, 4);
  for (const FftPadding padding : {FftPadding::exact, FftPadding::fast}) {
    const double forth = inner_product(a, smoothed(b, padding));
    const double back = inner_product(smoothed(a, padding), b);
    EXPECT_NEAR(forth, back, 1e-5 * std::abs(forth) + 1e-3);
    const double sharp_forth = inner_product(a, sharpened(b, padding));
    EXPECT_NEAR(sharp_forth, inner_product(sharpened(a, padding), b), 1e-5 * std::abs(sharp_forth) + 1e-5);
  }
}

TEST_P(GreenOperatorOnDevice, FastPaddingAgreesWithAnInfiniteGrid) {
  // A blob in the middle; a periodic grid of 96 voxels an axis stands for the infinite one.
  const std::int64_t n = 25, big = 96, offset = (big - n) / 2;
  Tensor m = Tensor::zeros({1, 3, n, n, n});
  Tensor wide = Tensor::zeros({1, 3, big, big, big}, DType::f64);
  m.data<float>()[(12 * n + 12) * n + 3] = 1.0f;
  wide.data<double>()[((12 + offset) * big + 12 + offset) * big + 3 + offset] = 1.0;
  Tensor exact = Tensor::empty_like(wide);
  cpu::green_operator.smooth(wide, kFluid, FftPadding::exact, exact);
  std::vector<double> expected;
  for (std::int64_t c = 0; c < 3; ++c) {
    for (std::int64_t i = 0; i < n * n * n; ++i) {
      const std::int64_t x = i % n, y = i / n % n, z = i / n / n;
      expected.push_back(
          exact.data<double>()[((c * big + z + offset) * big + y + offset) * big + x + offset]);
    }
  }
  EXPECT_LT(relative_error(smoothed(m, FftPadding::fast), Tensor::from(expected, m.shape())), 2e-3);
}

TEST_P(GreenOperatorOnDevice, AgreesWithFloat64) {
  for (const FftPadding padding : {FftPadding::exact, FftPadding::fast}) {
    const Tensor m = random_tensor({2, 3, 7, 9, 31}, 6);
    Tensor expected = poisoned(m.shape(), DType::f64);
    cpu::green_operator.smooth(m.to(DType::f64), kFluid, padding, expected);
    EXPECT_LT(relative_error(smoothed(m, padding), expected), 2e-6);
  }
}

TEST_P(GreenOperatorOnDevice, RejectsBadParametersAndShapes) {
  const GreenOperator& kernels = green_operator_on(device());
  const Tensor m = sent(Tensor::zeros({1, 3, 4, 4, 4}));
  Tensor v = sent(Tensor::zeros({1, 3, 4, 4, 4}));
  Tensor small = sent(Tensor::zeros({1, 3, 4, 4, 3}));
  EXPECT_THROW(kernels.smooth(m, kFluid, FftPadding::exact, small), Error);
  EXPECT_THROW(kernels.smooth(sent(Tensor::zeros({1, 1, 4, 4, 4})), kFluid, FftPadding::exact, v), Error);
  EXPECT_THROW(kernels.smooth(m, {-0.01, 0.01, 0.001}, FftPadding::exact, v), Error);
  EXPECT_THROW(kernels.smooth(m, {0.0, 0.01, 0.0}, FftPadding::exact, v), Error);
  EXPECT_THROW(kernels.smooth(m, {0.01, 0.01, std::nan("")}, FftPadding::exact, v), Error);
  EXPECT_THROW(kernels.smooth(m, {0.01, 0.01, 0.001, 0}, FftPadding::exact, v), Error);
  EXPECT_THROW(kernels.smooth(m, {0.01, 0.01, 0.001, 5}, FftPadding::exact, v), Error);
}

CINNABAR_ON_EACH_DEVICE(GreenOperatorOnDevice);

TEST(GreenOperator, FastGridReachesBeyondTheFieldAndHasSmallFactors) {
  const Shape padded = green_operator_grid({229, 193, 1}, kFluid, FftPadding::fast);
  EXPECT_EQ(padded, (Shape{240, 210, 1}));
  EXPECT_EQ(green_operator_grid({229, 193, 1}, kFluid, FftPadding::exact), (Shape{229, 193, 1}));
  // Without gamma the kernel does not decay: an axis is doubled.
  EXPECT_EQ(green_operator_grid({8, 9, 11}, {0.01, 0.01, 0.0}, FftPadding::fast), (Shape{16, 18, 24}));
}

TEST(GreenOperator, GradientAgreesWithDifferences) {
  const FluidOperator fluid{0.1, 0.05, 0.2, 2};
  for (const FftPadding padding : {FftPadding::exact, FftPadding::fast}) {
    const Tensor m = random_tensor({1, 3, 3, 4, 5}, 7, -1, 1, DType::f64);
    const auto smooth_result =
        gradcheck([=](const std::vector<Variable>& in) { return smooth(in[0], fluid, padding); }, {m});
    EXPECT_TRUE(smooth_result) << smooth_result.message;
    const auto sharpen_result =
        gradcheck([=](const std::vector<Variable>& in) { return sharpen(in[0], fluid, padding); }, {m});
    EXPECT_TRUE(sharpen_result) << sharpen_result.message;
  }
}

TEST(GreenOperator, GradcheckRejectsTheInverseAsGradient) {
  const FluidOperator fluid{0.1, 0.05, 0.2};
  const auto wrong = [=](const std::vector<Variable>& in) {
    Tensor v = Tensor::empty_like(in[0].value());
    cpu::green_operator.smooth(in[0].value(), fluid, FftPadding::exact, v);
    return record_one("wrong_smooth", v, in, [=](const Tensor& grad) {
      Tensor back = Tensor::empty_like(grad);
      cpu::green_operator.sharpen(grad, fluid, FftPadding::exact, back);
      return std::vector<Tensor>{back};
    });
  };
  EXPECT_FALSE(gradcheck(std::function<Variable(const std::vector<Variable>&)>(wrong),
                         {random_tensor({1, 3, 3, 4, 5}, 8, -1, 1, DType::f64)}));
}

TEST(GreenOperator, HasTheSameBitsForAnyNumberOfThreads) {
  const Tensor m = random_tensor({1, 3, 12, 15, 20}, 9);
  const auto compute = [&] {
    Tensor result = poisoned(m.shape());
    cpu::green_operator.smooth(m, kFluid, FftPadding::exact, result);
    return result;
  };
  EXPECT_TRUE(testing::same_values(testing::on_threads(1, compute), testing::on_threads(3, compute)));
}

}  // namespace
}  // namespace cinnabar
