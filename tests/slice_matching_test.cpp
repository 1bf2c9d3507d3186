// Slices of several subjects and which of them lie at the same height.

#include "models/slice_matching.hpp"

#include <gtest/gtest.h>

#include <cmath>

#include "registration/brain_slices.hpp"
#include "registration/nifti.hpp"
#include "tests/scratch_folder.hpp"
#include "tests/synthetic_head.hpp"
#include "tests/tensors.hpp"

namespace cinnabar {
namespace {

using testing::random_tensor;
using testing::same_values;
using testing::ScratchFolder;

/// A disc that grows from slice to slice and lies elsewhere in every stack.
Tensor discs(std::int64_t count, double x, double y) {
  Tensor images = Tensor::empty({count, 1, 16, 16});
  for (std::int64_t i = 0; i < images.numel(); ++i) {
    const double away = std::hypot(static_cast<double>(i % 16) - x, static_cast<double>(i / 16 % 16) - y);
    const double radius = 1.0 + 5.0 * static_cast<double>(i / 256) / static_cast<double>(count - 1);
    images.data<float>()[i] = static_cast<float>(1.0 / (1.0 + std::exp(2.0 * (away - radius))));
  }
  return images;
}

SliceMatcherOptions small(MatchingLoss loss) {
  return {.loss = loss, .channels = {4, 8}, .embedding = 4, .seed = 1};
}

TEST(SliceMatching, LearnsToFindTheSameHeight) {
  const std::vector<Tensor> taught{discs(12, 7, 7), discs(14, 9, 8), discs(13, 7, 9)};
  const std::vector<Tensor> others{discs(12, 9, 9), discs(15, 7, 8)};
  const RandomWarp none("none", {16, 16});
  const double chance = chance_matching(others).error;
  for (const MatchingLoss loss : {MatchingLoss::contrastive, MatchingLoss::correlation}) {
    std::vector<float> weights[2];
    for (auto& result : weights) {
      SliceMatcher network(small(loss));
      MatchingTraining training(network, taught, none,
                                {.epochs = 40, .batch_size = 13, .learning_rate = 1e-2, .gap = 2});
      const double first = training.epoch();
      double last = first;
      while (training.epochs_done() < 40) last = training.epoch();
      EXPECT_LT(last, 0.7 * first);
      const MatchingScore score = score_matching(
          [&](const Tensor& a, const Tensor& b) { return network.distances(a, b); }, others, none);
      EXPECT_LT(score.error, 0.35 * chance);
      EXPECT_GE(score.within4, score.within2);
      result = network.parameters().front().value().to_vector<float>();
    }
    EXPECT_EQ(weights[0], weights[1]);
  }
}

TEST(SliceMatching, ScoresAreDistancesToTheSameHeight) {
  const std::vector<Tensor> stacks{discs(5, 8, 8), discs(9, 8, 8)};
  const RandomWarp none("none", {16, 16});
  // Whoever always names the lowest slice is wrong by the height: means of 0 .. 8 and 0 .. 4.
  const auto lowest = [](const Tensor& a, const Tensor& b) {
    std::vector<double> table(static_cast<std::size_t>(a.shape(0) * b.shape(0)), 1.0);
    for (std::int64_t i = 0; i < a.shape(0); ++i) table[static_cast<std::size_t>(i * b.shape(0))] = 0.0;
    return table;
  };
  const MatchingScore score = score_matching(lowest, stacks, none);
  EXPECT_NEAR(score.error, (5 * 4.0 + 9 * 2.0) / 14.0, 1e-9);
  EXPECT_NEAR(score.within2, (2 + 5) / 14.0, 1e-9);
  EXPECT_NEAR(score.within4, (3 + 9) / 14.0, 1e-9);
  EXPECT_GT(chance_matching(stacks).error, 1.0);
  // Discs of equal size correlate best.
  EXPECT_LT(score_matching(correlation_distances, stacks, none).error, 0.5);
  EXPECT_THROW(score_matching(lowest, {stacks[0]}, none), Error);
}

TEST(SliceMatcher, ComesBackFromItsFile) {
  const ScratchFolder folder;
  const Tensor a = random_tensor({3, 1, 16, 16}, 2, 0, 1), b = random_tensor({2, 1, 16, 16}, 3, 0, 1);
  for (const MatchingLoss loss : {MatchingLoss::contrastive, MatchingLoss::correlation}) {
    SliceMatcher network(small(loss));
    save_slice_matcher(folder / "net.safetensors", network);
    const auto loaded = load_slice_matcher(folder / "net.safetensors");
    EXPECT_EQ(loaded->options().loss, loss);
    EXPECT_EQ(network.distances(a, b).size(), 6u);
    EXPECT_EQ(loaded->distances(a, b), network.distances(a, b));
    for (const double distance : network.distances(a, a)) EXPECT_GE(distance, -1e-6);
    EXPECT_NEAR(network.distances(a, a)[4], 0.0, 1e-5);
  }
  Sequential other;
  other.save(folder / "net.safetensors");
  EXPECT_THROW(load_slice_matcher(folder / "net.safetensors"), InputError);
  EXPECT_THROW(load_slice_matcher(folder / "no.safetensors"), InputError);
}

TEST(MatchingTraining, RefusesStacksThatAreTooSmall) {
  SliceMatcher network(small(MatchingLoss::contrastive));
  const RandomWarp none("none", {16, 16});
  EXPECT_THROW(MatchingTraining(network, {}, none, {}), Error);
  EXPECT_THROW(MatchingTraining(network, {discs(5, 8, 8).rows(0, 1)}, none, {}), Error);
}

TEST(StackSlices, KeepsScansApart) {
  using namespace registration;
  const ScratchFolder folder;
  const SliceOptions coarse{.side = 16, .pixel_mm = 8.0, .distance_mm = 4.0, .levels = 2};
  const Geometry grid = axis_aligned_grid({22, 24, 20}, {5, 5, 5}, {-52, -58, -48});
  std::vector<std::filesystem::path> paths;
  for (int i = 0; i < 6; ++i) {
    paths.push_back(folder / (std::to_string(i) + ".nii.gz"));
    write_image(paths.back(), testing::head(grid, 2.0 * i, 1.0));
  }
  const SliceStacks stacks = stack_slices(paths, coarse);
  ASSERT_EQ(stacks.training.size(), 4u);
  ASSERT_EQ(stacks.test.size(), 2u);
  EXPECT_TRUE(same_values(stacks.test[1], axial_slices(read_image(paths[5]), coarse).images));
  EXPECT_EQ(stacks.description, "4 scans to train on, 2 others to test on");
  paths.pop_back();
  EXPECT_THROW(stack_slices(paths, coarse), InputError);
}

}  // namespace
}  // namespace cinnabar
