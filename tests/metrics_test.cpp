#include "registration/metrics.hpp"

#include <gtest/gtest.h>

#include <cmath>

#include "registration/nifti.hpp"
#include "registration/transform_chain.hpp"
#include "tests/grids.hpp"

namespace cinnabar::registration {
namespace {

using cinnabar::testing::awkward_grid;
using cinnabar::testing::oblique_grid;

Image image_of(const std::vector<float>& values, const std::string& path = "a.nii") {
  const Geometry grid = axis_aligned_grid({static_cast<std::int64_t>(values.size()) / 4, 2, 2}, {1, 1, 1});
  return {Tensor::from(values, grid.shape()), grid, path};
}

LabelImage labels_of(const std::vector<std::int32_t>& values) {
  const Geometry grid = axis_aligned_grid({static_cast<std::int64_t>(values.size()) / 4, 2, 2}, {1, 1, 1});
  return {Tensor::from(values, grid.shape()), grid, "labels.nii"};
}

/// The displacement that takes every point to its image under a matrix.
DisplacementField affine_field(const Matrix4& matrix, const Geometry& grid) {
  TransformChain chain;
  chain.append(matrix);
  return compose(chain, grid);
}

TEST(Metrics, ImageDifferencesByHand) {
  const Image a = image_of({1, 2, 3, 4, 5, 6, 7, 8});
  const Image b = image_of({1, 2, 3, 4, 5, 6, 7, 12});
  const ImageSimilarity all = compare_images(a, b);
  EXPECT_DOUBLE_EQ(all.ssd, 16.0);
  EXPECT_DOUBLE_EQ(all.mse, 2.0);
  EXPECT_EQ(all.voxels, 8);
  // Sums over 8 voxels: xx = 42, yy = 84, xy = 56.
  EXPECT_NEAR(all.ncc, 56.0 / std::sqrt(42.0 * 84.0), 1e-12);
  const LabelImage mask = labels_of({1, 1, 1, 1, 1, 1, 1, 0});
  const ImageSimilarity masked = compare_images(a, b, &mask);
  EXPECT_DOUBLE_EQ(masked.ssd, 0.0);
  EXPECT_NEAR(masked.ncc, 1.0, 1e-12);
  EXPECT_EQ(masked.voxels, 7);
  EXPECT_TRUE(std::isnan(compare_images(a, image_of(std::vector<float>(8, 3.0f))).ncc));
}

TEST(Metrics, DifferentGridsAreRefused) {
  const Image a = image_of(std::vector<float>(8, 1.0f), "first.nii");
  Image b = image_of(std::vector<float>(8, 1.0f), "second.nii");
  b.geometry.voxel_to_world[3] = 5.0;
  try {
    compare_images(a, b);
    FAIL() << "was accepted";
  } catch (const InputError& error) {
    const std::string text = error.what();
    EXPECT_NE(text.find("first.nii"), std::string::npos) << text;
    EXPECT_NE(text.find("second.nii"), std::string::npos) << text;
    EXPECT_EQ(text.find('\n'), std::string::npos) << text;
  }
  const LabelImage small = labels_of({1, 1, 1, 1});
  EXPECT_THROW(compare_images(a, a, &small), InputError);
}

TEST(Metrics, LabelOverlapsByHand) {
  const LabelImage warped = labels_of({0, 1, 1, 1, 2, 2, 3, 33});
  const LabelImage fixed = labels_of({0, 1, 1, 2, 2, 2, 5, 33});
  const LabelReport report = compare_labels(warped, fixed, {{}, {33}});
  ASSERT_EQ(report.labels.size(), 4u);
  EXPECT_EQ(report.labels[0].label, 1);
  EXPECT_DOUBLE_EQ(report.labels[0].dice(), 2.0 * 2 / (3 + 2));
  EXPECT_DOUBLE_EQ(report.labels[0].target_overlap(), 1.0);
  EXPECT_DOUBLE_EQ(report.labels[1].dice(), 2.0 * 2 / (2 + 3));
  EXPECT_DOUBLE_EQ(report.labels[1].target_overlap(), 2.0 / 3);
  EXPECT_DOUBLE_EQ(report.labels[2].dice(), 0.0);
  EXPECT_TRUE(std::isnan(report.labels[2].target_overlap()));
  EXPECT_DOUBLE_EQ(report.mean_dice, (0.8 + 0.8 + 0 + 0) / 4);
  EXPECT_DOUBLE_EQ(report.mean_target_overlap, (1.0 + 2.0 / 3 + 0) / 3);
  EXPECT_DOUBLE_EQ(report.union_dice, 2.0 * 6 / (6 + 6));
  const LabelReport one = compare_labels(warped, fixed, {{2}, {}});
  ASSERT_EQ(one.labels.size(), 1u);
  EXPECT_DOUBLE_EQ(one.mean_dice, 0.8);
  EXPECT_TRUE(std::isnan(compare_labels(warped, fixed, {{77}, {}}).mean_dice));
}

TEST(Metrics, JacobianOfAnAffineMapIsItsDeterminantOnEveryGrid) {
  const Matrix4 map{1.1, 0.2, 0, 3, -0.1, 0.9, 0.05, -2, 0, 0.1, 1.2, 1, 0, 0, 0, 1};
  for (const Geometry& grid : {awkward_grid(), axis_aligned_grid({5, 4, 3}, {1, 1, 1}),
                               axis_aligned_grid({5, 4, 3}, {-0.5, 2, 3}, {9, 9, 9})}) {
    const Tensor jacobian = jacobian_determinant(affine_field(map, grid));
    for (const float value : jacobian.to_vector<float>()) EXPECT_NEAR(value, determinant(map), 1e-5);
  }
}

TEST(Metrics, JacobianStatisticsByHand) {
  const Tensor jacobian = Tensor::from(std::vector<float>{1, 2, 0.5f, -1, 0, 4, 1, 1}, {1, 1, 2, 2, 2});
  const JacobianStatistics all = jacobian_statistics(jacobian);
  EXPECT_EQ(all.voxels, 8);
  EXPECT_DOUBLE_EQ(all.share_non_positive(), 0.25);
  EXPECT_DOUBLE_EQ(all.minimum, -1.0);
  EXPECT_DOUBLE_EQ(all.maximum, 4.0);
  EXPECT_DOUBLE_EQ(all.mean, 8.5 / 8);
  // Logs in units of log 2: 0, 1, -1, 2, 0, 0: mean 1/3, mean square 1.
  EXPECT_NEAR(all.sd_log, std::log(2.0) * std::sqrt(1.0 - 1.0 / 9.0), 1e-12);
  const LabelImage mask = labels_of({1, 1, 1, 0, 0, 0, 0, 0});
  EXPECT_EQ(jacobian_statistics(jacobian, &mask).non_positive, 0);
  const LabelImage nothing = labels_of(std::vector<std::int32_t>(8, 0));
  EXPECT_THROW(jacobian_statistics(jacobian, &nothing), InputError);
}

TEST(Metrics, AFieldAndItsInverseReturnToTheStart) {
  const Geometry grid = oblique_grid({20, 20, 20}, {1, -1.2, 2}, {0.2, 0.1, -0.4}, {0, 0, 0});
  const Matrix4 forward{1, 0, 0, 1.5, 0, 1, 0, -1, 0, 0, 1, 0.5, 0, 0, 0, 1};
  const InverseConsistency exact =
      inverse_consistency(affine_field(forward, grid), affine_field(invert(forward), grid));
  EXPECT_LT(exact.maximum_mm, 1e-5);
  EXPECT_GT(exact.left_out, 0);
  EXPECT_EQ(exact.voxels + exact.left_out, grid.voxels());
  const DisplacementField none{Tensor::zeros(grid.shape(3)), grid, {}};
  const InverseConsistency off = inverse_consistency(affine_field(forward, grid), none);
  EXPECT_NEAR(off.mean_mm, std::hypot(1.5, 1.0, 0.5), 1e-5);
  EXPECT_NEAR(off.p95_mm, off.maximum_mm, 1e-5);
}

TEST(Metrics, PreAlignedNirepSubjectsOverlapAsRecorded) {
  const std::filesystem::path folder =
      std::filesystem::path(CINNABAR_SOURCE_DIR).parent_path() / "shared/data/nirep";
  if (!std::filesystem::exists(folder / "na01_seg.nii.gz")) GTEST_SKIP() << "no " << folder;
  const LabelReport report = compare_labels(read_labels(folder / "na02_seg.nii.gz"),
                                            read_labels(folder / "na01_seg.nii.gz"), {{}, {33}});
  EXPECT_EQ(report.labels.size(), 32u);
  EXPECT_NEAR(report.mean_dice, 0.436, 5e-4);
  EXPECT_NEAR(report.union_dice, 0.550, 5e-4);
}

}  // namespace
}  // namespace cinnabar::registration
