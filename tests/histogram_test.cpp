#include "autograd/histogram.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <numeric>

#include "tests/devices.hpp"
#include "tests/tensors.hpp"
#include "tests/threads.hpp"

namespace cinnabar::testing {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

/// A skewed image with about a third of exact zeros.
Tensor skewed_image(std::uint64_t seed, double power, double scale) {
  Tensor image = random_tensor({1, 1, 13, 17, 19}, seed, -0.5, 1.0);
  for (std::int64_t i = 0; i < image.numel(); ++i) {
    float& value = image.data<float>()[i];
    value = value > 0 ? static_cast<float>(scale * std::pow(value, power)) : 0.0f;
  }
  return image;
}

class HistogramOn : public OnDevice {};

TEST_P(HistogramOn, CountsByHand) {
  const Tensor values =
      Tensor::from<float>({0, 0.1f, 0.5f, 0.75f, 1, 1.01f, -0.01f, kNan}, {2, 4}).to(device());
  EXPECT_EQ(histogram(values, 4, 0.0, 1.0).to_vector<std::int64_t>(),
            (std::vector<std::int64_t>{2, 0, 1, 2}));
  EXPECT_EQ(histogram(values, 4, 0.0, 1.0, {}).to_vector<std::int64_t>(),
            (std::vector<std::int64_t>{1, 0, 1, 2}));
  EXPECT_EQ(histogram(values, 2, 0.0, 1.0, {Foreground::at_least, 0.5}).to_vector<std::int64_t>(),
            (std::vector<std::int64_t>{0, 3}));
}

TEST_P(HistogramOn, AgreesWithTheCpuBinByBin) {
  const Tensor image = random_tensor({3, 61, 97}, 1, -2, 2);
  for (const std::int64_t bins : {1, 7, 256, 5000}) {
    const Tensor counts = histogram(image.to(device()), bins, -1.5, 1.7);
    EXPECT_TRUE(same_values(counts, histogram(image, bins, -1.5, 1.7))) << bins;
  }
}

TEST_P(HistogramOn, QuantilesInterpolateBetweenNonzeroVoxels) {
  const Tensor image = Tensor::from<float>({0, 5, 0, -1, 3, kNan, 2}, {7}).to(device());
  EXPECT_EQ(quantiles(image, {0.0, 0.25, 0.5, 1.0}), (std::vector<double>{-1, 1.25, 2.5, 5}));
  EXPECT_EQ(quantiles(image, {0.5}, {Foreground::all, 0.0}), (std::vector<double>{1}));
  EXPECT_THROW(quantiles(image, {1.5}), Error);
  EXPECT_THROW(quantiles(Tensor::zeros({4}).to(device()), {0.5}), Error);
}

TEST_P(HistogramOn, EqualisationFlattensTheNonzeroVoxelsAndKeepsZeros) {
  const Tensor image = skewed_image(2, 4.0, 1000.0);
  const Tensor equalised = equalize_histogram(image.to(device()));
  EXPECT_LE(relative_error(equalised, equalize_histogram(image)), 1e-6);
  const std::vector<float> before = image.to_vector<float>();
  const std::vector<float> after = equalised.to_vector<float>();
  for (std::size_t i = 0; i < before.size(); ++i) EXPECT_EQ(before[i] == 0.0f, after[i] == 0.0f);
  const std::vector<double> found = quantiles(equalised, {0.5, 0.7, 0.9});
  EXPECT_NEAR(found[0], 0.5, 0.07);  // a quarter of the voxels share the lowest of 256 bins
  EXPECT_NEAR(found[1], 0.7, 0.03);
  EXPECT_NEAR(found[2], 0.9, 0.02);
}

TEST_P(HistogramOn, MatchingBringsQuantilesTogether) {
  const Tensor moving = skewed_image(3, 2.0, 100.0).to(device());
  const Tensor fixed = skewed_image(4, 0.7, 3.0).to(device());
  for (const bool threshold : {false, true}) {
    const Tensor matched = match_histogram(moving, fixed, {15, threshold});
    EXPECT_LE(relative_error(matched, match_histogram(moving.to(Device::cpu()), fixed.to(Device::cpu()),
                                                      {15, threshold})),
              1e-6);
    const ForegroundRule bright{Foreground::at_least, 1.5};
    const std::vector<double> wanted = quantiles(fixed, {0.1, 0.5, 0.9, 1.0}, bright);
    const std::vector<double> found = quantiles(matched, {0.1, 0.5, 0.9, 1.0}, bright);
    for (std::size_t k = 0; k < wanted.size(); ++k) EXPECT_NEAR(found[k], wanted[k], 0.08) << k << threshold;
  }
}

TEST_P(HistogramOn, MatchingAnImageWithItselfChangesNothing) {
  const Tensor image = skewed_image(5, 1.3, 7.0).to(device());
  EXPECT_LE(relative_error(match_histogram(image, image), image), 1e-6);
  const Tensor constant = Tensor::full({3, 4}, 0.3).to(device());
  EXPECT_LE(relative_error(match_histogram(constant, constant), constant), 1e-6);
}

TEST_P(HistogramOn, MapAssignsAndJumpsAtEqualKnots) {
  const Tensor values = Tensor::from<float>({-1, 0, 0.5f, 1, 2, 9}, {6}).to(device());
  Tensor mapped = poisoned({6}, DType::f32, device());
  const Tensor from = Tensor::from<double>({0, 1, 1, 3}, {4});
  const Tensor to = Tensor::from<double>({10, 20, 30, 40}, {4});
  histogram_on(device()).map(values, {Foreground::all, 0.0}, from, to, mapped);
  EXPECT_EQ(mapped.to_vector<float>(), (std::vector<float>{10, 10, 15, 30, 35, 40}));
}

CINNABAR_ON_EACH_DEVICE(HistogramOn);

TEST(Histogram, CountsDoNotDependOnTheNumberOfThreads) {
  const Tensor image = random_tensor({300000}, 6);
  const auto compute = [&] { return histogram(image, 100, -1, 1); };
  const Tensor one = on_threads(1, compute);
  const Tensor three = on_threads(3, compute);
  EXPECT_TRUE(same_values(one, three));
  const auto counts = one.to_vector<std::int64_t>();
  EXPECT_EQ(std::accumulate(counts.begin(), counts.end(), std::int64_t{0}), 300000);
}

TEST(Histogram, RefusesBadArguments) {
  const Tensor image = Tensor::zeros({4});
  EXPECT_THROW(histogram(image, 0, 0, 1), Error);
  EXPECT_THROW(histogram(image, 4, 1, 1), Error);
  EXPECT_THROW(histogram(Tensor::zeros({4}, DType::i32), 4, 0, 1), Error);
  EXPECT_THROW(match_histogram(image, image, {0, true}), Error);
  Tensor mapped = Tensor::zeros({4});
  const Tensor falling = Tensor::from<double>({1, 0}, {2});
  EXPECT_THROW(histogram_on(Device::cpu()).map(image, {}, falling, falling, mapped), Error);
}

}  // namespace
}  // namespace cinnabar::testing
