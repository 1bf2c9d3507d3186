#include "autograd/lncc.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <limits>

#include "autograd/gradcheck.hpp"
#include "kernels/lncc.hpp"
#include "tests/devices.hpp"
#include "tests/tensors.hpp"
#include "tests/threads.hpp"

namespace cinnabar::testing {
namespace {

/// Loss and gradients of both images on a device.
std::vector<Tensor> run(Device device, DType dtype, const Tensor& warped, const Tensor& fixed, int radius,
                        const Tensor& mask) {
  const auto there = [&](const Tensor& x) { return x.defined() ? x.to(dtype).to(device) : x; };
  const Tensor a = there(warped);
  const Tensor b = there(fixed);
  Tensor sums = poisoned({2}, DType::f64, device);
  Tensor loss = poisoned({}, dtype, device);
  Tensor grad_a = poisoned_like(a);
  Tensor grad_b = poisoned_like(b);
  const Lncc& kernels = lncc_on(device);
  kernels.forward(a, b, there(mask), {radius, 1e-8}, sums, loss);
  kernels.backward(Tensor::full({}, 1.5, dtype, device), a, b, there(mask), {radius, 1e-8}, sums, grad_a,
                   grad_b);
  return {loss, grad_a, grad_b};
}

/// The definition, window by window.
double lncc_by_definition(const Tensor& warped, const Tensor& fixed, int radius, const Tensor& mask) {
  const std::int64_t d = warped.shape(2), h = warped.shape(3), w = warped.shape(4);
  const double* a = warped.data<double>();
  const double* b = fixed.data<double>();
  const auto counts = [&](std::int64_t i) { return !mask.defined() || mask.data<double>()[i] > 0; };
  double total = 0.0;
  double voxels = 0.0;
  for (std::int64_t centre = 0; centre < d * h * w; ++centre) {
    if (!counts(centre)) continue;
    const std::int64_t x = centre % w, y = centre / w % h, z = centre / w / h;
    double n = 0, sa = 0, sb = 0, saa = 0, sbb = 0, sab = 0;
    for (std::int64_t k = std::max<std::int64_t>(z - radius, 0); k <= std::min(z + radius, d - 1); ++k) {
      for (std::int64_t j = std::max<std::int64_t>(y - radius, 0); j <= std::min(y + radius, h - 1); ++j) {
        for (std::int64_t i = std::max<std::int64_t>(x - radius, 0); i <= std::min(x + radius, w - 1); ++i) {
          const std::int64_t at = (k * h + j) * w + i;
          if (!counts(at)) continue;
          n += 1;
          sa += a[at];
          sb += b[at];
          saa += a[at] * a[at];
          sbb += b[at] * b[at];
          sab += a[at] * b[at];
        }
      }
    }
    const double cov = sab / n - sa / n * sb / n;
    const double var_a = saa / n - sa / n * sa / n, var_b = sbb / n - sb / n * sb / n;
    const double alike = 4 * (var_a + 1e-4) * (var_b + 1e-4) / std::pow(var_a + var_b + 2e-4, 2);
    total += (cov * cov + alike * 1e-8) / (var_a * var_b + 1e-8);
    voxels += 1;
  }
  return 1.0 - total / voxels;
}

Tensor mask_of(const Shape& shape, std::uint64_t seed) {
  Tensor mask = random_tensor(shape, seed, -0.5, 1.0, DType::f64);
  for (std::int64_t i = 0; i < mask.numel(); ++i)
    mask.data<double>()[i] = mask.data<double>()[i] > 0 ? 1.0 : 0.0;
  return mask;
}

TEST(Lncc, EqualsTheDefinition) {
  const Shape shape{1, 1, 6, 7, 9};
  const Tensor a = random_tensor(shape, 1, 0, 1, DType::f64);
  const Tensor b = random_tensor(shape, 2, 0, 1, DType::f64);
  for (const int radius : {1, 2, 8}) {
    for (const Tensor& mask : {Tensor{}, mask_of(shape, 3)}) {
      const double loss = lncc_loss(Variable(a), Variable(b), radius, mask).value().item();
      EXPECT_NEAR(loss, lncc_by_definition(a, b, radius, mask), 1e-12) << radius;
    }
  }
}

TEST(Lncc, IsNearZeroForLocallyLinearIntensities) {
  const Tensor a = random_tensor({1, 1, 9, 9, 9}, 4, 0, 1, DType::f64);
  Tensor b = a.clone();
  for (std::int64_t i = 0; i < b.numel(); ++i) b.data<double>()[i] = 3.0 - 2.0 * a.data<double>()[i];
  EXPECT_NEAR(lncc_loss(Variable(a), Variable(b), 2).value().item(), 0.0, 1e-5);
}

TEST(Lncc, AnImageAndItselfAreTheMinimum) {
  Tensor image = random_tensor({1, 1, 8, 9, 10}, 5, 0, 1, DType::f64);
  for (std::int64_t i = 0; i < image.numel() / 2; ++i)
    image.data<double>()[i] *= 0.01;  // a part of low contrast
  const auto found = run(Device::cpu(), DType::f64, image, image, 1, {});
  EXPECT_NEAR(found[0].item(), 0.0, 1e-14);
  EXPECT_LE(relative_error(found[1], Tensor::zeros(image.shape(), DType::f64)), 1e-14);
  EXPECT_LE(relative_error(found[2], Tensor::zeros(image.shape(), DType::f64)), 1e-14);
}

TEST(Lncc, FlatWindowsAreAlikeAndUnlikeLivelyOnes) {
  const Tensor image = random_tensor({1, 1, 5, 6, 7}, 5, 0, 1, DType::f64);
  const Tensor flat = Tensor::full(image.shape(), 0.6, DType::f64);
  const Tensor brighter = Tensor::full(image.shape(), 0.9, DType::f64);
  EXPECT_NEAR(run(Device::cpu(), DType::f64, flat, brighter, 2, {})[0].item(), 0.0, 1e-12);
  EXPECT_GT(run(Device::cpu(), DType::f64, image, flat, 2, {})[0].item(), 0.99);
  EXPECT_GT(run(Device::cpu(), DType::f64, flat, image, 2, {})[0].item(), 0.99);
}

TEST(Lncc, FullyMaskedImagesHaveNoGradient) {
  const Tensor image = random_tensor({1, 1, 5, 6, 7}, 5, 0, 1, DType::f64);
  const Tensor nothing = Tensor::zeros(image.shape(), DType::f64);
  const auto found = run(Device::cpu(), DType::f64, image, image, 2, nothing);
  EXPECT_EQ(found[0].item(), 1.0);
  EXPECT_LE(relative_error(found[1], nothing), 1e-9);
}

TEST(Lncc, GradientsMatchDifferences) {
  const Tensor a = random_tensor({1, 2, 4, 5, 6}, 6, 0, 1, DType::f64);
  const Tensor b = random_tensor({1, 2, 4, 5, 6}, 7, 0, 1, DType::f64);
  for (const int radius : {1, 3}) {
    for (const Tensor& mask : {Tensor{}, mask_of({1, 1, 4, 5, 6}, 8)}) {
      const auto fn = [&](const std::vector<Variable>& in) { return lncc_loss(in[0], in[1], radius, mask); };
      // The loss is a mean over voxels: the differences to tell apart are small, so is the tolerance.
      const GradcheckResult result = gradcheck(fn, {a, b}, {.atol = 1e-8, .rtol = 1e-4, .max_entries = 40});
      EXPECT_TRUE(result) << radius << '\n' << result.message;
    }
  }
  const auto flat = [&](const std::vector<Variable>& in) { return lncc_loss(in[0], in[1], 2); };
  EXPECT_TRUE(gradcheck(flat, {random_tensor({2, 1, 5, 6}, 9, 0, 1, DType::f64),
                               random_tensor({2, 1, 5, 6}, 10, 0, 1, DType::f64)}));
}

TEST(Lncc, GradcheckRejectsAnotherRadius) {
  const auto wrong = [](const std::vector<Variable>& in) {
    const Tensor a = in[0].value();
    const Tensor b = in[1].value();
    return record_one("wrong", lncc_loss(in[0], in[1], 1).value(), in, [=](const Tensor&) {
      const auto found = run(Device::cpu(), DType::f64, a, b, 2, {});
      return std::vector<Tensor>{found[1], found[2]};
    });
  };
  EXPECT_FALSE(gradcheck(wrong, {random_tensor({1, 1, 4, 5, 6}, 11, 0, 1, DType::f64),
                                 random_tensor({1, 1, 4, 5, 6}, 12, 0, 1, DType::f64)}));
}

TEST(Lncc, BitsDoNotDependOnTheNumberOfThreads) {
  const Tensor a = random_tensor({1, 1, 70, 19, 23}, 13);
  const Tensor b = random_tensor({1, 1, 70, 19, 23}, 14);
  const auto compute = [&] { return run(Device::cpu(), DType::f32, a, b, 3, {}); };
  const auto one = on_threads(1, compute);
  const auto three = on_threads(3, compute);
  for (std::size_t k = 0; k < 3; ++k) EXPECT_TRUE(same_values(one[k], three[k])) << k;
}

TEST(Lncc, RefusesMisfits) {
  const Variable a(Tensor::zeros({1, 1, 4, 5, 6}));
  EXPECT_THROW(lncc_loss(a, Variable(Tensor::zeros({1, 1, 4, 5, 7}))), Error);
  EXPECT_THROW(lncc_loss(a, a, 0), Error);
  EXPECT_THROW(lncc_loss(a, a, 9), Error);
  EXPECT_THROW(lncc_loss(a, a, 2, Tensor::zeros({1, 1, 4, 5, 5})), Error);
  EXPECT_THROW(lncc_loss(a, a, 2, {}, 0.0), Error);
  EXPECT_THROW(lncc_loss(Variable(Tensor::zeros({4, 5})), Variable(Tensor::zeros({4, 5}))), Error);
}

class LnccOn : public OnDevice {};

TEST_P(LnccOn, AgreesWithFloat64) {
  const Shape shape{2, 1, 37, 11, 35};
  const Tensor a = random_tensor(shape, 15, 0.2, 1.0);
  const Tensor b = random_tensor(shape, 16, 0.2, 1.0);
  for (const int radius : {1, 4, 5}) {
    for (const Tensor& mask : {Tensor{}, mask_of({1, 1, 37, 11, 35}, 17)}) {
      const auto expected = run(Device::cpu(), DType::f64, a, b, radius, mask);
      const auto actual = run(device(), DType::f32, a, b, radius, mask);
      for (std::size_t k = 0; k < 3; ++k) {
        // A gradient is the difference of sums some 50 times larger, which are kept in float32.
        EXPECT_LE(relative_error(actual[k], expected[k]), k == 0 ? 1e-6 : 1e-4) << radius << ' ' << k;
      }
    }
  }
}

TEST_P(LnccOn, HoldsForLowContrastOnABrightGround) {
  // Contrast 0.005 at brightness 1: plain float32 window sums would lose the variance's third digit.
  const Tensor a = random_tensor({1, 1, 7, 9, 33}, 18, 0.995, 1.0);
  const Tensor b = random_tensor({1, 1, 7, 9, 33}, 19, 0.995, 1.0);
  const auto expected = run(Device::cpu(), DType::f64, a, b, 2, {});
  const auto actual = run(device(), DType::f32, a, b, 2, {});
  EXPECT_LE(relative_error(actual[0], expected[0]), 1e-5);
  EXPECT_LE(relative_error(actual[1], expected[1]), 2e-4);
}

TEST_P(LnccOn, NanInAnImageReachesTheLoss) {
  Tensor a = random_tensor({1, 1, 5, 6, 7}, 20);
  const Tensor b = random_tensor({1, 1, 5, 6, 7}, 21);
  a.data<float>()[50] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_TRUE(std::isnan(run(device(), DType::f32, a, b, 2, {})[0].item()));
}

TEST_P(LnccOn, AssignsTheGradientThatIsWanted) {
  const Tensor a = random_tensor({1, 1, 5, 6, 7}, 22).to(device());
  const Tensor b = random_tensor({1, 1, 5, 6, 7}, 23).to(device());
  Tensor sums = poisoned({2}, DType::f64, device());
  Tensor loss = poisoned({}, DType::f32, device());
  const Lncc& kernels = lncc_on(device());
  kernels.forward(a, b, {}, {}, sums, loss);
  Tensor grad = poisoned_like(a);
  Tensor none;
  kernels.backward(loss, a, b, {}, {}, sums, none, grad);
  for (const float value : grad.to_vector<float>()) EXPECT_FALSE(std::isnan(value));
}

CINNABAR_ON_EACH_DEVICE(LnccOn);

}  // namespace
}  // namespace cinnabar::testing
