#include "autograd/gaussian_smooth.hpp"

#include <gtest/gtest.h>

#include <cmath>

#include "autograd/gradcheck.hpp"
#include "tests/devices.hpp"
#include "tests/tensors.hpp"
#include "tests/threads.hpp"

namespace cinnabar::testing {
namespace {

Tensor run(Device device, DType dtype, const Tensor& input, const GaussianSigma& sigma, bool backward) {
  Tensor output = poisoned(input.shape(), dtype, device);
  const GaussianSmooth& kernels = gaussian_smooth_on(device);
  (backward ? kernels.backward : kernels.forward)(input.to(dtype).to(device), sigma, output);
  return output;
}

TEST(GaussianSmooth, SpreadsAnImpulseAsTheGaussian) {
  Tensor impulse = Tensor::zeros({1, 1, 1, 17}, DType::f64);
  impulse.data<double>()[8] = 1.0;
  const auto values = gaussian_smooth(impulse, {1.5, 0, 0}).to_vector<double>();
  double sum = 0.0;
  for (int k = -6; k <= 6; ++k) sum += std::exp(-0.5 * k * k / 2.25);
  for (int k = -6; k <= 6; ++k) {
    EXPECT_NEAR(values[static_cast<std::size_t>(8 + k)], std::exp(-0.5 * k * k / 2.25) / sum, 1e-15);
  }
  EXPECT_EQ(values[1], 0.0);
}

TEST(GaussianSmooth, KeepsConstantsUpToTheFaces) {
  const Tensor constant = Tensor::full({1, 2, 3, 5, 7}, 2.5, DType::f64);
  EXPECT_LE(relative_error(gaussian_smooth(constant, {3, 0.4, 9}), constant), 1e-14);
}

TEST(GaussianSmooth, ZeroSigmaAndSingleVoxelsChangeNothing) {
  const Tensor image = random_tensor({2, 1, 1, 3, 4}, 1);
  EXPECT_TRUE(same_values(gaussian_smooth(image, {0, 0, 2}), image));
}

TEST(GaussianSmooth, GradientsMatchDifferences) {
  for (const GaussianSigma& sigma : {GaussianSigma{0.6, 1.1, 0.3}, GaussianSigma{4, 0, 2}}) {
    const auto fn = [&](const std::vector<Variable>& in) { return gaussian_smooth(in[0], sigma); };
    const GradcheckResult result = gradcheck(fn, {random_tensor({1, 2, 2, 4, 5}, 2, -1, 1, DType::f64)});
    EXPECT_TRUE(result) << result.message;
  }
}

TEST(GaussianSmooth, GradcheckRejectsTheUntransposedFilter) {
  // Away from the faces the filter is its own transpose; only clamping tells them apart.
  const auto wrong = [](const std::vector<Variable>& in) {
    return record_one("wrong", gaussian_smooth(in[0].value(), {1, 1, 0}), in, [](const Tensor& grad) {
      return std::vector<Tensor>{gaussian_smooth(grad, {1, 1, 0})};
    });
  };
  EXPECT_FALSE(gradcheck(wrong, {random_tensor({1, 1, 6, 7}, 3, -1, 1, DType::f64)}));
}

TEST(GaussianSmooth, BitsDoNotDependOnTheNumberOfThreads) {
  const Tensor image = random_tensor({1, 2, 17, 19, 23}, 4);
  const auto compute = [&] { return gaussian_smooth(image, {2, 1, 3}); };
  EXPECT_TRUE(same_values(on_threads(1, compute), on_threads(3, compute)));
}

TEST(GaussianSmooth, RefusesBadSigmasAndShapes) {
  const Tensor image = Tensor::zeros({1, 1, 3, 4});
  EXPECT_THROW(gaussian_smooth(image, {-1, 0, 0}), Error);
  EXPECT_THROW(gaussian_smooth(image, {101, 0, 0}), Error);
  EXPECT_THROW(gaussian_smooth(image, {std::nan(""), 0, 0}), Error);
  EXPECT_THROW(gaussian_smooth(Tensor::zeros({3, 4}), {1, 1, 1}), Error);
  Tensor other = Tensor::zeros({1, 1, 4, 3});
  EXPECT_THROW(gaussian_smooth_on(Device::cpu()).forward(image, {1, 1, 1}, other), Error);
}

class GaussianSmoothOn : public OnDevice {};

TEST_P(GaussianSmoothOn, AgreesWithFloat64AndAssigns) {
  const Tensor deep = random_tensor({2, 3, 5, 33, 37}, 5);
  const Tensor flat = random_tensor({1, 1, 67, 71}, 6);
  // A radius of 80 needs more than one staging of taps, and reaches far beyond the short axes.
  for (const GaussianSigma& sigma :
       {GaussianSigma{1.2, 2.3, 0.7}, GaussianSigma{0, 20, 1}, GaussianSigma{20, 0, 0}}) {
    for (const Tensor& input : {deep, flat}) {
      for (const bool backward : {false, true}) {
        const Tensor expected = run(Device::cpu(), DType::f64, input, sigma, backward);
        EXPECT_LE(relative_error(run(device(), DType::f32, input, sigma, backward), expected), 2e-6)
            << input.shape() << ' ' << sigma[0] << ' ' << backward;
      }
    }
  }
}

CINNABAR_ON_EACH_DEVICE(GaussianSmoothOn);

}  // namespace
}  // namespace cinnabar::testing
