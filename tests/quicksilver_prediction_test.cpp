#include "models/quicksilver_prediction.hpp"

#include <gtest/gtest.h>

#include "autograd/patches.hpp"
#include "data/patch_grid.hpp"
#include "tests/devices.hpp"
#include "tests/tensors.hpp"
#include "tests/threads.hpp"

// tests/patch_tiling_golden_test.cpp compares places, foreground and averages with the original program.

namespace cinnabar::testing {
namespace {

const Shape kPatch{7, 7, 7};
const PredictionOptions kOptions{.stride = 6, .batch_size = 5};

QuicksilverOptions tiny(double dropout = 0.0) {
  return {.features = 2, .patch = kPatch, .dropout = dropout, .seed = 3};
}

/// Two bodies in the middle of an empty background.
struct Pair {
  Tensor moving, target;
};

Pair bodies(const Shape& spatial, Device device = Device::cpu()) {
  const Shape shape{1, 1, spatial[0], spatial[1], spatial[2]};
  const auto body = [&](std::uint64_t seed, std::int64_t margin) {
    Tensor image = random_tensor(shape, seed, 0.1, 1.0);
    float* value = image.data<float>();
    for (std::int64_t i = 0; i < image.numel(); ++i) {
      const std::int64_t x = i % spatial[2];
      if (x < margin || x >= spatial[2] - margin) value[i] = 0.0f;
    }
    return image.to(device);
  };
  return {body(1, spatial[2] / 3), body(2, spatial[2] / 4)};
}

class PredictionOn : public OnDevice {
 protected:
  Quicksilver& moved(Quicksilver& network) const {
    network.to(device());
    return network;
  }
};
CINNABAR_ON_EACH_DEVICE(PredictionOn);

TEST_P(PredictionOn, IsTheAverageOfAllForegroundPatches) {
  Quicksilver network(tiny());
  moved(network).eval();
  const auto [moving, target] = bodies({8, 7, 33}, device());
  const Tensor starts =
      foreground_starts({moving, target}, grid_starts({8, 7, 33}, {kPatch, {6, 6, 6}}), kPatch);
  EXPECT_GT(starts.shape(0), 4);
  EXPECT_LT(starts.shape(0), 2 * 6) << "nothing was background";
  std::vector<double> sums(3 * 8 * 7 * 33), counts(sums.size());
  for (std::int64_t n = 0; n < starts.shape(0); ++n) {
    const Tensor one = starts.rows(n, 1);
    const auto cut = [&](const Tensor& image) {
      return gather_patches(Variable(image), one.to(device()), kPatch).value().to_vector<float>();
    };
    std::vector<float> both = cut(moving);
    for (const float value : cut(target)) both.push_back(value);
    const Variable patch(Tensor::from(both, {1, 2, 7, 7, 7}).to(device()));
    const std::vector<double> out = network(patch).value().to_vector<double>();
    const std::vector<std::int32_t> at = one.to_vector<std::int32_t>();
    for (std::size_t i = 0; i < out.size(); ++i) {
      const std::size_t c = i / 343, z = i / 49 % 7, y = i / 7 % 7, x = i % 7;
      const std::size_t voxel =
          ((c * 8 + z + static_cast<std::size_t>(at[1])) * 7 + y + static_cast<std::size_t>(at[2])) * 33 + x +
          static_cast<std::size_t>(at[3]);
      sums[voxel] += out[i];
      counts[voxel] += 1.0;
    }
  }
  for (std::size_t i = 0; i < sums.size(); ++i) sums[i] = counts[i] > 0.0 ? sums[i] / counts[i] : 0.0;
  const Tensor found = predict_momentum(network, moving, target, kOptions);
  EXPECT_LE(relative_error(found, Tensor::from(sums, {1, 3, 8, 7, 33})), 1e-6);
  EXPECT_EQ(MomentumPredictor(network, moving, target, kOptions).patches(), starts.shape(0));
}

TEST_P(PredictionOn, BitsDoNotDependOnTheBatch) {
  Quicksilver network(tiny(0.2));
  moved(network);
  const auto [moving, target] = bodies({8, 7, 20}, device());
  const auto predicted = [&](std::int64_t batch) {
    return predict_momentum(network, moving, target, {.stride = 6, .batch_size = batch});
  };
  const Tensor expected = predicted(64);
  for (const std::int64_t batch : {1, 3}) EXPECT_TRUE(same_values(predicted(batch), expected)) << batch;
}

TEST_P(PredictionOn, SamplesFollowTheSeedAndNotTheBatch) {
  const auto [moving, target] = bodies({7, 7, 15}, device());
  const auto samples = [&](std::int64_t batch) {
    Quicksilver network(tiny(0.2));
    moved(network);
    MomentumPredictor predictor(network, moving, target, {.stride = 6, .batch_size = batch});
    const Tensor mean = predictor.predict();
    std::vector<Tensor> drawn{predictor.sample(), predictor.sample()};
    EXPECT_TRUE(same_values(predictor.predict(), mean)) << "dropout stayed on";
    EXPECT_TRUE(network.training()) << "the network's mode was changed";
    EXPECT_FALSE(same_values(drawn[0], mean));
    EXPECT_FALSE(same_values(drawn[0], drawn[1]));
    return drawn;
  };
  const std::vector<Tensor> at_once = samples(64), in_threes = samples(3);
  EXPECT_TRUE(same_values(at_once[0], in_threes[0]));
  EXPECT_TRUE(same_values(at_once[1], in_threes[1]));
}

TEST_P(PredictionOn, AgreesWithTheCpu) {
  Quicksilver network(tiny());
  const auto [moving, target] = bodies({9, 7, 20});
  const Tensor expected = predict_momentum(network, moving, target, kOptions);
  const Tensor found = predict_momentum(moved(network), moving.to(device()), target.to(device()), kOptions);
  EXPECT_EQ(found.device(), device());
  EXPECT_LE(relative_error(found, expected), 1e-5);
}

TEST_P(PredictionOn, VolumesSmallerThanAPatchAreContinuedByZeros) {
  Quicksilver network(tiny());
  moved(network);
  const Shape small{1, 1, 4, 7, 5};
  const Tensor moving = random_tensor(small, 1), target = random_tensor(small, 2);
  const auto padded = [&](const Tensor& image) {
    Tensor whole = Tensor::zeros({1, 1, 7, 7, 7});
    for (std::int64_t i = 0; i < image.numel(); ++i) {
      whole.data<float>()[(i / 35 * 7 + i / 5 % 7) * 7 + i % 5] = image.data<float>()[i];
    }
    return whole.to(device());
  };
  const Tensor found = predict_momentum(network, moving.to(device()), target.to(device()));
  const Tensor whole = predict_momentum(network, padded(moving), padded(target));
  ASSERT_EQ(found.shape(), (Shape{1, 3, 4, 7, 5}));
  const std::vector<float> some = found.to_vector<float>(), all = whole.to_vector<float>();
  for (std::size_t i = 0; i < some.size(); ++i) {
    const std::size_t c = i / 140, z = i / 35 % 4, y = i / 5 % 7, x = i % 5;
    EXPECT_EQ(some[i], all[((c * 7 + z) * 7 + y) * 7 + x]) << i;
  }
}

TEST_P(PredictionOn, AnEmptyPairHasNoMomentum) {
  Quicksilver network(tiny());
  const Tensor nothing = Tensor::zeros({1, 1, 9, 9, 9}, DType::f32, device());
  EXPECT_TRUE(
      same_values(predict_momentum(moved(network), nothing, nothing), Tensor::zeros({1, 3, 9, 9, 9})));
}

TEST(Prediction, BitsDoNotDependOnTheNumberOfThreads) {
  Quicksilver network(tiny());
  const auto [moving, target] = bodies({10, 9, 22});
  const auto predicted = [&, &moving = moving, &target = target] {
    return predict_momentum(network, moving, target, kOptions);
  };
  EXPECT_TRUE(same_values(on_threads(1, predicted), on_threads(3, predicted)));
}

TEST(Prediction, SkipsTheFirstPatchWhenAskedTo) {
  Quicksilver network(tiny());
  const Tensor image = random_tensor({1, 1, 7, 7, 14}, 1, 0.1, 1.0);
  const PredictionOptions original{.stride = 7, .skip_first_patch = true};
  const std::vector<float> skipped = predict_momentum(network, image, image, original).to_vector<float>();
  const std::vector<float> all = predict_momentum(network, image, image, {.stride = 7}).to_vector<float>();
  for (std::size_t i = 0; i < all.size(); ++i) EXPECT_EQ(skipped[i], i % 14 < 7 ? 0.0f : all[i]) << i;
}

TEST(Prediction, RefusesMisfits) {
  Quicksilver network(tiny());
  const Tensor image = Tensor::zeros({1, 1, 8, 8, 8});
  EXPECT_THROW(predict_momentum(network, Tensor(), image), Error);
  EXPECT_THROW(predict_momentum(network, image, Tensor::zeros({1, 1, 8, 8, 9})), Error);
  EXPECT_THROW(predict_momentum(network, image.reshape({8, 8, 8}), image.reshape({8, 8, 8})), Error);
  EXPECT_THROW(predict_momentum(network, image, image, {.stride = 0}), Error);
  EXPECT_THROW(predict_momentum(network, image, image, {.batch_size = 0}), Error);
}

}  // namespace
}  // namespace cinnabar::testing
