// Slices of brains under random warps: what is learned from, and the classifier.

#include "models/slice_training.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>

#include "registration/brain_slices.hpp"
#include "registration/nifti.hpp"
#include "tests/scratch_folder.hpp"
#include "tests/synthetic_head.hpp"
#include "tests/tensors.hpp"

namespace cinnabar::registration {
namespace {

using cinnabar::testing::head;
using cinnabar::testing::random_tensor;
using cinnabar::testing::same_values;
using cinnabar::testing::ScratchFolder;
using cinnabar::testing::write_bytes;

constexpr SliceOptions kCoarse{.side = 16, .pixel_mm = 6.0, .distance_mm = 3.0, .levels = 4};

/// A head on a grid of 4 mm that covers it, pointing to left, posterior, superior.
Image scan(double shift_mm) {
  Geometry grid = axis_aligned_grid({26, 30, 24}, {4, 4, 4}, {-50, -58, -46});
  for (std::size_t row = 0; row < 2; ++row) {
    grid.voxel_to_world[4 * row + row] = -4;
    grid.voxel_to_world[4 * row + 3] = row == 0 ? 50 : 58;
  }
  return head(grid, shift_mm, 1.0);
}

TEST(AxialSlices, GoFromTheLowestLevelToTheHighest) {
  const LabelledImages slices = axial_slices(scan(0.0), kCoarse);
  const std::vector<std::int64_t> labels = slices.labels.to_vector<std::int64_t>();
  const std::int64_t count = slices.images.shape(0);
  EXPECT_EQ(slices.images.shape(), (Shape{count, 1, 16, 16}));
  ASSERT_EQ(static_cast<std::int64_t>(labels.size()), count);
  EXPECT_EQ(labels.front(), 0);
  EXPECT_EQ(labels.back(), 3);
  EXPECT_TRUE(std::is_sorted(labels.begin(), labels.end()));
  // The body at x = 8, y = 6 is bright, that at x = -9, y = -8 dark: right and front are up in memory.
  const float* middle = slices.images.data<float>() + count / 2 * 256;
  EXPECT_GT(middle[9 * 16 + 9], 0.9f);
  EXPECT_LT(middle[6 * 16 + 6], middle[6 * 16 + 9] - 0.3f);
  EXPECT_LT(middle[0], 0.1f);
  // Where the head lies in the field of view does not matter, up to a pixel.
  const LabelledImages moved = axial_slices(scan(6.0), kCoarse);
  EXPECT_EQ(moved.images.shape(), slices.images.shape());
}

TEST(AxialSlices, RefuseScansWithoutABrain) {
  Image empty = scan(0.0);
  empty.path = "empty.nii";
  empty.voxels.fill(0.0);
  EXPECT_THROW(axial_slices(empty, kCoarse), InputError);
  SliceOptions many = kCoarse;
  many.levels = 50;
  EXPECT_THROW(axial_slices(scan(0.0), many), InputError);
}

TEST(SplitSlices, KeepsScansApart) {
  const ScratchFolder folder;
  std::vector<std::filesystem::path> paths;
  std::vector<LabelledImages> slices;
  for (int i = 0; i < 3; ++i) {
    paths.push_back(folder / (std::to_string(i) + ".nii.gz"));
    write_image(paths.back(), scan(3.0 * i));
    slices.push_back(axial_slices(read_image(paths.back()), kCoarse));
  }
  const SliceSplit split = split_slices(paths, kCoarse);
  EXPECT_TRUE(same_values(split.test.images, slices[2].images));
  const std::int64_t first = slices[0].images.shape(0);
  EXPECT_TRUE(same_values(split.training.images.rows(0, first), slices[0].images));
  EXPECT_TRUE(same_values(split.training.images.rows(first, slices[1].images.shape(0)), slices[1].images));
  const SliceSplit two = split_slices({paths[0], paths[1]}, kCoarse);
  EXPECT_TRUE(same_values(two.test.images, slices[1].images));
  const SliceSplit one = split_slices({paths[0]}, kCoarse);
  EXPECT_EQ(one.test.images.shape(0) + one.training.images.shape(0), first);
  EXPECT_EQ(one.test.images.data<float>()[8 * 16 + 3],
            slices[0].images.rows(1, 1).data<float>()[8 * 16 + 12]);
  EXPECT_NE(one.description.find("nothing about other brains"), std::string::npos);
}

TEST(ScansOf, ReadsListsAndNamesTheirFaults) {
  const ScratchFolder folder;
  write_bytes(folder / "a.nii", "");
  write_bytes(folder / "list.csv", "# scans\n\nscan\na.nii\n");
  const auto scans = scans_of({(folder / "list.csv").string(), "b.nii"});
  ASSERT_EQ(scans.size(), 2u);
  EXPECT_EQ(scans[0], folder / "a.nii");
  EXPECT_EQ(scans[1], "b.nii");
  const auto complaint = [&](const std::string& content) {
    write_bytes(folder / "list.csv", content);
    try {
      scans_of({(folder / "list.csv").string()});
    } catch (const InputError& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  EXPECT_NE(complaint("scan\nno.nii\n").find("list.csv:2: the scan"), std::string::npos);
  EXPECT_NE(complaint("path\n").find("list.csv:1: the header must be: scan"), std::string::npos);
  EXPECT_NE(complaint("# nothing\n").find("is empty"), std::string::npos);
  EXPECT_NE(complaint("scan\n").find("there are no scans"), std::string::npos);
  EXPECT_THROW(scans_of({"no_such_list.csv"}), InputError);
}

TEST(RandomWarp, IsTheSameForTheSameNumbers) {
  const Tensor images = random_tensor({3, 1, 12, 12}, 1, 0, 1);
  for (const std::string& name : RandomWarp::names()) {
    const RandomWarp warp(name, {12, 12});
    const Tensor first = warp(images, 4, 5);
    EXPECT_TRUE(same_values(warp(images, 4, 5), first));
    EXPECT_EQ(same_values(first, images), name == "none");
    EXPECT_EQ(same_values(warp(images, 4, 6), first), name == "none");
  }
  EXPECT_THROW(RandomWarp("rubber", {12, 12}), InputError);
}

/// Stripes across or along the image.
LabelledImages stripes(std::int64_t count) {
  Tensor images = Tensor::empty({count, 1, 16, 16});
  std::vector<std::int64_t> labels;
  for (std::int64_t i = 0; i < images.numel(); ++i) {
    const std::int64_t along = i / 256 % 2 == 0 ? i % 16 : i / 16 % 16;
    images.data<float>()[i] = (along + i / 512) / 4 % 2 == 0 ? 1.0f : 0.0f;
  }
  for (std::int64_t i = 0; i < count; ++i) labels.push_back(i % 2);
  return {images, Tensor::from(labels, {count})};
}

SliceClassifierOptions small(const std::string& transformer) {
  return {.transformer = transformer,
          .side = 16,
          .classes = 2,
          .width = 2,
          .seed = 1,
          .grid = {.control_points = 3, .boxes = 2, .lattice = 3, .squarings = 3},
          .localisation = {.channels = {2, 4}, .hidden = 4}};
}

TEST(SliceTraining, LearnsAndRepeatsItself) {
  const LabelledImages data = stripes(32);
  const RandomWarp warp("homography", {16, 16});
  std::vector<float> weights[2];
  for (auto& result : weights) {
    SliceClassifier network(small("icstn"));
    SliceTraining training(network, data, warp, {.epochs = 25, .batch_size = 10, .learning_rate = 1e-2});
    const double before = training.epoch();
    double after = before;
    while (training.epochs_done() < 25) after = training.epoch();
    EXPECT_LT(after, 0.5 * before);
    const SliceScore score = score_slices(network, data, warp, 2);
    EXPECT_GT(score.accuracy, 0.85);
    EXPECT_EQ(score.near, 1.0);
    EXPECT_GT(score.spread, 0.0);
    EXPECT_LT(score.spread, 1.0);
    result = network.parameters().back().value().to_vector<float>();
  }
  EXPECT_EQ(weights[0], weights[1]);
  // Without warps nothing depends on them.
  SliceClassifier plain(small("none"));
  EXPECT_NEAR(score_slices(plain, data, RandomWarp("none", {16, 16}), 2).spread, 0.0, 1e-9);
}

TEST(SliceTraining, LearnsToUndoWarps) {
  // A bright spot beside the middle, of several sizes.
  Tensor images = Tensor::empty({24, 1, 16, 16});
  for (std::int64_t i = 0; i < images.numel(); ++i) {
    const double x = static_cast<double>(i % 16) - 5.0, y = static_cast<double>(i / 16 % 16) - 9.0;
    const double size = 2.0 + static_cast<double>(i / 256) / 12.0;
    images.data<float>()[i] = static_cast<float>(std::exp(-(x * x + y * y) / (2 * size * size)));
  }
  const LabelledImages data{images, Tensor::zeros({24}, DType::i64)};
  const RandomWarp warp("affine", {16, 16});
  SliceClassifier network(small("icstn"));
  EXPECT_NEAR(score_slices(network, data, warp, 2).left, 1.0, 1e-5);
  SliceTraining training(network, data, warp,
                         {.task = SliceTask::align, .epochs = 60, .batch_size = 8, .learning_rate = 1e-2});
  const Tensor head = network.parameters().back().value().clone();
  while (training.epochs_done() < 60) training.epoch();
  EXPECT_LT(score_slices(network, data, warp, 2).left, 0.85);
  EXPECT_TRUE(same_values(network.parameters().back().value(), head)) << "the classifier has learned";
}

TEST(SliceClassifier, KnowsAllTransformersAndComesBackFromItsFile) {
  const ScratchFolder folder;
  const Variable images(random_tensor({3, 1, 16, 16}, 2, 0, 1));
  for (const std::string& name : slice_transformer_names()) {
    const SliceClassifier untouched(small(name));
    SliceClassifier network(small(name));
    save_slice_classifier(folder / "net.safetensors", network);
    const auto loaded = load_slice_classifier(folder / "net.safetensors");
    EXPECT_EQ(loaded->options().transformer, name);
    EXPECT_TRUE(same_values(loaded->forward(images).value(), network(images).value())) << name;
    EXPECT_EQ(network(images).shape(), (Shape{3, 2}));
  }
  const SliceClassifierOptions affine = small("affine"), plain = widened_plain(affine);
  EXPECT_EQ(plain.transformer, "none");
  const auto away = [&](std::int64_t width) {
    SliceClassifierOptions other = plain;
    other.width = width;
    return std::abs(SliceClassifier(other).parameter_count() - SliceClassifier(affine).parameter_count());
  };
  EXPECT_GT(plain.width, affine.width);
  EXPECT_LE(away(plain.width), std::min(away(plain.width - 1), away(plain.width + 1)));
  EXPECT_THROW(SliceClassifier(small("moebius")), InputError);
  Sequential other;
  other.save(folder / "net.safetensors");
  EXPECT_THROW(load_slice_classifier(folder / "net.safetensors"), InputError);
  EXPECT_THROW(load_slice_classifier(folder / "no.safetensors"), InputError);
}

}  // namespace
}  // namespace cinnabar::registration
