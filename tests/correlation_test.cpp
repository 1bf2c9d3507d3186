#include "layers/correlation.hpp"

#include <gtest/gtest.h>

#include <cmath>

#include "autograd/gradcheck.hpp"
#include "tests/devices.hpp"
#include "tests/tensors.hpp"

namespace cinnabar::testing {
namespace {

constexpr std::int64_t kBatch = 2, kChannels = 3, kDepth = 2, kHeight = 3, kWidth = 4;
const Shape kShape{kBatch, kChannels, kDepth, kHeight, kWidth};

/// Sum over channels of a at voxel p and b at voxel (z, y, x), 0 outside; `volume` voxels of b a channel.
double product(const std::vector<double>& a, const std::vector<double>& b, std::int64_t n, std::int64_t p,
               std::int64_t z, std::int64_t y, std::int64_t x) {
  constexpr std::int64_t kVolume = kDepth * kHeight * kWidth;
  if (z < 0 || z >= kDepth || y < 0 || y >= kHeight || x < 0 || x >= kWidth) return 0.0;
  double sum = 0.0;
  for (std::int64_t c = 0; c < kChannels; ++c) {
    const std::int64_t plane = (n * kChannels + c) * kVolume;
    sum += a[static_cast<std::size_t>(plane + p)] *
           b[static_cast<std::size_t>(plane + (z * kHeight + y) * kWidth + x)];
  }
  return sum;
}

class CorrelationOn : public OnDevice {};

TEST_P(CorrelationOn, MultipliesEveryVoxelWithThoseAround) {
  const Tensor a = random_tensor(kShape, 1), b = random_tensor(kShape, 2);
  const auto va = a.to_vector<double>(), vb = b.to_vector<double>();
  std::vector<double> expected;
  for (std::int64_t n = 0; n < kBatch; ++n) {
    for (std::int64_t dz = -1; dz <= 1; ++dz) {
      for (std::int64_t dx = -2; dx <= 2; ++dx) {
        for (std::int64_t p = 0; p < kDepth * kHeight * kWidth; ++p) {
          const std::int64_t z = p / kWidth / kHeight, y = p / kWidth % kHeight, x = p % kWidth;
          expected.push_back(product(va, vb, n, p, z + dz, y, x + dx) / kChannels);
        }
      }
    }
  }
  const Variable found = local_correlation(Variable(a.to(device())), Variable(b.to(device())), {1, 0, 2});
  EXPECT_LE(relative_error(found.value(), Tensor::from(expected, {kBatch, 15, kDepth, kHeight, kWidth})),
            2e-6);
}

TEST_P(CorrelationOn, MultipliesEveryVoxelWithEveryOther) {
  const Tensor a = random_tensor(kShape, 1), b = random_tensor(kShape, 2);
  const auto va = a.to_vector<double>(), vb = b.to_vector<double>();
  std::vector<double> expected;
  constexpr std::int64_t kVolume = kDepth * kHeight * kWidth;
  for (std::int64_t n = 0; n < kBatch; ++n) {
    for (std::int64_t q = 0; q < kVolume; ++q) {
      for (std::int64_t p = 0; p < kVolume; ++p) {
        expected.push_back(product(va, vb, n, p, q / kWidth / kHeight, q / kWidth % kHeight, q % kWidth) /
                           std::sqrt(3.0));
      }
    }
  }
  const Variable found = all_pairs_correlation(Variable(a.to(device())), Variable(b.to(device())));
  EXPECT_LE(relative_error(found.value(), Tensor::from(expected, {kBatch, kVolume, kDepth, kHeight, kWidth})),
            2e-6);
}

TEST(Correlation, GradientsMatchDifferences) {
  const Tensor a = random_tensor(kShape, 1, -1, 1, DType::f64),
               b = random_tensor(kShape, 2, -1, 1, DType::f64);
  const auto local = [](const std::vector<Variable>& in) {
    return local_correlation(in[0], in[1], {0, 1, 2});
  };
  const auto all = [](const std::vector<Variable>& in) { return all_pairs_correlation(in[0], in[1]); };
  const GradcheckResult of_local = gradcheck(local, {a, b}, {.max_entries = 30});
  EXPECT_TRUE(of_local) << of_local.message;
  const Tensor smaller = random_tensor({2, 3, 1, 2, 3}, 3, -1, 1, DType::f64);
  const GradcheckResult of_all = gradcheck(all, {a, smaller}, {.max_entries = 30});
  EXPECT_TRUE(of_all) << of_all.message;
}

TEST(Correlation, RefusesMisfits) {
  const Variable a(Tensor::zeros({1, 2, 3, 4, 5})), fewer(Tensor::zeros({1, 1, 3, 4, 5}));
  const Variable smaller(Tensor::zeros({1, 2, 3, 4, 4}));
  EXPECT_NO_THROW(all_pairs_correlation(a, smaller));
  EXPECT_THROW(all_pairs_correlation(a, fewer), Error);
  EXPECT_THROW(local_correlation(a, smaller, {1, 1, 1}), Error);
  EXPECT_THROW(local_correlation(a, a, {1, -1, 1}), Error);
}

CINNABAR_ON_EACH_DEVICE(CorrelationOn);

}  // namespace
}  // namespace cinnabar::testing
