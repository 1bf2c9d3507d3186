#include "models/sample_moments.hpp"

#include <gtest/gtest.h>

#include "tests/devices.hpp"
#include "tests/tensors.hpp"
#include "tests/threads.hpp"

namespace cinnabar::testing {
namespace {

class SampleMomentsOn : public OnDevice {};
CINNABAR_ON_EACH_DEVICE(SampleMomentsOn);

TEST_P(SampleMomentsOn, HandSized) {
  MomentAccumulator samples;
  for (const float value : {2.0f, 4.0f, 9.0f}) {
    samples.add(Tensor::from<float>({value, -1.0f}, {2}).to(device()));
  }
  EXPECT_EQ(samples.count(), 3);
  const SampleMoments found = samples.moments();
  EXPECT_EQ(found.mean.to_vector<float>(), (std::vector<float>{5.0f, -1.0f}));
  EXPECT_EQ(found.variance.to_vector<float>(), (std::vector<float>{13.0f, 0.0f}));
}

TEST(SampleMoments, KeepsSmallVariancesUnderLargeMeans) {
  MomentAccumulator samples;
  for (int i = 0; i < 50; ++i)
    samples.add(Tensor::full({3}, 4096.0 + (i % 2 == 0 ? 1e-3 : -1e-3), DType::f64));
  const SampleMoments found = samples.moments();
  EXPECT_NEAR(found.mean.to_vector<double>()[1], 4096.0, 1e-9);
  EXPECT_NEAR(found.variance.to_vector<double>()[1], 1e-6 * 50 / 49, 1e-10);
}

TEST(SampleMoments, HasTheSameBitsForAnyNumberOfThreads) {
  const auto collect = [] {
    MomentAccumulator samples;
    for (std::uint64_t i = 0; i < 4; ++i) samples.add(random_tensor({3, 70000}, i));
    return samples.moments();
  };
  const SampleMoments one = on_threads(1, collect), three = on_threads(3, collect);
  EXPECT_TRUE(same_values(one.mean, three.mean));
  EXPECT_TRUE(same_values(one.variance, three.variance));
}

TEST(SampleMoments, OneSampleHasNoVariance) {
  MomentAccumulator samples;
  samples.add(Tensor::full({2}, 3.0));
  EXPECT_TRUE(same_values(samples.moments().variance, Tensor::zeros({2})));
}

TEST(SampleMoments, RefusesMisfits) {
  MomentAccumulator samples;
  EXPECT_THROW(samples.moments(), Error);
  EXPECT_THROW(samples.add(Tensor()), Error);
  samples.add(Tensor::zeros({2, 3}));
  EXPECT_THROW(samples.add(Tensor::zeros({3, 2})), Error);
  EXPECT_THROW(samples.add(Tensor::zeros({2, 3}, DType::i32)), Error);
}

}  // namespace
}  // namespace cinnabar::testing
