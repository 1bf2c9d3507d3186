#include "data/permutation.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>
#include <vector>

namespace cinnabar::testing {
namespace {

std::vector<std::uint64_t> order_of(std::uint64_t count, std::uint64_t seed, std::uint64_t stream) {
  const Permutation permutation(count, seed, stream);
  std::vector<std::uint64_t> order;
  for (std::uint64_t i = 0; i < count; ++i) order.push_back(permutation(i));
  return order;
}

TEST(Permutation, EveryIndexComesExactlyOnce) {
  for (const std::uint64_t count : {1u, 2u, 3u, 4u, 5u, 7u, 15u, 16u, 17u, 64u, 65u, 100u, 997u, 4097u}) {
    for (const std::uint64_t stream : {0u, 1u, 77u}) {
      std::vector<std::uint64_t> order = order_of(count, 5, stream);
      std::sort(order.begin(), order.end());
      std::vector<std::uint64_t> all(count);
      std::iota(all.begin(), all.end(), 0u);
      EXPECT_EQ(order, all) << count << ' ' << stream;
    }
  }
}

TEST(Permutation, SeedAndStreamChooseTheOrder) {
  EXPECT_EQ(order_of(100, 1, 2), order_of(100, 1, 2));
  EXPECT_NE(order_of(100, 1, 2), order_of(100, 2, 2));
  EXPECT_NE(order_of(100, 1, 2), order_of(100, 1, 3));
}

TEST(Permutation, AllOrdersOfFewAreAboutEquallyFrequent) {
  for (const auto& [count, orders] : {std::pair{2u, 2.0}, {3u, 6.0}, {4u, 24.0}, {5u, 120.0}}) {
    constexpr int kTrials = 24000;
    std::map<std::vector<std::uint64_t>, int> seen;
    for (std::uint64_t stream = 0; stream < kTrials; ++stream) ++seen[order_of(count, 3, stream)];
    EXPECT_EQ(static_cast<double>(seen.size()), orders) << count;
    double chi_squared = 0.0;
    const double expected = kTrials / orders;
    for (const auto& [order, times] : seen) chi_squared += (times - expected) * (times - expected) / expected;
    // Mean orders - 1, variance twice that: five standard deviations.
    EXPECT_LT(chi_squared, orders - 1 + 5 * std::sqrt(2 * (orders - 1))) << count;
  }
}

TEST(Permutation, NeighboursPartInALargeOne) {
  // The mean distance of two random places is a third of the range.
  const std::vector<std::uint64_t> order = order_of(10000, 9, 0);
  double total = 0.0;
  for (std::size_t i = 1; i < order.size(); ++i) {
    total += std::abs(static_cast<double>(order[i]) - static_cast<double>(order[i - 1]));
  }
  EXPECT_NEAR(total / 9999, 10000.0 / 3, 150);
}

TEST(Permutation, ReachesBeyond32Bits) {
  const std::uint64_t count = (std::uint64_t{1} << 40) + 12345;
  const Permutation permutation(count, 1, 1);
  std::vector<std::uint64_t> places;
  for (std::uint64_t i = 0; i < 1000; ++i) {
    places.push_back(permutation(count - 1 - i));
    ASSERT_LT(places.back(), count);
  }
  std::sort(places.begin(), places.end());
  EXPECT_EQ(std::unique(places.begin(), places.end()), places.end());
  EXPECT_GT(places.back(), count / 2);
}

}  // namespace
}  // namespace cinnabar::testing
