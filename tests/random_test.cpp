#include "autograd/random.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numbers>

#include "tests/devices.hpp"
#include "tests/tensors.hpp"
#include "tests/threads.hpp"

namespace cinnabar {
namespace {

using testing::same_values;

constexpr std::uint64_t wide(std::uint32_t high, std::uint32_t low) {
  return std::uint64_t{high} << 32 | low;
}

/// The known answers published with Random123 (kat_vectors).
TEST(Philox, GivesTheKnownAnswers) {
  struct Case {
    std::uint64_t seed, stream, counter;
    std::uint32_t expected[4];
  };
  const Case cases[] = {
      {0, 0, 0, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
      {~0ull, ~0ull, ~0ull, {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
      {wide(0x299f31d0, 0xa4093822),
       wide(0x03707344, 0x13198a2e),
       wide(0x85a308d3, 0x243f6a88),
       {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
  };
  for (const Case& known : cases) {
    const PhiloxWords words = philox_4x32_10(known.seed, known.stream, known.counter);
    for (int w = 0; w < 4; ++w) EXPECT_EQ(words.word[w], known.expected[w]);
  }
}

TEST(Philox, UniformsAreMultiplesOfTheirUnitBelowOne) {
  EXPECT_EQ(uniform_from_bits(0), 0.0f);
  EXPECT_EQ(uniform_from_bits(255), 0.0f);
  EXPECT_EQ(uniform_from_bits(256), 0x1p-24f);
  EXPECT_EQ(uniform_from_bits(~0u), 1.0f - 0x1p-24f);
}

class RandomTest : public testing::OnDevice {};

TEST_P(RandomTest, UniformIsWordNMod4OfCounterNDiv4) {
  const RandomSequence sequence{42, 5, 6};
  const auto values = random_uniform({9}, -2.0, 6.0, sequence, device()).to_vector<float>();
  for (std::uint64_t i = 0; i < values.size(); ++i) {
    const std::uint64_t n = sequence.offset + i;
    const float unit = uniform_from_bits(philox_4x32_10(42, 5, n / 4).word[n % 4]);
    EXPECT_EQ(values[i], std::fma(unit, 8.0f, -2.0f)) << i;
  }
}

TEST_P(RandomTest, NormalIsBoxAndMullersTransformOfPairs) {
  const RandomSequence sequence{42, 5, 1};
  const auto values = random_normal({2, 5}, 0.5, 3.0, sequence, device()).to_vector<float>();
  for (std::uint64_t i = 0; i < values.size(); ++i) {
    const std::uint64_t n = sequence.offset + i;
    const PhiloxWords words = philox_4x32_10(42, 5, n / 4);
    const std::uint32_t* pair = words.word + (n % 4) / 2 * 2;
    const double radius = std::sqrt(-2.0 * std::log((pair[0] + 0.5) * 0x1p-32));
    const double angle = 2.0 * std::numbers::pi * pair[1] * 0x1p-32;
    const double expected = 0.5 + 3.0 * radius * (n % 2 == 0 ? std::cos(angle) : std::sin(angle));
    EXPECT_NEAR(values[i], expected, 1e-5) << i;
  }
}

TEST_P(RandomTest, EverySizeAndOffsetAssignsExactlyItsElements) {
  const Tensor whole_uniform = random_uniform({300}, 0.0, 1.0, 7, 8);
  const Tensor whole_normal = random_normal({300}, 0.0, 1.0, 7, 8);
  const auto expected_uniform = whole_uniform.to_vector<float>();
  const auto expected_normal = whole_normal.to_vector<float>();
  for (const std::int64_t count : {0, 1, 2, 3, 4, 5, 31, 64, 257}) {
    for (const std::int64_t offset : {0, 1, 2, 3, 4, 30}) {
      for (const std::int64_t padding : {0, 1, 4}) {  // an unaligned or aligned place inside a tensor
        Tensor field = testing::poisoned({count + 2 * padding}, DType::f32, device());
        Tensor part = field.rows(padding, count);
        const RandomSequence sequence{7, 8, static_cast<std::uint64_t>(offset)};
        random_on(device()).uniform(sequence, 0.0, 1.0, part);
        const auto uniform = field.to_vector<float>();
        random_on(device()).normal(sequence, 0.0, 1.0, part);
        const auto normal = field.to_vector<float>();
        for (std::int64_t i = 0; i < count + 2 * padding; ++i) {
          const auto at = static_cast<std::size_t>(i);
          if (i < padding || i >= padding + count) {
            EXPECT_TRUE(std::isnan(uniform[at]) && std::isnan(normal[at]));
            continue;
          }
          const auto number = static_cast<std::size_t>(offset + i - padding);
          EXPECT_EQ(uniform[at], expected_uniform[number]);
          EXPECT_FLOAT_EQ(normal[at], expected_normal[number]);
        }
      }
    }
  }
}

TEST_P(RandomTest, BothDevicesDrawTheSameNumbers) {
  const Shape shape{3, 5, 7, 11};
  EXPECT_TRUE(
      same_values(random_uniform(shape, -1.0, 3.0, 1, 2, device()), random_uniform(shape, -1.0, 3.0, 1, 2)));
  const auto here = random_normal(shape, 0.0, 1.0, 1, 2, device()).to_vector<float>();
  const auto there = random_normal(shape, 0.0, 1.0, 1, 2).to_vector<float>();
  for (std::size_t i = 0; i < here.size(); ++i) EXPECT_NEAR(here[i], there[i], 1e-6);
}

TEST_P(RandomTest, SeedsStreamsAndPartsDiffer) {
  const auto draw = [&](std::uint64_t seed, std::uint64_t stream) {
    return random_uniform({64}, 0.0, 1.0, seed, stream, device());
  };
  EXPECT_TRUE(same_values(draw(1, 0), draw(1, 0)));
  EXPECT_FALSE(same_values(draw(1, 0), draw(2, 0)));
  EXPECT_FALSE(same_values(draw(1, 0), draw(1, 1)));
  EXPECT_FALSE(same_values(draw(0, 1), draw(1, 0)));
}

TEST_P(RandomTest, BadArgumentsAreRefused) {
  EXPECT_THROW(random_uniform({3}, 1.0, 0.0, 0, 0, device()), Error);
  EXPECT_THROW(random_uniform({3}, 0.0, INFINITY, 0, 0, device()), Error);
  EXPECT_THROW(random_normal({3}, NAN, 1.0, 0, 0, device()), Error);
  EXPECT_THROW(random_normal({3}, 0.0, -1.0, 0, 0, device()), Error);
  EXPECT_THROW(random_normal({3}, 0.0, 1.0, RandomSequence{0, 0, ~0ull}, device()), Error);
  EXPECT_THROW(random_uniform({3}, 0.0, 1.0, 0, 0, device(), DType::i32), Error);
  if (device().is_cpu()) return;
  EXPECT_THROW(random_uniform({3}, 0.0, 1.0, 0, 0, device(), DType::f64), Error);
}

CINNABAR_ON_EACH_DEVICE(RandomTest);

TEST(RandomCpu, DoublesAreTheFloatsInHigherPrecision) {
  const Shape shape{4099};
  const auto uniform = random_uniform(shape, -1.0, 3.0, 3, 4).to_vector<double>();
  const auto precise = random_uniform(shape, -1.0, 3.0, 3, 4, Device::cpu(), DType::f64).to_vector<double>();
  const auto normal = random_normal(shape, 0.0, 1.0, 3, 4).to_vector<double>();
  const auto exact = random_normal(shape, 0.0, 1.0, 3, 4, Device::cpu(), DType::f64).to_vector<double>();
  for (std::size_t i = 0; i < uniform.size(); ++i) {
    EXPECT_NEAR(uniform[i], precise[i], 2e-7);
    EXPECT_NEAR(normal[i], exact[i], 1e-6);
  }
}

TEST(RandomCpu, NumberOfThreadsChangesNothing) {
  const auto compute = [] { return random_normal({70001}, 0.0, 1.0, 5, 6); };
  EXPECT_TRUE(same_values(testing::on_threads(1, compute), testing::on_threads(3, compute)));
}

/// Moments and the largest distance between the empirical and the true distribution (Kolmogorov).
struct Statistics {
  double mean, variance, kurtosis, distance;
};

template <class Distribution>
Statistics statistics(std::vector<double> values, const Distribution& distribution) {
  const auto n = static_cast<double>(values.size());
  double mean = 0.0, second = 0.0, fourth = 0.0, distance = 0.0;
  for (const double x : values) mean += x / n;
  for (const double x : values) {
    second += std::pow(x - mean, 2) / n;
    fourth += std::pow(x - mean, 4) / n;
  }
  std::sort(values.begin(), values.end());
  for (std::size_t i = 0; i < values.size(); ++i) {
    distance = std::max(distance, std::abs((static_cast<double>(i) + 0.5) / n - distribution(values[i])));
  }
  return {mean, second, fourth / (second * second), distance};
}

// Bounds are five standard errors of the estimate for a million numbers; Kolmogorov's is at 1e-6.
TEST(RandomCpu, AMillionUniformsAreUniform) {
  const auto found =
      statistics(random_uniform({1'000'000}, 0.0, 1.0, 9, 0).to_vector<double>(), [](double x) { return x; });
  EXPECT_NEAR(found.mean, 0.5, 5 * 2.9e-4);
  EXPECT_NEAR(found.variance, 1.0 / 12, 5 * 7.5e-5);
  EXPECT_NEAR(found.kurtosis, 1.8, 0.01);
  EXPECT_LT(found.distance, 2.7e-3);
}

TEST(RandomCpu, AMillionNormalsAreNormal) {
  const auto values = random_normal({1'000'000}, 0.0, 1.0, 10, 0).to_vector<double>();
  const auto found = statistics(values, [](double x) { return 0.5 * std::erfc(-x / std::numbers::sqrt2); });
  EXPECT_NEAR(found.mean, 0.0, 5e-3);
  EXPECT_NEAR(found.variance, 1.0, 5 * 1.42e-3);
  EXPECT_NEAR(found.kurtosis, 3.0, 5 * 4.9e-3);
  EXPECT_LT(found.distance, 2.7e-3);
  double pairs = 0.0;  // cosine and sine of one pair must not be correlated
  for (std::size_t i = 0; i < values.size(); i += 2) pairs += values[i] * values[i + 1] / 500'000;
  EXPECT_NEAR(pairs, 0.0, 5 * 1.42e-3);
}

}  // namespace
}  // namespace cinnabar
