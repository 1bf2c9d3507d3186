#include "data/patch_grid.hpp"

#include <gtest/gtest.h>

#include <limits>

#include "tests/devices.hpp"
#include "tests/tensors.hpp"

namespace cinnabar::testing {
namespace {

using Positions = std::vector<std::int64_t>;

TEST(PatchGrid, EndsFlushWithTheAxis) {
  EXPECT_EQ(grid_positions(15, 15, 14), (Positions{0}));
  EXPECT_EQ(grid_positions(16, 15, 14), (Positions{0, 1}));
  EXPECT_EQ(grid_positions(29, 15, 14), (Positions{0, 14}));
  EXPECT_EQ(grid_positions(30, 15, 14), (Positions{0, 14, 15}));
  EXPECT_EQ(grid_positions(5, 1, 2), (Positions{0, 2, 4}));
  EXPECT_EQ(grid_positions(7, 2, 4), (Positions{0, 4, 5})) << "strides above the patch leave gaps";
}

TEST(PatchGrid, AShortAxisHasOnePatchThatSticksOut) {
  EXPECT_EQ(grid_positions(9, 15, 14), (Positions{0}));
}

TEST(PatchGrid, AWholeScanOfQuicksilverHasItsPublishedNumberOfPatches) {
  EXPECT_EQ(grid_starts({229, 193, 193}, {}).shape(0), 17 * 14 * 14);
}

TEST(PatchGrid, RowsNameVolumeAndPlaceWithXFastest) {
  const Tensor starts = grid_starts({3, 2, 4}, {{2, 2, 2}, {1, 1, 2}}, 5);
  EXPECT_EQ(starts.to_vector<std::int32_t>(), (std::vector<std::int32_t>{5, 0, 0, 0, 5, 0, 0, 2,  //
                                                                         5, 1, 0, 0, 5, 1, 0, 2}));
}

TEST(PatchGrid, RefusesMisfits) {
  EXPECT_THROW(grid_positions(0, 1, 1), Error);
  EXPECT_THROW(grid_positions(5, 0, 1), Error);
  EXPECT_THROW(grid_positions(5, 1, 0), Error);
  EXPECT_THROW(grid_starts({5, 5}, {}), Error);
  EXPECT_THROW(grid_starts({5, 5, 5}, {}, -1), Error);
  const Tensor image = Tensor::zeros({1, 1, 4, 4, 4});
  const Tensor starts = grid_starts({4, 4, 4}, {{2, 2, 2}, {2, 2, 2}});
  EXPECT_THROW(foreground_starts({}, starts, {2, 2, 2}), Error);
  EXPECT_THROW(foreground_starts({image}, Tensor(), {2, 2, 2}), Error);
  EXPECT_THROW(foreground_starts({image}, starts, {2, 2}), Error);
  EXPECT_THROW(foreground_starts({image.reshape({4, 4, 4})}, starts, {2, 2, 2}), Error);
}

class PatchGridOn : public OnDevice {};

TEST_P(PatchGridOn, BackgroundIsWhereTheSumsCancel) {
  // Eight patches along x; 0 is empty, 1 has only the target, 2 cancels, 3 has both, 4 is not a number.
  Tensor moving = Tensor::zeros({1, 1, 2, 2, 16});
  Tensor target = moving.clone();
  moving.data<float>()[4] = 0.3f;
  target.data<float>()[2] = 1.0f;
  target.data<float>()[5] = -0.3f;
  moving.data<float>()[6] = target.data<float>()[7] = 0.1f;
  moving.data<float>()[8] = std::numeric_limits<float>::quiet_NaN();
  const Tensor starts = grid_starts({2, 2, 16}, {{2, 2, 2}, {2, 2, 2}});
  const auto chosen = [&](bool skip_first) {
    const Tensor rows = foreground_starts({moving.to(device()), target.to(device())}, starts, {2, 2, 2},
                                          {.skip_first = skip_first});
    std::vector<std::int32_t> along_x;
    const auto values = rows.to_vector<std::int32_t>();
    for (std::size_t i = 3; i < values.size(); i += 4) along_x.push_back(values[i] / 2);
    return along_x;
  };
  EXPECT_EQ(chosen(false), (std::vector<std::int32_t>{1, 3, 4}));
  EXPECT_EQ(chosen(true), (std::vector<std::int32_t>{1, 3, 4}));
  moving.data<float>()[0] = 1.0f;
  EXPECT_EQ(chosen(false), (std::vector<std::int32_t>{0, 1, 3, 4}));
  EXPECT_EQ(chosen(true), (std::vector<std::int32_t>{1, 3, 4}));
}

TEST_P(PatchGridOn, ManyPatchesAreSummedInPieces) {
  Tensor image = Tensor::zeros({1, 1, 1, 1, 1500});
  for (const std::int64_t x : {0, 511, 512, 1024, 1499}) image.data<float>()[x] = 1.0f;
  const Tensor starts = grid_starts({1, 1, 1500}, {{1, 1, 1}, {1, 1, 1}});
  const auto rows = foreground_starts({image.to(device())}, starts, {1, 1, 1}).to_vector<std::int32_t>();
  ASSERT_EQ(rows.size(), 20u);
  EXPECT_EQ(rows[7], 511);
  EXPECT_EQ(rows[11], 512);
}

CINNABAR_ON_EACH_DEVICE(PatchGridOn);

}  // namespace
}  // namespace cinnabar::testing
