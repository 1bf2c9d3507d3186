#include "autograd/patches.hpp"

#include <gtest/gtest.h>

#include "autograd/gradcheck.hpp"
#include "tests/devices.hpp"
#include "tests/tensors.hpp"
#include "tests/threads.hpp"

namespace cinnabar::testing {
namespace {

Tensor starts_of(const std::vector<std::int32_t>& rows) {
  return Tensor::from(rows, {static_cast<std::int64_t>(rows.size() / 4), 4});
}

/// Overlapping patches of 3 x 4 x 5 in two volumes of 7 x 9 x 37, not in the order of their places: some
/// stick out on every side, one lies outside, one names no volume, one could overflow a sum.
Tensor awkward_starts() {
  return starts_of({0, 2, 3, 4,  1, 5, 7, 33, 0, -1,         -2,         -3,         0,  3,           4, 5,
                    1, 4, 5, 31, 0, 2, 3, 4,  1, 0,          0,          0,          1,  -3,          0, 0,
                    0, 6, 8, 36, 2, 0, 0, 0,  0, 4,          5,          30,         -1, 0,           0, 0,
                    1, 0, 1, 2,  0, 7, 0, 0,  1, 2147483647, 2147483646, 2147483645, 1,  -2147483647, 0, 0});
}
const Shape kVolumes{2, 4, 7, 9, 37};
const Shape kExtents{3, 4, 5};

TEST(Patches, CutsARowAndAveragesItBack) {
  const Variable row(Tensor::from<float>({1, 2, 3, 4, 5}, {1, 1, 1, 1, 5}));
  const Tensor starts = starts_of({0, 0, 0, -1, 0, 0, 0, 1, 0, 0, 0, 2});
  const Variable patches = gather_patches(row, starts, {1, 1, 3});
  EXPECT_EQ(patches.value().to_vector<float>(), (std::vector<float>{0, 1, 2, 2, 3, 4, 3, 4, 5}));
  const auto put_back = [&](const std::vector<float>& values, PatchOverlap overlap) {
    return scatter_patches(Variable(Tensor::from(values, {3, 1, 1, 1, 3})), starts, {1, 1, 1, 1, 6}, overlap)
        .value()
        .to_vector<float>();
  };
  const std::vector<float> values{9, 1, 2, 3, 4, 5, 6, 7, 8};
  EXPECT_EQ(put_back(values, PatchOverlap::sum), (std::vector<float>{1, 5, 10, 12, 8, 0}));
  EXPECT_EQ(put_back(values, PatchOverlap::average), (std::vector<float>{1, 2.5f, 5, 6, 8, 0}));
}

TEST(Patches, NoPatchesLeaveZeros) {
  const Tensor none = Tensor::empty({0, 4}, DType::i32);
  const Variable volumes(random_tensor({1, 2, 3, 4, 5}, 1), true);
  const Variable patches = gather_patches(volumes, none, {2, 2, 2});
  EXPECT_EQ(patches.shape(), (Shape{0, 2, 2, 2, 2}));
  const Variable back = scatter_patches(patches, none, volumes.shape());
  EXPECT_TRUE(same_values(back.value(), Tensor::zeros(volumes.shape())));
}

TEST(Patches, GradientsMatchDifferences) {
  const Tensor volumes = random_tensor({2, 2, 4, 5, 6}, 2, -1, 1, DType::f64);
  const Tensor starts = starts_of({0, 1, 1, 1, 1, 0, 2, 3, 0, 2, 2, 2, 1, -1, 3, 4, 0, 1, 1, 1});
  const auto cut = [&](const std::vector<Variable>& in) { return gather_patches(in[0], starts, {2, 3, 3}); };
  EXPECT_TRUE(gradcheck(cut, {volumes}));
  const Tensor patches = random_tensor({5, 2, 2, 3, 3}, 3, -1, 1, DType::f64);
  for (const PatchOverlap overlap : {PatchOverlap::sum, PatchOverlap::average}) {
    const auto put_back = [&](const std::vector<Variable>& in) {
      return scatter_patches(in[0], starts, volumes.shape(), overlap);
    };
    const GradcheckResult result = gradcheck(put_back, {patches});
    EXPECT_TRUE(result) << result.message;
  }
}

TEST(Patches, GradcheckRejectsAnAverageWithTheGradientOfASum) {
  const Tensor starts = starts_of({0, 0, 0, 0, 0, 0, 0, 1});
  const Shape volumes{1, 1, 1, 2, 4};
  const auto wrong = [&](const std::vector<Variable>& in) {
    const Tensor output = scatter_patches(in[0], starts, volumes).value();
    return record_one("wrong", output, in, [&](const Tensor& grad) {
      return std::vector<Tensor>{gather_patches(Variable(grad), starts, {1, 2, 3}).value()};
    });
  };
  EXPECT_FALSE(gradcheck(wrong, {random_tensor({2, 1, 1, 2, 3}, 4, -1, 1, DType::f64)}));
}

TEST(Patches, ThreadsChangeNoBit) {
  const Tensor starts = awkward_starts();
  const Tensor patches = random_tensor({starts.shape(0), 4, 3, 4, 5}, 5);
  const auto put_back = [&] { return scatter_patches(Variable(patches), starts, kVolumes).value(); };
  EXPECT_TRUE(same_values(on_threads(1, put_back), on_threads(5, put_back)));
}

TEST(Patches, RefusesMisfits) {
  const Variable volumes(Tensor::zeros({1, 2, 4, 5, 6}));
  const Tensor starts = starts_of({0, 0, 0, 0});
  EXPECT_THROW(gather_patches(volumes, starts, {2, 2}), Error);
  EXPECT_THROW(gather_patches(volumes, starts, {2, 0, 2}), Error);
  EXPECT_THROW(gather_patches(volumes, starts.to(DType::i64), {2, 2, 2}), Error);
  EXPECT_THROW(gather_patches(volumes, Tensor(), {2, 2, 2}), Error);
  EXPECT_THROW(gather_patches(volumes, starts.reshape({2, 2}), {2, 2, 2}), Error);
  EXPECT_THROW(gather_patches(Variable(Tensor::zeros({2, 4, 5, 6})), starts, {2, 2, 2}), Error);
  EXPECT_THROW(gather_patches(Variable(Tensor::zeros({1, 2, 4, 5, 6}, DType::f16)), starts, {2, 2, 2}),
               Error);
  const Variable patches(Tensor::zeros({1, 2, 2, 2, 2}));
  EXPECT_THROW(scatter_patches(patches, starts, {1, 3, 4, 5, 6}), Error);
  EXPECT_THROW(scatter_patches(patches, starts, {4, 5, 6}), Error);
  EXPECT_THROW(scatter_patches(patches, starts_of({0, 0, 0, 0, 0, 0, 0, 0}), {1, 2, 4, 5, 6}), Error);
  EXPECT_THROW(scatter_patches(patches, starts, {1, 2, 0, 5, 6}), Error);
  Tensor counts = Tensor::zeros({1, 2, 4, 5, 6});
  EXPECT_THROW(patches_on(Device::cpu()).count(starts, {2, 2, 2}, counts), Error);
  EXPECT_THROW(patches_on(Device::cpu()).average(counts, counts), Error);
}

class PatchesOn : public OnDevice {
 protected:
  const Patches& table() const { return patches_on(device()); }
};

TEST_P(PatchesOn, GatherReadsEveryPlaceLikeItsDefinitionAndAssigns) {
  const Tensor volumes = random_tensor(kVolumes, 6);
  const Tensor starts = awkward_starts();
  Tensor patches = poisoned({starts.shape(0), 4, 3, 4, 5}, DType::f32, device());
  table().gather(volumes.to(device()), starts.to(device()), patches);
  const std::vector<float> values = volumes.to_vector<float>();
  const std::vector<std::int32_t> rows = starts.to_vector<std::int32_t>();
  const std::vector<float> cut = patches.to_vector<float>();
  for (std::int64_t i = 0; i < patches.numel(); ++i) {
    const std::int32_t* start = rows.data() + 4 * (i / 240);
    const std::int64_t z = start[1] + i / 20 % 3, y = start[2] + i / 5 % 4, x = start[3] + i % 5;
    const bool inside =
        start[0] >= 0 && start[0] < 2 && z >= 0 && z < 7 && y >= 0 && y < 9 && x >= 0 && x < 37;
    const std::int64_t from = (((start[0] * 4 + i / 60 % 4) * 7 + z) * 9 + y) * 37 + x;
    ASSERT_EQ(cut[static_cast<std::size_t>(i)], inside ? values[static_cast<std::size_t>(from)] : 0.0f) << i;
  }
}

TEST_P(PatchesOn, GatherTakesLabels) {
  const Tensor labels = random_tensor(kVolumes, 7, 0, 255).to(DType::u8);
  const Tensor starts = awkward_starts();
  Tensor patches = Tensor::full({starts.shape(0), 4, 3, 4, 5}, 77, DType::u8, device());
  table().gather(labels.to(device()), starts.to(device()), patches);
  const Tensor expected = gather_patches(Variable(labels.to(DType::f32)), starts, kExtents).value();
  EXPECT_TRUE(same_values(patches, expected));
}

TEST_P(PatchesOn, ScatterAndCountAgreeWithFloat64AndAdd) {
  const Tensor starts = awkward_starts();
  const Tensor patches = random_tensor({starts.shape(0), 4, 3, 4, 5}, 8);
  const auto run = [&](Device device, DType dtype) {
    const Tensor places = starts.to(device);
    Tensor volumes = Tensor::full(kVolumes, 0.25, dtype, device);
    Tensor counts = Tensor::full(kVolumes.with(1, 1), 2.0, dtype, device);
    patches_on(device).scatter(patches.to(dtype).to(device), places, volumes);
    patches_on(device).count(places, kExtents, counts);
    return std::pair(volumes, counts);
  };
  const auto [volumes, counts] = run(device(), DType::f32);
  const auto [expected_volumes, expected_counts] = run(Device::cpu(), DType::f64);
  EXPECT_LE(relative_error(volumes, expected_volumes), 1e-6);
  EXPECT_TRUE(same_values(counts, expected_counts));
  EXPECT_TRUE(same_values(volumes, run(Device::cpu(), DType::f32).first)) << "the order of the sums differs";
}

TEST_P(PatchesOn, AListInPiecesGivesTheSameBits) {
  // More patches than a CUDA block lists at a time, all over one another.
  const std::int64_t count = 600;
  std::vector<std::int32_t> rows;
  for (std::uint64_t n = 0; n < static_cast<std::uint64_t>(count); ++n) {
    const PhiloxWords words = philox_4x32_10(11, 0, n);
    rows.insert(rows.end(), {0, static_cast<std::int32_t>(words.word[0] % 6) - 1,
                             static_cast<std::int32_t>(words.word[1] % 10) - 2,
                             static_cast<std::int32_t>(words.word[2] % 36) - 1});
  }
  const Tensor starts = starts_of(rows).to(device());
  const Tensor patches = random_tensor({count, 1, 2, 3, 3}, 9).to(device());
  Tensor at_once = Tensor::zeros({1, 1, 6, 11, 37}, DType::f32, device());
  Tensor in_pieces = at_once.clone();
  table().scatter(patches, starts, at_once);
  for (const auto& [first, rows_of_piece] : {std::pair{0, 1}, std::pair{1, 300}, std::pair{301, 299}}) {
    table().scatter(patches.rows(first, rows_of_piece), starts.rows(first, rows_of_piece), in_pieces);
  }
  EXPECT_TRUE(same_values(at_once, in_pieces));
}

TEST_P(PatchesOn, AverageDividesAndClearsWhatNothingCovers) {
  Tensor volumes = random_tensor({2, 3, 2, 5, 7}, 10).to(device());
  const std::vector<float> before = volumes.to_vector<float>();
  const Tensor counts = random_tensor({2, 1, 2, 5, 7}, 11, 0, 3).to(DType::i32).to(DType::f32);
  table().average(counts.to(device()), volumes);
  const std::vector<float> covering = counts.to_vector<float>();
  const std::vector<float> after = volumes.to_vector<float>();
  for (std::size_t i = 0; i < after.size(); ++i) {
    const float by = covering[i / 210 * 70 + i % 70];
    ASSERT_EQ(after[i], by > 0.0f ? before[i] / by : 0.0f) << i;
  }
}

CINNABAR_ON_EACH_DEVICE(PatchesOn);

}  // namespace
}  // namespace cinnabar::testing
