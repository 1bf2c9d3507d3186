#include "registration/mirror.hpp"

#include <gtest/gtest.h>

#include <fstream>
#include <numeric>

#include "tests/scratch_folder.hpp"

namespace cinnabar::registration {
namespace {

using cinnabar::testing::ScratchFolder;

LabelImage numbered(const Geometry& geometry) {
  std::vector<std::int32_t> labels(static_cast<std::size_t>(geometry.voxels()));
  std::iota(labels.begin(), labels.end(), 0);
  return {Tensor::from(labels, geometry.shape()), geometry, {}};
}

TEST(Mirror, ReversesTheVoxelsAlongTheLeftRightAxisOnly) {
  const Geometry grid = axis_aligned_grid({3, 2, 1}, {1, 2, 3});
  const LabelImage labels = mirrored(numbered(grid), {});
  EXPECT_EQ(labels.labels.to_vector<int>(), (std::vector<int>{2, 1, 0, 5, 4, 3}));
  const Image image{Tensor::from<float>({0, 1, 2, 3, 4, 5}, grid.shape()), grid, {}};
  EXPECT_EQ(mirrored(image).voxels.to_vector<float>(), (std::vector<float>{2, 1, 0, 5, 4, 3}));
  EXPECT_TRUE(same_grid(labels.geometry, grid));
}

TEST(Mirror, FindsTheLeftRightAxisOfAGridStoredInAnotherOrder) {
  Geometry grid = axis_aligned_grid({2, 1, 3}, {1, 1, 1});
  // Voxel axis z runs to the left, x to the front, y upwards.
  grid.voxel_to_world = {0, 0, -1, 5, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 1};
  EXPECT_EQ(mirrored(numbered(grid), {}).labels.to_vector<int>(), (std::vector<int>{4, 5, 2, 3, 0, 1}));
}

TEST(Mirror, TwiceGivesTheSegmentationBackAndOnceExchangesThePairs) {
  const Geometry grid = axis_aligned_grid({5, 3, 4}, {1, 1, 1});
  const LabelImage labels = numbered(grid);
  const LabelPairs pairs{{0, 4}, {7, 50}};
  const LabelImage once = mirrored(labels, pairs);
  EXPECT_EQ(once.labels.to_vector<int>()[0], 0);  // 4 lies opposite and is 0's partner
  EXPECT_EQ(mirrored(once, pairs).labels.to_vector<int>(), labels.labels.to_vector<int>());
  EXPECT_THROW(mirrored(labels, {{1, 2}, {2, 3}}), Error);
}

TEST(LabelPairs, AreTheNamesThatDifferInTheirSideOnly) {
  const ScratchFolder folder;
  const auto path = folder / "names.txt";
  std::ofstream(path)
      << "# names\n1 Insula_L 3001\n2 Insula_R 3002\n\n3 Vermis_1\n9 Caudate_R\n8 Caudate_L\n4 Solo_L\n";
  EXPECT_EQ(read_label_pairs(path), (LabelPairs{{8, 9}, {1, 2}}));
}

TEST(LabelPairs, AMalformedTableIsRefusedWithItsLine) {
  const ScratchFolder folder;
  const auto path = folder / "names.txt";
  for (const char* text : {"x Insula_L\n", "1x A_L\n", "1\n", "1 A_L\n2 A_L\n", "1 A_L\n2 B_R\n", ""}) {
    std::ofstream(path) << text;
    EXPECT_THROW(read_label_pairs(path), InputError) << text;
  }
  EXPECT_THROW(read_label_pairs(folder / "absent.txt"), InputError);
}

}  // namespace
}  // namespace cinnabar::registration
